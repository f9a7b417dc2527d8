"""Tables: what stands in them, and that no rendering loses a mark or a run."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from medexp.errors import MedexpError
from medexp.report.load import Run, find_runs, load_run
from medexp.report.paper import contradiction, parse_paper
from medexp.report.render import CSV_COLUMNS, csv_text, markdown, show, write_tables
from medexp.report.tables import MISSING, Table, tables

MakeRun = Callable[..., Path]
CONF = sorted((Path(__file__).parents[2] / "conf" / "paper").glob("*.yaml"))
MARKS = {"PHANTOM": "synthetic images", "PARTIAL": "10 of 1,000 epochs"}


def with_test(path: Path, **values: object) -> Run:
    """The run with some of its test metrics replaced by chosen numbers."""
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["test"] |= values
    (path / "metrics.json").write_text(json.dumps(metrics))
    return load_run(path)


def terminal(arranged: Sequence[Table], width: int = 80) -> str:
    text = io.StringIO()
    show(arranged, Console(file=text, width=width))
    return text.getvalue()


@pytest.fixture
def sweep(make_run: MakeRun) -> list[Run]:
    """Two native1, a failed native1_counted, a native3, a running native4 and two strangers."""
    common = ["trainer.epochs=10", "source=phantom"]
    return [
        load_run(path)
        for path in (
            make_run("s/0", marks=MARKS, overrides=[*common, "optimizer.lr=0.1"]),
            make_run("s/1", marks=MARKS, overrides=[*common, "optimizer.lr=0.01"]),
            make_run("s/2", model="native1_counted", state="failed", reason="out of\nmemory"),
            make_run("s/3", model="native3", marks=MARKS),
            make_run("s/4", model="native4", state="running"),
            make_run("s/5", model="densenet", dataset="mine", paper=False, marks=MARKS),
            make_run("s/6", model="vit", dataset="mine", classes=["a", "b", "c"], paper=False),
        )
    ]


def test_ours_beside_the_papers(make_run: MakeRun) -> None:
    run = with_test(
        make_run(),
        accuracy=0.93,
        precision_binary=0.8789,
        recall_binary=0.8557123,
        f1_binary=None,
        auc_binary=0.9651,
        ci95={"accuracy": [0.91, 0.95], "auc_binary": [0.9449, 0.98], "f1_binary": None},
    )
    (table,) = tables([run])
    assert table.header == ("Model", "Accuracy", "Precision", "Recall", "F1 score", "AUC")
    assert [row.cells for row in table.rows] == [
        ("#1 reported", "0.9286", "0.8789", "0.8557", "0.8543†", "0.97"),
        ("ours: native1", "0.9300", "0.8789", "0.8557", MISSING, "0.97"),
        ("difference", "+0.0014", "+0.0000", "+0.0000", MISSING, "+0.00"),
        ("95% interval", "[0.9100, 0.9500]", MISSING, MISSING, MISSING, "[0.94, 0.98]"),
        ("#2 reported", "0.9228", "0.8928", "0.8818", "0.880†", "0.96"),
        ("#3 reported", "0.9247", "0.9224", "0.9213", "0.9212†", "0.98"),
        ("#4 reported", "0.9039", "0.8918", "0.8917", "0.8918", "0.96"),
    ]
    notes = "\n".join(table.footnotes)
    assert "No run here of #2, #3, #4." in notes
    assert "1,000 epochs" in notes
    assert "names no averaging" in notes
    assert "assumption: native1 pools by 2x2" in notes
    assert "must not be read" not in notes


def test_the_contradicting_f1_is_worked_out(make_run: MakeRun) -> None:
    (table,) = tables([load_run(make_run())])
    assert any(
        "2·P·R/(P+R) = 2·0.8789·0.8557/(0.8789+0.8557) = 0.8671." in note
        for note in table.footnotes
    )


@pytest.mark.parametrize(
    ("precision", "recall", "f1", "contradicts"),
    [
        ("0.8918", "0.8917", "0.8918", False),  # .89175 rounds either way
        ("0.80", "0.80", "0.8", False),
        ("0.9", "0.8", "0.85", False),  # .847, and the one-digit inputs span .04
        ("0.90", "0.80", "0.88", True),
        ("0.9224", "0.9213", "0.9212", True),  # below both of what it is a mean of
        ("0.8928", "0.8818", "0.880", True),
        ("0.8928", "0.8818", "0.887", False),
    ],
)
def test_a_contradiction_is_one_beyond_rounding(
    precision: str, recall: str, f1: str, contradicts: bool
) -> None:
    node = yaml.safe_load(CONF[0].read_text(encoding="utf-8"))
    node["rows"] = [
        {
            "label": "x",
            "models": ["x"],
            "reported": {"Precision": precision, "Recall": recall, "F1 score": f1},
        }
    ]
    paper = parse_paper(node)
    assert (contradiction(paper, paper.rows[0]) is not None) == contradicts
    node["columns"][3]["metric"] = "f1_macro"
    assert contradiction(parse_paper(node), paper.rows[0]) is None


def test_every_papers_table_parses() -> None:
    assert CONF
    for path in CONF:
        paper = parse_paper(yaml.safe_load(path.read_text(encoding="utf-8")))
        names = {column.name for column in paper.columns}
        for row in paper.rows:
            assert row.models
            assert set(row.reported) <= names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": None}, "the key 'columns' is missing"),
        ({"rows": [{"label": "x", "models": [], "reported": {"Speed": 1}}]}, "reports 'Speed'"),
        ({"rows": [{"label": "x", "models": [], "reported": {"AUC": "?"}}]}, "which is no number"),
    ],
)
def test_a_broken_paper_is_refused_by_key(change: dict[str, object], message: str) -> None:
    node = yaml.safe_load(CONF[0].read_text(encoding="utf-8")) | change
    node = {key: value for key, value in node.items() if value is not None}
    with pytest.raises(MedexpError, match=message):
        parse_paper(node)


def test_rows_are_named_by_what_differs(sweep: list[Run]) -> None:
    labels = [row.cells[0] for row in tables(sweep)[0].rows if row.kind == "ours"]
    assert labels == [
        "ours: native1 optimizer.lr=0.1 PHANTOM PARTIAL",
        "ours: native1 optimizer.lr=0.01 PHANTOM PARTIAL",
        "ours: native1_counted failed",
        "ours: native3 PHANTOM PARTIAL",
        "ours: native4 running",
    ]


def test_runs_that_nothing_tells_apart_are_named_by_folder(make_run: MakeRun) -> None:
    runs = [load_run(make_run(name)) for name in ("x/0", "x/1")]
    labels = [row.cells[0] for row in tables(runs)[0].rows if row.kind == "ours"]
    assert labels == ["ours: native1 x/0", "ours: native1 x/1"]


def test_runs_without_a_paper_get_a_plain_table(sweep: list[Run]) -> None:
    plain = tables(sweep)[1]
    assert plain.header == ("Model", "Accuracy", "AUC", "F1", "Precision", "Recall")
    labels = [row.cells[0] for row in plain.rows]
    assert labels == [
        "densenet on mine PHANTOM PARTIAL",
        "95% interval",
        "vit on mine",
        "95% interval",
    ]
    assert "PHANTOM (some rows)" in plain.title
    macro = (sweep[6].metrics or {})["test"]["f1_macro"]
    assert plain.rows[2].cells[3] == f"{macro:.4f}"


@pytest.mark.parametrize("options", [{"model": "resnet"}, {"dataset": "mine"}])
def test_a_run_that_the_paper_does_not_list_is_not_compared(
    make_run: MakeRun, options: dict[str, str]
) -> None:
    (table,) = tables([load_run(make_run(**options))])
    assert "reported" not in {row.kind for row in table.rows}


def test_marks_stand_in_every_rendering(sweep: list[Run], tmp_path: Path) -> None:
    marked = [run for run in sweep if run.marks and run.dataset == "pcam"]
    (table,) = tables(marked)
    page, data = write_tables(marked, tmp_path / "out")
    assert table.title.endswith("Table 4 · PHANTOM · PARTIAL")
    for text in (terminal([table]), page.read_text()):
        flat = " ".join(text.split())
        assert "PHANTOM: synthetic images" in flat
        assert "PARTIAL: 10 of 1,000 epochs" in flat
        assert "must not be read as a comparison" in flat
    ours = [line for line in page.read_text().splitlines() if line.startswith("| ours")]
    assert len(ours) == 3
    assert all("PHANTOM PARTIAL" in line for line in ours)
    rows = list(csv.DictReader(data.read_text().splitlines()))
    assert rows
    assert {row["marks"] for row in rows} == {"PHANTOM;PARTIAL"}


def test_failed_and_running_runs_are_shown_with_their_reason(sweep: list[Run]) -> None:
    table = tables(sweep)[0]
    for text in (terminal([table], 120), markdown(table).replace("\\_", "_")):
        assert "native1_counted failed: out of memory" in text
        assert "native4 running" in text
    rows = list(csv.DictReader(csv_text(sweep).splitlines()))
    failed = [row for row in rows if row["state"] == "failed"]
    assert [row["model"] for row in failed] == ["native1_counted"]
    assert failed[0]["metric"] == failed[0]["ours"] == ""


def test_the_terminal_table_fits_80_columns(sweep: list[Run]) -> None:
    text = terminal(tables(sweep))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for run in sweep:
        value = (run.metrics or {}).get("test", {}).get("accuracy")
        assert value is None or f"{value:.4f}" in flat
    assert "…" not in text


def test_a_wide_terminal_keeps_intervals_on_one_line(sweep: list[Run]) -> None:
    line = next(li for li in terminal(tables(sweep), 160).splitlines() if "95% interval" in li)
    assert line.count("[") == line.count("]") == 5


def test_brackets_and_bars_survive(make_run: MakeRun) -> None:
    runs = [
        load_run(make_run("0", overrides=["model.widths=[a,b]"])),
        load_run(make_run("1", overrides=["x='a|b'"])),
    ]
    assert "model.widths=[a,b]" in terminal(tables(runs), 160)
    assert "x='a\\|b'" in markdown(tables(runs)[0])


def test_csv_is_exact_and_long(make_run: MakeRun) -> None:
    run = load_run(make_run())
    rows = list(csv.DictReader(csv_text([run]).splitlines()))
    assert tuple(rows[0]) == CSV_COLUMNS
    test = (run.metrics or {})["test"]
    by_metric = {row["metric"]: row for row in rows}
    assert set(by_metric) == set(test["ci95"])
    for metric, row in by_metric.items():
        assert float(row["ours"]) == test[metric]
        assert [float(row["ci_low"]), float(row["ci_high"])] == test["ci95"][metric]
    accuracy = by_metric["accuracy"]
    assert accuracy["reported"] == "0.9286"
    assert float(accuracy["difference"]) == test["accuracy"] - 0.9286
    assert by_metric["kappa"]["reported"] == by_metric["kappa"]["difference"] == ""


def test_markdown_golden(make_run: MakeRun) -> None:
    run = with_test(
        make_run(paper=False, model="net", dataset="mine", marks={"PHANTOM": "synthetic"}),
        accuracy=0.5,
        auc_binary=0.75,
        f1_binary=0.25,
        precision_binary=1.0,
        recall_binary=None,
        ci95={"accuracy": [0.4, 0.6]},
        ci_method="percentile bootstrap",
    )
    assert markdown(tables([run])[0]) == (
        "## Results on the test split · PHANTOM\n"
        "\n"
        "| Model | Accuracy | AUC | F1 | Precision | Recall |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| net on mine PHANTOM | 0.5000 | 0.7500 | 0.2500 | 1.0000 | — |\n"
        "| 95% interval | [0.4000, 0.6000] | — | — | — | — |\n"
        "\n"
        "- PHANTOM: synthetic\n"
        "- AUC, F1, precision and recall: of the second class where there are two, else the mean"
        " over the classes (AUC one-vs-rest).\n"
        "- 95% interval: percentile bootstrap.\n"
        "- assumption: native1 pools by 2x2\n"
    )


def test_find_runs_feeds_tables(sweep: list[Run]) -> None:
    assert len(find_runs([sweep[0].path.parent])) == len(sweep)
