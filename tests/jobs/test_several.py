"""One run on several devices, gloo on a CPU: the weights and predictions of one process."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medexp.config.compose import compose
from medexp.errors import ConfigError
from medexp.jobs import several
from tests.conftest import MINE, ROOT, read
from tests.jobs.test_recipes import SMALL

COMMON = (
    *("source=phantom", "trainer.epochs=3", "trainer.resamples=0", "trainer.monitor=val_loss"),
    *("trainer.device=cpu", "trainer.amp=off", "trainer.threads=1", "trainer.sync_batchnorm=true"),
)
RECIPES = {name: [f"recipe={name}", *overrides, *COMMON] for name, overrides in SMALL.items()}
RECIPES["tbt_no_pt"].append("trainer.batch_size=8")
RECIPES["one_image"] = RECIPES["ucf50"]  # a batch of 1: all other devices have none
RECIPES["ucf50"] = [*RECIPES["ucf50"], "trainer.batch_size=8"]
NORMALISED = ("allnet", "cervix_inception", "cervix_resnet", "cervixnet1", "two_stage")
# What divides a batch's loss, mixes its images, limits its gradient or averages its weights.
BASE = [*RECIPES["ldct"], "optimizer=sgd", "optimizer.lr=0.05", "trainer.batch_size=15"]
VARIANTS = {
    "weights": [*BASE, "loss=weighted", "loss.class_weights=[9,1]", "loss.normalise=weights"],
    "mixup": [*BASE, "augment=mixup"],
    "augmented": [*BASE, "augment=strong"],
    "clipped": [*BASE, "trainer.clip_norm=0.01"],
    "averaged": [*BASE, "trainer.ema=0.5"],
    "penalised": [*BASE, "model.stages.head.l2=1.0"],
    "switched": [*BASE, "trainer.switch_at=4", "trainer.switch_to=[head]"],
}


def start(count, *words, flags=()):
    """Start `python words` in so many processes by torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, f"--nproc-per-node={count}", *flags, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained(count, runs, folder=None):
    """Train the runs on so many devices; returns the folder that holds them."""
    folder, listed = Path(folder or f"on{count}"), Path("runs.json")
    listed.write_text(json.dumps(runs))
    process = start(count, ROOT / "tests/jobs/ranked.py", folder, listed)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    return folder


def weights_of(run, name="checkpoints/last.pt"):
    """All of a network's state as one vector."""
    content = torch.load(run / name, weights_only=True)
    content = content.get("model", content)
    return torch.cat([tensor.double().flatten() for tensor in content.values()])


def far(run, other):
    """The distance of two runs' weights, relative to their norm and to how far they have come."""
    one, two = weights_of(run), weights_of(other)
    moved = (one - weights_of(run, "initial.pt")).norm() if (run / "initial.pt").exists() else None
    distance = float((one - two).norm())
    return distance / float(one.norm()), distance / float(moved) if moved else None


def losses_of(run):
    """The training loss of each epoch."""
    return np.genfromtxt(run / "history.csv", delimiter=",", names=True)["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_devices_train_the_weights_of_one(workplace, count):
    runs = {name: RECIPES[name] for name in RECIPES if name not in NORMALISED} | VARIANTS
    plain, shared = trained(1, runs, "plain"), trained(count, runs)
    for name in runs:
        relative, of_way = far(plain / name, shared / name)
        assert relative < 1e-5 and of_way < 1e-3, name
        losses = [losses_of(folder / name) for folder in (plain, shared)]
        np.testing.assert_allclose(*losses, rtol=1e-5, err_msg=name)
    assert [file.name for file in shared.rglob("*.tmp")] == []


# Of a network with BatchNorm one process takes torch's own, which sums in another order; here it
# computes as a rank.
LIMITS = {"two_stage": 1e-4}
# Deep networks on a few small phantoms, whose statistics are of as few numbers: float32 itself does
# not tell their first gradient. Allnet's, with torch's sums in any order, is a fifth of itself away
# from that in float64; cervix_resnet's weights after a step differ by 0.3% between torch's and our
# BatchNorm in one process. Of these the loss of the first step is compared.
CHAOTIC = ("allnet", "cervix_resnet")


@pytest.mark.slow
def test_with_synchronised_statistics_too(workplace):
    one_step = {name: [*RECIPES[name], "trainer.max_steps=1"] for name in CHAOTIC}
    runs = {name: RECIPES[name] for name in NORMALISED} | one_step
    one, two = trained(1, runs), trained(2, runs)
    for name in runs:
        if name in CHAOTIC:
            losses = [losses_of(folder / name) for folder in (one, two)]
            np.testing.assert_allclose(*losses, rtol=1e-4, err_msg=name)
        else:
            assert far(one / name, two / name)[0] < LIMITS.get(name, 1e-5), name


TOY = (
    *("train", "--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.resamples=0"),
    *("trainer.device=cpu", "trainer.amp=off", "trainer.threads=1"),
)


@pytest.fixture
def child_sees_us(monkeypatch, workplace):
    """Processes that are started import this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.slow
def test_evaluation_is_equal_to_the_bit_and_a_run_goes_on_with_other_devices(medexp, child_sees_us):
    short = ("trainer.epochs=2", "trainer.eval_batch_size=10")
    assert medexp(*TOY, *short, "hydra.run.dir=one") == 0, medexp.err
    shutil.copytree("one", "two")
    (Path("two") / "predictions.csv").unlink()
    # No epoch is left: the same weights are scored, by two devices.
    assert medexp("train", "resume=two", "trainer.devices=2") == 0
    assert Path("one/predictions.csv").read_bytes() == Path("two/predictions.csv").read_bytes()
    one, two = (read(f"{run}/metrics.json") for run in ("one", "two"))
    assert one["test"] == two["test"] and one["val"] == two["val"]
    assert any("each with BatchNorm's statistics of its own 16" in note for note in two["notes"])
    # As before, on two, without being told; then on one.
    assert medexp("train", "resume=two", "trainer.epochs=3") == 0
    assert Path("two/run.log").read_text().count(", 2 processes") == 2
    assert medexp("train", "resume=two", "trainer.epochs=4", "trainer.devices=1") == 0, medexp.err
    assert len(Path("two/history.csv").read_text().splitlines()) == 5
    resumed = read("two/provenance.json")["resumed"]
    assert resumed[0]["changes"]["trainer.devices"] == {"was": None, "now": 2}


DYING = """
import os
import signal
from pathlib import Path

from medexp.augment import Identity


class Dying(Identity):
    seen = 0

    def __call__(self, images, draws):
        self.seen += 1
        if self.seen == 8 and os.environ.get("RANK") == os.environ["DIES"]:
            if not Path("died").exists():
                Path("died").touch()
                {act}
        return images
"""


@pytest.fixture
def dying(monkeypatch, child_sees_us):
    """The command line of a run of two processes, one of which ends in the third epoch."""

    def prepare(rank, act):
        shutil.copytree(MINE, "mine")
        Path("mine/dying.py").write_text(DYING.format(act=act))
        monkeypatch.setenv("DIES", str(rank))
        words = ["mine" if word == MINE else word for word in TOY]
        extra = ("augment=none", "augment._target_=dying.Dying", "trainer.epochs=4")
        return [*words, *extra, "hydra.run.dir=run"]

    return prepare


def on_two_devices(words):
    """Exit code and texts of `medexp WORDS trainer.devices=2`."""
    command = [sys.executable, "-m", "medexp", *map(str, words), "trainer.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_killed_rank_ends_all_and_the_run_goes_on_from_its_last_epoch(dying, medexp):
    words = dying(1, "os.kill(os.getpid(), signal.SIGKILL)")
    began = time.time()
    code, said = on_two_devices(words)
    assert code == 1 and time.time() - began < 120
    assert "Another process of this run ended, and none can go on without it" in said
    assert "run/checkpoints/last.pt holds the last epoch. Go on with: medexp train resume=" in said
    assert "medexp: process 1 of 2 was ended by SIGKILL" in said
    status = read("run/status.json")
    assert status["state"] == "failed" and "medexp train resume=run" in status["reason"]
    # The rest knew within seconds; what it took is the start and the end of the interpreters.
    assert Path("run/status.json").stat().st_mtime - Path("died").stat().st_mtime < 10
    assert medexp("train", "resume=run") == 0
    assert len(Path("run/history.csv").read_text().splitlines()) == 5
    assert read("run/status.json")["state"] == "done"


@pytest.mark.slow
def test_where_the_first_rank_is_killed_another_says_how_to_go_on(dying):
    code, said = on_two_devices(dying(0, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert code == 1 and "medexp: process 0 of 2 was ended by SIGKILL" in said
    assert said.count(f"Go on with: medexp train resume={Path('run').resolve()}") == 1


@pytest.mark.slow
def test_an_error_of_one_rank_is_told_and_ends_all(dying):
    code, said = on_two_devices(dying(1, "raise OSError('its disk is gone')"))
    assert code == 1 and "medexp: process 1 of 2: its disk is gone" in said
    assert read("run/status.json")["state"] == "failed"


@pytest.mark.slow
def test_an_interrupt_saves_the_step_on_which_all_agree(dying):
    code, said = on_two_devices(dying(1, "os.kill(os.getppid(), signal.SIGINT)"))
    assert code == 130 and said.count("Interrupted in epoch 3 at step") == 1
    saved = torch.load("run/checkpoints/last.pt", weights_only=True)
    assert saved["epoch"] == 2 and 0 < saved["step"] <= 3


@pytest.mark.slow
def test_torchrun_starts_a_killed_run_again_where_it_was(dying):
    words = dying(1, "os.kill(os.getpid(), signal.SIGKILL)")
    process = start(2, "-m", "medexp", *words, flags=["--max-restarts=1"])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert "Resumed at epoch 3, step 0" in said
    assert len(Path("run/history.csv").read_text().splitlines()) == 5
    assert [path.name for path in Path().iterdir() if (path / "status.json").exists()] == ["run"]


# ---------------------------------------------------------------- what is refused


def test_a_number_of_devices_that_is_not_torchruns(medexp, monkeypatch):
    place = several.Place(0, 2, 0, 2)
    monkeypatch.setattr(several, "begin", lambda: place)
    monkeypatch.setattr(several, "tell", lambda order: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert medexp("train", "source=phantom", "trainer.devices=3") == 2
    assert "trainer.devices=3: torchrun started 2 processes. Leave it out" in medexp.err
    assert medexp("train", "-m", "source=phantom", "seed=0,1") == 2
    assert "torchrun: several processes train a single run. Leave out -m" in medexp.err


def test_a_sweep_and_a_recipe_do_not_start_processes(toy):
    """A job of a sweep that says devices: 2 would else train on one, or twice."""
    toy("-m", "seed=0,1", "trainer.devices=2", "hydra.sweep.dir=sweep", code=1)
    reason = read(next(Path("sweep").glob("0-*")) / "status.json")["reason"]
    assert reason.startswith("trainer.devices=2: is read from the command line of a single run")


def test_each_process_takes_a_device_of_its_own(monkeypatch):
    settings = compose(["trainer.device=cuda:1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="trainer.device=cuda:1: with trainer.devices=2 each"):
        several.placed(settings, several.Place(0, 2, 0, 2))
    settings = compose(["trainer.device=cuda"])
    with pytest.raises(ConfigError, match="trainer.devices=2: this machine has 1 GPU. Set trainer"):
        several.placed(settings, several.Place(0, 2, 0, 2))
    placed, device = several.placed(settings, several.Place(3, 4, 0, 1))  # of four hosts
    assert str(device) == placed.trainer.device == "cuda:0" and placed.trainer.devices == 4


def test_what_the_second_phase_asks_for_is_refused_before_the_first():
    settings = compose(["recipe=two_stage", "source=phantom", "+second.trainer.accumulate=2"])
    with pytest.raises(ConfigError, match=r"second.trainer.accumulate=2: not with trainer.devices"):
        several.placed(settings, several.Place(0, 2, 0, 2))
