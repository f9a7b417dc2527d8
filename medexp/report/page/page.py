"""The page of `medexp report --page`: runs, tables, figures and where they come from, in one file.

Everything on it is read from run directories or handed in as data. A run that has no number has
none here; every id, path, class name and setting is escaped (`markup`).
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medexp import __version__
from medexp.config.paper import CHOICES
from medexp.report.page.markup import banners, document, escaped, packaged, section
from medexp.report.table.compare import NOTES
from medexp.report.table.entries import run_labels, run_names
from medexp.report.table.load import Run
from medexp.report.table.render import html_table
from medexp.report.table.repeats import find_repeats, scores
from medexp.report.table.tables import MISSING, Table
from medexp.runs.files import read_json, write_text
from medexp.score.metrics import headline

MOST = 20_000_000  # bytes of pictures on a page
MANY_RUNS = 6  # above this, settings side by side are folded up
MANY_PAIRS = 12
NAMES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}
STATES = {"done": "good", "failed": "bad"}  # the other states: look
VERDICTS = {"contradicts": "bad", "cannot be checked": "look", "consistent": "good"}
OWN = ("command", "seed", "started")  # what each run's provenance has of its own
PNG = b"\x89PNG\r\n\x1a\n"


class Named(NamedTuple):
    """A run, what it is called among the others, and the id of its place on the page."""

    run: Run
    label: str
    anchor: str


class Cell(NamedTuple):
    """What stands in a cell (HTML), and what it sorts by: None is missing and comes last."""

    content: str
    value: float | str | None


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
    own = {one.anchor: run_pictures(one.run.path) for one in named}
    kept, without = embedded([*figures, *(p for paths in own.values() for p in paths)], MOST)
    provenance = [_provenance(one.run) for one in named]
    datasets = ", ".join(dict.fromkeys(run.dataset for run in runs))
    title = title or (f"Results on {datasets}" if runs else "Results")
    sections = {
        "tables": ("Tables", "".join(map(html_table, tables))),
        "runs": ("All runs", _runs_table(named)),
        "comparisons": ("Pairs of runs", _comparisons(comparisons)),
        "figures": ("Figures", _gallery(figures, kept, title) + _left_out(without)),
        "audit": ("Audit of the reported numbers", _audit(audit)),
        "settings": ("What the runs differ in", _differences(named, provenance)),
        "details": ("Each run", _details(named, own, kept, provenance)),
    }
    shown = {anchor: part for anchor, part in sections.items() if part[1]}
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, (name, _) in shown.items())
    body = [
        f"<header><h1>{escaped(title)}</h1>{_summary(runs, tables)}</header>",
        banners(_reasons(named)),
        _not_done(named),
        f'<nav aria-label="Parts of this page">{links}</nav>',
        *(section(name, content, anchor) for anchor, (name, content) in shown.items()),
        f"<footer>Made by medexp {__version__} from what the runs wrote.</footer>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, document(title, "\n".join(filter(None, body)), script=packaged("page.js")))
    return path


# ---------------------------------------------------------------- what opens the page


def _summary(runs: Sequence[Run], tables: Sequence[Table]) -> str:
    """How many runs are in which state, and how complete each table is."""
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    lines = [f"{_count(len(runs), 'run')}: {counts}."] if runs else ["No run."]
    lines += [f"{table.name}: {table.state}." for table in tables]
    return f'<p class="lead">{"<br>".join(map(escaped, lines))}</p>'


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


def _not_done(named: Sequence[Named]) -> str:
    """The runs that have not ended well, before any number is read."""
    rest = [one for one in named if one.run.state != "done"]
    if not rest:
        return ""
    lines = "".join(
        f'<li><a href="#{one.anchor}">{escaped(one.label)}</a> on {escaped(one.run.dataset)}: '
        f"{_state(one.run)}{_because(one.run)}</li>"
        for one in rest
    )
    kind = "bad" if any(one.run.state == "failed" for one in rest) else "look"
    heading = f"{len(rest)} of {_count(len(named), 'run')} not done"
    return f'<div class="verdict {kind}"><h2>{heading}</h2><ul>{lines}</ul></div>'


# ---------------------------------------------------------------- all runs


def _runs_table(named: Sequence[Named]) -> str:
    if not named:
        return ""
    splits = {one.run.split for one in named}
    rows = [_runs_row(one, several_splits=len(splits) > 1) for one in named]
    note = (
        f"On the {' or '.join(sorted(splits))} split, with 95% intervals as the run scored them. "
        "AUC, F1, precision and recall: of the second class where there are two, else the mean "
        "over the classes (AUC one-vs-rest)."
    )
    return _wide(_sortable(rows), "All runs") + f'<p class="note">{escaped(note)}</p>'


def _runs_row(one: Named, *, several_splits: bool) -> dict[str, Cell]:
    run = one.run
    metrics, scored = run.metrics or {}, scores(run)
    keys = headline(metrics.get("classes") or ())
    label = f'<a href="#{one.anchor}">{escaped(one.label)}</a><div>{_chips(run.marks)}</div>'
    row = {"Run": Cell(label, one.label), "Data set": Cell(escaped(run.dataset), run.dataset)}
    if several_splits:
        row["Split"] = Cell(escaped(run.split), run.split)
    row["State"] = Cell(_state(run), run.state)
    for short, name in NAMES.items():
        value = scored.get(keys[short])
        interval = (scored.get("ci95") or {}).get(keys[short])
        row[name] = _missing() if value is None else Cell(_number(value, interval), value)
    row["Parameters"] = _count_cell((metrics.get("parameters") or {}).get("trainable"))
    row["Epochs"] = _epochs(run)
    seconds = metrics.get("wall_seconds")
    row["Time"] = _missing() if seconds is None else Cell(duration(seconds), seconds)
    return row


def _number(value: float, interval: Sequence[float] | None, sign: str = "-") -> str:
    """To four digits, and below it the interval; sign: `+` to say it of positive numbers too."""
    text = f"{value:{sign}.4f}"
    if interval:
        text += f" <small>[{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]</small>"
    return text


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


def _sortable(rows: Sequence[Mapping[str, Cell]]) -> str:
    """A table that page.js lets sort: a row's first cell is its heading, numbers stand right."""
    kinds = {
        name: ' class="n"' if _numeric([row[name] for row in rows]) else "" for name in rows[0]
    }
    head = "".join(f'<th scope="col"{kinds[name]}>{escaped(name)}</th>' for name in rows[0])
    lines = []
    for row in rows:
        cells = ""
        for name, cell in row.items():
            value = "" if cell.value is None else escaped(cell.value)
            tag, scope = ("td", "") if cells else ("th", ' scope="row"')
            cells += f'<{tag}{scope}{kinds[name]} data-value="{value}">{cell.content}</{tag}>'
        lines.append(f"<tr>{cells}</tr>")
    return (
        f'<table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


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


def _gallery(
    paths: Sequence[Path], kept: Mapping[Path, bytes], of: str, folder: Path | None = None
) -> str:
    """The pictures that are kept; of: whose they are; folder: what their names are told from."""
    figures = "".join(
        _figure(kept[path], str(path.relative_to(folder or path.parent)), f"{_words(path)}: {of}")
        for path in paths
        if path in kept
    )
    return f'<div class="figures">{figures}</div>' if figures else ""


def _figure(content: bytes, name: str, alt: str) -> str:
    # The first chunk of a PNG says how large it is: the page keeps that place free.
    width, height = (int.from_bytes(content[i : i + 4]) for i in (16, 20))
    uri = base64.b64encode(content).decode()
    return (
        f'<figure><img src="data:image/png;base64,{uri}" width="{width}" height="{height}" '
        f'alt="{escaped(alt)}"><figcaption>{escaped(name)}</figcaption></figure>'
    )


def _words(path: Path) -> str:
    return path.stem.replace("_", " ").replace("-", " ")


def _left_out(without: Mapping[Path, str]) -> str:
    if not without:
        return ""
    lines = "".join(
        f"<li><code>{escaped(path)}</code>: {escaped(reason)}</li>"
        for path, reason in without.items()
    )
    heading = f"{_count(len(without), 'picture')} left out"
    return f'<div class="verdict look"><h3>{heading}</h3><ul>{lines}</ul></div>'


# ---------------------------------------------------------------- audit and comparisons


def _audit(findings: Sequence[Mapping[str, Any]]) -> str:
    papers: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        papers.setdefault(str(finding["paper"]), []).append(finding)
    return "".join(f"<h3>{escaped(p)}</h3>{_findings(members)}" for p, members in papers.items())


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    """What contradicts comes first; else as the audit orders them."""
    order = list(VERDICTS)
    counts = Counter(str(finding["verdict"]) for finding in findings)
    text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
    lines = "".join(
        f"<li>{_badge(finding['verdict'], VERDICTS[finding['verdict']])} "
        f"<b>{escaped(finding['where'])}</b> {escaped(finding['claim'])}"
        f"<pre>{escaped(finding['arithmetic'])}</pre></li>"
        for finding in sorted(findings, key=lambda one: order.index(one["verdict"]))
    )
    return f'<p class="note">{text}</p><ul class="findings">{lines}</ul>'


def _comparisons(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    notes = "".join(f"<li>{escaped(note)}</li>" for note in NOTES)
    table = _wide(_sortable(list(map(_pair_row, found))), "Pairs of runs")
    if len(found) > MANY_PAIRS:
        table = f"<details><summary>{len(found)} pairs</summary>{table}</details>"
    return f'{table}<ul class="footnotes">{notes}</ul>'


def _pair_row(one: Mapping[str, Any]) -> dict[str, Cell]:
    marks = dict.fromkeys(f"{one['marks_a']}, {one['marks_b']}".split(", "))
    pair = f"{one['a']} less {one['b']}"
    label = f"{escaped(pair)}<div>{_chips(filter(None, marks))}</div>"
    if one["reason"]:
        label += f"<small>not compared: {escaped(one['reason'])}</small>"
    interval = None if one["auc_low"] is None else (one["auc_low"], one["auc_high"])
    return {
        "First less second": Cell(label, pair),
        "Data set": Cell(escaped(one["dataset"]), str(one["dataset"])),
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
    return Cell(_number(round(value, 4) + 0.0, interval, sign="+"), value)


def _p_value(p: float | None, holm: float | None) -> Cell:
    """By itself, and below it adjusted for the other pairs."""
    if p is None:
        return _missing()
    adjusted = "" if holm is None else f"<small>Holm {_probability(holm)}</small>"
    return Cell(f"{_probability(p)} {adjusted}", p)


def _probability(p: float) -> str:
    return "&lt;0.0001" if p < 0.0001 else f"{p:.4f}"


# ---------------------------------------------------------------- settings and provenance


def flat(node: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, in order; lists and empty mappings are values."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def differing(nodes: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted key -> its value in each node, as text, where they are not all the same.

    MISSING where a node has no such key.
    """
    each = [dict(flat(node)) for node in nodes]
    keys = dict.fromkeys(key for one in each for key in one)
    found = {key: [spelt(one[key]) if key in one else MISSING for one in each] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def spelt(value: Any) -> str:
    """A setting as one line of JSON; a string bare, unless it would read as something else."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _differences(named: Sequence[Named], provenance: Sequence[Mapping[str, Any]]) -> str:
    settings = [
        {key: value for key, value in flat(one.run.config) if _sets_something(key)} for one in named
    ]
    origins = [{key: value for key, value in one.items() if key not in OWN} for one in provenance]
    text = _beside(named, settings, "Settings") + _beside(named, origins, "Provenance")
    note = (
        '<p class="note">Keys of config.yaml and provenance.json, of the runs that have one. What '
        "a network is (model.about), a paper's table, the command and the time of the start stand "
        "with each run below.</p>"
    )
    return text and text + note


def _sets_something(key: str) -> bool:
    first, _, rest = key.partition(".")
    return rest in CHOICES if first == "paper" else not key.startswith("model.about.")


def _beside(named: Sequence[Named], nodes: Sequence[Mapping[str, Any]], what: str) -> str:
    """A table of the keys in which nodes differ by their runs, folded up where these are many.

    A run whose node is empty wrote none, and is left out.
    """
    named = [one for one, node in zip(named, nodes, strict=True) if node]
    found = differing([node for node in nodes if node])
    if not found:
        return ""
    head = "".join(
        f'<th scope="col"><a href="#{one.anchor}">{escaped(one.label)}</a></th>' for one in named
    )
    lines = ""
    for key, values in found.items():
        cells = "".join(f"<td>{escaped(value)}</td>" for value in values)
        lines += f'<tr><th scope="row">{escaped(key)}</th>{cells}</tr>'
    table = _wide(
        f'<table class="settings"><thead><tr><th scope="col">Key</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table>",
        f"{what} in which the runs differ",
    )
    if len(named) <= MANY_RUNS:
        return f"<h3>{what}</h3>{table}"
    count = f"{_count(len(found), 'key')} in {len(named)} runs"
    return f"<details><summary><h3>{what}</h3> {count}</summary>{table}</details>"


def _provenance(run: Run) -> dict[str, Any]:
    path = run.path / "provenance.json"
    return read_json(path) if path.exists() else {}


def _details(
    named: Sequence[Named],
    pictures: Mapping[str, Sequence[Path]],
    kept: Mapping[Path, bytes],
    provenance: Sequence[Mapping[str, Any]],
) -> str:
    text = ""
    for one, origin in zip(named, provenance, strict=True):
        run = one.run
        status = {key: value for key, value in run.status.items() if key != "reason"}
        config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100)
        notes = (run.metrics or {}).get("notes") or ()
        facts = {
            "folder": str(run.path),
            **({"reason": run.reason} if run.reason else {}),
            **({"notes": notes} if notes else {}),
            **origin,
            "status": status,
        }
        text += (
            f'<details class="run" id="{one.anchor}"{"" if run.state == "done" else " open"}>'
            f"<summary><h3>{escaped(one.label)}</h3> on {escaped(run.dataset)} "
            f"{_state(run)} {_chips(run.marks)}</summary>"
            f"{_facts(facts)}"
            f"{'' if origin else '<p>It wrote no provenance.json.</p>'}"
            f"{_gallery(pictures[one.anchor], kept, f'{one.label} on {run.dataset}', run.path)}"
            f"<details><summary>config.yaml</summary><pre>{escaped(config)}</pre></details>"
            "</details>"
        )
    return text


def _facts(facts: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<dt>{escaped(key.replace('_', ' '))}</dt><dd>{_fact(value)}</dd>"
        for key, value in facts.items()
        if value not in (None, {}, [])
    )
    return f"<dl>{lines}</dl>"


def _fact(value: Any) -> str:
    """A line a part, words in a line."""
    if isinstance(value, Mapping):
        nested = any(isinstance(part, Mapping) for part in value.values())
        parts = [f"{key}: {_line(part)}" if nested else f"{key} {_line(part)}"
                 for key, part in value.items()]  # fmt: skip
        return ("<br>" if nested else ", ").join(map(escaped, parts))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "<br>".join(escaped(spelt(part)) for part in value)
    return escaped(spelt(value))


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spelt(part)}" for key, part in value.items())
    return spelt(value)


# ---------------------------------------------------------------- pieces


def _wide(table: str, label: str) -> str:
    """A box that scrolls by itself, by keyboard too, so that the page never does sideways."""
    return f'<div class="wide" role="region" aria-label="{label}" tabindex="0">{table}</div>'


def _badge(text: object, kind: str) -> str:
    return f'<span class="badge {kind}">{escaped(text)}</span>'


def _state(run: Run) -> str:
    return _badge(run.state, STATES.get(run.state, "look"))


def _chips(marks: Iterable[str]) -> str:
    return " ".join(
        f'<span class="{"chip phantom" if mark == "PHANTOM" else "chip"}">{escaped(mark)}</span>'
        for mark in marks
    )


def _because(run: Run) -> str:
    return f" {escaped(' '.join(run.reason.split()))}" if run.reason else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
