"""The page of `medexp report --page`: runs, tables, figures and where they come from, in one file.

Everything on it is read from run directories or handed in as data. A run that has no number has
none here; the template escapes every id, path, class name and setting.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from medexp import __version__
from medexp.errors import printable
from medexp.report.page.details import Named, differences, read_provenance, run_details
from medexp.report.page.markup import packaged, rendered, templates
from medexp.report.table.compare import NOTES
from medexp.report.table.entries import run_labels, run_names
from medexp.report.table.load import Run
from medexp.report.table.render import html_table
from medexp.report.table.repeats import find_repeats, scores
from medexp.report.table.tables import MISSING, Table
from medexp.runs.files import write_text
from medexp.score.checks import VERDICTS
from medexp.score.metrics import headline

MOST = 20_000_000  # bytes of pictures on a page
MANY_PAIRS = 12
NAMES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}
STATES = {"done": "good", "failed": "bad"}  # the other states: look
# A reading that is ruled out speaks neither for the paper nor against it.
VERDICT_KINDS = {
    "contradicts": "bad",
    "explained": "look",
    "truncated, not rounded": "look",
    "reading ruled out": "plain",
    "cannot be checked": "look",
    "consistent": "good",
}
PNG = b"\x89PNG\r\n\x1a\n"


class Cell(NamedTuple):
    """What stands in a cell of a table, and what it sorts by: None is missing and comes last.

    anchor: what the text links to; kind: of a badge around it; marks: below it; small: behind it.
    """

    text: str
    value: float | str | None
    anchor: str | None = None
    kind: str | None = None
    marks: Iterable[str] | None = None
    small: str | None = None


def write_page(
    runs: Sequence[Run],
    path: Path,
    *,
    tables: Sequence[Table],
    audit: Sequence[Mapping[str, Any]] = (),
    comparisons: Sequence[Mapping[str, Any]] = (),
    figures: Sequence[Path] = (),
    title: str | None = None,
) -> Path:
    """Write the page to `path`, its folder made if need be; each part only where there is one.

    tables: of `tables.tables(runs)`. audit: `audit.Finding`s as mappings. comparisons: of
    `compare.compare_runs(runs)`. figures: PNG files over all runs; those in a run's own `plots` and
    `explain` are found here. Pictures beyond MOST bytes are left out and listed. Returns `path`.

    Raises:
        MedexpError: a run's provenance.json cannot be read.
    """
    names = run_names(runs, run_labels(runs, find_repeats(runs)))
    named = [Named(run, names[run.path], f"run-{i}") for i, run in enumerate(runs, start=1)]
    paths = {one.anchor: run_pictures(one.run.path) for one in named}
    every = [*figures, *(path for members in paths.values() for path in members)]
    kept, without = embedded(every, MOST)
    provenance = [read_provenance(one.run) for one in named]
    datasets = ", ".join(dict.fromkeys(run.dataset for run in runs))
    title = title or (f"Results on {datasets}" if runs else "Results")
    templates().filters.update(kinds=kinds, counted=_count, anchors=anchors)
    text = rendered(
        "page.html.j2",
        title=title,
        styles=("page.css",),
        script=packaged("page.js"),
        version=__version__,
        states=STATES,
        verdicts=VERDICT_KINDS,
        named=named,
        lead=lead(runs, tables),
        reasons=_reasons(named),
        not_done=[one for one in named if one.run.state != "done"],
        tables=Markup("".join(map(html_table, tables))),
        runs=runs_rows(named),
        runs_note=runs_note(named),
        pairs=list(map(_pair_row, comparisons)),
        folded_pairs=len(comparisons) > MANY_PAIRS,
        pair_notes=NOTES,
        figures=pictures(figures, kept, title),
        without=without,
        audit=audited(audit),
        differences=differences(named, provenance),
        details=[
            run_details(one, origin, pictures(paths[one.anchor], kept, one.title, one.run.path))
            for one, origin in zip(named, provenance, strict=True)
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, printable(text))
    return path


def anchors(parts: str) -> list[tuple[str, str]]:
    """(id, heading) of the sections of a page, for the links to them."""
    found = re.findall(r'<section id="(\w+)"><h2>(.*?)</h2>', parts)
    return [(anchor, Markup(name)) for anchor, name in found]


def kinds(rows: Sequence[Mapping[str, Cell]]) -> list[tuple[str, bool]]:
    """(name, whether all that is known in it are numbers) of the columns of a table."""
    return [(name, _numeric([row[name] for row in rows])) for name in rows[0]]


# ---------------------------------------------------------------- what opens the page


def lead(runs: Sequence[Run], tables: Sequence[Table]) -> list[str]:
    """How many runs are in which state, and how complete each table is."""
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    lines = [f"{_count(len(runs), 'run')}: {counts}."] if runs else ["No run."]
    return [*lines, *(f"{table.name}: {table.state}." for table in tables)]


def _reasons(named: Sequence[Named]) -> dict[str, str]:
    """Mark -> its reasons, each with the runs that have it unless all do."""
    marked: dict[tuple[str, str], list[str]] = {}
    for one in named:
        for item in one.run.marks.items():
            marked.setdefault(item, []).append(one.label)
    reasons: dict[str, list[str]] = {}
    for (mark, reason), members in marked.items():
        who = ", ".join(members) if len(members) <= 3 else f"{len(members)} of {len(named)} runs"
        who = "" if len(members) == len(named) else f" ({who})"
        reasons.setdefault(mark, []).append(reason + who)
    return {mark: "; ".join(found) for mark, found in reasons.items()}


# ---------------------------------------------------------------- all runs


def runs_note(named: Sequence[Named]) -> str:
    splits = sorted({one.run.split for one in named})
    return (
        f"On the {' or '.join(splits)} split, with 95% intervals as the run scored them. "
        "AUC, F1, precision and recall: of the second class where there are two, else the mean "
        "over the classes (AUC one-vs-rest)."
    )


def runs_rows(named: Sequence[Named]) -> list[dict[str, Cell]]:
    several_splits = len({one.run.split for one in named}) > 1
    return [_runs_row(one, several_splits=several_splits) for one in named]


def _runs_row(one: Named, *, several_splits: bool) -> dict[str, Cell]:
    run = one.run
    metrics, scored = run.metrics or {}, scores(run)
    keys = headline(metrics.get("classes") or ())
    row = {
        "Run": Cell(one.label, one.label, anchor=one.anchor, marks=run.marks),
        "Data set": Cell(run.dataset, run.dataset),
    }
    if several_splits:
        row["Split"] = Cell(run.split, run.split)
    row["State"] = Cell(run.state, run.state, kind=STATES.get(run.state, "look"))
    for short, name in NAMES.items():
        value = scored.get(keys[short])
        interval = (scored.get("ci95") or {}).get(keys[short])
        row[name] = _missing() if value is None else _number(value, interval)
    row["Parameters"] = _count_cell((metrics.get("parameters") or {}).get("trainable"))
    row["Epochs"] = _epochs(run)
    seconds = metrics.get("wall_seconds")
    row["Time"] = _missing() if seconds is None else Cell(duration(seconds), seconds)
    return row


def _number(value: float, interval: Sequence[float] | None, sign: str = "-") -> Cell:
    """To four digits, and behind it the interval; sign: `+` to say it of positive numbers too."""
    small = f"[{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]" if interval else None
    return Cell(f"{value:{sign}.4f}", value, small=small)


def _epochs(run: Run) -> Cell:
    """Finished epochs; of a run that is not done, out of how many."""
    ended = (run.metrics or {}).get("epochs") or len(run.history.get("epoch", ()))
    if run.state == "done":
        return Cell(f"{ended:,}", ended)
    meant = (run.config.get("trainer") or {}).get("epochs")
    return Cell(f"{ended:,}" + (f" of {meant:,}" if meant else ""), ended)


def _count_cell(count: int | None) -> Cell:
    return _missing() if count is None else Cell(f"{count:,}", count)


def _missing() -> Cell:
    return Cell(MISSING, None)


def duration(seconds: float) -> str:
    """2.3 s, 4 min 05 s, 3 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def _numeric(column: Sequence[Cell]) -> bool:
    known = [cell.value for cell in column if cell.value is not None]
    return bool(known) and all(isinstance(value, (int, float)) for value in known)


# ---------------------------------------------------------------- pictures


def run_pictures(folder: Path) -> list[Path]:
    """The PNG files that a run and its evaluations drew."""
    places = ("plots", "explain", "eval/*/explain")
    return [path for place in places for path in sorted(folder.glob(f"{place}/*.png"))]


def embedded(paths: Iterable[Path], most: int) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """The PNG files that fit into `most` bytes, first come first kept; why others do not stand."""
    kept: dict[Path, bytes] = {}
    without: dict[Path, str] = {}
    for path in paths:
        # Of a run of unknown origin: what it only points at is not shown around.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            without[path] = "is a link, or no regular file"
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            without[path] = f"cannot be read: {error.strerror}"
            continue
        if not content.startswith(PNG):
            without[path] = "is no PNG"
        elif len(content) + sum(map(len, kept.values())) > most:
            without[path] = f"the pictures of a page take at most {most / 1e6:g} MB"
        else:
            kept[path] = content
    return kept, without


def pictures(
    paths: Sequence[Path], kept: Mapping[Path, bytes], of: str, folder: Path | None = None
) -> list[dict[str, Any]]:
    """The pictures that are kept; of: whose they are; folder: what their names are told from."""
    return [
        {
            "base64": base64.b64encode(kept[path]).decode(),
            # The first chunk of a PNG says how large it is: the page keeps that place free.
            "width": int.from_bytes(kept[path][16:20]),
            "height": int.from_bytes(kept[path][20:24]),
            "name": str(path.relative_to(folder or path.parent)),
            "alt": f"{_words(path)}: {of}",
        }
        for path in paths
        if path in kept
    ]


def _words(path: Path) -> str:
    return path.stem.replace("_", " ").replace("-", " ")


# ---------------------------------------------------------------- audit and comparisons


def audited(findings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Paper -> how many findings of each verdict, and they themselves: what contradicts first."""
    papers: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        papers.setdefault(str(finding["paper"]), []).append(finding)
    found = {}
    for paper, members in papers.items():
        counts = Counter(str(finding["verdict"]) for finding in members)
        text = "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        members = sorted(members, key=lambda one: VERDICTS.index(one["verdict"]))
        found[paper] = {"counts": text, "findings": members}
    return found


def _pair_row(one: Mapping[str, Any]) -> dict[str, Cell]:
    marks = dict.fromkeys(f"{one['marks_a']}, {one['marks_b']}".split(", "))
    pair = f"{one['a']} less {one['b']}"
    why = f"not compared: {one['reason']}" if one["reason"] else None
    interval = None if one["auc_low"] is None else (one["auc_low"], one["auc_high"])
    return {
        "First less second": Cell(pair, pair, marks=list(filter(None, marks)), small=why),
        "Data set": Cell(str(one["dataset"]), str(one["dataset"])),
        "Images": _count_cell(one["images"]),
        "AUC": _difference(one["auc_difference"], interval),
        "DeLong p": _p_value(one["auc_p"], one["auc_p_holm"]),
        "Accuracy": _difference(one["accuracy_difference"], None),
        "Only first right": _count_cell(one["only_a_right"]),
        "Only second right": _count_cell(one["only_b_right"]),
        "McNemar p": _p_value(one["mcnemar_p"], one["mcnemar_p_holm"]),
    }


def _difference(value: float | None, interval: Sequence[float] | None) -> Cell:
    if value is None:
        return _missing()
    # Adding 0.0 turns -0.0 into 0.0: a difference that rounds to nothing is not negative.
    return _number(round(value, 4) + 0.0, interval, sign="+")._replace(value=value)


def _p_value(p: float | None, holm: float | None) -> Cell:
    """By itself, and behind it adjusted for the other pairs."""
    if p is None:
        return _missing()
    adjusted = None if holm is None else f"Holm {_probability(holm)}"
    return Cell(_probability(p), p, small=adjusted)


def _probability(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
