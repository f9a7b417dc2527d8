"""Searches: one parameter at a time, the cervix paper's coarse cross, Optuna's studies."""

import csv
import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from signal import SIGINT

import numpy as np
import optuna
import pytest
import yaml
from filelock import FileLock
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.medexp_sweepers import one_at_a_time
from medexp.config import compose
from medexp.config.line import read_line
from medexp.config.tree import plain
from medexp.errors import ConfigError
from medexp.jobs import study
from medexp.runs.files import write_status
from medexp.train import loop
from tests.conftest import MINE, ROOT, read

TUNE = ROOT / "conf" / "tune"
TOY = ("--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.epochs=1",
       "trainer.resamples=20", "dataset.n=32")  # fmt: skip
FIG3 = ("dataset.max_train", "trainer.batch_size", "optimizer.lr")


def params(name):
    """KEY -> list of words, as the YAML has them."""
    node = yaml.safe_load((TUNE / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    return {key: str(value).split(",") for key, value in node.items()}


def jobs():
    """The jobs of the latest sweep: KEY -> value of each, from what Hydra wrote."""
    folder = max(Path("outputs/sweeps").iterdir())
    paths = sorted((p for p in folder.iterdir() if (p / ".hydra").is_dir()), key=number)
    words = [yaml.safe_load((p / ".hydra/overrides.yaml").read_text()) for p in paths]
    return folder, paths, [dict(word.split("=", 1) for word in line) for line in words]


def number(path):
    return int(path.name.split("-")[0])


# ---------------------------------------------------------------- one at a time


def test_one_at_a_time_is_the_cross_with_one_word_changed_at_most():
    lists = {"a": "123", "+b": "456", "c": "78", "m": "xy"}
    cross = [
        [f"{key}={value}" for key, value in zip(lists, values, strict=True)]
        for values in product(*lists.values())
    ]
    kept = one_at_a_time(cross, ["a", "b", "c"])
    axes = ("147", "247", "347", "157", "167", "148")
    expected = {(f"a={a}", f"+b={b}", f"c={c}", f"m={m}") for a, b, c in axes for m in "xy"}
    assert set(map(tuple, kept)) == expected and len(kept) == len(expected)
    assert one_at_a_time(cross, []) == cross


def test_a_key_without_values_is_refused():
    with pytest.raises(ConfigError, match=r"vary: optimizer\.lrr has no values.*'optimizer\.lr'"):
        one_at_a_time([["optimizer.lr=1"], ["optimizer.lr=2"]], ["optimizer.lrr"])


def test_a_sweep_one_at_a_time_ends_in_panels_and_a_ranking(medexp, workplace):
    tune = workplace / "mine" / "tune"
    tune.mkdir(parents=True)
    (tune / "star.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: one_at_a_time\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    vary: [trainer.batch_size, optimizer.lr]\n"
        "    params:\n      trainer.batch_size: 8,16\n      optimizer.lr: 0.1,0.01\n"
    )
    (workplace / "mine" / "dataset").symlink_to(MINE / "dataset")
    (workplace / "mine" / "model").symlink_to(MINE / "model")
    (workplace / "mine" / "toy.py").symlink_to(MINE / "toy.py")
    rest = ["--config-dir", workplace / "mine", *TOY[2:], "tune=star", "model.width=4,0"]
    assert medexp("train", *rest, "optimizer.lr=0.2,0.02") == 1, medexp.err
    folder, _, settings = jobs()
    keys = ("trainer.batch_size", "optimizer.lr", "model.width")
    got = [tuple(job[key] for key in keys) for job in settings]
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
    folder, paths, settings = jobs()
    assert len(settings) == 16
    assert (folder / "plots/sweep_accuracy.png").stat().st_size > 20_000
    from medexp.report.figure import sweeps
    from medexp.report.table import load

    sweep = sweeps.read_sweep(load.find_runs([folder]))
    figure = sweeps.panels_figure(sweep, *sweeps.quantities(sweep.runs)["accuracy"])
    titles = ("training images", "batch size", "learning rate")
    assert len(figure.axes) == 3 and "PHANTOM" in figure.get_suptitle()
    for axes, title, key in zip(figure.axes, titles, FIG3, strict=True):
        assert axes.get_xlabel() == f"{title} ({key})"
        others = {other: settings[0][other] for other in FIG3 if other != key}
        for line in axes.containers:
            expected = {
                float(job[key]): read(path / "metrics.json")["test"]["accuracy"]
                for path, job in zip(paths, settings, strict=True)
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
    assert plain(settings.names) == {"dataset": "cervix", "model": "resnet101"}
    assert settings.trainer.max_steps == 50 and settings.optimizer["momentum"] == 0.9
    assert settings.model["stages"]["head"]["l2"] == 0.25
    assert settings.augment == compose.compose(["augment=cervix_resnet"]).augment  # section 6.3


def test_the_searches_of_the_two_cervixnets():
    """Sections 6.1 and 6.2: what was tuned, and the values that were taken among those tried."""
    node = yaml.safe_load((TUNE / "cervixnet1.yaml").read_text())["hydra"]["sweeper"]
    assert node["vary"] == list(node["params"])
    lists = {key: yaml.safe_load(f"[{words}]") for key, words in node["params"].items()}
    taken = compose.compose(["tune=cervixnet1"])
    first = {key: words[0] for key, words in lists.items()}
    assert first == {
        "optimizer.lr": taken.optimizer["lr"] , "model.stages.head.l2": 0.0,
        "model.dropout": taken.model["dropout"], "model.filters": list(taken.model["filters"]),
    }  # fmt: skip
    assert {0.2, 0.15, 0.0} <= set(lists["model.dropout"])  # Table 2: keep .8, .85 and 1
    assert {0.0, 0.01} <= set(lists["model.stages.head.l2"])
    for words in zip(*lists.values(), strict=False):
        settings = compose.compose(
            ["tune=cervixnet1", *(f"{k}={w}" for k, w in zip(lists, words, strict=True))]
        )
        assert settings.model["filters"] == words[3] and settings.trainer.monitor == "val_loss"
    rates = params("cervixnet2")["optimizer.lr"]
    assert "0.0012" in rates and sorted(map(float, rates)) == list(map(float, rates))
    assert params("cervixnet2")["model.batch_norm"] == ["false", "true"]
    settings = compose.compose(["tune=cervixnet2", "model.batch_norm=true", "optimizer.lr=0.006"])
    assert settings.model["batch_norm"] and settings.names.model == "cervixnet2"


@pytest.mark.slow
def test_the_tuning_of_cervixnet1_is_twelve_jobs(medexp):
    """Filters, a list of lists, are a value like any other."""
    small = ("source=phantom", "source.size=60", "dataset.size=40", "trainer.max_steps=1")
    assert medexp("train", "tune=cervixnet1", *small, "trainer.resamples=0") == 0, medexp.err
    settings = jobs()[2]
    assert len(settings) == 12
    assert sorted({job["model.filters"] for job in settings}) == ["[16,8]", "[32,16]", "[64,32]"]


def test_a_cross_ends_in_a_table_of_two(medexp):
    words = ("dataset.size=16", "model.weights=null", "augment=none", "trainer.max_steps=1")
    lists = ("optimizer.lr=0.1,0.01", "model.stages.features.l2=0.1,0.01")
    assert medexp("train", *TOY, *words, "tune=cervix_resnet", *lists) == 0, medexp.err
    folder, paths, settings = jobs()
    assert len(settings) == 4
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
    words = ("trainer.epochs=3", "trainer.prune_after=2", "trainer.monitor=val_loss", "seed=0")
    sgd = ("optimizer=sgd", "augment=flips_turns")  # whose rates these are
    rates = "optimizer.lr=0.1,0.11,0.12,0.13,1e-9,0.14"
    assert medexp("train", "-m", *TOY, *words, *sgd, rates) == 0, medexp.err
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

SEARCH = {  # Hydra's words -> what Optuna is to draw from
    "interval(0.5,2)": FloatDistribution(0.5, 2.0),
    "int(interval(1,9))": IntDistribution(1, 9),
    "tag(log,interval(0.001,0.1))": FloatDistribution(0.001, 0.1, log=True),
    "tag(log,int(interval(1,64)))": IntDistribution(1, 64, log=True),
    "choice(a,b)": CategoricalDistribution(["a", "b"]),
    "8,[1,2],null": CategoricalDistribution(["8", "[1,2]", "null"]),
    "range(1,4)": CategoricalDistribution(["1", "2", "3"]),
}


def space_of(*words):
    return study.search_space(read_line(words).overrides)


def test_what_is_searched_in_hydras_words():
    space = space_of("seed=3", *(f"k{i}={words}" for i, words in enumerate(SEARCH)), "+a.b=x")
    assert list(space.searched.values()) == list(SEARCH.values())
    assert space.fixed == ["seed=3", "+a.b=x"]
    assert space.words({"k0": 1e-05, "k5": "[1,2]"})[2:] == ["k0=1e-05", "k5=[1,2]"]


def test_the_later_override_of_a_key_counts():
    """A value on the command line takes a key of the YAML out of the search."""
    space = space_of("lr=interval(0.1,1)", "n=1,2", "lr=0.5", "n=int(interval(1,2))")
    assert space.fixed == ["lr=0.5"] and space.searched == {"n": IntDistribution(1, 2)}
    with pytest.raises(ConfigError, match=r"lr=tag\(log,interval\(0,1\)\): .*low"):
        space_of("lr=tag(log,interval(0,1))")


def search(medexp, *overrides, code=0):
    """A study in the folder `s`; its trials as Optuna has them."""
    words = ("tune=tpe", "hydra.sweep.dir=s", *overrides)
    assert medexp("train", *TOY, *words) == code, medexp.err + medexp.out
    return trials() if Path("s/study.journal").exists() else None


def opened(name="toy-toynet-val_auc", file="s/study.journal"):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(file))
    return optuna.load_study(study_name=name, storage=storage)


def trials(*place):
    return opened(*place).trials


def job(number):
    return Path(f"s/{number}-toy-toynet")


def best(run, column="val_auc"):
    path = run if isinstance(run, Path) else job(run)
    with (path / "history.csv").open() as file:
        values = [float(row[column]) for row in csv.DictReader(file)]
    return min(values) if column == "val_loss" else max(values)


def place(words, number):
    return study.Placed(Path(f"s/{number}"), {})


def words_of(number):
    words = yaml.safe_load((job(number) / ".hydra/overrides.yaml").read_text())
    return dict(word.split("=", 1) for word in words)


def test_a_study_goes_on_in_its_folder(medexp):
    first = search(medexp, "hydra.sweeper.n_trials=2")
    assert [trial.value for trial in first] == [best(0), best(1)]
    assert opened().direction.name == "MAXIMIZE"
    assert Path("s/search.md").is_file() and Path("s/plots/sweep_val_auc.png").is_file()
    for number, trial in enumerate(first):
        assert 0.0001 <= trial.params["optimizer.lr"] <= 0.3
        assert float(words_of(number)["optimizer.lr"]) == trial.params["optimizer.lr"]
    # Intervals are no trial's value: their resamples may be others.
    both = search(medexp, "hydra.sweeper.n_trials=1", "trainer.resamples=30")
    assert "toy-toynet-val_auc in s/study.journal: 2 trials before" in medexp.out
    assert "xperimental" not in medexp.out + medexp.err
    assert [trial.value for trial in both] == [best(0), best(1), best(2)]
    assert len({trial.params["optimizer.lr"] for trial in both}) == 3
    leader = max(both, key=lambda trial: trial.value)
    results = yaml.safe_load(Path("s/optimization_results.yaml").read_text())
    assert results["name"] == "optuna" and results["best_value"] == leader.value
    batch = int(leader.params["trainer.batch_size"])
    assert results["best_params"] == {**leader.params, "trainer.batch_size": batch}

    # Trials of another budget do not compare; choices of a study stay what they are.
    search(medexp, "trainer.epochs=2", code=2)
    assert "trainer.epochs=2: the study toy-toynet-val_auc was begun with 1" in medexp.err
    search(medexp, "trainer.batch_size=4,5", code=2)
    assert "hydra.sweeper.params: the study toy-toynet-val_auc cannot go on" in medexp.err
    # Another study in the folder, or a sweep that is no study, would write over its runs.
    search(medexp, "hydra.sweeper.study_name=b", code=2)
    assert "s/0-toy-toynet: holds a run already" in medexp.err
    assert [trial.state.name for trial in trials("b")] == ["FAIL"]
    assert medexp("train", *TOY, "-m", "seed=0,1", "hydra.sweep.dir=s") == 2
    assert "s/0-toy-toynet: holds a run already" in medexp.err
    with FileLock("s/.study.lock"):
        search(medexp, code=2)
    assert "hydra.sweep.dir=s: another process searches in it" in medexp.err
    assert [trial.value for trial in trials()][:3] == [trial.value for trial in both]


def test_a_trial_that_was_cut_short_goes_on(medexp, monkeypatch):
    """Ctrl-C at the end of the first epoch of two; the same command finishes that trial first."""
    longer = ("trainer.epochs=2", "trainer.prune_after=null", "hydra.sweeper.n_trials=2")
    validate = loop.validate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", lambda *a: os.kill(os.getpid(), SIGINT) or validate(*a))
        search(medexp, *longer, code=130)
    (first,) = trials()
    assert first.state.name == "RUNNING" and epochs_of(job(0)) == [1]
    first, second = search(medexp, *longer)
    assert epochs_of(job(0)) == [1, 2] and first.value == best(0)
    assert second.value == best(1) and second.params != first.params
    assert not job(2).exists()


def test_trials_left_by_a_killed_process_are_told_or_failed(workplace):
    """A job that is done is told by its history, one that cannot go on is a failed trial."""
    opened_study = study.open_study("x", "s/study.journal", {"k": 1}, "val_loss")
    space = space_of("lr=interval(0.1,1)")
    jobs = study.Jobs(
        Path("s"), lambda words, n: study.Placed(Path(f"s/{n}"), {}), None, "val_loss"
    )
    for number in range(3):
        study.ask(opened_study, space, jobs)
        Path(f"s/{number}").mkdir()
    other = opened_study.ask()  # of another process, in another folder
    write_status(Path("s/0"), "done")
    Path("s/0/config.yaml").write_text("{}")
    Path("s/0/history.csv").write_text("epoch,val_loss\n1,0.5\n2,0.25\n3,0.75\n")
    write_status(Path("s/1"), "failed", "it failed")
    assert study.cut_short(opened_study, space, jobs) == []
    states = [trial.state.name for trial in opened_study.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "RUNNING"] and other.number == 3
    assert opened_study.trials[0].value == 0.25


@pytest.mark.filterwarnings("error")
def test_batches_failures_and_values_that_are_none(workplace):
    """Jobs are launched n_jobs at a time; a job without a value, or with NaN, is a failed trial."""
    opened_study = study.open_study("x", "s/study.journal", {}, "val_auc")
    sizes, values = [], iter([0.5, None, float("nan"), 0.75, 0.25])

    def launch(lines):
        sizes.append(len(lines))
        assert [line[-1] for line in lines] == [
            f"hydra.sweep.subdir='{n}'" for n in range(sum(sizes) - len(lines), sum(sizes))
        ]
        return [next(values) for _ in lines]

    jobs = study.Jobs(
        Path("s"), lambda words, n: study.Placed(Path(f"s/{n}"), {}), launch, "val_auc"
    )
    space = space_of("lr=interval(0.1,1)", "n=1,2")
    study.search(opened_study, space, jobs, n_trials=5, n_jobs=2)
    assert sizes == [2, 2, 1]
    states = [trial.state.name for trial in opened_study.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    study.write_results(opened_study, Path("s"))
    assert yaml.safe_load(Path("s/optimization_results.yaml").read_text())["best_value"] == 0.75

    def broken(lines):
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        study.search(opened_study, space, replace(jobs, launch=broken), n_trials=3, n_jobs=3)
    assert [trial.state.name for trial in opened_study.trials[5:]] == ["FAIL"] * 3


def test_draws_follow_the_seed_and_the_trials_before(workplace):
    space, drawn = space_of("lr=interval(0,1)"), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        jobs = study.Jobs(Path("s"), place, lambda lines: [0.5], "val_loss")
        opened_study = study.open_study(name, "all.journal", {}, "val_loss")
        for _ in range(2):  # calls
            opened_study.sampler = optuna.samplers.RandomSampler(
                seed=study.seed_of(opened_study, seed)
            )
            study.search(opened_study, space, jobs, n_trials=1, n_jobs=1)
        drawn.append([trial.params["lr"] for trial in opened_study.trials])
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0][0] != drawn[0][1]


@pytest.mark.slow
def test_jobs_of_a_batch_run_side_by_side(fresh_workers, medexp):
    words = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2")
    both = search(medexp, *words, "hydra.sweeper.n_trials=2")
    assert [trial.value for trial in both] == [best(0), best(1)]


def test_jobs_that_fail_are_failed_trials(medexp):
    left = search(medexp, "hydra.sweeper.n_trials=2", "+model.rate=7", code=1)
    assert [trial.state.name for trial in left] == ["FAIL", "FAIL"]
    assert "No trial was completed" in medexp.out and "2 of 2 jobs failed" in medexp.err
    assert not Path("s/optimization_results.yaml").exists()


def test_l2_of_both_stages_by_a_monitor_in_a_database(medexp):
    words = ("model=native3", "dataset.size=96", "tune=tpe_l2", "hydra.sweeper.n_trials=1",
             "trainer.monitor=val_loss", "trainer.batch_size=8,16", "hydra.sweep.dir=s",
             "hydra.sweeper.storage=sqlite:///deep/all.sqlite",
             "hydra.sweeper.study_name=a")  # fmt: skip
    assert medexp("train", *TOY, *words) == 0, medexp.err
    (path,) = Path("s").glob("0-*")
    stages = yaml.safe_load((path / "config.yaml").read_text())["model"]["stages"]
    assert 1e-7 <= stages["features"]["l2"] == stages["head"]["l2"] <= 0.01
    mine = optuna.load_study(study_name="a", storage="sqlite:///deep/all.sqlite")
    assert mine.direction.name == "MINIMIZE" and not Path("s/study.journal").exists()
    assert mine.best_value == best(path, "val_loss")
    assert mine.best_params["trainer.batch_size"] in ("8", "16")


def test_without_optuna_the_remedy_is_named(medexp, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert medexp("train", *TOY, "tune=tpe") == 2
    assert 'pip install "medexp[tune]"' in medexp.err
    assert not Path("outputs/sweeps").exists()
