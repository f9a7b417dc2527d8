"""A run stands for a row of a paper only if it is the row's run, key by key."""

from pathlib import Path

import pytest

from medexp.config.compose import compose
from medexp.config.groups import options
from medexp.config.paper import BEFORE, parse_paper
from medexp.jobs.deviations import SHOWN, deviations, reason_of
from medexp.jobs.marks import scaled_keys
from medexp.jobs.paper import Job, plan, quoted
from medexp.report.table.load import find_runs
from medexp.report.table.render import write_tables
from tests.conftest import read

OTHER = (
    "dataset=ldct model=ldct_m4 model.filters=[1,1] model.dense_units=2 optimizer=sgd "
    "optimizer.lr=0.3 loss=focal augment=cervix trainer.batch_size=256 trainer.epochs=100 "
    "dataset.split_seed=7"
)


def test_the_papers_own_call_does_not_deviate() -> None:
    assert deviations(compose(["recipe=ldct", "model=ldct_m4"])) == {}
    assert deviations(compose(["recipe=ldct", "model=ldct_m1", "trainer.epochs=200"])) == {}


def test_another_recipe_under_the_papers_names_is_told_by_its_keys() -> None:
    settings = compose(OTHER.split())
    found = deviations(settings)
    assert {
        "model.filters", "model.dense_units", "optimizer._target_", "optimizer.lr",
        "loss._target_", "augment._target_", "trainer.batch_size", "trainer.monitor",
        "dataset.split_seed",
    } <= set(found)  # fmt: skip
    assert found["dataset.split_seed"] == (42, 7)
    assert found["optimizer.lr"] == (0.001, 0.3)
    assert "trainer.epochs" not in found  # 100, as the row's
    reason = reason_of(found, settings)
    assert reason.startswith("not the run of row M4 in Table 1: dataset.split_seed=7 (42), ")
    assert reason.count("=") == SHOWN and " more" in reason


def test_a_bare_call_of_data_set_and_network_is_not_the_papers_run() -> None:
    found = deviations(compose(["dataset=ldct", "model=ldct_m4"]))
    assert found["trainer.epochs"] == (100, 20) and "trainer.monitor" in found
    pcam = deviations(compose(["dataset=pcam", "model=native3"]))
    assert "second.optimizer.lr" in pcam  # the paper trains twice


def test_what_cannot_change_a_result_is_exempt() -> None:
    same = (
        "trainer.device=cpu", "trainer.threads=3", "trainer.graphs=off", "trainer.amp=off",
        "trainer.resamples=7", "trainer.eval_batch_size=9", "trainer.cache_features=off",
        "seed=5", "dataset.root=elsewhere", "trainer.profile=true", "trainer.data=stream",
        "source=phantom", "dataset.on_error=skip",
    )  # fmt: skip
    assert deviations(compose(["recipe=ldct", "model=ldct_m4", *same])) == {}
    for change in ("trainer.ema=0.9", "trainer.patience=3", "trainer.clip_norm=1", "loss=focal"):
        found = deviations(compose(["recipe=ldct", "model=ldct_m4", change]))
        assert any(change.split("=")[0] in key for key in found), change


def test_more_or_fewer_epochs_than_the_rows_deviate() -> None:
    m1 = ["recipe=ldct", "model=ldct_m1"]
    assert deviations(compose(m1))["trainer.epochs"] == (200, 100)
    assert deviations(compose([*m1, "trainer.epochs=300"]))["trainer.epochs"] == (200, 300)


def test_a_run_of_no_table_deviates_from_none() -> None:
    assert deviations(compose(["dataset=image_folder", "model=native3"])) == {}
    assert deviations(compose(["dataset=ldct", "model=resnet50"])) == {}


def jobs_of(table: str, budget: str) -> list[Job]:
    node = compose([f"paper={table}"]).paper
    assert node is not None
    return plan(parse_paper(node), {}, root=Path("r"), budget=budget)


def deviating(table: str, job: Job, budget: str) -> dict[str, tuple[object, object]]:
    row = f"{BEFORE}{job.row}" if job.before else job.row
    words = [f"{key}={value}" for key, value in job.settings.items()]
    chosen = [f"paper={table}", f"paper.budget={budget}", f"++paper.row={quoted(row)}"]
    settings = compose([*chosen, *words])
    return deviations(settings, scaled_keys(settings.paper or {}))


@pytest.mark.parametrize("budget", ["full", "smoke"])
@pytest.mark.parametrize("table", ["ldct_table1", "tbt_table2"])
def test_a_row_made_by_its_table_does_not_deviate(table: str, budget: str) -> None:
    first, *_, last = jobs_of(table, budget)
    for job in (first, last):  # of tbt_table2 the first is the run that rows start from
        assert deviating(table, job, budget) == {}, job.row


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["full", "quick", "smoke"])
@pytest.mark.parametrize("table", options("paper", []))
def test_no_row_of_any_table_deviates_from_itself(table: str, budget: str) -> None:
    node = compose([f"paper={table}"]).paper
    assert node is not None
    paper = parse_paper(node)
    if budget == "full" or budget in paper.budgets:
        for job in jobs_of(table, budget):
            assert deviating(table, job, budget) == {}, job.row


def test_the_mark_stands_in_the_table_and_all_keys_in_the_files(medexp) -> None:
    small = ("source=phantom", "source.size=60", "dataset.size=40", "trainer.resamples=0")
    words = OTHER.replace("epochs=100", "epochs=1").replace("batch_size=256", "batch_size=16")
    assert medexp("train", *words.split(), *small, "hydra.run.dir=s/o") == 0, medexp.err
    metrics = read("s/o/metrics.json")
    assert {"PHANTOM", "PARTIAL", "DEVIATES"} == set(metrics["marks"]) - {"CONSTANT"}
    assert metrics["deviates"]["optimizer.lr"] == {"row": 0.001, "run": 0.3}
    assert "DEVIATES" in medexp.out
    write_tables(find_runs(["s"]), Path("t"))
    assert read("t/table.json")["deviations"] == {"s/o": metrics["deviates"]}
