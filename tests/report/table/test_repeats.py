"""Repeats over seeds and folds: against scipy, scikit-learn and the formula on paper."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score

from medexp.report.table.lines import lines
from medexp.report.table.load import Run, load_run
from medexp.report.table.render import csv_text, markdown, show, write_tables
from medexp.report.table.repeats import find_repeats
from medexp.report.table.tables import MISSING, Table, tables
from medexp.score.intervals import mean_of
from medexp.score.metrics import score

MakeRun = Callable[..., Path]
Repeat = Callable[..., Run]
IMAGES = 60


@pytest.fixture
def repeat(make_run: MakeRun) -> Repeat:
    """A run of native1 with a seed; with a fold of four, scored on its fifteen of sixty images."""

    def make(
        name: str, seed: int = 0, fold: int | None = None, lr: float = 0.1, **options: Any
    ) -> Run:
        path = make_run(name, overrides=[f"seed={seed}", f"optimizer.lr={lr}"], **options)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config |= {"seed": seed, "dataset": {"folds": 4, "fold": fold}, "optimizer": {"lr": lr}}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        metrics = path / "metrics.json"
        if not metrics.exists():
            return load_run(path)
        rng = np.random.default_rng(100 * seed + (fold or 0))
        labels = np.arange(IMAGES) % 2
        part = np.arange(IMAGES) // 15
        tested = np.arange(IMAGES) if fold is None else np.flatnonzero(part == fold)
        p = 1 / (1 + np.exp(-rng.normal(2 * labels[tested] - 1, 2)))
        p = np.stack([1 - p, p], axis=1)
        rows = [["id", "split", "label", "p_0", "p_1"]]
        rows += [
            [f"i{i}", "test", labels[i], *map(repr, q.tolist())]
            for i, q in zip(tested, p, strict=True)
        ]
        write(path / "predictions.csv", rows)
        parts = ["test" if i in tested else "val" if i % 7 == 0 else "train" for i in range(IMAGES)]
        write(path / "split.csv", [["id", "split"], *([f"i{i}", s] for i, s in enumerate(parts))])
        content = json.loads(metrics.read_text())
        content["test"] = score(labels[tested], p, ("normal", "tumour"), resamples=40, seed=3)
        content["notes"] = ["split: at random", f"fold {fold} of 4 is the test split"]
        metrics.write_text(json.dumps(content))
        return load_run(path)

    return make


def write(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def column(runs: list[Run], metric: str) -> np.ndarray:
    return np.array([(run.metrics or {})["test"][metric] for run in runs])


def by_label(table: Table) -> dict[str, tuple[str, ...]]:
    return {row.cells[0]: row.cells[1:] for row in table.rows if row.kind in ("ours", "member")}


def terminal(table: Table, width: int = 80) -> str:
    text = io.StringIO()
    show([table], Console(file=text, width=width))
    return text.getvalue()


# ---------------------------------------------------------------- the statistics


@pytest.mark.parametrize("n", [2, 5, 30])
def test_mean_and_interval_are_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(0.8, 0.05, n)
    mean = mean_of(values.tolist())
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean.n == n
    assert mean.value == pytest.approx(values.mean())
    assert mean.sd == pytest.approx(stats.tstd(values))
    assert mean.interval == pytest.approx((oracle.low, oracle.high))


def test_the_interval_over_folds_is_nadeau_and_bengios() -> None:
    """Ten values, of which the table of t says 2.262 for 9 degrees of freedom."""
    values = [0.81, 0.79, 0.85, 0.83, 0.78, 0.80, 0.84, 0.82, 0.77, 0.86]
    mean = mean_of(values, overlap=1 / 9)  # ten folds: a tenth tested, nine trained on
    spread = math.sqrt(sum((v - 0.815) ** 2 for v in values) / 9)
    half = 2.262157 * math.sqrt((1 / 10 + 1 / 9) * spread**2)
    assert mean.interval == pytest.approx((0.815 - half, 0.815 + half), abs=1e-6)
    plain = mean_of(values).interval
    assert plain is not None
    assert half / (plain[1] - 0.815) == pytest.approx(math.sqrt(1 + 10 / 9))
    assert mean_of(values, overlap=None).interval is None


def test_the_corrected_interval_covers_where_the_plain_one_does_not() -> None:
    """Scores that share what overlapping training sets share: correlation n_test / n_all."""
    rng = np.random.default_rng(0)
    shared = math.sqrt(0.2)  # five folds, the correlation that Nadeau and Bengio's variance is for
    hits = {0.0: 0, 0.25: 0}
    for common, own in zip(rng.normal(size=2000), rng.normal(size=(2000, 5)), strict=True):
        values = shared * common + math.sqrt(0.8) * own
        for overlap in hits:
            interval = mean_of(values.tolist(), overlap).interval
            assert interval is not None
            hits[overlap] += interval[0] < 0 < interval[1]
    assert hits[0.25] / 2000 == pytest.approx(0.95, abs=0.015)
    assert hits[0.0] / 2000 < 0.9


# ---------------------------------------------------------------- which runs


def test_runs_that_differ_in_seed_or_fold_alone_are_repeats(repeat: Repeat) -> None:
    runs = [repeat(f"a/{seed}", seed) for seed in range(3)]
    runs += [repeat(f"b/{seed}", seed, lr=0.2) for seed in range(2)]
    runs += [repeat("c", 0, lr=0.3), repeat("d", 1, model="native3", lr=0.2)]
    groups = find_repeats(runs)
    assert [[run.path.parts[-2] for run in group.runs] for group in groups] == [
        ["a"] * 3,
        ["b"] * 2,
    ]


def test_equal_runs_without_a_fold_or_of_another_kind_are_none(repeat: Repeat) -> None:
    same = [repeat("a", 0), repeat("b", 0)]
    assert find_repeats(same) == []
    assert find_repeats([repeat("c", 0), repeat("d", 0, fold=1)]) == []
    assert find_repeats([repeat("e", 0), repeat("f", 1, state="failed")]) == []
    evaluated = repeat("g", 1)
    config = evaluated.config | {"run": "outputs/f", "split": "test"}
    (evaluated.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert find_repeats([same[0], load_run(evaluated.path)]) == []


def test_of_a_seed_that_is_here_twice_the_last_counts(repeat: Repeat) -> None:
    runs = [repeat("a", 0), repeat("b", 1), repeat("c", 0)]
    (group,) = find_repeats(runs)
    assert {run.path.name for run in group.scored} == {"b", "c"}
    (table,) = tables(runs)
    assert any(
        "seed=0 is here more than once" in n and n.endswith(f"{runs[2].path}.")
        for n in table.footnotes
    )
    assert len([row for row in table.rows if row.kind == "member"]) == 3


def test_rows_of_a_paper_start_each_from_the_run_of_their_seed(repeat: Repeat) -> None:
    runs = []
    for seed in (0, 1):
        path = repeat(f"s/{seed}", seed).path
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["paper"] |= {"row": "#1", "only": ["#1"] * seed}
        config["init_from"] = f"outputs/before-start-seed={seed}"
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        runs.append(load_run(path))
    assert [len(group.runs) for group in find_repeats(runs)] == [2]
    for run in runs:
        run.config["paper"]["row"] = None
    assert find_repeats(runs) == []


# ---------------------------------------------------------------- the table


def test_seeds_end_in_their_mean(repeat: Repeat) -> None:
    runs = [repeat(f"s/{seed}", seed, marks={"PHANTOM": "synthetic"}) for seed in range(5)]
    (table,) = tables(runs)
    rows = by_label(table)
    for run, seed in zip(runs, range(5), strict=True):
        assert (
            rows[f"ours: native1 seed={seed} PHANTOM"][0] == f"{column([run], 'accuracy')[0]:.4f}"
        )
    accuracy, auc = column(runs, "accuracy"), column(runs, "auc_binary")
    cells = rows["ours: native1, mean of 5 seeds (sd) PHANTOM"]
    assert cells[0] == f"{accuracy.mean():.4f} ({accuracy.std(ddof=1):.4f})"
    assert cells[4] == f"{auc.mean():.2f} ({auc.std(ddof=1):.2f})"
    kinds = [row.kind for row in table.rows]
    end = kinds.index("ours")
    assert kinds[2 : end + 3] == ["member"] * 5 + ["ours", "detail", "detail"]
    difference, interval = (row.cells[1] for row in table.rows[end + 1 : end + 3])
    assert difference == f"{accuracy.mean() - 0.9286:+.4f}"
    low, high = stats.t.interval(0.95, 4, accuracy.mean(), stats.sem(accuracy))
    assert interval == f"[{low:.4f}, {high:.4f}]"
    notes = "\n".join(table.footnotes)
    assert "Student's t over the runs" in notes
    assert "bootstrap" not in notes  # no such interval is shown
    assert "Nadeau" not in notes


def test_a_failed_member_and_the_marks_of_all_are_shown(repeat: Repeat) -> None:
    runs = [
        repeat("s/0", 0),
        repeat("s/1", 1, marks={"PARTIAL": "2 of 9 epochs"}),
        repeat("s/2", 2, state="failed", reason="out of memory"),
        repeat("s/3", 3, marks={"LEAKY": "half of them"}),
    ]
    (table,) = tables(runs)
    rows = by_label(table)
    assert rows["ours: native1 seed=2 failed"] == (MISSING,) * 5
    (mean,) = (label for label in rows if "mean of" in label)
    assert mean == "ours: native1, mean of 3 seeds, 3 of 4 done (sd) PARTIAL LEAKY"
    scored = [run for run in runs if run.metrics]
    assert rows[mean][0].startswith(f"{column(scored, 'accuracy').mean():.4f} ")
    notes = "\n".join(table.footnotes)
    assert "native1: not in the mean, without scores: seed=2 failed." in notes
    assert "native1 seed=2 failed: out of memory" in notes
    assert "PARTIAL (native1 seed=1): 2 of 9 epochs" in notes


def test_a_metric_that_a_run_leaves_undefined_has_no_mean(repeat: Repeat) -> None:
    runs = [repeat("a", 0), repeat("b", 1)]
    metrics = json.loads((runs[1].path / "metrics.json").read_text())
    metrics["test"]["auc_binary"] = None
    (runs[1].path / "metrics.json").write_text(json.dumps(metrics))
    (table,) = tables([runs[0], load_run(runs[1].path)])
    cells = by_label(table)["ours: native1, mean of 2 seeds (sd)"]
    assert cells[4] == MISSING
    assert cells[0] != MISSING


def test_folds_have_the_corrected_interval_and_a_pooled_score(repeat: Repeat) -> None:
    runs = [repeat(f"f/{fold}", 0, fold) for fold in range(4)]
    (table,) = tables(runs)
    accuracy = column(runs, "accuracy")
    means = {m: row for row in table.rows for m in ("mean of", "pooled") if m in row.cells[0]}
    assert means["mean of"].cells[0] == "ours: native1, mean of 4 folds (sd)"
    assert means["mean of"].cells[1] == f"{accuracy.mean():.4f} ({accuracy.std(ddof=1):.4f})"
    half = stats.t.ppf(0.975, 3) * accuracy.std(ddof=1) * math.sqrt(1 / 4 + 15 / 45)
    interval = table.rows[table.rows.index(means["mean of"]) + 2]
    assert interval.cells[1] == f"[{accuracy.mean() - half:.4f}, {accuracy.mean() + half:.4f}]"

    rows = [row for run in runs for row in read_csv(run.path / "predictions.csv")]
    assert len({row["id"] for row in rows}) == IMAGES
    labels = np.array([int(row["label"]) for row in rows])
    p = np.array([float(row["p_1"]) for row in rows])
    pooled = means["pooled"]
    assert pooled.cells[0] == "ours: native1, pooled over 4 folds"
    assert pooled.cells[1] == f"{accuracy_score(labels, p > 0.5):.4f}"
    assert pooled.cells[5] == f"{roc_auc_score(labels, p):.2f}"
    (group,) = find_repeats(runs)
    ((_, scored),) = group.pooled()
    assert scored["n"] == IMAGES
    assert scored["confusion_matrix"] == confusion_matrix(labels, p > 0.5).tolist()
    assert scored["ci_resamples"] == 40  # as the members were scored
    notes = "\n".join(table.footnotes)
    assert "Nadeau & Bengio (2003)" in notes
    assert "Forman & Scholz" in notes
    assert notes.count("one fold of 4 is the test split") == 1


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_folds_that_leave_images_out_are_not_pooled(repeat: Repeat) -> None:
    runs = [repeat(f"f/{fold}", 0, fold) for fold in (0, 1, 3)]
    (group,) = find_repeats(runs)
    assert group.pooled() == []
    assert group.folds.overlap == pytest.approx(15 / 45)
    (table,) = tables(runs)
    assert "native1: no pooled score, as these folds do not cover the data." in table.footnotes
    (runs[1].path / "split.csv").unlink()
    (other,) = find_repeats([repeat("g/0", 0, 0), runs[1]])
    mean = other.mean("accuracy")
    assert mean is not None
    assert mean.interval is None
    assert "no interval, as a run of it has no split.csv" in "".join(
        tables(list(other.runs))[0].footnotes
    )


def test_seeds_of_a_fold_are_averaged_first(repeat: Repeat) -> None:
    runs = [repeat(f"x/{fold}{seed}", seed, fold) for fold in range(4) for seed in range(3)]
    (group,) = find_repeats(runs)
    assert group.title == "mean of 4 folds, 12 runs (sd)"
    folds = column(runs, "accuracy").reshape(4, 3).mean(axis=1)
    mean = group.mean("accuracy")
    assert mean is not None
    assert (mean.n, mean.value) == (4, pytest.approx(folds.mean()))
    assert mean.sd == pytest.approx(folds.std(ddof=1))
    assert [title for title, _ in group.pooled()] == [
        f"pooled over 4 folds, seed={seed}" for seed in range(3)
    ]
    (table,) = tables(runs)
    assert "ours: native1 seed=2 dataset.fold=3" in by_label(table)
    assert any("Seeds of one fold are averaged" in note for note in table.footnotes)


def test_every_rendering_has_the_mean(repeat: Repeat, tmp_path: Path) -> None:
    marks = {"PHANTOM": "synthetic", "PARTIAL": "1 of 9 epochs"}
    runs = [
        repeat(f"s/{fold}-{lr}", 0, fold, lr=lr, marks=marks)
        for lr in (0.1, 0.2)
        for fold in range(4)
    ]
    page, data, *_ = write_tables(runs, tmp_path / "out")
    (table,) = tables(runs)
    shown = terminal(table)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    flat = " ".join(shown.split())
    text = page.read_text().replace("\\_", "_")
    assert text == markdown(table).replace("\\_", "_")
    found = list(csv.DictReader(data.read_text().splitlines()))
    for group, lr in zip(find_repeats(runs), (0.1, 0.2), strict=True):
        label = f"native1 optimizer.lr={lr}, mean of 4 folds"
        mean = group.mean("accuracy")
        assert mean is not None
        assert mean.interval is not None
        assert f"| ours: {label} (sd) PHANTOM PARTIAL | {mean.value:.4f} ({mean.sd:.4f}) |" in text
        assert f"({mean.sd:.4f})" in flat
        (line,) = (li for li in found if li["model"] == label and li["metric"] == "accuracy")
        assert float(line["ours"]) == mean.value
        assert float(line["sd"]) == mean.sd
        assert (float(line["ci_low"]), float(line["ci_high"])) == mean.interval
        assert float(line["difference"]) == mean.value - 0.9286
        assert (line["mean_of"], line["marks"], line["state"]) == ("4", "PHANTOM;PARTIAL", "done")
        assert line["run"] == str(tmp_path / "s")
        (line,) = (
            li
            for li in found
            if li["model"] == f"native1 optimizer.lr={lr}, pooled over 4 folds"
            and li["metric"] == "accuracy"
        )
        assert float(line["ours"]) == group.pooled()[0][1]["accuracy"]
        assert line["mean_of"] == ""
    assert len([li for li in found if li["metric"] == "accuracy" and not li["mean_of"]]) == 8 + 2


def test_a_plain_table_has_the_mean_too(repeat: Repeat) -> None:
    runs = [repeat(f"s/{s}", s, paper=False, dataset="mine", model="net") for s in range(2)]
    runs.append(repeat("other", 0, lr=0.5, paper=False, dataset="mine", model="net"))
    (table,) = tables(runs)
    labels = [row.cells[0] for row in table.rows]
    assert labels == [
        "net optimizer.lr=0.1 seed=0 on mine",
        "net optimizer.lr=0.1 seed=1 on mine",
        "net optimizer.lr=0.1 on mine, mean of 2 seeds (sd)",
        "95% interval",
        "net seed=0 optimizer.lr=0.5 on mine",
        "95% interval",
    ]
    assert any("bootstrap" in note for note in table.footnotes)  # of the last row
    assert csv_text(lines(runs)).count("mean of 2 seeds") > 10


def test_two_groups_of_seeds_in_one_folder_keep_their_own_numbers(repeat: Repeat) -> None:
    """Of one sweep over rate and seed all runs lie side by side, and stand in the same row."""
    fast = [repeat(f"s/{seed}", seed) for seed in range(2)]
    slow = [repeat(f"s/{seed}", seed, lr=0.01) for seed in (5, 6)]
    (table,) = tables([*fast, *slow])
    means = [row for row in table.rows if row.kind == "ours" and "mean" in row.cells[0]]
    wanted = [column(runs, "accuracy").mean() for runs in (fast, slow)]
    assert wanted[0] != wanted[1]
    assert [row.values[0].ours for row in means] == pytest.approx(wanted)
    found = [line for line in lines([*fast, *slow]) if line.get("mean_of")]
    found = [line for line in found if line["metric"] == "accuracy"]
    assert [line["ours"] for line in found] == pytest.approx(wanted)
    differences = [value - 0.9286 for value in wanted]
    assert [line["difference"] for line in found] == pytest.approx(differences)
