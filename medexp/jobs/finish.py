"""What runs end in: tables, figures and the page of run directories."""

import json
import os
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.config.trust import check_commands
from medexp.errors import printable
from medexp.jobs import audit
from medexp.runs.files import is_run, write_text
from medexp.runs.guard import MAX_JSON, read_bounded


def show(folders: Sequence[Path]) -> None:
    """Print the table of run or sweep directories, and where they are."""
    from medexp.report.table import load, render, tables

    if not folders:
        return
    runs = load.find_runs(folders)
    alone = len(runs) == 1 and is_run(folders[0])
    render.show(tables.tables(runs), brief=alone)
    if alone:  # the last lines are what a screen keeps
        print(textwrap.fill(result(runs[0].metrics or {}), 80, break_long_words=False))
    for folder in folders:
        print(printable(str(folder)))


def result(metrics: Mapping[str, Any]) -> str:
    """A run's result in a sentence: split, headline metrics with their intervals, best epoch."""
    from medexp.score.metrics import headline

    split = metrics.get("split", "test")
    scored = metrics.get(split) or {}
    words = []
    for short in ("accuracy", "auc", "f1"):
        key = headline(metrics.get("classes") or ())[short]
        if (value := scored.get(key)) is not None:
            ends = (scored.get("ci95") or {}).get(key)
            between = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
            name = short if short == "accuracy" else short.upper()
            words.append(f"{name} {value:.3f}{between}")
    if not words:
        return "No scores."
    text = f"Result on {scored['n']:,} {split} images: {', '.join(words)}"
    if metrics.get("best_epoch"):
        epochs, monitor = metrics.get("epochs"), metrics.get("monitor")
        text += f"; best epoch {metrics['best_epoch']} of {epochs} by {monitor}"
    return f"{text}. All rows and notes: table.md in"


def render_again(path: Path) -> None:
    """Print the tables in a table.json and write every form of them beside it."""
    from medexp.report.table import render

    content = render.load_tables(path)
    render.show(content.tables)
    for written in render.write_report(content, path.parent):
        print(written)


def finish_sweep(folder: Path) -> int:
    """One table over all jobs, in the sweep's folder and on the terminal; 1 if any failed.

    Where a number varies, the jobs' ranking and figures against it are written too.
    """
    from medexp.report.figure import sweeps
    from medexp.report.table import load, render

    runs = load.find_runs([folder])
    render.write_tables(runs, folder)
    show([folder])
    for path in sweeps.write_search(runs, folder):
        if path.suffix != ".svg":  # the same figures again
            print(path)
    return verdict(runs)


def finish_paper(folder: Path) -> int:
    """The tables of a paper's runs, their figures, the audit and the page, in their folder."""
    from medexp.config import paper
    from medexp.report.figure import figures
    from medexp.report.table import load, render

    runs = load.find_runs([folder])
    render.write_tables(runs, folder)
    show([folder])
    node = next(run.config["paper"] for run in runs if run.config.get("paper"))
    check_commands(f"{folder}: paper", node)  # the audit builds networks by them
    drawn = figures.write_figures(paper.parse_paper(node), runs, folder / "figures")
    for path in drawn:
        if path.suffix != ".svg":
            print(path)
    own = os.environ.get("MEDEXP_CONFIG_DIR")
    found = audit.audit_of_table(node, ["--config-dir", own] if own else [])
    write_text(folder / "audit.json", json.dumps(found, indent=2) + "\n")
    print(write_page([folder], folder / "index.html"))
    return verdict(runs)


def verdict(runs: Sequence[Any]) -> int:
    """The exit code of a sweep, and a line on stderr where not all of it is done."""
    failed = [run for run in runs if run.state != "done"]
    if failed:
        print(f"medexp: {len(failed)} of {len(runs)} jobs failed; see the table", file=sys.stderr)
    return 1 if failed else 0


def write_page(folders: Sequence[Path], path: Path, more: Sequence[Path] = ()) -> Path:
    """One page of all runs in the folders, with the figures and audits that lie in the folders.

    Where there are no figures, curves and ROC of the runs are drawn over one another for it. more:
    PNG files to be shown behind the figures.
    """
    from medexp.report.figure import figures
    from medexp.report.page import page
    from medexp.report.table import compare, load, tables

    runs = load.find_runs(folders)
    audits = [file for folder in folders for file in sorted(folder.glob("audit.json"))]
    findings = [one for file in audits for one in json.loads(read_bounded(file, MAX_JSON))]
    drawn = [
        file
        for folder in folders
        if not (folder / "status.json").is_file()  # a run's own plots stand beside it
        for name in ("figures", "plots")
        for file in sorted((folder / name).glob("*.png"))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if not drawn:
            drawn = [p for p in figures.overlay_figures(runs, Path(scratch)) if p.suffix == ".png"]
        return page.write_page(
            runs,
            path,
            tables=tables.tables(runs),
            audit=list({json.dumps(one): one for one in findings}.values()),
            comparisons=compare.compare_runs(runs),
            figures=[*drawn, *more],
        )
