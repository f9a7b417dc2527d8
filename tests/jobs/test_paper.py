"""The runs behind a paper's table: planned, taken, resumed, made again."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from medexp.config.compose import compose
from medexp.config.line import read_line
from medexp.config.paper import parse_paper
from medexp.config.settings import decisive
from medexp.config.tree import plain
from medexp.errors import ConfigError
from medexp.jobs import paper as reproduce
from tests.conftest import MINE, read

NODE = {
    "title": "Toys",
    "citation": "Toy et al.",
    "table": "Table 1",
    "dataset": "toy",
    "epochs": 10,
    "budget": "full",
    "only": [],
    "row": None,
    "base": {"dataset": "toy", "trainer.epochs": 3, "trainer.resamples": 20},
    "before": {
        "warm": {
            "run": {"dataset": "toy", "model": "toynet", "trainer.epochs": 1},
            "budgets": {"smoke": {"dataset.n": 24}},
        }
    },
    "budgets": {"smoke": {"trainer.epochs": 1, "dataset.n": 16}},
    "columns": [{"name": "Accuracy", "metric": "accuracy", "digits": 2}],
    "rows": [
        {"label": "small", "run": {"model": "toynet", "model.width": 4}},
        {"label": "warm one", "run": {"model": "toynet", "init_from": "warm"}},
        {"label": "swept", "run": {"model": "toynet", "model.width": "4,8"}},
    ],
}
ROOT = Path("here")


def planned(user=None, node=NODE, **choices):
    choices = {"root": ROOT, "budget": "full", **choices}
    return reproduce.plan(parse_paper(node), user or {}, **choices)


def test_a_row_is_a_job_and_a_list_of_values_several():
    jobs = planned()
    assert [(job.row, job.folder, job.before) for job in jobs] == [
        ("warm", "before-warm", True),
        ("small", "small", False),
        ("warm one", "warm-one", False),
        ("swept", "swept-model.width=8", False),  # width 4 is the job of "small"
    ]
    assert jobs[1].overrides() == [
        "dataset=toy", "trainer.epochs=3", "trainer.resamples=20", "model=toynet",
        "model.width=4", "++paper.row='small'", "hydra.sweep.subdir='small'",
    ]  # fmt: skip
    assert jobs[2].settings["init_from"] == "'here/before-warm'"
    assert jobs[0].settings == {"dataset": "toy", "model": "toynet", "trainer.epochs": "1"}
    assert "++paper.row='before: warm'" in jobs[0].overrides()


def test_a_budget_is_laid_over_the_rows_and_the_user_over_the_budget():
    jobs = planned({"trainer.epochs": ["7"]}, budget="smoke")
    assert {job.settings["trainer.epochs"] for job in jobs} == {"7"}
    assert [job.settings["dataset.n"] for job in jobs] == ["24", "16", "16", "16"]
    assert {job.settings["trainer.epochs"] for job in planned(budget="smoke")} == {"1"}


def test_seeds_are_crossed_with_the_rows_and_their_starts():
    jobs = planned({"seed": ["0", "1"]}, only=["warm one"])
    assert [(job.folder, job.settings["seed"]) for job in jobs] == [
        ("before-warm-seed=0", "0"), ("before-warm-seed=1", "1"),
        ("warm-one-seed=0", "0"), ("warm-one-seed=1", "1"),
    ]  # fmt: skip
    assert jobs[3].settings["init_from"] == "'here/before-warm-seed=1'"
    (only,) = planned({"seed": ["3"]}, only=["small"])  # so that more seeds join it later
    assert only.folder == "small-seed=3"


def test_rows_of_one_group_share_a_job():
    rows = [
        {"label": f"M1 {c}", "group": "M1", "class": c, "run": {"model": "toynet"}} for c in "ab"
    ]
    for only in ([], ["M1 b"], ["M1"]):
        assert [job.row for job in planned(node=NODE | {"rows": rows}, only=only)] == ["M1"]


@pytest.mark.parametrize(
    ("user", "choices", "message"),
    [
        ({}, {"budget": "tiny"}, r"paper\.budget=tiny: no such choice.*full, quick, smoke"),
        ({}, {"only": ["smal"]}, r"paper\.only=smal: no such row of Table 1. Did you mean 'small'"),
        ({"model": ["x"]}, {}, r"model: the rows of Table 1 set it.*paper\.only=\['small', "),
        ({}, {"node": NODE | {"rows": [{"label": "a"}]}}, r"Table 1 of Toys names no runs"),
        (
            {},
            {"node": NODE | {"rows": [{"label": f"a{s}", "run": {"seed": s}} for s in "?!"]}},
            r"rows 'a\?' and 'a!' of Table 1 would lie in one folder, a\.",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(user, choices, message):
    with pytest.raises(ConfigError, match=message):
        planned(user, **choices)


def test_values_are_spelled_as_the_command_line_takes_them():
    texts = [None, True, 1e-5, [8, 32, [1, None]], "a=b"]
    spelled = ["null", "true", "1e-05", "[8,32,[1,null]]", "a=b"]
    assert [reproduce.value_text(text) for text in texts] == spelled
    assert reproduce.quoted("#1's \\") == r"'#1\'s \\'"
    assert reproduce.slug("#1, BatchNorm (all)") == "1-BatchNorm-all"


def test_a_table_is_found_again_in_its_folder():
    line = read_line(
        ["-m", "paper=toys", "paper.budget=smoke", "seed=0,1", "+dataset.n=8", "source=phantom",
         "trainer.device=cpu", "trainer.threads=1", "model.shape=[1,2]", "hydra.verbose=true"]
    )  # fmt: skip
    user = reproduce.values_of(line)
    assert user["seed"] == ["0", "1"] and user["model.shape"] == ["[1,2]"]
    found = reproduce.folder_of("toys", line)
    assert found == "outputs/papers/toys-smoke-phantom-dataset.n=8-model.shape=-1-2"
    long = [f"key{i}=value" for i in range(40)]
    names = {reproduce.folder_of("toys", read_line([*long, f"x={i}"])) for i in (1, 2)}
    assert len(names) == 2 and all(len(name) < 80 for name in names)


def test_how_a_run_stands(tmp_path):
    settings = {
        "seed": 0,
        "resume": None,
        "trainer": {"epochs": 3, "threads": 2},
        "paper": {"a": 1},
    }
    facts = decisive(settings)
    assert facts == {"seed": 0, "trainer.epochs": 3}
    run = tmp_path / "run"

    def state(**status):
        (run / "status.json").write_text(json.dumps(status))
        return reproduce.state_of(run, facts)

    assert reproduce.state_of(run, facts) == "missing"
    run.mkdir()
    assert state(state="running", host=os.uname().nodename, pid=2**22 + 1) == "failed"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert state(state="done") == "done"
    assert state(state="failed", reason="Interrupted in epoch 1") == "failed"  # and nothing saved
    (run / "first/checkpoints").mkdir(parents=True)
    (run / "first/checkpoints/last.pt").touch()
    assert state(state="failed", reason="Interrupted in epoch 1") == "resume"
    assert state(state="failed", reason="The loss is nan") == "failed"
    dead = subprocess.Popen(["true"])
    dead.wait()
    assert state(state="running", host=os.uname().nodename, pid=dead.pid) == "resume"
    assert state(state="running", host=os.uname().nodename, pid=os.getppid()) == "running"
    assert state(state="running", host="elsewhere", pid=1) == "running"
    facts["trainer.epochs"] = 4
    assert state(state="done") == "other"
    assert reproduce.set_aside(run) == tmp_path / ".earlier/run-1"
    run.mkdir()
    assert reproduce.set_aside(run) == tmp_path / ".earlier/run-2"


@pytest.fixture
def table(medexp, workplace):
    """`medexp train -m paper=toys` of a paper YAML of a user's own."""
    own = workplace / "own"
    for name in ("dataset", "model", "toy.py"):
        own.mkdir(exist_ok=True)
        (own / name).symlink_to(MINE / name)

    def train(*overrides, node=NODE):
        (own / "paper").mkdir(exist_ok=True)
        (own / "paper/toys.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
        return medexp("train", "-m", "--config-dir", own, "paper=toys", *overrides)

    return train


def test_one_command_makes_a_table_and_makes_what_is_missing(table, medexp):
    rows = [NODE["rows"][1], {"label": "broken", "run": {"model": "toynet", "model.width": 0}}]
    node = NODE | {"rows": rows}
    assert table("paper.budget=smoke", node=node) == 1
    folder = Path("outputs/papers/toys-smoke-disk")
    assert medexp.out.rstrip().count(str(folder)) >= 1
    done, broken, before = folder / "warm-one", folder / "broken", folder / "before-warm"
    metrics = read(done / "metrics.json")
    assert metrics["marks"]["PARTIAL"] == "1 of 10 epochs; budget smoke (trainer.epochs=1, " \
        "dataset.n=16)"  # fmt: skip
    assert f"Weights from {before}/checkpoints/best.pt" in medexp.err
    assert read(broken / "status.json")["state"] == "failed"
    written = [(path, path.stat().st_mtime_ns) for path in (done, before)]
    assert table("paper.budget=smoke", node=node) == 1
    assert [(path, path.stat().st_mtime_ns) for path, _ in written] == written
    assert f"{done}: done, taken" in medexp.out
    assert "broken: it failed, made again; the earlier one is" in medexp.out
    assert (folder / ".earlier/broken-1/status.json").is_file()
    # A paper that was changed makes its runs again.
    node = node | {"budgets": {"smoke": {"trainer.epochs": 2}}}
    assert table("paper.budget=smoke", "paper.only=['warm one']", node=node) == 1  # broken is there
    assert "warm-one: its settings are others, made again" in medexp.out
    assert read(done / "metrics.json")["epochs"] == 2


def test_a_killed_row_goes_on(table, medexp):
    assert table("paper.only=[small]", "dataset.n=20", "seed=1") == 0
    folder = Path("outputs/papers/toys-full-disk-dataset.n=20/small-seed=1")
    history = (folder / "history.csv").read_text().split("\n")
    status = read(folder / "status.json")
    (folder / "status.json").write_text(json.dumps(status | {"state": "running", "pid": 2**22 + 1}))
    (folder / "metrics.json").unlink()
    assert table("paper.only=[small]", "dataset.n=20", "seed=1,2") == 0
    assert (folder.parent / "small-seed=2/metrics.json").is_file()
    assert "Resumed at epoch 4" in medexp.err
    assert read(folder / "metrics.json")["epochs"] == 3
    assert (folder / "history.csv").read_text().split("\n") == history


def test_what_does_not_go_with_a_table_is_refused(table, medexp):
    assert table("tune=tpe") == 2
    assert "tune: a sweep of its own, and paper=toys is one" in medexp.err
    assert medexp("train", "paper=pcam", "paper.budget=smoke") == 2
    assert "paper.budget: of the rows of a table. Add -m" in medexp.err
    assert medexp("train", "-m", "paper=pcam,ldct") == 2
    assert "one table at a time" in medexp.err
    for several in ([], ["-m"]):
        assert medexp("train", *several, "paper=pcam_tabel4") == 2
        assert "paper=pcam_tabel4: no such option. Did you mean 'pcam_table4'?" in medexp.err
    assert table("paper.budget=tiny") == 2
    assert "paper.budget=tiny: no such choice" in medexp.err


def test_a_run_from_before_a_key_came_is_still_that_run(tmp_path):
    settings = plain(compose(["recipe=ldct", "model=ldct_m4"]))
    facts = decisive(settings)
    older = settings | {"trainer": {k: v for k, v in settings["trainer"].items() if k != "ema"}}
    (tmp_path / "status.json").write_text(json.dumps({"state": "done"}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    assert reproduce.state_of(tmp_path, facts) == "done"
    assert reproduce.state_of(tmp_path, facts | {"trainer.ema": 0.9}) == "other"


def test_a_run_of_another_table_with_the_same_settings_is_taken(table, medexp, workplace):
    assert table("paper.only=[small]", "trainer.epochs=1", "hydra.sweep.dir=out/one") == 0
    twin = Path("out/one/small")
    other = NODE | {"table": "Table 2", "rows": [{**NODE["rows"][0], "label": "thin"}]}
    assert table("trainer.epochs=1", "hydra.sweep.dir=out/two", node=other) == 0, medexp.err
    run = Path("out/two/thin")
    assert f"{run}: taken from {twin}, which has the same settings" in medexp.out
    assert "Table 2" in medexp.out and "thin" in medexp.out and "not run" not in medexp.out
    assert (run / "metrics.json").read_bytes() == (twin / "metrics.json").read_bytes()
    assert read(run / "provenance.json")["taken_from"] == str(twin)
    assert yaml.safe_load((run / "config.yaml").read_text())["paper"]["row"] == "thin"
    assert "thin" in (run / "table.md").read_text()
    assert medexp("eval", "--config-dir", workplace / "own", f"run={run}") == 0
    again = read(next((run / "eval").glob("*/metrics.json")))
    assert again["test"] == read(run / "metrics.json")["test"]
    # What the marks are made of differs: not taken.
    config = reproduce.read_config(twin)
    found = [
        reproduce.find_twin(Path("out/three"), decisive(config), paper)
        for paper in (config["paper"], config["paper"] | {"epochs": 7})
    ]
    assert found == [twin, None]
