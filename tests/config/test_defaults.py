"""What a run starts from is its data set's: a paper's recipe for its own data, none for others."""

from pathlib import Path

import pytest
import yaml

from medexp.config.compose import compose
from medexp.config.groups import composed_groups, options
from tests.conftest import read

KERAS_SGD = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
# DATASET -> augmentation, optimizer and rate, with where its paper states them. Others have none.
STATED = {
    # Johny et al., section 4: "by flipping and rotating", "mini-batch SGD"; Keras' rate.
    "pcam": ("FlipsTurns", "SGD", 0.01),
    "pcam_kaggle": ("FlipsTurns", "SGD", 0.01),
    # Mir and Nissa, 3.3.2: rotate90, rotate270, flips at p = .5; 3.5: SGD with rate .0002.
    "all": ("RightAngles", "SGD", 0.0002),
    # Nguyen et al., 5.1: flips, turns, rotation, crop, scale. A rate for each network.
    "cervix": ("Chain", "Adam", 0.001),
    # Alghamdi et al., section 4: Adam, nothing of augmentation or of a rate.
    "ldct": ("Identity", "Adam", 0.001),
    # Zunair et al., 2.3 and 3.2: SGD, .001, no augmentation on video; Table 1 adds it in a row.
    "tbt": ("Identity", "SGD", 0.001),
    "ucf50": ("Identity", "SGD", 0.001),
}


def start(*words, **own):
    settings = compose(list(words), **own)
    names = (settings.augment.target, settings.optimizer.target)
    return (*(name.rpartition(".")[2] for name in names), settings.optimizer["lr"])


@pytest.mark.parametrize("dataset", options("dataset"))
def test_a_data_set_starts_from_its_own_papers_recipe_or_from_none(dataset):
    assert start(f"dataset={dataset}") == STATED.get(dataset, ("Identity", "Adam", 0.001))


def test_on_pcam_nothing_has_changed():
    """The whole recipe that Johny et al.'s runs had while it was everybody's."""
    settings = compose(["dataset=pcam", "model=native3"])
    assert dict(settings.optimizer) == {
        **{"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01, "fused": True},
        **KERAS_SGD,
    }
    assert dict(settings.augment) == {
        "_target_": "medexp.augment.FlipsTurns",
        **{"horizontal": True, "vertical": True, "turns": True},
    }
    assert settings.trainer.epochs == 20 and settings.trainer.batch_size == 32
    assert compose([]) == settings  # what is trained when nothing is said


def test_what_the_command_line_chooses_wins_wherever_it_stands():
    for words in (
        ["augment=none", "optimizer=rmsprop", "dataset=pcam"],
        ["dataset=pcam", "optimizer=rmsprop", "augment=none"],
    ):
        assert start(*words) == ("Identity", "RMSprop", 0.001)
    assert start("dataset=medmnist", "augment=tbt", "optimizer=sgd") == ("Affine", "SGD", 0.01)
    assert start("dataset=all", "optimizer.lr=0.5")[2] == 0.5
    settings = compose(["augment.turns=false", "optimizer.momentum=0.9"])
    assert settings.augment["turns"] is False and settings.optimizer["momentum"] == 0.9


def test_a_recipe_wins_over_the_data_set_that_it_trains():
    assert start("recipe=cervixnet1") == ("FlipsTurns", "Adam", 0.0001)
    assert start("recipe=two_stage", "dataset=medmnist")[:2] == ("FlipsTurns", "SGD")
    assert start("recipe=allnet", "augment=none")[0] == "Identity"


def test_printing_sweeping_and_data_sets_of_ones_own(medexp, workplace):
    folder = workplace / "mine/dataset"
    folder.mkdir(parents=True)
    own = "defaults:\n  - medmnist\n  - _self_\n"
    (folder / "plain.yaml").write_text(own)
    choice = "  - override /augment@_global_.augment: pad_crop\n"
    (folder / "shifted.yaml").write_text("# Shifted digits\n" + own + choice)
    assert medexp("train", "--config-dir", "mine", "dataset=shifted", "--cfg", "job") == 0
    assert yaml.safe_load(medexp.out)["augment"]["_target_"] == "medexp.augment.PadCrop"
    assert medexp("datasets", "--config-dir", "mine") == 0, medexp.err
    assert "shifted" in medexp.out
    small = ("source=phantom", "source.size=64", "trainer.epochs=1", "trainer.resamples=0")
    sweep = ("-m", "dataset=plain,shifted,pcam", "hydra.sweep.dir=sweep")
    assert medexp("train", "--config-dir", "mine", *sweep, *small) == 0, medexp.err
    found = {}
    for path in Path("sweep").glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        found[config["names"]["dataset"]] = config["augment"]["_target_"].rpartition(".")[2]
    assert found == {"plain": "Identity", "shifted": "PadCrop", "pcam": "FlipsTurns"}


def test_other_data_leave_a_run_its_recipe(medexp, workplace):
    """What is evaluated on another paper's data was not trained as that paper did."""
    small = ("source=phantom", "source.size=64", "trainer.epochs=1", "trainer.resamples=0")
    words = ("dataset=csv_table", "dataset.size=96", "optimizer.lr=0.004", "hydra.run.dir=run")
    assert medexp("train", *words, *small) == 0, medexp.err
    trained = yaml.safe_load(Path("run/config.yaml").read_text())
    assert medexp("eval", "run=run", "dataset=pcam") == 0, medexp.err
    (folder,) = Path("run/eval").glob("*")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["dataset"]["_target_"] == "medexp.data.read.pcam.load"
    assert config["names"] == {"dataset": "pcam", "model": "native3"}
    for group in composed_groups():
        if group != "dataset":
            assert config[group] == trained[group], group
    assert read(folder / "metrics.json")["dataset"] == "pcam"
    again = ("eval", "run=run", "dataset=pcam", "augment=mixup", "--cfg", "job")
    assert medexp(*again) == 0, medexp.err
    assert yaml.safe_load(medexp.out)["augment"]["_target_"] == "medexp.augment.Mixup"
