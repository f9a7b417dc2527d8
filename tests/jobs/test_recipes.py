"""Every recipe, by glob: composes by name, trains an epoch on phantoms; two stages, fine-tuning."""

import csv
from pathlib import Path

import pytest
import torch

from medexp.config.compose import compose
from medexp.config.groups import options
from tests.conftest import MINE, read

# What makes one epoch short; the recipe's own settings otherwise.
SMALL = {
    "allnet": ("source.size=60", "dataset.size=75", "sampling.size=30", "model.dense=[64,32]"),
    "cervix_inception": (
        "source.size=60", "dataset.size=64", "dataset.max_train=12", "trainer.max_steps=3",
        "trainer.switch_at=2", "trainer.batch_size=4",
    ),
    "cervix_resnet": (
        "source.size=60", "dataset.size=64", "dataset.max_train=12", "trainer.max_steps=3",
        "model.weights=null", "trainer.batch_size=4",
    ),
    "cervixnet1": ("source.size=60", "dataset.size=80"),
    "cervixnet2": ("source.size=60", "dataset.size=80"),
    "ldct": ("source.size=64", "dataset.size=40"),
    "tbt_no_pt": ("source.size=24", "dataset.size=[3,32,32]", "model.weights=null"),
    "two_stage": ("source.size=64", "second.trainer.epochs=1"),
    "ucf50": ("source.size=40", "dataset.size=32", "dataset.frames=3", "model.weights=null"),
}  # fmt: skip
LARGE = ("cervix_resnet", "cervix_inception", "cervixnet1")  # fast on no CPU
FROM_VIDEO = ("tbt_pt", "tbt_pt_cw", "tbt_pt_cw_aug")


def train(medexp, *overrides):
    before = set(Path("outputs").glob("*/*"))
    arguments = ("source=phantom", "trainer.epochs=1", "trainer.resamples=0", *overrides)
    assert medexp("train", *arguments) == 0, medexp.err
    (run,) = set(Path("outputs").glob("*/*")) - before
    return run


def history(run):
    with open(run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_recipe_is_tried():
    assert {*SMALL, *FROM_VIDEO} == set(options("recipe"))


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(r, marks=pytest.mark.slow) if r in LARGE else r for r in sorted(SMALL)],
)
def test_a_recipe_trains(medexp, recipe):
    slow = ("trainer.batch_size=8",) if recipe.startswith(("tbt", "ucf")) else ()
    run = train(medexp, f"recipe={recipe}", *SMALL[recipe], *slow, "trainer.monitor=val_loss")
    assert "PHANTOM" in read(run / "metrics.json")["marks"]


@pytest.mark.slow
def test_video_then_ct(medexp):
    """The last layer is drawn anew, all else comes from the video run; all of it then trains."""
    video = train(medexp, "recipe=ucf50", *SMALL["ucf50"], "trainer.batch_size=8")
    small = ("source.size=24", "dataset.size=[3,32,32]", "trainer.batch_size=8")
    for recipe in FROM_VIDEO:
        run = train(medexp, f"recipe={recipe}", f"init_from={video}", *small)
        assert "left as drawn, other shape: head.weight, head.bias" in medexp.err.replace(
            ".0.", "."
        )
        assert read(run / "metrics.json")["classes"][2] == "tuberculoma"
    before = torch.load(video / "checkpoints/best.pt", weights_only=True)["model"]
    after = torch.load(run / "checkpoints/best.pt", weights_only=True)["model"]
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(name.startswith("features") for name in changed)


def test_fine_tuning_needs_its_run(medexp):
    assert medexp("train", "recipe=tbt_pt", "source=phantom", "source.size=24") == 2
    assert "init_from=: no checkpoints/best.pt there. Give the folder of a run" in medexp.err


def test_the_rows_of_the_video_paper_differ_in_what_they_should():
    given = "init_from=x"
    plain, tuned = compose(["recipe=tbt_no_pt"]), compose(["recipe=tbt_pt", given])
    weighted, turned = (compose([f"recipe={r}", given]) for r in ("tbt_pt_cw", "tbt_pt_cw_aug"))
    assert plain.model.weights == "imagenet" and tuned.model.weights is None
    assert plain.loss == tuned.loss != weighted.loss == turned.loss
    assert weighted.augment == plain.augment != turned.augment
    for other in (tuned, weighted, turned):
        for group in ("dataset", "optimizer", "schedule", "trainer", "sampling"):
            assert getattr(other, group) == getattr(plain, group)


def test_two_stages_in_one_run(medexp):
    run = train(
        medexp, "recipe=two_stage", "source.size=64", "trainer.epochs=2", "second.trainer.epochs=3",
        "second.trainer.batch_size=16", "second.dataset.max_train=40", "trainer.monitor=val_loss",
    )  # fmt: skip
    rows = history(run)
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("1", "1"), ("1", "2"), ("2", "3"), ("2", "4"), ("2", "5")
    ]  # fmt: skip
    assert [row["lr"] for row in rows] == ["0.01"] * 2 + ["0.005"] * 3
    assert "left as drawn, not in the file: features.norm1" in medexp.err
    assert "40 / 64 / 64 train / val / test images" in medexp.err
    metrics = read(run / "metrics.json")
    assert metrics["epochs"] == 5 and metrics["best_epoch"] > 2
    first = torch.load(run / "first/checkpoints/best.pt", weights_only=True)["model"]
    last = torch.load(run / "checkpoints/best.pt", weights_only=True)["model"]
    assert set(last) - set(first) == {n for n in last if "norm" in n} != set()
    # Evaluated again, the network is that of the second stage.
    assert medexp("eval", f"run={run}") == 0, medexp.err
    assert read(next(run.glob("eval/*/metrics.json")))["test"] == metrics["test"]


def test_two_stages_resume_in_either(medexp, toy):
    chosen = ("+second.optimizer.lr=0.001", "+second.trainer.epochs=2")
    run = toy("trainer.epochs=2", *chosen)
    whole = [row["train_loss"] for row in history(run)]
    for cut in ("first", "."):
        path = run / cut / "checkpoints" / "last.pt"
        state = torch.load(path, weights_only=True)
        assert state["epoch"] == 2
    assert medexp("train", "--config-dir", MINE, f"resume={run}") == 0, medexp.err
    assert [row["train_loss"] for row in history(run)] == whole
    assert medexp("train", "--config-dir", MINE, f"resume={run}", "second.trainer.epochs=3") == 0, (
        medexp.err
    )
    assert [row["train_loss"] for row in history(run)][:4] == whole and len(history(run)) == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+second.optimiser.lr=0.1", r"second.optimiser: not of a phase. Did you mean 'optimizer'"),
        ("+second.trainer.epoch=1", "second.trainer.epoch: no such key. Did you mean 'epochs'"),
        ("+second.model.widht=3", "model.widht: not an argument of toy.Net. Did you mean 'width'"),
        ("+second.trainer=3", "second.trainer=3: need keys and values of that group"),
    ],
)
def test_a_second_stage_that_cannot_be(toy, medexp, override, message):
    toy(override, code=2)
    assert message in medexp.err


def test_starting_from_another_run(toy, medexp):
    first = toy()
    second = toy(f"init_from={first}", "trainer.epochs=1", "optimizer.lr=0.0")
    assert "tensors loaded" in medexp.err
    kept, start = (
        torch.load(run / "checkpoints/best.pt", weights_only=True)["model"]
        for run in (second, first)
    )
    assert all(
        torch.equal(kept[n], start[n]) for n in start if "running" not in n and "num" not in n
    )
    toy("init_from=nowhere", code=2)
    assert "init_from=nowhere: no checkpoints/best.pt there" in medexp.err


def test_previews_draw_and_train_nothing(medexp, workplace):
    own = ("--config-dir", MINE, "dataset=toy", "model=toynet")
    assert medexp("train", *own, "schedule=step", "plot_schedule=true", "plot_augment=true") == 0
    schedule, sheet = (Path(line) for line in medexp.out.split())
    assert schedule.name == "schedule.png" and sheet.name == "augment.png"
    assert schedule.stat().st_size > 5000 and sheet.stat().st_size > 5000
    assert not list(workplace.glob("outputs/toy-toynet/*"))
    assert medexp("train", "-m", *own, "plot_schedule=true") == 2
    assert "plot_schedule: of one new run. Leave -m" in medexp.err
    assert medexp("train", *own, "plot_schedule=True") == 0  # however it is spelled
    assert medexp.out.strip().endswith("schedule.png")
    assert not list(workplace.glob("outputs/toy-toynet/*"))
