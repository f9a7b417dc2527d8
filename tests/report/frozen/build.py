"""Three tables of made-up runs with chosen numbers, kept here as JSON with all their renderings.

Written anew, after a deliberate change of the format, by `python -m tests.report.frozen.build`.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml

from medexp.report.table.load import Run, find_runs
from medexp.report.table.render import report, write_report

HERE = Path(__file__).parent
PHANTOM = {"PHANTOM": "60 synthetic training images (seed 0)"}
PARTIAL = {"PARTIAL": "budget smoke (trainer.epochs=1)"}
BOOTSTRAP = "percentile bootstrap over images, 1000 resamples, seed 0"

PCAM = """
title: Johny et al., native CNNs
citation: Johny et al. (2021)
table: Table 4
dataset: pcam
epochs: 1000
images: 32768
columns:
  - {name: Accuracy, metric: accuracy, digits: 4}
  - {name: Precision, metric: precision_binary, digits: 4}
  - {name: Recall, metric: recall_binary, digits: 4}
  - {name: F1 score, metric: f1_binary, digits: 4}
  - {name: AUC, metric: auc_binary, digits: 2}
rows:
  - label: "#1"
    models: [native1]
    reported: {Accuracy: "0.9286", Precision: "0.8789", Recall: "0.8557", F1 score: "0.8543", AUC: "0.97"}
  - label: "#2"
    models: [native2]
    reported: {Accuracy: "0.9228", Precision: "0.8928", Recall: "0.8818", F1 score: "0.880", AUC: "0.96"}
  - label: "#3"
    models: [native3]
    reported: {Accuracy: "0.9247", Precision: "0.9224", Recall: "0.9213", F1 score: "0.9212", AUC: "0.98"}
  - label: "#4"
    models: [native4]
    reported: {Accuracy: "0.9039", Precision: "0.8918", Recall: "0.8917", F1 score: "0.8918", AUC: "0.96"}
assumptions:
  - Precision, recall and F1 score are taken as those of the tumour class.
"""  # noqa: E501

LDCT = """
title: Alghamdi et al., LDCT slices
citation: Alghamdi et al. (2024)
table: Table 2
dataset: ldct
epochs: 200
columns:
  - {name: Precision, metric: "per_class.{class}.precision", digits: 2}
  - {name: Recall, metric: "per_class.{class}.recall", digits: 2}
  - {name: F1, metric: "per_class.{class}.f1", digits: 2}
  - {name: Specificity, metric: "per_class.{class}.specificity", digits: 2}
rows:
  - label: M1 non-cancerous
    group: M1
    class: non_cancerous
    reported: {Precision: "0.87", Recall: "0.86", F1: "0.86", Specificity: "0.79"}
  - label: M1 cancerous
    group: M1
    class: cancerous
    reported: {Precision: "0.77", Recall: "0.79", F1: "0.78", Specificity: "0.86"}
  - label: M4 non-cancerous
    group: M4
    class: non_cancerous
    reported: {Precision: "0.92", Recall: "0.95", F1: "0.93", Specificity: "0.86"}
  - label: M4 cancerous
    group: M4
    class: cancerous
    reported: {Precision: "0.92", Recall: "0.86", F1: "0.89", Specificity: "0.95"}
"""

TBT = """
title: Zunair et al., ViPTT-Net
citation: Zunair et al. (2021)
table: Table 1 & 2
dataset: tbt
epochs: 100
columns:
  - {name: Kappa, metric: kappa, digits: 2, split: val}
  - {name: Infiltrative, metric: per_class.Infiltrative.f1, digits: 2, split: val}
  - {name: Focal, metric: per_class.Focal.f1, digits: 2, split: val}
  - {name: Tuberculoma, metric: per_class.Tuberculoma.f1, digits: 2, split: val}
  - {name: Miliary or Fibro-cavernous, metric: null, digits: 2, doubt: one of two columns is lost}
  - {name: Test kappa, metric: kappa, digits: 2}
  - {name: Test accuracy %, metric: accuracy, digits: 2, scale: 100}
before:
  ucf50: {run: {dataset: ucf50}}
rows:
  - label: No PT
    reported: {Kappa: "0.17", Infiltrative: "0.61", Focal: "0.46", Tuberculoma: "0.0", Miliary or Fibro-cavernous: "0.14"}
  - label: PT
    reported: {Kappa: "0.35", Infiltrative: "0.68", Focal: "0.56", Tuberculoma: "0.09", Miliary or Fibro-cavernous: "0.48", Test kappa: "0.13", Test accuracy %: "42.30"}
  - label: PT + CW
    reported: {Kappa: "0.30", Infiltrative: "0.59", Focal: "0.41", Tuberculoma: "0.37", Miliary or Fibro-cavernous: "0.65", Test kappa: "0.14", Test accuracy %: "38.50"}
  - label: PT + CW + AUG
    reported: {Kappa: "0.33", Infiltrative: "0.59", Focal: "0.47", Tuberculoma: "0.27", Miliary or Fibro-cavernous: "0.54", Test kappa: "0.20", Test accuracy %: "42.30"}
  - label: GRU
    reported: {}
"""  # noqa: E501


def write_run(
    folder: str,
    paper: str,
    model: str,
    classes: Sequence[str] = ("a", "b"),
    *,
    row: str | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    dataset: str | None = None,
    marks: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    **scores: Mapping[str, Any],
) -> None:
    """A run directory; scores: split -> key -> value or (value, low, high)."""
    node = yaml.safe_load(paper)
    path = Path(folder)
    (path / ".hydra").mkdir(parents=True)
    names = {"dataset": dataset or node["dataset"], "model": model}
    config = {"names": names, "seed": seed, "paper": node | {"row": row, "only": list(only)}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"seed={seed}"]))
    (path / "status.json").write_text(json.dumps(status or {"state": "done"}))
    if scores:
        metrics: dict[str, Any] = names | {"classes": list(classes), "marks": dict(marks or {})}
        metrics["notes"] = ["split: stratified, seed 0"]
        metrics |= {split: _scored(values) for split, values in scores.items()}
        (path / "metrics.json").write_text(json.dumps(metrics))


def _scored(values: Mapping[str, Any]) -> dict[str, Any]:
    scored: dict[str, Any] = {"per_class": {}, "ci95": {}, "ci_method": BOOTSTRAP}
    for key, value in values.items():
        point, *interval = value if isinstance(value, tuple) else (value,)
        if key.startswith("per_class."):
            _, name, rate = key.split(".")
            scored["per_class"].setdefault(name, {})[rate] = point
        else:
            scored[key] = point
        if interval:
            scored["ci95"][key] = interval
    return scored


def pcam_table4() -> None:
    """Three seeds of #1, a full run of #2, a leaky one of #3, none of #4."""

    def test(accuracy: float, auc: float) -> dict[str, Any]:
        return {
            "accuracy": (accuracy, accuracy - 0.003, accuracy + 0.003),
            "precision_binary": 0.875,
            "recall_binary": 0.8625,
            "f1_binary": None,
            "auc_binary": (auc, auc - 0.01, auc + 0.01),
        }

    for seed, accuracy in enumerate((0.925, 0.9275, 0.93)):
        write_run(f"1-{seed}", PCAM, "native1", seed=seed, test=test(accuracy, 0.9375 + seed / 64))
    write_run("2", PCAM, "native2", test=test(0.9, 0.9625))
    write_run("3", PCAM, "native3", marks={"LEAKY": "12 of 40 patients"}, test=test(0.924, 0.98))


def ldct_table2() -> None:
    """One run a network, two rows each; M4's has a class that the paper's table does not name."""
    rates = ("precision", "recall", "f1", "specificity")
    for name, classes, values in (
        ("M1", ("non_cancerous", "cancerous"), (0.875, 0.8125, 0.84375, 0.75)),
        ("M4", ("non_cancerous", "cancer"), (0.9375, 0.75, 0.84375, 0.96875)),
    ):
        test = {
            f"per_class.{one}.{rate}": (value, value - 0.03125, value + 0.03125)
            for one in classes
            for rate, value in zip(rates, values, strict=True)
        }
        write_run(name, LDCT, f"ldct_{name.lower()}", classes, row=name, test=test)


def half_finished() -> None:
    """Of five rows one is done, one failed, one is running, one is not run, one is left out."""
    only = ["No PT", "PT", "PT + CW", "PT + CW + AUG"]
    options: dict[str, Any] = {"only": only, "marks": PHANTOM | PARTIAL}
    before = {"accuracy": (0.5, 0.25, 0.75)}
    write_run(
        "before-ucf50", TBT, "viptt", row="before: ucf50", dataset="ucf50", test=before, **options
    )
    val = {
        "kappa": (0.25, 0.125, 0.375),
        "per_class.Infiltrative.f1": (0.625, 0.5, 0.75),
        "per_class.Focal.f1": (0.125, 0.0, 0.25),
        "per_class.Tuberculoma.f1": None,
    }
    test = {"kappa": (-0.0625, -0.125, 0.03125), "accuracy": (0.40625, 0.25, 0.53125)}
    classes = ("Infiltrative", "Focal", "Tuberculoma", "Miliary", "Fibro-cavernous")
    write_run("PT", TBT, "viptt", classes, row="PT", val=val, test=test, **options)
    status = {"state": "failed", "reason": "CUDA out of memory:\n2 GB <wanted> & 100% used"}
    write_run("PT-CW", TBT, "viptt", row="PT + CW", only=only, status=status)
    write_run("No-PT", TBT, "viptt", row="No PT", only=only, status={"state": "running"})


SETS: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (pcam_table4, ldct_table2, half_finished)
}


def runs_of(name: str, folder: Path) -> list[Run]:
    """The runs of one set, below `folder`, with paths that are relative to it."""
    with chdir(folder):
        SETS[name]()
        return find_runs(["."])


if __name__ == "__main__":
    for chosen in SETS:
        with tempfile.TemporaryDirectory() as scratch:
            made = report(runs_of(chosen, Path(scratch)))
        write_report(made, HERE / chosen)
