"""What was done to the images is told: in run.log, on the terminal, in tables and metrics.json."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from medexp.config.compose import compose
from medexp.config.groups import options
from medexp.data.base import Dataset, Split
from medexp.jobs.applied import applied, augmentation, told
from medexp.models.weights import normalise_input
from medexp.report.table.load import find_runs
from medexp.report.table.tables import tables
from tests.conftest import MINE, read


def data(dtype=np.uint8):
    split = Split(np.zeros((2, 4, 4, 3), dtype), np.array([0, 1]), np.array(["a", "b"]))
    return Dataset("toy", ("a", "b"), split, split, split)


def test_in_words():
    settings = compose(["augment=none"])
    said = applied(settings.augment, data(), nn.Identity())
    assert said == {"augment": "none", "input": "bytes divided by 255"}
    assert told(said) == "Augmentation: none. Network input: bytes divided by 255"
    turned = compose(["augment=right_angles"]).augment
    assert applied(settings.augment, data(), nn.Identity(), settings.augment) == said
    both = applied(settings.augment, data(), nn.Identity(), turned)["augment"]
    assert both == "none (in the first phase RightAngles(p=0.5))"
    network = nn.Identity()
    normalise_input(network, 3)
    shifted = compose(["augment=pad_crop"]).augment
    assert applied(shifted, data(np.float32), network) == {
        "augment": "PadCrop(padding=4, fill=border)",
        "input": "real numbers as they are stored, then ImageNet's mean subtracted and divided by "
        "its standard deviation",
    }
    assert augmentation(compose(["dataset=cervix"]).augment) == (
        "FlipsTurns(horizontal=true, vertical=true, turns=true), then "
        "Affine(degrees=15, crop=0.9, scale=[0.9,1.1], fill=border)"
    )


@pytest.mark.parametrize("augment", options("augment"))
def test_every_augmentation_has_words(augment):
    words = augmentation(compose([f"augment={augment}"]).augment)
    assert (words == "none") == (augment == "none") and "{" not in words


def test_wherever_a_run_is_told(medexp):
    small = ("source=phantom", "source.size=64", "trainer.epochs=1", "trainer.resamples=0")
    for name, words in {"a": (), "b": ("augment=pad_crop", "augment.padding=2")}.items():
        where = f"hydra.run.dir=sweep/{name}"
        assert medexp("train", "dataset=medmnist", *small, *words, where) == 0, medexp.err
    said = "Augmentation: PadCrop(padding=2, fill=border). Network input: bytes divided by 255"
    assert said in medexp.err and said in Path("sweep/b/run.log").read_text()
    kept = {"augment": "PadCrop(padding=2, fill=border)", "input": "bytes divided by 255"}
    assert read("sweep/b/metrics.json")["applied"] == kept
    alone = "Images: augmentation none; network input bytes divided by 255."
    assert alone in Path("sweep/a/table.md").read_text()
    # An evaluation tells what its network was trained with, whatever the command says.
    assert medexp("eval", "run=sweep/b", "augment=mixup") == 0, medexp.err
    (file,) = Path("sweep/b/eval").glob("*/metrics.json")
    assert read(file)["applied"] == kept
    notes = tables(find_runs([Path("sweep/a"), Path("sweep/b")]))[0].footnotes
    assert [note.partition("): ")[2] for note in notes if note.startswith("Images (")] == [
        "augmentation none; network input bytes divided by 255.",
        "augmentation PadCrop(padding=2, fill=border); network input bytes divided by 255.",
    ]


def test_an_evaluation_of_several_runs_tells_both(medexp, toy):
    runs = [toy("trainer.epochs=1", f"augment={one}") for one in ("none", "pad_crop")]
    assert medexp("eval", "--config-dir", MINE, f"run={runs[0]},{runs[1]}") == 0, medexp.err
    (folder,) = Path("outputs/ensembles").glob("*")
    words = (folder / "table.md").read_text()
    assert "augmentation none; network input" in words
    assert "or augmentation PadCrop(padding=4, fill=border); network input" in words
