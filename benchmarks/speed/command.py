"""`python -m benchmarks.speed`: medexp and its peers on the same files, in turn, round after round.

This process only starts others and waits: it imports neither torch nor a peer, so that a run's peak
memory, which a process inherits from the one that started it, is the run's own.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.speed import figures, process, results, rounds, tables
from benchmarks.speed.peers import PEERS, reason_to_leave_out
from benchmarks.speed.rounds import Setup
from medexp.cli.dispatch import ended
from medexp.cli.terminal import parser
from medexp.config.compose import compose
from medexp.config.groups import option_after
from medexp.config.line import read_line
from medexp.config.saved import add_config_dir
from medexp.config.tree import plain
from medexp.errors import ConfigError, MedexpError, one_of

PATCH = 96 * 96 * 3  # bytes of a random patch
AUGMENTS = {
    "medexp.augment.FlipsTurns": ("horizontal", "vertical", "turns"),
    "medexp.augment.Identity": (),
}
OURS = {  # of the command line: what the bench itself decides
    "trainer.epochs": "Use --epochs",
    "trainer.amp": "Use --precision",
    "resume": "Every run starts anew",
    "hydra.run.dir": "Runs go to a temporary folder; --out DIR keeps the figures",
}
PRECISION = ("auto", "same", "fp32")


def main(arguments: list[str]) -> int:
    """The command with its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    os.environ["MEDEXP_COMMAND"] = shlex.join(["python", "-m", "benchmarks.speed", *arguments])
    if folder := option_after(arguments, "--config-dir"):
        add_config_dir(folder)
    return ended(bench, arguments)


def bench(arguments: list[str]) -> int:
    """The command. Raises ConfigError for wrong usage before anything is started."""
    given = command_parser().parse_intermixed_args(arguments)
    names = checked(given)
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="medexp-bench-") as temporary:
        plan = plan_of(given, arguments, Path(temporary))
        left_out = {
            name: why
            for name in names
            if (why := reason_to_leave_out(name, plan.settings, plan.python(name)))
        }
        facts = rounds.prepare(plan)
        runs = rounds.in_turn(plan, facts, [n for n in names if n not in left_out], left_out)
        result = results.summary(plan, facts, runs, left_out)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "bench.md").write_text(tables.markdown(result), encoding="utf-8")
        (given.out / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        tables.show(result)
        if given.out:
            print(given.out / "bench.md")
    return 0


def command_parser() -> argparse.ArgumentParser:
    peers = "\n".join(f"  {name:<12} {peer.about}" for name, peer in PEERS.items())
    p = parser(
        "",
        "Train with medexp and with what one would use instead, on the same files with\n"
        "the same network, each in a process of its own, in turn over several rounds;\n"
        "print the speeds, medexp's ratio to each with its spread, the time to the first\n"
        "step and the peak memory.\n\npeers:\n" + peers,
        "  python -m benchmarks.speed\n"
        "  python -m benchmarks.speed model=native1 --rounds 5 --peers bare,loop\n"
        "  python -m benchmarks.speed dataset=cervix model=cervixnet1 source=phantom \\\n"
        "      augment=flips_turns optimizer=sgd\n"
        "  python -m benchmarks.speed --own-data --out results\n"
        "  python -m benchmarks.speed --tf-python ~/tf/bin/python",
        program="python -m benchmarks.speed",
    )
    p.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as in medexp train")
    p.add_argument(
        "--patches", type=int, default=8192, help="random training patches (%(default)s)"
    )
    p.add_argument(
        "--own-data", action="store_true", help="the data set's files, no random patches"
    )
    p.add_argument("--rounds", type=int, default=3, help="%(default)s")
    p.add_argument("--epochs", type=int, default=2, help="of a run, the first not counted (2)")
    p.add_argument("--peers", default=",".join(PEERS), metavar="A,B", help="all unless said")
    p.add_argument(
        "--precision",
        default="auto",
        help="auto: everybody as they come, so the peers in float32; same: the peers in medexp's; "
        "fp32: everybody",
    )
    p.add_argument(
        "--tf-python",
        default=os.environ.get("MEDEXP_BENCH_TF_PYTHON", sys.executable),
        metavar="PATH",
        help="the Python that has TensorFlow ($MEDEXP_BENCH_TF_PYTHON)",
    )
    p.add_argument("--json", action="store_true", help="machine-readable, to standard output")
    p.add_argument("--out", metavar="DIR", type=Path, help="write DIR/bench.md and bench.json")
    return p


def checked(given: argparse.Namespace) -> list[str]:
    """The names of the peers, once the options are found sound."""
    names = list(dict.fromkeys(name for name in given.peers.split(",") if name))
    for name in names:
        one_of("--peers", name, list(PEERS))
    one_of("--precision", given.precision, PRECISION)
    for option, value, least in (
        ("--rounds", given.rounds, 1),
        ("--epochs", given.epochs, 1 + figures.WARM_UP),
        ("--patches", given.patches, 64),
    ):
        if value < least:
            raise ConfigError(f"{option} {value}: must be {least} or more")
    line = read_line(given.overrides)
    for key, remedy in OURS.items():
        if line.sets(key):
            raise ConfigError(f"{key}: the bench decides that. {remedy}")
    if shutil.which(given.tf_python) is None:
        raise ConfigError(f"--tf-python {given.tf_python}: no such program")
    if given.out and (given.out / "bench.md").exists():
        raise ConfigError(
            f"--out {given.out}: holds bench.md already, and medexp never writes over it. Choose "
            "another folder"
        )
    return names


def plan_of(given: argparse.Namespace, arguments: list[str], folder: Path) -> Setup:
    overrides = [*given.overrides, f"trainer.epochs={given.epochs}", "trainer.resamples=0"]
    if given.precision == "fp32":
        overrides.append("trainer.amp=off")
    settings = plain(compose(overrides, arguments))
    patches, environment = None, process.python_path()
    if not given.own_data and settings["source"]["kind"] != "phantom":
        if settings["names"]["dataset"] != "pcam":
            raise ConfigError(
                f"dataset={settings['names']['dataset']}: random patches are laid out as PCam. Add "
                "source=phantom, or --own-data for your own files"
            )
        if read_line(given.overrides).sets("dataset.root"):
            raise ConfigError("dataset.root: of your own files. Add --own-data")
        patches = given.patches
        require_space(folder, patches)
        overrides.append(f"dataset.root={folder / 'files'}")
        settings = plain(compose(overrides, arguments))
        environment["MEDEXP_CACHE"] = str(folder / "cache")
    node = settings["augment"]
    one_of("augment._target_", node["_target_"], list(AUGMENTS))
    one_of("sampling._target_", settings["sampling"]["_target_"], ["medexp.train.sampling.Shuffle"])
    augment = {key: node[key] for key in AUGMENTS[node["_target_"]]}
    if given.config_dir:
        overrides += ["--config-dir", given.config_dir]
    load = os.getloadavg()[0]
    return Setup(given, settings, overrides, folder, patches, augment, environment, load)


def require_space(folder: Path, patches: int) -> None:
    """Refuse before the disk is full: the files and medexp's cache of them."""
    needed, free = 2 * int(1.25 * patches) * PATCH, shutil.disk_usage(folder).free
    if needed > free:
        raise MedexpError(
            f"--patches {patches}: take {needed / 1e9:.1f} GB in {folder.parent}, where "
            f"{free / 1e9:.1f} GB are free. Set TMPDIR to another disk, or take fewer"
        )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM as Ctrl-C: processes are ended and files removed before this one goes."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread: signals go to whoever has it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
