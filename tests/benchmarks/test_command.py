"""`python -m benchmarks.speed`: refusals, peers that are missing or fail, a small run."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.speed import command, peers, process, rounds
from medexp.errors import MedexpError
from tests.conftest import MINE, ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "bare,lop"], "--peers=lop: no such choice. Did you mean 'loop'?"),
        (["--precision", "fp23"], "--precision=fp23: no such choice. Did you mean 'fp32'?"),
        (["--rounds", "0"], "--rounds 0: must be 1 or more"),
        (["--epochs", "1"], "--epochs 1: must be 2 or more"),
        (["--patches", "10"], "--patches 10: must be 64 or more"),
        (["trainer.epochs=3"], "trainer.epochs: the bench decides that. Use --epochs"),
        (["trainer.amp=off"], "trainer.amp: the bench decides that. Use --precision"),
        (["model=nativ3"], "model=nativ3: no such option. Did you mean 'native3'?"),
        (["trainer.bach_size=3"], "trainer.bach_size: no such key. Did you mean 'batch_size'?"),
        (["dataset=cervix"], "dataset=cervix: random patches are laid out as PCam. Add source="),
        (["dataset.root=here"], "dataset.root: of your own files. Add --own-data"),
        (["--tf-python", "nowhere/python"], "--tf-python nowhere/python: no such program"),
        (["--out", "kept"], "--out kept: holds bench.md already"),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(bench, monkeypatch, arguments, message):
    monkeypatch.setattr(process, "run", lambda *_: pytest.fail("a process was started"))
    Path("kept").mkdir()
    Path("kept/bench.md").touch()
    assert bench(*arguments) == 2
    assert message in bench.err


def test_an_augmentation_that_the_peers_do_not_have(bench):
    own = ("--config-dir", MINE, "augment._target_=torch.nn.Identity")
    assert bench(*own, "~augment.horizontal") == 2
    assert "augment._target_=torch.nn.Identity: no such choice" in bench.err


def test_an_unknown_option_of_the_command(bench):
    with pytest.raises(SystemExit) as stop:
        bench("--roundz", "3")
    assert stop.value.code == 2


def test_a_full_disk_is_seen_before_it_is_full(tmp_path):
    with pytest.raises(MedexpError, match=r"--patches 10{12}: take 69,?120,?000.* are free. Set"):
        command.require_space(tmp_path, 10**12)


def test_who_cannot_take_part_says_why(monkeypatch):
    def why(name, **changes):
        model = {"_target_": "medexp.models.pcam.NativeCNN", "stages": {"head": {"frozen": False}}}
        settings = {"model": model, "optimizer": {"_target_": "torch.optim.SGD"}} | changes
        return peers.reason_to_leave_out(name, settings, sys.executable)

    monkeypatch.setattr(peers, "has_modules", lambda python, names: True)
    assert [why(name) for name in peers.PEERS] == [None] * 5
    other = {"model": {"_target_": "torchvision.models.vgg16"}}
    assert [why(name, **other) for name in peers.PEERS][:3] == [None] * 3
    assert why("tf-keras", **other) == "written for the native networks only"
    assert why("keras-torch", optimizer={"_target_": "torch.optim.Adam"}) == (
        "written for optimizer=sgd only"
    )
    frozen = {"_target_": "medexp.models.pcam.NativeCNN", "stages": {"head": {"frozen": True}}}
    assert why("tf-keras", model=frozen) == "written for networks without a frozen stage only"

    monkeypatch.setattr(peers, "has_modules", lambda python, names: not names)
    assert why("bare") is None and why("loop") is None
    assert why("lightning") == "not installed. pip install lightning"
    assert why("tf-keras") == "not installed. pip install tensorflow h5py"


def test_modules_are_looked_for_in_the_python_that_is_to_run_them(tmp_path):
    assert peers.has_modules(sys.executable, ("json", "h5py"))
    assert not peers.has_modules(sys.executable, ("json", "no_such_module"))
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    assert peers.has_modules(str(other), ("json",))
    assert not peers.has_modules(str(other), ("json", "no_such_module"))


def test_a_peer_that_fails_is_told_and_the_others_go_on(monkeypatch, capsys):
    calls = []

    def measure(name, plan, facts, number):
        calls.append((number, name))
        if name == "loop" and number == 1:
            raise MedexpError("RuntimeError: out of memory")
        return rounds.Measured(100.0, 110.0, 1.0, 5, None, "float32", {}, {})

    monkeypatch.setattr(rounds, "measure", measure)
    given = argparse.Namespace(rounds=3)
    plan = rounds.Setup(given, {}, [], Path(), 64, {}, {}, 0.0)
    left_out = {}
    found = rounds.in_turn(plan, {}, ["bare", "loop"], left_out)
    assert calls == [
        (0, "medexp"), (0, "bare"), (0, "loop"), (1, "medexp"), (1, "bare"), (1, "loop"),
        (2, "medexp"), (2, "bare"),
    ]  # fmt: skip
    assert {name: len(runs) for name, runs in found.items()} == {"medexp": 3, "bare": 3}
    assert left_out == {"loop": "failed: RuntimeError: out of memory"}
    err = capsys.readouterr().err
    assert "round 2/3  loop  failed: RuntimeError: out of memory" in err
    assert re.search(r"round 1/3  medexp  100 images/s  \(\d+ s left\)", err)
    assert err.splitlines()[-1] == "round 3/3  bare  100 images/s"

    def broken(name, plan, facts, number):
        raise MedexpError("medexp train failed: dataset: not found")

    monkeypatch.setattr(rounds, "measure", broken)
    with pytest.raises(MedexpError, match="dataset: not found"):
        rounds.in_turn(plan, {}, ["bare"], {})


def test_time_left_in_words():
    assert rounds.time_left(None) == ""
    assert rounds.time_left(12.4) == "  (12 s left)"
    assert rounds.time_left(200.0) == "  (about 3 min left)"


SMALL = (
    "--patches", "128", "--rounds", "1", "trainer.device=cpu", "trainer.threads=1",
)  # fmt: skip


def temporary_folders():
    return list(Path(tempfile.gettempdir()).glob("medexp-bench-*"))


@pytest.mark.slow
def test_a_small_run(bench, monkeypatch, tmp_path):
    """The real thing: five processes. Lightning is absent, wherever this runs."""
    monkeypatch.setattr(peers, "has_modules", lambda python, names: "lightning" not in names)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    arguments = ("--peers", "bare,loop,lightning", "--json", "--out", "results")
    assert bench(*SMALL, *arguments) == 0, bench.err
    result = json.loads(bench.out)
    assert result == json.loads(Path("results/bench.json").read_text())
    assert list(result["measured"]) == ["medexp", "bare", "loop"]
    for name, one in result["measured"].items():
        assert one["images_per_s"]["median"] > 0, name
        assert one["training_images_per_s"]["median"] >= one["images_per_s"]["median"]
        assert 0.5 < one["first_step"]["median"] < 120
        assert one["memory"]["median"] > 1e8 and one["device_memory"] is None
    speeds = {name: one["images_per_s"]["median"] for name, one in result["measured"].items()}
    assert result["ratios"]["loop"]["median"] == pytest.approx(speeds["medexp"] / speeds["loop"])
    assert result["share_of_bare"]["epoch"]["median"] == result["ratios"]["bare"]["median"]
    assert result["work"]["images"] == {"train": 128, "val": 16, "test": 16}
    assert result["measured"]["loop"]["precision"] == "float32"
    achieved, ceilings = result["achieved"]["bare"], result["ceilings"]
    operations = 2 * ceilings["image"]["multiply_adds"]
    assert achieved["flops"] == pytest.approx(operations * speeds["bare"])
    assert achieved["flops_share"] == achieved["flops"] / ceilings["flops"]["median"]
    assert result["left_out"] == {"lightning": "not installed. pip install lightning"}
    text = Path("results/bench.md").read_text()
    assert "`python -m benchmarks.speed --patches 128" in text and "| loop | fp32 |" in text
    assert "- lightning: not installed. pip install lightning" in text
    assert "round 1/1  loop" in bench.err
    assert not temporary_folders() and not Path("outputs").exists()


@pytest.mark.slow
def test_every_peer_that_is_here_in_medexps_precision(bench):
    rest = ("--precision", "same", "source=phantom", "source.size=128", "augment=none")
    assert bench(*SMALL[2:], *rest) == 0, bench.err
    assert "native3 on pcam PHANTOM, batch 32" in bench.out
    assert max(map(len, bench.out.splitlines())) <= 80
    for name in peers.PEERS:
        assert re.search(rf"^ *{name}(  | *:) *(bf16|fp32|not installed)", bench.out, re.M), name
    assert "failed" not in bench.out


@pytest.mark.slow
def test_ctrl_c_leaves_neither_files_nor_processes(workplace):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(workplace)}
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed", "--peers", "loop", "--patches", "1024"],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    while not temporary_folders_in(workplace, "run-0/history.csv"):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert not temporary_folders_in(workplace, "")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(workplace) not in listed


def temporary_folders_in(folder, inner):
    return list(folder.glob(f"medexp-bench-*/{inner}"))


def test_help_names_the_peers_and_imports_no_torch():
    script = (
        "import sys; from benchmarks.speed.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in peers.PEERS:
        assert f"  {name} " in done.stdout
    assert "  python -m benchmarks.speed model=native1" in done.stdout, "an example"


def test_the_old_command_names_the_new_one(medexp):
    assert medexp("bench", "--rounds", "3") == 2
    assert "In a checkout: python -m benchmarks.speed" in medexp.err
