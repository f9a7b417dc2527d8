"""Tables: what stands in them, and that no rendering loses a mark or a run."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy import stats

from medexp.config.paper import contradiction, parse_paper
from medexp.errors import MedexpError
from medexp.report.table.lines import lines
from medexp.report.table.load import Run, find_runs, load_run
from medexp.report.table.render import csv_text, markdown, show, write_tables
from medexp.report.table.tables import MISSING, Row, Table, tables
from tests.report.conftest import PAPER

MakeRun = Callable[..., Path]
MARKS = {"PHANTOM": "synthetic images", "PARTIAL": "10 of 1,000 epochs"}


def with_test(path: Path, **values: object) -> Run:
    """The run with some of its test metrics replaced by chosen numbers."""
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["test"] |= values
    (path / "metrics.json").write_text(json.dumps(metrics))
    return load_run(path)


def placed(path: Path, row: str | None = None, **changes: Any) -> Run:
    """The run as the row of a paper that is changed so; in a seed's run `seed` is changed too."""
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["seed"] = changes.pop("seed", 0)
    config["paper"] |= {"row": row, **changes}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return load_run(path)


def by_row(table: Table) -> dict[str, tuple[Row, ...]]:
    """Label of the paper's row -> its lines."""
    return {group[0].cells[0].removesuffix(" reported"): group for group in table.groups}


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


def ours_of(table: Table, label: str) -> Row:
    """The first line of ours in a row of the paper."""
    return next(row for row in by_row(table)[label] if row.kind == "ours")


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
    absent = ("ours: not run", *[MISSING] * 5)
    assert table.header == ("Model", "Accuracy", "Precision", "Recall", "F1 score", "AUC")
    assert [row.cells for row in table.rows] == [
        ("#1 reported", "0.9286", "0.8789", "0.8557", "0.8543†", "0.97"),
        ("by its images", "[0.9258, 0.9314]", *[MISSING] * 4),
        ("ours: native1", "0.9300", "0.8789", "0.8557", MISSING, "0.97"),
        ("difference", "+0.0014", "+0.0000", "+0.0000", MISSING, "+0.00"),
        ("95% interval", "[0.9100, 0.9500]", MISSING, MISSING, MISSING, "[0.94, 0.98]"),
        ("verdict", "within", "no CI", "no CI", MISSING, "within"),
        ("#2 reported", "0.9228", "0.8928", "0.8818", "0.880†", "0.96"),
        ("by its images", "[0.9199, 0.9257]", *[MISSING] * 4),
        absent,
        ("#3 reported", "0.9247", "0.9224", "0.9213", "0.9212†", "0.98"),
        ("by its images", "[0.9218, 0.9275]", *[MISSING] * 4),
        absent,
        ("#4 reported", "0.9039", "0.8918", "0.8917", "0.8918", "0.96"),
        ("by its images", "[0.9007, 0.9071]", *[MISSING] * 4),
        absent,
    ]
    assert table.state == "1 of 4 rows done"
    notes = "\n".join(table.footnotes)
    assert "Not run: #2, #3, #4 (" in notes
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
    node = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": None}, "the key 'title' is missing"),
        ({"rows": [{"label": "x", "models": [], "reported": {"Speed": 1}}]}, "reports 'Speed'"),
        ({"rows": [{"label": "x", "models": [], "reported": {"AUC": "?"}}]}, "which is no number"),
        (
            {"rows": [{"label": "x"}, {"label": "x"}]},
            "two rows are labelled 'x'. Give each its own",
        ),
        ({"rows": [{"lable": "x"}]}, "a row: no such key 'lable'. Did you mean 'label'"),
    ],
)
def test_a_broken_paper_is_refused_by_key(change: dict[str, object], message: str) -> None:
    node = yaml.safe_load(PAPER.read_text(encoding="utf-8")) | change
    node = {key: value for key, value in node.items() if value is not None}
    with pytest.raises(MedexpError, match=message):
        parse_paper(node)


def test_rows_are_named_by_what_differs(sweep: list[Run]) -> None:
    labels = [row.cells[0] for row in tables(sweep)[0].rows if row.kind == "ours"]
    assert labels == [
        "ours: native1 optimizer.lr=0.1 PHANTOM PARTIAL",
        "ours: native1 optimizer.lr=0.01 PHANTOM PARTIAL",
        "ours: native1_counted failed",
        "ours: not run",
        "ours: native3 PHANTOM PARTIAL",
        "ours: native4 running",
    ]


def test_runs_that_nothing_tells_apart_are_named_by_folder(make_run: MakeRun) -> None:
    runs = [load_run(make_run(name)) for name in ("x/0", "x/1")]
    labels = [row.cells[0] for row in by_row(tables(runs)[0])["#1"] if row.kind == "ours"]
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
    page, data, *_ = write_tables(marked, tmp_path / "out")
    assert table.title.endswith("Table 4 · PHANTOM · PARTIAL")
    for text in (terminal([table]), page.read_text()):
        flat = " ".join(text.split())
        assert "PHANTOM: synthetic images" in flat
        assert "PARTIAL: 10 of 1,000 epochs" in flat
        assert "must not be read as a comparison" in flat
    ours = [line for line in page.read_text().splitlines() if line.startswith("| ours: native")]
    assert len(ours) == 3
    assert all("PHANTOM PARTIAL" in line for line in ours)
    rows = list(csv.DictReader(data.read_text().splitlines()))
    assert {row["marks"] for row in rows if row["run"]} == {"PHANTOM;PARTIAL"}


def test_failed_and_running_runs_are_shown_with_their_reason(sweep: list[Run]) -> None:
    table = tables(sweep)[0]
    for text in (terminal([table], 120), markdown(table).replace("\\_", "_")):
        assert "native1_counted failed: out of memory" in text
        assert "native4 running" in text
    rows = list(csv.DictReader(csv_text(lines(sweep)).splitlines()))
    failed = [row for row in rows if row["state"] == "failed"]
    assert [(row["model"], row["row"]) for row in failed] == [("native1_counted", "#1")]
    assert failed[0]["metric"] == failed[0]["ours"] == ""
    absent = [row for row in rows if row["state"] == "not run"]
    assert [(row["run"], row["row"], row["ours"]) for row in absent] == [("", "#2", "")]


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


# ---------------------------------------------------------------- the rows that a run names

RATES = [
    {"name": "Precision", "metric": "per_class.{class}.precision", "digits": 2},
    {"name": "Recall %", "metric": "per_class.{class}.recall", "digits": 1, "scale": 100},
]
CLASSES = [
    {"label": "M1 normal", "group": "M1", "class": "normal"},
    {"label": "M1 tumour", "group": "M1", "class": "tumour"},
    {"label": "M2", "class": "tumour", "reported": {"Precision": "0.77"}},
]


def test_a_run_stands_in_all_rows_of_its_key(make_run: MakeRun) -> None:
    # Its model is listed by no row: the key alone decides.
    run = placed(make_run(model="any"), "M1", columns=RATES, rows=CLASSES)
    (table,) = tables([run])
    rows = by_row(table)
    per_class = (run.metrics or {})["test"]["per_class"]
    for label, name in (("M1 normal", "normal"), ("M1 tumour", "tumour")):
        ours = rows[label][1]
        precision, recall = (per_class[name][rate] for rate in ("precision", "recall"))
        assert ours.cells == ("ours: any", f"{precision:.2f}", f"{100 * recall:.1f}")
        assert ours.values[1].ours == pytest.approx(100 * recall)
        low, high = (run.metrics or {})["test"]["ci95"][f"per_class.{name}.recall"]
        assert rows[label][2].cells[2] == f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert rows["M2"][1].cells == ("ours: not run", MISSING, MISSING)
    assert rows["M2"][1].state == "not run"
    assert [cell.reported for cell in rows["M2"][1].values] == ["0.77", None]
    assert table.state == "2 of 3 rows done"


def test_a_mean_is_scaled_with_its_deviation_and_interval(make_run: MakeRun) -> None:
    runs = [
        placed(make_run(f"{seed}", n=40 + 20 * seed), "M1", columns=RATES, rows=CLASSES, seed=seed)
        for seed in range(3)
    ]
    recalls = [(run.metrics or {})["test"]["per_class"]["tumour"]["recall"] for run in runs]
    percent = 100 * np.array(recalls)
    *_, member, mean, interval = by_row(tables(runs)[0])["M1 tumour"]
    assert member.kind == "member"
    assert mean.cells[2] == f"{percent.mean():.1f} ({percent.std(ddof=1):.1f})"
    low, high = stats.t.interval(0.95, 2, percent.mean(), stats.sem(percent))
    assert interval.cells[2] == f"[{low:.1f}, {high:.1f}]"


def test_a_class_that_the_run_does_not_know_is_missing_and_said(make_run: MakeRun) -> None:
    rows = [{"label": "x", "class": "Type_1", "reported": {"Precision": "0.5"}}]
    (table,) = tables([placed(make_run(), "x", columns=RATES, rows=rows)])
    assert by_row(table)["x"][1].cells == ("ours: native1", MISSING, MISSING)
    assert "x: native1: no class Type_1; its classes are normal, tumour." in table.footnotes


def test_a_row_may_be_a_quantity_of_the_classes(make_run: MakeRun) -> None:
    columns = [
        {"name": name, "metric": f"per_class.{name}.{{class}}", "digits": 3}
        for name in ("normal", "tumour", "other")
    ]
    rows = [
        {"label": "predicted", "class": "mean_probability", "group": "x"},
        {"label": "actual", "class": "share", "group": "x"},
    ]
    run = placed(make_run(), "x", columns=columns, rows=rows)
    (table,) = tables([run])
    for label, rate in (("predicted", "mean_probability"), ("actual", "share")):
        per_class = (run.metrics or {})["test"]["per_class"]
        shown = [f"{per_class[name][rate]:.3f}" for name in ("normal", "tumour")]
        assert by_row(table)[label][1].cells[1:] == (*shown, MISSING)
    (note,) = (note for note in table.footnotes if "no class" in note)
    assert note == "x: native1: no class other; its classes are normal, tumour."


def test_a_column_may_be_of_the_validation_split_or_of_nothing(make_run: MakeRun) -> None:
    columns = [
        {"name": "Val loss", "metric": "log_loss", "digits": 3, "split": "val"},
        {"name": "Test loss", "metric": "log_loss", "digits": 3},
        {"name": "Seconds", "metric": None, "digits": 0},
    ]
    rows = [{"label": "x", "reported": {"Val loss": "0.5", "Test loss": "0.5", "Seconds": "9"}}]
    run = placed(make_run(), "x", columns=columns, rows=rows)
    (table,) = tables([run])
    metrics = run.metrics or {}
    val, test = (metrics[split]["log_loss"] for split in ("val", "test"))
    assert val != test
    _, ours, difference, _, verdict = by_row(table)["x"]
    assert ours.cells[1:] == (f"{val:.3f}", f"{test:.3f}", MISSING)
    assert difference.cells[1:] == (f"{val - 0.5:+.3f}", f"{test - 0.5:+.3f}", MISSING)
    assert verdict.cells[3] == MISSING


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [("of which class?", "unclear column"), ("other split: theirs is hidden", "other split")],
)
def test_a_column_in_doubt_is_marked_and_not_compared(
    make_run: MakeRun, doubt: str, reason: str
) -> None:
    columns = [{"name": "AUC", "metric": "auc_binary", "digits": 2, "doubt": doubt}]
    rows = [{"label": "x", "reported": {"AUC": "0.9"}}]
    (table,) = tables([placed(make_run(), "x", columns=columns, rows=rows)])
    assert table.header == ("Model", "AUC‡")
    assert f"‡ AUC: {doubt}" in table.footnotes
    assert by_row(table)["x"][-1].cells == ("verdict", "n/c")
    assert f"Verdict: n/c = not comparable ({reason})." in table.footnotes


def test_what_contradicts_itself_is_not_compared(make_run: MakeRun) -> None:
    (table,) = tables([load_run(make_run())])
    verdicts = by_row(table)["#1"][-1]
    assert verdicts.cells[4] == "n/c"
    assert {*verdicts.cells[1:4], verdicts.cells[5]} == {"cannot tell"}  # 40 images
    assert ours_of(table, "#1").values[3].words == "not comparable (contradicts its row)"


@pytest.mark.parametrize("mark", ["PHANTOM", "PARTIAL", "LEAKY", "SELECTED ON TEST", "VAL SPLIT"])
def test_no_marked_run_is_compared(make_run: MakeRun, mark: str) -> None:
    (table,) = tables([load_run(make_run(marks={mark: "so"}))])
    ours = ours_of(table, "#1")
    assert ours.marks == (mark,)
    assert {cell.verdict for cell in ours.values} == {"not comparable"}
    assert all(cell.reasons[0] == mark for cell in ours.values)
    assert set(by_row(table)["#1"][-1].cells[1:]) == {"n/c"}
    assert any(mark in note for note in table.footnotes if note.startswith("Verdict: n/c"))


def test_a_fold_is_another_split_than_the_papers(make_run: MakeRun) -> None:
    path = make_run()
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | {"dataset": {"fold": 1}}))
    (table,) = tables([load_run(path)])
    assert ours_of(table, "#1").values[0].words == "not comparable (cross-validation)"


def test_a_run_that_rows_start_from_stands_in_none(make_run: MakeRun) -> None:
    changes: dict[str, Any] = {"rows": [{"label": "PT"}], "before": {"ucf": {"run": {}}}}
    before = make_run("0", dataset="ucf50", state="failed", reason="no disk")
    runs = [placed(before, "before: ucf", **changes), placed(make_run("1"), "PT", **changes)]
    (table,) = tables(runs)
    assert [row.cells[0] for row in table.rows if row.kind == "ours"] == ["ours: native1"]
    (note,) = (note for note in table.footnotes if "start" in note)
    assert note == f"Rows start from ucf: native1 on ucf50, failed: no disk ({before})"


def test_rows_that_were_not_asked_for_are_left_out(make_run: MakeRun) -> None:
    run = placed(make_run(), "#1", only=["#1", "#3"])
    (table,) = tables([run])
    assert list(by_row(table)) == ["#1", "#3"]
    assert "Rows left out: #2, #4 (paper.only)." in table.footnotes
    assert any(note.startswith("Not run: #3 (") for note in table.footnotes)
    assert table.state == "1 of 2 rows done"
    assert not any("#2: the reported F1" in note for note in table.footnotes)
    # Another call asked for a row by the key of its group, and another for all.
    rows = [{"label": "x"}, {"label": "y a", "group": "y"}, {"label": "z"}]
    (table,) = tables([placed(make_run("x"), "x", rows=rows, only=["x", "y"])])
    assert list(by_row(table)) == ["x", "y a"]
    (table,) = tables([run, placed(make_run("other"), "#4")])
    assert list(by_row(table)) == ["#1", "#2", "#3", "#4"]


def test_rows_of_one_network_are_told_apart_in_the_footnotes(make_run: MakeRun) -> None:
    changes: dict[str, Any] = {"rows": [{"label": "No PT"}, {"label": "PT"}]}
    overrides = ["model=viptt", "++paper.row='PT'", "init_from=outputs/before-ucf"]
    runs = [
        placed(make_run("0", state="failed", reason="x"), "No PT", **changes),
        placed(make_run("1", state="running", overrides=overrides), "PT", **changes),
    ]
    (table,) = tables(runs)
    ours = [row.cells[0] for row in table.rows if row.kind == "ours"]
    assert ours == ["ours: native1 failed", "ours: native1 running"]
    assert f"No PT: native1 failed: x ({runs[0].path})" in table.footnotes
    assert f"PT: native1 running ({runs[1].path})" in table.footnotes


def test_repeats_of_a_row_differ_in_their_seed_alone(make_run: MakeRun) -> None:
    runs = [
        placed(
            make_run(f"{seed}", overrides=[f"seed={seed}", f"init_from=before-seed={seed}"]),
            "#1",
            seed=seed,
        )
        for seed in range(2)
    ]
    lines = by_row(tables(runs)[0])["#1"]
    members = [row for row in lines if row.kind == "member"]
    (mean,) = (row for row in lines if row.kind == "ours")
    assert [row.cells[0] for row in members] == ["ours: native1 seed=0", "ours: native1 seed=1"]
    assert mean.cells[0] == "ours: native1, mean of 2 seeds (sd)"
    # The mean is compared, its members are not.
    assert {cell.verdict for row in members for cell in row.values} == {None}
    assert mean.values[0].verdict is not None


def test_no_run_is_lost_when_the_rows_were_renamed(make_run: MakeRun) -> None:
    runs = [
        placed(make_run("0"), "old", rows=[{"label": "old"}]),
        placed(make_run("1"), "new", rows=[{"label": "new"}]),
    ]
    assert [list(by_row(table)) for table in tables(runs)] == [["old"], ["new"]]


def test_a_figure_has_rows_and_our_usual_columns(make_run: MakeRun) -> None:
    run = placed(make_run(), "a", columns=[], rows=[{"label": "a"}, {"label": "b"}])
    (table,) = tables([run])
    assert table.header == ("Model", "Accuracy", "AUC", "F1", "Precision", "Recall")
    accuracy = (run.metrics or {})["test"]["accuracy"]
    assert by_row(table)["a"][1].cells[1] == f"{accuracy:.4f}"
    assert "verdict" not in {row.cells[0] for row in table.rows}


def test_a_run_of_another_data_set_is_not_compared_by_its_row_either(make_run: MakeRun) -> None:
    run = placed(make_run(dataset="mine"), "#1")
    assert [table.name for table in tables([run])] == ["Results on the test split"]
    rows = [{"label": "#1", "run": {"dataset": "mine"}}]
    (table,) = tables([placed(run.path, "#1", rows=rows)])
    assert ours_of(table, "#1").cells[0] == "ours: native1"


def test_find_runs_feeds_tables(sweep: list[Run]) -> None:
    assert len(find_runs([sweep[0].path.parent])) == len(sweep)


def test_runs_that_failed_alike_are_one_footnote(make_run: MakeRun, tmp_path: Path) -> None:
    reason = "pcam not found in data/pcam"
    failed = [
        load_run(make_run(f"s/{i}", model=f"native{i}", state="failed", reason=reason))
        for i in (1, 2)
    ]
    other = load_run(make_run("s/3", model="native3", state="failed", reason="The loss is nan"))
    (table,) = tables([*failed, other])
    assert f"native1, native2 failed: {reason} ({tmp_path / 's'})" in table.footnotes
    assert f"native3 failed: The loss is nan ({tmp_path / 's/3'})" in table.footnotes
