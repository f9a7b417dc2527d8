"""Searches: one parameter at a time, the cervix paper's coarse cross, Optuna's studies."""

import csv
import importlib.util
import sqlite3
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from hydra_plugins.medexp_sweepers import one_at_a_time
from medexp.config import compose
from medexp.errors import ConfigError
from tests.conftest import MINE, ROOT, read

TUNE = ROOT / "conf" / "tune"
TOY = ("--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.epochs=1",
       "trainer.resamples=20", "dataset.n=32")  # fmt: skip
FIG3 = ("dataset.max_train", "trainer.batch_size", "optimizer.lr")

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None
    or importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason='Optuna is not here: pip install "medexp[tune]"',
)


def params(name):
    """KEY -> list of words, as the YAML has them."""
    node = yaml.safe_load((TUNE / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    return {key: str(value).split(",") for key, value in node.items()}


def jobs():
    """The jobs of the latest sweep: KEY -> value of each, from what Hydra wrote."""
    folder = max(Path("outputs/sweeps").iterdir())
    found = sorted((p for p in folder.iterdir() if (p / ".hydra").is_dir()), key=number)
    words = [yaml.safe_load((p / ".hydra/overrides.yaml").read_text()) for p in found]
    return folder, found, [dict(word.split("=", 1) for word in line) for line in words]


def number(path):
    return int(path.name.split("-")[0])


# ---------------------------------------------------------------- one at a time


def test_one_at_a_time_is_the_cross_with_one_word_changed_at_most():
    lists = {"a": "123", "+b": "456", "c": "78", "m": "xy"}
    cross = [
        [f"{key}={value}" for key, value in zip(lists, values, strict=True)]
        for values in product(*lists.values())
    ]
    found = one_at_a_time(cross, ["a", "b", "c"])
    axes = ("147", "247", "347", "157", "167", "148")
    expected = {(f"a={a}", f"+b={b}", f"c={c}", f"m={m}") for a, b, c in axes for m in "xy"}
    assert set(map(tuple, found)) == expected and len(found) == len(expected)
    assert one_at_a_time(cross, []) == cross


def test_a_key_without_values_is_refused():
    with pytest.raises(ConfigError, match=r"vary: optimizer\.lrr has no values.*'optimizer\.lr'"):
        one_at_a_time([["optimizer.lr=1"], ["optimizer.lr=2"]], ["optimizer.lrr"])


def test_a_sweep_one_at_a_time_ends_in_panels_and_a_ranking(medexp, workplace):
    tune = workplace / "own" / "tune"
    tune.mkdir(parents=True)
    (tune / "star.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: one_at_a_time\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    vary: [trainer.batch_size, optimizer.lr]\n"
        "    params:\n      trainer.batch_size: 8,16\n      optimizer.lr: 0.1,0.01\n"
    )
    (workplace / "own" / "dataset").symlink_to(MINE / "dataset")
    (workplace / "own" / "model").symlink_to(MINE / "model")
    (workplace / "own" / "toy.py").symlink_to(MINE / "toy.py")
    rest = ["--config-dir", workplace / "own", *TOY[2:], "tune=star", "model.width=4,0"]
    assert medexp("train", *rest, "optimizer.lr=0.2,0.02") == 1, medexp.err
    folder, _, found = jobs()
    keys = ("trainer.batch_size", "optimizer.lr", "model.width")
    got = [tuple(job[key] for key in keys) for job in found]
    points = [("8", "0.2"), ("8", "0.02"), ("16", "0.2")]
    assert sorted(got) == sorted((*point, width) for point in points for width in ("4", "0"))
    assert {p.name for p in (folder / "plots").glob("*.png")} == {
        "sweep_accuracy.png", "sweep_auc.png", "sweep_val_auc.png",
    }  # fmt: skip
    assert str(folder / "search.md") in medexp.out and ".svg" not in medexp.out
    page = (folder / "search.md").read_text()
    assert page.count("failed:") == 3 and "| 1 |" in page
    assert medexp("train", *rest, "hydra.sweeper.vary=[optimizer.lrr]") == 2
    assert "hydra.sweeper.vary: optimizer.lrr has no values" in medexp.err


# ---------------------------------------------------------------- the papers' searches


def test_every_search_is_a_multirun():
    names = [path.stem for path in TUNE.glob("*.yaml")]
    assert {"pcam_fig3", "cervix_resnet", "tpe"} <= set(names)
    for name in names:
        compose.compose([f"tune={name}"])
        text = (TUNE / f"{name}.yaml").read_text()
        assert "mode: MULTIRUN" in text or "  - tpe\n" in text


def test_figure_3_varies_patches_batch_size_and_rate_one_at_a_time():
    lists = params("pcam_fig3")
    assert list(lists) == ["model", *FIG3]
    assert lists["model"] == ["native1", "native2", "native3", "native4"]
    for key in FIG3:
        assert len({*map(float, lists[key])}) == len(lists[key]) == 6
    rates = set(map(float, lists["optimizer.lr"]))
    assert {0.1, 0.01, 0.001} <= rates  # the paper's limits, and where it finds the best
    assert lists["trainer.batch_size"][0] == "32" and lists["dataset.max_train"][0] == "40000"


@pytest.mark.slow
def test_one_command_gives_the_three_panels_of_figure_3(medexp):
    tiny = ("dataset.max_train=64,128", "trainer.batch_size=32,16", "optimizer.lr=0.01,0.1")
    budget = ("trainer.epochs=1", "trainer.resamples=20", "source=phantom", "source.size=128")
    assert medexp("train", "tune=pcam_fig3", *tiny, *budget) == 0, medexp.err
    folder, paths, found = jobs()
    assert len(found) == 16
    assert (folder / "plots/sweep_accuracy.png").stat().st_size > 20_000
    from medexp.report.figure import sweeps
    from medexp.report.table import load

    sweep = sweeps.read_sweep(load.find_runs([folder]))
    figure = sweeps.panels_figure(sweep, *sweeps.quantities(sweep.runs)["accuracy"])
    titles = ("training images", "batch size", "learning rate")
    assert len(figure.axes) == 3 and "PHANTOM" in figure.get_suptitle()
    for axes, title, key in zip(figure.axes, titles, FIG3, strict=True):
        assert axes.get_xlabel() == f"{title} ({key})"
        others = {other: found[0][other] for other in FIG3 if other != key}
        for line in axes.containers:
            expected = {
                float(job[key]): read(path / "metrics.json")["test"]["accuracy"]
                for path, job in zip(paths, found, strict=True)
                if job["model"] == line.get_label() and others.items() <= job.items()
            }
            drawn = line.lines[0]
            assert dict(zip(drawn.get_xdata(), drawn.get_ydata(), strict=True)) == expected
        assert [line.get_label() for line in axes.containers] == params("pcam_fig3")["model"]


def test_the_coarse_search_of_the_cervix_paper():
    lists = params("cervix_resnet")
    rates = np.array(lists["optimizer.lr"], float)
    np.testing.assert_allclose(rates, np.logspace(-4, -2, 5), rtol=2e-3)
    # TF-Slim's l2_regularizer has a factor of a half that medexp's l2 has not.
    halves = np.array(lists["model.stages.features.l2"], float) * 2
    np.testing.assert_allclose(halves, [1e-3, 1e-4, 1e-6])
    settings = compose.compose(["tune=cervix_resnet", "model.stages.features.l2=0.25"])
    assert settings["names"] == {"dataset": "cervix", "model": "resnet101"}
    assert settings["trainer"]["max_steps"] == 50 and settings["optimizer"]["momentum"] == 0.9
    assert settings["model"]["stages"]["head"]["l2"] == 0.25


def test_a_cross_ends_in_a_table_of_two(medexp):
    own = ("dataset.size=16", "model.weights=null", "augment=none", "trainer.max_steps=1")
    lists = ("optimizer.lr=0.1,0.01", "model.stages.features.l2=0.1,0.01")
    assert medexp("train", *TOY, *own, "tune=cervix_resnet", *lists) == 0, medexp.err
    folder, paths, found = jobs()
    assert len(found) == 4
    assert (folder / "plots/crossed_lr_l2.png").is_file()
    config = yaml.safe_load((paths[-1] / "config.yaml").read_text())
    assert config["model"]["stages"]["head"]["l2"] == config["model"]["stages"]["features"]["l2"]
    with (folder / "search.csv").open() as file:
        values = [float(row["value"]) for row in csv.DictReader(file)]
    losses = [next(csv.DictReader((path / "history.csv").open()))["val_loss"] for path in paths]
    assert values == sorted(map(float, losses))


# ---------------------------------------------------------------- hopeless jobs


def epochs_of(run):
    with (run / "history.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_hopeless_job_ends_early_and_says_so(medexp):
    """Four jobs that learn, then one that cannot, and one with the first one's rate again."""
    own = ("trainer.epochs=3", "trainer.prune_after=2", "trainer.monitor=val_loss", "seed=0")
    rates = "optimizer.lr=0.1,0.11,0.12,0.13,1e-9,0.14"
    assert medexp("train", "-m", *TOY, *own, rates) == 0, medexp.err
    _, paths, _ = jobs()
    *whole, hopeless, last = paths
    assert [epochs_of(path) for path in (*whole, last)] == [[1, 2, 3]] * 5
    assert epochs_of(hopeless) == [1, 2]
    assert read(hopeless / "status.json")["state"] == "done"
    scored = read(hopeless / "metrics.json")
    assert scored["marks"]["PRUNED"].startswith("ended after epoch 2: its best val_loss 0.")
    assert scored["test"]["n"] and scored["epochs"] == scored["pruned_at"] == 2
    assert "PRUNED" in (hopeless / "table.md").read_text()
    assert not any("PRUNED" in read(path / "metrics.json")["marks"] for path in (*whole, last))
    assert medexp("eval", f"run={hopeless}", "--config-dir", MINE) == 0, medexp.err
    (again,) = hopeless.glob("eval/*/metrics.json")
    assert read(again)["marks"]["PRUNED"] == scored["marks"]["PRUNED"]
    # Resumed it is judged by the same rule, without a step; told not to, it goes on.
    again = ("train", f"resume={hopeless}", "--config-dir", MINE)
    assert medexp(*again) == 0 and epochs_of(hopeless) == [1, 2], medexp.err
    assert medexp(*again, "trainer.prune_after=null") == 0, medexp.err
    assert epochs_of(hopeless) == [1, 2, 3]
    assert "PRUNED" not in read(hopeless / "metrics.json")["marks"]


@pytest.mark.parametrize(
    ("words", "epochs"),
    [(["tune=tpe"], 3), (["tune=tpe_l2"], 3), (["tune=tpe", "trainer.prune_after=null"], None)],
)
def test_a_study_ends_hopeless_trials(words, epochs):
    assert compose.compose(words).trainer.prune_after == epochs
    assert compose.compose([]).trainer.prune_after is None


# ---------------------------------------------------------------- Optuna


def study(medexp, *overrides, code=0):
    assert medexp("train", *TOY, "tune=tpe", *overrides) == code, medexp.err


def stored(query):
    with sqlite3.connect("outputs/studies.sqlite") as database:
        return database.execute(query).fetchall()


def values():
    return [value for (value,) in stored("select value from trial_values order by trial_id")]


def best(path, column):
    with (path / "history.csv").open() as file:
        found = [float(row[column]) for row in csv.DictReader(file)]
    return min(found) if column == "val_loss" else max(found)


@needs_optuna
def test_a_study_is_kept_and_gone_on_with(medexp):
    study(medexp, "hydra.sweeper.n_trials=3")
    folder, paths, first = jobs()
    assert values() == [best(path, "val_auc") for path in paths]
    assert stored("select study_name from studies") == [("toy-toynet-val_auc",)]
    assert stored("select direction from study_directions") == [("MAXIMIZE",)]
    assert (folder / "search.md").is_file() and (folder / "plots/sweep_val_auc.png").is_file()
    assert all(0.0001 <= float(job["optimizer.lr"]) <= 0.3 for job in first)
    study(medexp, "hydra.sweeper.n_trials=2")
    _, more, second = jobs()
    assert "toy-toynet-val_auc in sqlite:///outputs/studies.sqlite: 3 trials before" in medexp.out
    assert values() == [best(path, "val_auc") for path in (*paths, *more)]
    assert not {job["optimizer.lr"] for job in first} & {job["optimizer.lr"] for job in second}
    # Trials of another budget do not compare.
    study(medexp, "trainer.epochs=2", code=2)
    assert "trainer.epochs=2: the study toy-toynet-val_auc was begun with 1" in medexp.err
    assert "hydra.sweeper.study_name=NAME" in medexp.err
    assert len(values()) == 5


@needs_optuna
def test_a_study_is_seeded_and_follows_the_monitor(medexp):
    lists = ("hydra.sweeper.n_trials=2", "trainer.monitor=val_loss", "trainer.batch_size=8,16")
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        own = (f"hydra.sweeper.study_name={name}", f"hydra.sweeper.seed={seed}")
        study(medexp, *lists, *own, "hydra.sweeper.sampler.n_startup_trials=1")
        keys = ("optimizer.lr", "trainer.batch_size")
        found.append([tuple(job[key] for key in keys) for job in jobs()[2]])
    assert found[0] == found[1] != found[2]
    assert {batch for trials in found for _, batch in trials} <= {"8", "16"}
    assert {row for row in stored("select direction from study_directions")} == {("MINIMIZE",)}
    assert values()[-2:] == [best(path, "val_loss") for path in jobs()[1]]


@needs_optuna
def test_jobs_that_fail_are_failed_trials(medexp):
    study(medexp, "hydra.sweeper.n_trials=2", "+model.rate=7", code=1)
    assert stored("select state from trials") == [("FAIL",), ("FAIL",)]
    assert "No trial was completed" in medexp.out and "2 of 2 jobs failed" in medexp.err


@needs_optuna
def test_l2_is_searched_for_both_stages(medexp):
    own = ("model=native3", "dataset.size=96", "tune=tpe_l2", "hydra.sweeper.n_trials=1")
    assert medexp("train", *TOY, *own) == 0, medexp.err
    config = yaml.safe_load((jobs()[1][0] / "config.yaml").read_text())
    stages = config["model"]["stages"]
    assert 1e-7 <= stages["features"]["l2"] == stages["head"]["l2"] <= 0.01


def test_without_optuna_the_remedy_is_named(medexp, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert medexp("train", *TOY, "tune=tpe") == 2
    assert 'pip install "medexp[tune]"' in medexp.err
    assert not Path("outputs/sweeps").exists()
