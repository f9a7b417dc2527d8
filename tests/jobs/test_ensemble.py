"""`medexp eval` of ensembles and with test-time augmentation; completion behind it."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medexp.cli import dispatch as cli
from medexp.config.line import folders_of
from medexp.report.table.load import read_predictions
from medexp.runs.files import write_json
from tests.cli.test_dispatch import query
from tests.conftest import MINE, OWN, read


def newest(pattern):
    return max(Path().glob(pattern))


def test_p(folder, split="test"):
    return read_predictions(Path(folder) / "predictions.csv")[split].probabilities


test_p.__test__ = False


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three finished runs of other seeds and widths."""
    folder = tmp_path_factory.mktemp("trained")
    own = ("--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.resamples=20")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", "")
        patch.setenv("MEDEXP_CONFIG_DIR", "")
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", list(sys.argv))
        for seed in range(3):
            given = ("trainer.epochs=2", f"seed={seed}", f"model.width={4 + seed}")
            given += ("trainer.batch_size=8", "optimizer.lr=0.01")  # it tells the classes apart
            assert cli.run(["train", *map(str, own), *given, f"hydra.run.dir={seed}"]) == 0
    return folder


@pytest.fixture
def trio(workplace, trained):
    """Copies of them."""
    shutil.copytree(trained, "runs")
    return [Path("runs", str(seed)) for seed in range(3)]


def change(run, **groups):
    """Lay keys over the groups of a run's config.yaml."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings |= {group: settings[group] | keys for group, keys in groups.items()}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


# ---------------------------------------------------------------- test-time augmentation


def by_hand(run, view, split="test"):
    """Probabilities of the images as `view` (on numpy arrays) shows them, by plain torch."""
    sys.path.insert(0, str(MINE))
    import toy as mine

    network = mine.Net(num_classes=2, in_channels=3, width=4)
    network.load_state_dict(torch.load(run / "checkpoints/best.pt", weights_only=True)["model"])
    images = view(mine.load(".").splits()[split].images)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2) / np.float32(255)))
    with torch.no_grad():
        return network.eval()(x).softmax(1).double().numpy()


def test_tta_is_the_mean_over_the_views_and_says_so(trio, medexp):
    run = trio[0]
    plain = (run / "predictions.csv").read_text().splitlines()
    assert medexp("eval", *OWN, f"run={run}", "tta=flips_turns") == 0, medexp.err
    folder = newest(f"{run}/eval/*")
    views = [
        lambda x, k=k, flip=flip: np.rot90(x[:, :, ::-1] if flip else x, k, (1, 2))
        for flip in (False, True)
        for k in range(4)
    ]
    expected = np.mean([by_hand(run, view) for view in views], axis=0)
    np.testing.assert_allclose(test_p(folder), expected, atol=1e-6)
    metrics = read(folder / "metrics.json")
    assert metrics["views"] == 8
    assert list(metrics["marks"]) == ["TTA 8 views"]
    assert "mean of the probabilities over 8 views" in metrics["marks"]["TTA 8 views"]
    for text in (medexp.out, (folder / "table.md").read_text(), (folder / "table.csv").read_text()):
        assert "TTA 8 views" in text
    assert max(map(len, medexp.out.splitlines()[:-1])) <= 80

    assert medexp("eval", *OWN, f"run={run}", "tta=flips", "tta.vertical=false") == 0, medexp.err
    expected = (by_hand(run, lambda x: x) + by_hand(run, lambda x: x[:, :, ::-1])) / 2
    np.testing.assert_allclose(test_p(newest(f"{run}/eval/*")), expected, atol=1e-6)
    assert "TTA 2 views" in medexp.out

    for option in ([], ["tta=none"]):  # without it nothing changes, to the bit
        assert medexp("eval", *OWN, f"run={run}", *option) == 0, medexp.err
        folder = newest(f"{run}/eval/*")
        again = (folder / "predictions.csv").read_text().splitlines()
        assert again == [plain[0], *(line for line in plain if ",test," in line)]
        assert read(folder / "metrics.json")["marks"] == {}
        assert "TTA" not in medexp.out


def test_tta_is_of_a_finished_run(medexp):
    assert medexp("train", "tta=flips") == 2
    assert "tta: of a finished run. Use medexp eval run=DIR tta=" in medexp.err


def test_a_sweep_over_tta(trio, medexp):
    assert medexp("eval", *OWN, "-m", f"run={trio[0]}", "tta=flips,flips_turns") == 0, medexp.err
    assert "TTA 4 views" in medexp.out and "TTA 8 views" in medexp.out
    assert len(list(Path().glob("outputs/sweeps/*/*/predictions.csv"))) == 2


# ---------------------------------------------------------------- ensembles


@pytest.mark.plots
def test_an_ensemble_is_the_mean_of_its_runs_probabilities(trio, medexp):
    assert medexp("eval", *OWN, f"run=[{','.join(map(str, trio))}]") == 0, medexp.err
    (folder,) = Path("outputs/ensembles").iterdir()
    np.testing.assert_array_equal(test_p(folder), np.mean([test_p(run) for run in trio], axis=0))
    metrics = read(folder / "metrics.json")
    own = [read(run / "metrics.json") for run in trio]
    assert [member["evaluated_run"] for member in metrics["members"]] == list(map(str, trio))
    for key in ("trainable", "total"):
        assert metrics["parameters"][key] == sum(one["parameters"][key] for one in own)
    assert metrics["members"][1]["parameters"] == own[1]["parameters"]
    assert (metrics["model"], metrics["epochs"], metrics["best_epoch"]) == ("toynet", 2, None)
    assert list(metrics["marks"]) == ["ENSEMBLE of 3"]
    for text in (medexp.out, (folder / "table.md").read_text(), (folder / "table.csv").read_text()):
        assert "ENSEMBLE of 3" in text
    assert all(str(run) in "".join(medexp.out.split("\n")) for run in trio)
    assert medexp.out.splitlines()[-1] == str(folder)
    assert (folder / "plots/roc.png").exists()
    assert not list(trio[0].glob("eval"))

    # Without brackets it is the same, and so is the ensemble evaluated again.
    for given in (f"run={','.join(map(str, trio))}", f"run={folder}"):
        assert medexp("eval", *OWN, given) == 0, medexp.err
        again = max([*Path().glob("outputs/ensembles/*"), *folder.glob("eval/*")], key=str)
        assert (again / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
        assert read(again / "metrics.json")["test"] == metrics["test"]


def test_an_ensemble_with_tta_on_another_split(trio, medexp):
    given = ("split=val", "tta=flips")
    assert medexp("eval", *OWN, f"run={trio[0]},{trio[1]}", *given) == 0, medexp.err
    together = test_p(newest("outputs/ensembles/*"), "val")
    apart = []
    for run in trio[:2]:
        assert medexp("eval", *OWN, f"run={run}", *given) == 0, medexp.err
        apart.append(test_p(newest(f"{run}/eval/*"), "val"))
    np.testing.assert_array_equal(together, (apart[0] + apart[1]) / 2)
    marks = read(newest("outputs/ensembles/*") / "metrics.json")["marks"]
    assert list(marks) == ["VAL SPLIT", "ENSEMBLE of 2", "TTA 4 views"]


def test_an_ensemble_of_other_networks_keeps_the_marks_of_all(trio, medexp):
    first, other, _ = trio
    change(other, model={"_target_": "toy.Exploding"}, names={"model": "exploding"})
    metrics = read(other / "metrics.json")
    theirs = {"PARTIAL": "half of it", "VAL SPLIT": "of another evaluation"}
    write_json(other / "metrics.json", metrics | {"model": "exploding", "marks": theirs})
    assert medexp("eval", *OWN, f"run={first},{other}", "split=val") == 0, medexp.err
    scored = read(newest("outputs/ensembles/*") / "metrics.json")
    assert scored["model"] == "toynet+exploding"
    assert list(scored["marks"]) == ["VAL SPLIT", "PARTIAL", "ENSEMBLE of 2"]
    assert scored["marks"]["VAL SPLIT"].startswith("scored on the val split")
    assert "PARTIAL: half of it" in medexp.out


def test_a_run_is_not_asked_where_its_modules_are(trio, medexp, monkeypatch):
    """Its config_dir is told, never searched; of several folders one is named, others trusted."""
    Path("theirs").mkdir()
    shutil.copy(MINE / "toy.py", "theirs/theirs.py")
    change(trio[1], model={"_target_": "theirs.Net"})
    folder = Path("theirs").resolve()
    write_json(trio[1] / "provenance.json", {"config_dir": str(folder)})
    both = f"run={trio[0]},{trio[1]}"
    assert medexp("eval", *OWN, both) == 2
    assert f"{trio[1]}/config.yaml: model._target_=theirs.Net: not among what" in medexp.err
    assert f"it was made with --config-dir {folder}" in medexp.err
    assert "theirs" not in sys.modules and str(folder) not in sys.path
    monkeypatch.syspath_prepend(str(folder))
    assert medexp("eval", *OWN, both, "trusted=theirs") == 0, medexp.err
    expected = (test_p(trio[0]) + test_p(trio[1])) / 2
    np.testing.assert_array_equal(test_p(newest("outputs/ensembles/*")), expected)


def test_runs_that_do_not_fit_together_are_refused_by_name(trio, medexp):
    first, other, unfinished = trio
    both = f"run=[{first},{other}]"
    lines = (other / "split.csv").read_text()
    (other / "split.csv").write_text(lines.replace("test47,test", "test47,train"))
    assert medexp("eval", *OWN, both) == 1
    expected = f"run={other}: its 47 test images are not the 48 of {first} (47 in common)"
    assert expected in medexp.err
    assert len(medexp.err.strip().splitlines()) == 1
    assert medexp("eval", *OWN, both, "split=train") == 1
    assert "its 97 train images are not the 96" in medexp.err
    record = read(other / "record.json")
    write_json(other / "record.json", record | {"classes": ["a", "z"]})
    assert medexp("eval", *OWN, both) == 1
    assert f"run={other}: its classes are a, z, those of {first} a, b" in medexp.err
    (unfinished / "metrics.json").unlink()
    assert medexp("eval", *OWN, f"run={first},{unfinished}") == 1
    assert f"run={unfinished}: no metrics.json there, so it is not finished" in medexp.err
    assert f"medexp train resume={unfinished}" in medexp.err


def test_wrong_usage_of_an_ensemble(trio, medexp):
    two = f"run={trio[0]},{trio[1]}"
    for arguments, message in (
        ([two, "model.width=4"], "model.width=4: the runs of an ensemble bring their networks"),
        ([two, "explain=saliency"], "explain: of one run"),
        ([f"run={trio[0]},nowhere"], "run=nowhere: no config.yaml there"),
        ([f"run={trio[0]},{trio[0]}"], f"run={trio[0]}: named twice"),
        (["run=[]"], "run: missing"),
    ):
        assert medexp("eval", *OWN, *arguments) == 2, arguments
        assert message in medexp.err


def test_runs_are_named_with_and_without_brackets(workplace):
    assert folders_of("a/b") == ["a/b"]
    assert folders_of("a,b") == folders_of("[a, b]") == folders_of("['a',\"b\",]") == ["a", "b"]
    Path("a,b").mkdir()
    assert folders_of("a,b") == ["a,b"]
    assert folders_of("") == folders_of("[]") == []


# ---------------------------------------------------------------- repeats and completion


def test_a_sweep_of_seeds_ends_in_their_mean(medexp):
    own = ("--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.resamples=20")
    assert medexp("train", "-m", *own, "trainer.epochs=1", "seed=range(2)") == 0, medexp.err
    (folder,) = Path("outputs/sweeps").iterdir()
    table = (folder / "table.md").read_text().replace(" CONSTANT |", " |")  # barely trained
    scores = [read(run / "metrics.json")["test"]["accuracy"] for run in folder.glob("*-toy-toynet")]
    assert len(scores) == 2
    cell = f"{np.mean(scores):.4f} ({np.std(scores, ddof=1):.4f})"
    assert f"| toynet on toy, mean of 2 seeds (sd) | {cell} |" in table
    assert "mean of 2" in medexp.out


def test_folds_of_one_command_are_pooled(medexp):
    own = ("--config-dir", MINE, "dataset=ldct", "source=phantom", "source.size=32", "model=toynet")
    given = ("dataset.folds=2", "dataset.fold=0,1", "trainer.epochs=1", "trainer.resamples=20")
    assert medexp("train", "-m", *own, *given) == 0, medexp.err
    table = newest("outputs/sweeps/*/table.md").read_text()
    assert "toynet on ldct, mean of 2 folds (sd) PHANTOM" in table
    assert "toynet on ldct, pooled over 2 folds PHANTOM" in table


def test_completion_behind_eval():
    assert {"run=", "split=", "tta=", "explain="} <= set(query("medexp eval "))
    assert {"tta=flips", "tta=flips_turns"} <= set(query("medexp eval tta="))
    assert "run=tests/mine/" in query("medexp eval run=tests/m")
    assert "run=[a,tests/mine/" in query("medexp eval run=[a,tests/m")
    assert "split=" in query("medexp eval run=a,b spl")


def test_completion_knows_the_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    settings = {"names": {"dataset": "d", "model": "m"}, "model": {"own_width": 1}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert query(f"medexp eval run={tmp_path}/r") == [f"run={run}"]
    assert "model.own_width=" in query(f"medexp eval run={run} model.o")
