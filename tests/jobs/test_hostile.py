"""Run directories of a stranger: no command runs their code or writes outside of its outputs."""

import base64
import json
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from medexp.cli import dispatch as cli
from medexp.config import saved
from medexp.runs import guard

# ---------------------------------------------------------------- the file system, watched

PRIVATE = b"\x89PNG\r\n\x1a\n" + bytes(64)
WATCHED = {"roots": None, "seen": []}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,), "shutil.rmtree": (0,),
}  # fmt: skip
STARTS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"),
    *("pickle.find_class", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen"),
)


def hook(event, arguments):
    """Notes what is written outside of the watched roots, every process, every connection."""
    if WATCHED["roots"] is None:
        return
    paths = [arguments[i] for i in CHANGES.get(event, ())]
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        paths = [arguments[0]]
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            where = os.path.realpath(os.fsdecode(path))
            if not where.startswith(WATCHED["roots"]):
                WATCHED["seen"].append((event, where))
    # git tells the commit, and ctypes the allocator of the process itself, for which it opens none.
    ours = arguments[:1] == (None,) or (event == "subprocess.Popen" and arguments[1][0] == "git")
    if event in STARTS and not ours:
        WATCHED["seen"].append((event, str(arguments[:2])))
    if event == "import" and str(arguments[0]).startswith("evil"):
        WATCHED["seen"].append((event, arguments[0]))


sys.addaudithook(hook)  # for good: there is no way to take one away


@pytest.fixture
def watched(workplace, monkeypatch):
    """The hook is on; afterwards everything beside the outputs is as it was."""
    bait = workplace / "bait"
    bait.mkdir()
    (bait / "precious.txt").write_text("mine")
    (bait / "payload.pkl").write_bytes(pickle.dumps(Payload(str(bait / "owned"))))
    (bait / "private.png").write_bytes(PRIVATE)
    monkeypatch.setenv("SECRET", "s3cr3t-value")
    monkeypatch.setattr(tempfile, "tempdir", str(workplace / "scratch"))
    roots = [workplace / name for name in ("outputs", "cache", "scratch", "stranger")]
    for root in roots:
        root.mkdir(exist_ok=True)
    (workplace / "stranger").rmdir()
    before = snapshot(bait)
    WATCHED["seen"].clear()
    WATCHED["roots"] = (*map(str, roots), "/dev/null", os.path.realpath("/proc/self"))
    yield WATCHED["seen"]
    WATCHED["roots"] = None
    assert snapshot(bait) == before


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class Payload:
    """Pickled, it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# ---------------------------------------------------------------- the directories


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A finished run of medexp's own options, and the phantoms that it was trained on."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MEDEXP_CACHE", str(folder / "cache"))
        patch.setattr("medexp.report.figure.plots.write_plots", lambda folder: None)
        given = ("trainer.epochs=1", "trainer.resamples=20", "hydra.run.dir=run", "model=native1")
        assert cli.run(["train", "source=phantom", "source.size=32", *given]) == 0
    return folder


@pytest.fixture
def stranger(honest, workplace):
    """A copy of it that a kind of malice is then put into."""
    shutil.copytree(honest / "run", "stranger", symlinks=True)
    shutil.copytree(honest / "cache", "cache", dirs_exist_ok=True)
    return Path("stranger")


def lay(**keys):
    """The kind that lays keys over config.yaml; a node with a target replaces what is there."""

    def change(run):
        file = run / "config.yaml"
        content = yaml.safe_load(file.read_text())
        for key, value in keys.items():
            over = isinstance(value, dict) and "_target_" not in value
            content[key] = (content.get(key) or {}) | value if over else value
        file.write_text(yaml.safe_dump(content))

    return change


def text(name, content, more=""):
    """The kind that adds text to a file of the run, or writes it."""

    def change(run):
        file = run / name
        file.write_text((file.read_text() if more else "") + content)

    return change


def link(name, target):
    def change(run):
        at = run / name
        shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
        at.symlink_to(target)

    return change


def fifo(name):
    def change(run):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return change


def module_inside(run):
    (run / "evil.py").write_text("import os; os.mkdir('bait/owned')\nclass Net: pass\n")
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(
        json.dumps(provenance | {"config_dir": str(run.resolve())})
    )
    lay(model={"_target_": "evil.Net"})(run)


def checkpoint(content):
    def change(run):
        for name in ("best.pt", "last.pt"):
            torch.save(content, run / "checkpoints" / name, pickle_protocol=2)

    return change


def packed(run):
    for path in (run / "checkpoints").iterdir():
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)


def bomb():
    lines = ["names: &a0 {x: 1}"]
    lines += [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


SMALL = ("model=native1", "source=phantom", "source.size=32", "trainer.epochs=1")
JOBLIB = {"_target_": "joblib.load", "filename": "bait/payload.pkl"}
NODE = {"title": "t", "citation": "c", "table": "T", "dataset": "pcam", "columns": []}
NOT = "so it was not imported"
# kind -> (what is done to the run, what eval says of it)
CONFIGS = {
    "a pickle is loaded": (lay(model=JOBLIB), NOT),
    "a file is written": (
        lay(model={"_target_": "numpy.save", "file": "bait/owned", "arr": 1}), NOT),
    "a log is opened": (
        lay(dataset={"_target_": "logging.FileHandler", "filename": "bait/owned"}), NOT),
    "a shell": (lay(loss={"_target_": "os.system", "command": "touch bait/owned"}), NOT),
    "a shell of torch": (
        lay(model={"_target_": "torch.utils.collect_env.run", "command": "touch bait/owned"}), NOT),
    "a hub": (lay(model={"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "x"}), NOT),
    "a shell of setuptools": (
        lay(optimizer={"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["ls"]}), NOT),
    "a module in the run": (module_inside, NOT),
    "a module's own import": (
        lay(model={"_target_": "medexp.models.weights.torch.load", "f": "bait/payload.pkl"}), NOT),
    "a writer of medexp": (
        lay(model={"_target_": "medexp.runs.files.write_text", "path": "bait/x"}), NOT),
    "a target inside": (
        lay(augment={"_target_": "medexp.augment.Chain", "steps": [JOBLIB]}), NOT),
    "a second phase": (lay(second={"model": JOBLIB}), NOT),
    "an observer": (lay(observers={"x": "evil.Diary"}), NOT),
    "a metric": (lay(metrics={"x": "subprocess.getoutput"}), NOT),
    "a writer of phantoms": (lay(dataset={"phantom": "shutil.rmtree"}), NOT),
    "a look at the environment": (
        lay(model={"dense_units": "${oc.env:SECRET}"}), "an interpolation"),
    "a config of Hydra": (
        lay(hydra={"callbacks": {"x": {"_target_": "os.system"}}}), "hydra: no such key"),
    "defaults of Hydra": (lay(defaults=["schema", {"/hydra/launcher": "x"}]), "no such key"),
    "a searchpath in a row": (
        lay(paper=NODE | {"rows": [{"label": "a", "run": {"hydra.searchpath": "[file:///x]"}}]}),
        "no setting of a run"),
    "a network in an audit": (
        lay(paper=NODE | {"rows": [], "audit": [{"overrides": ["model._target_=os.system"]}]}),
        "inside of a command"),
    "weights from the network": (
        lay(model={"_target_": "torchvision.models.resnet18", "pretrained": True}), "would fetch"),
    "escapes of a terminal": (lay(names={"model": "\x1b]0;owned\x07"}), "holds control characters"),
    "an object in YAML": (
        text("config.yaml", "\nx: !!python/object/apply:os.mkdir [bait/owned]\n", more="+"),
        "is not valid YAML"),
    "a bomb of aliases": (text("config.yaml", bomb()), "by an alias"),
    "a deep config": (text("config.yaml", "x: " + "[" * 20_000), "nesting depth"),
    "a deep config with words": (text("config.yaml", "{a: " * 70), "nested more than 64 deep"),
    "a long number": (text("config.yaml", "x: 1" + ":1" * 400_000), "a number of 800,001 char"),
    "a long config": (text("config.yaml", "x: " + "a" * 2**21), "bytes; a file of medexp has"),
    "a way out for results": (link("eval", "../bait"), "a link that leads out of stranger"),
    "a way out for text": (link(".config.yaml.tmp", "../bait/precious.txt"), "a link that leads"),
    "a log elsewhere": (link("run.log", "../bait/precious.txt"), "a link that leads"),
    "a config without end": (link("config.yaml", "/dev/zero"), "no config.yaml there"),
    "a pipe": (fifo("split.csv"), "is no regular file"),
    "a deep record": (text("record.json", '{"a":' + "[" * 200_000), "nested too deep"),
    "a checkpoint of code": (
        checkpoint({"model": Payload("bait/owned"), "epoch": 1}), "cannot be read as a checkpoint"),
    "a packed checkpoint": (packed, "torch's own files are not packed"),
}  # fmt: skip


def test_the_watch_sees_an_honest_evaluation_write_only_inside(watched, stranger, medexp):
    assert medexp("eval", f"run={stranger}") == 0, medexp.err
    assert watched == []
    assert len(list(stranger.glob("eval/*/metrics.json"))) == 1


@pytest.mark.parametrize("kind", ["a pickle is loaded", "a file is written", "a module in the run"])
def test_without_the_list_the_watch_sees_the_malice(kind, watched, stranger, medexp, monkeypatch):
    """The directories do what they are meant to, and it does not pass unseen."""
    CONFIGS[kind][0](stranger)
    monkeypatch.setattr(saved, "check_saved", lambda *arguments: None)
    monkeypatch.syspath_prepend(str(stranger))  # as the run's own config_dir once was
    medexp("eval", f"run={stranger}")
    assert [what for what in watched if "bait/owned" in what[1] or "pickle" in what[0]], medexp.err
    for left in Path("bait").glob("owned*"):
        left.rmdir() if left.is_dir() else left.unlink()
    sys.modules.pop("evil", None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_hostile_run_directory_runs_nothing_and_writes_nothing(kind, watched, stranger, medexp):
    change, message = CONFIGS[kind]
    change(stranger)
    names = sorted(os.listdir(stranger))
    modules = set(sys.modules)
    began = time.monotonic()
    assert medexp("eval", f"run={stranger}") in (1, 2), medexp.out
    assert message in medexp.err, medexp.err
    assert "defect" not in medexp.err and "\x1b" not in medexp.err
    for command in (
        ("eval", f"run={stranger},{stranger}"),
        ("train", f"resume={stranger}", "trainer.epochs=2"),
        ("train", *SMALL, f"init_from={stranger}"),
    ):
        assert medexp(*command) in (1, 2), (command, medexp.out)
        assert "defect" not in medexp.err, (command, medexp.err)
    medexp("report", stranger)
    assert "\x1b" not in medexp.out + medexp.err and "s3cr3t" not in medexp.out + medexp.err
    assert time.monotonic() - began < 60
    assert watched == []
    assert not {name for name in set(sys.modules) - modules if name.startswith(("evil", "joblib"))}
    assert str(stranger.resolve()) not in sys.path
    # A refusal leaves the run as it was; only these are looked at when a command has begun.
    if "checkpoint" not in kind and "record" not in kind:
        assert sorted(os.listdir(stranger)) == names
    assert not any("s3cr3t" in f.read_text(errors="replace") for f in Path("outputs").rglob("*.*")
                   if f.is_file())  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20  # KiB


def test_a_report_shows_no_escapes_and_no_formulas(watched, stranger, medexp):
    metrics = json.loads((stranger / "metrics.json").read_text())
    metrics |= {"model": "=cmd|' /C calc'!A0", "marks": {"\x1b[31mRED": "why \x1b]52;c;eA==\x07"}}
    (stranger / "metrics.json").write_text(json.dumps(metrics))
    status = json.loads((stranger / "status.json").read_text())
    (stranger / "status.json").write_text(json.dumps(status | {"reason": "\x1b[2J\u202egone"}))
    (stranger / "plots").mkdir(exist_ok=True)
    (stranger / "plots/x.png").symlink_to("../../bait/private.png")
    os.mkfifo(stranger / "plots/y.png")
    assert medexp("report", stranger, "--page", "outputs/page.html") == 0, medexp.err
    assert "\\x1b[31mRED" in medexp.out and "\x1b" not in medexp.out + medexp.err
    page = Path("outputs/page.html").read_text()
    assert "\x1b" not in page and "\u202e" not in page
    assert page.count("is a link, or no regular file") == 2
    assert base64.b64encode(PRIVATE).decode() not in page
    assert watched == []


def test_cells_of_a_table_are_no_formulas():
    for text in ("=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1", '=HYPERLINK("x")'):
        assert guard.cell(text).startswith("'")
    for kept in ("-0.5", "+1e-3", "native1", 1.5, None, "0.9", "-inf"):
        assert guard.cell(kept) == kept
    assert guard.cell("a\x1b[0m") == "a\\x1b[0m"


def test_folders_that_lead_into_themselves_are_reported_once(watched, stranger, medexp):
    (Path("outputs") / "all").mkdir()
    stranger.rename("outputs/all/run")
    (Path("outputs") / "all" / "again").symlink_to(".")
    (Path("outputs") / "all" / "a").symlink_to("run")
    (Path("outputs") / "all" / "up").symlink_to("..")
    assert medexp("report", "outputs/all") == 0, medexp.err
    assert medexp.out.count("native1") == 1
