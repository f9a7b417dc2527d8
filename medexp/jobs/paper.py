"""The runs behind a table of a paper: which there are, and which of them are still to be made.

`medexp train -m paper=NAME` makes one run a row. Pure functions and reading; the sweeper `rows` in
hydra_plugins starts what they ask for.
"""

import hashlib
import os
import re
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from medexp.config.line import Line
from medexp.config.paper import BUDGETS, Paper, parse_paper
from medexp.config.saved import of_today
from medexp.config.settings import Settings, decisive
from medexp.config.tree import build, plain, without_numbers
from medexp.errors import ConfigError, nearest, one_of
from medexp.runs.files import read_json, write_json, write_text
from medexp.runs.guard import read_yaml, refuse_ways_out

REPEATED = ("seed", "dataset.fold", "dataset.split_seed", "source.seed")


@dataclass(frozen=True)
class Job:
    """One run: the row that it makes, KEY -> VALUE of its command line, and its folder's name.

    before: it is a run that rows start from.
    """

    row: str
    settings: Mapping[str, str]
    folder: str
    before: bool = False

    def overrides(self, *more: str) -> list[str]:
        row = f"before: {self.row}" if self.before else self.row
        own = [f"{key}={value}" for key, value in self.settings.items()]
        return [
            *own,
            f"++paper.row={quoted(row)}",
            f"hydra.sweep.subdir={quoted(self.folder)}",
            *more,
        ]


def plan(
    paper: Paper,
    user: Mapping[str, Sequence[str]],
    *,
    root: Path,
    budget: str,
    only: Sequence[str] = (),
) -> list[Job]:
    """The jobs of a table: first those that rows start from, then the rows.

    root: the folder that their folders lie in. user: KEY -> the values that the command line gives
    it; several are crossed with the rows. A row whose `run` holds a list (A,B,C) is several
    jobs; jobs that two rows share are made once, for the first of them.

    Raises:
        ConfigError: the budget or a row of `only` does not exist, the table has no runs, or the
            command line sets what tells the rows apart.
    """
    one_of("paper.budget", budget, BUDGETS)
    keys = list(dict.fromkeys(row.key for row in paper.rows))
    labels = {row.label: row.key for row in paper.rows}
    for label in only:
        if label not in labels and label not in keys:
            raise ConfigError(
                f"paper.only={label}: no such row of {paper.table}. {nearest(label, labels)}"
            )
    wanted = {labels.get(label, label) for label in only} or set(keys)
    rows = {row.key: row.run for row in reversed(paper.rows) if row.key in wanted and row.run}
    rows = {key: rows[key] for key in keys if key in rows}
    if not rows:
        raise ConfigError(
            f"paper: {paper.table} of {paper.title} names no runs (the key `run` of its rows), so "
            "there is nothing to sweep. Name the networks yourself, without paper=NAME"
        )
    own = {key for run in rows.values() for key in run}
    if taken := own & set(user):
        raise ConfigError(
            f"{min(taken)}: the rows of {paper.table} set it. Leave it out; "
            f"paper.only=[{', '.join(map(quoted, list(rows)[:2]))}] chooses rows"
        )
    fixed = {key: values[0] for key, values in user.items() if len(values) == 1}
    crossed = {key: values for key, values in user.items() if len(values) > 1}
    # A single seed is part of the name too: more may come to stand beside it.
    named = {**crossed, **{key: [v] for key, v in fixed.items() if key in REPEATED}}
    starts = {run["init_from"] for run in rows.values() if run.get("init_from") in paper.before}
    jobs = []
    for name, start in paper.before.items():
        if name in starts:
            run = {**start["run"], **((start.get("budgets") or {}).get(budget) or {})}
            jobs += _jobs(name, run, fixed, named, root, starts, before=True)
    for key, own_run in rows.items():
        small = next(row.budgets.get(budget) or {} for row in paper.rows if row.key == key)
        run = {**paper.base, **own_run, **(paper.budgets.get(budget) or {}), **small}
        jobs += _jobs(key, run, fixed, named, root, starts)
    jobs = _distinct(jobs)
    for place, job in enumerate(jobs):
        for other in jobs[:place]:
            if job.folder == other.folder:
                raise ConfigError(
                    f"paper: rows {other.row!r} and {job.row!r} of {paper.table} would lie in one "
                    f"folder, {job.folder}. Give one of them another label"
                )
    return jobs


def _jobs(
    row: str,
    run: Mapping[str, Any],
    fixed: Mapping[str, str],
    named: Mapping[str, Sequence[str]],
    root: Path,
    starts: Collection[str],
    *,
    before: bool = False,
) -> list[Job]:
    """The jobs of one row: its lists of values, crossed with `named`, those of the command line."""
    settings = {key: value_text(value) for key, value in run.items()}
    lists = {key: value.split(",") for key, value in settings.items() if is_list(value)}
    found = []
    for own in _cross(lists):
        for repeat in _cross(named):
            start = settings.get("init_from")
            where = {"init_from": quoted(str(root / _folder(f"before-{start}", repeat)))}
            found.append(
                Job(
                    row,
                    {**settings, **own, **fixed, **repeat, **(where if start in starts else {})},
                    _folder(f"before-{row}" if before else row, {**own, **repeat}),
                    before,
                )
            )
    return found


def _cross(lists: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _folder(name: str, values: Mapping[str, str]) -> str:
    return slug(name + "".join(f"-{key}={value}" for key, value in values.items()))


def _distinct(jobs: Sequence[Job]) -> list[Job]:
    seen: dict[tuple[tuple[str, str], ...], Job] = {}
    for job in jobs:
        seen.setdefault(tuple(sorted(job.settings.items())), job)
    return list(seen.values())


def paper_row(name: str, paper: Paper) -> dict[str, Any]:
    """What `medexp papers --json` says of a table or figure, by its option's name.

    columns: those with reported numbers. runs: how many it takes in full, with those that rows
    start from. command: what makes them.
    """
    reported = {column for row in paper.rows for column in row.reported}
    runs = any(row.run for row in paper.rows)
    return {
        "paper": name,
        "title": paper.title,
        "citation": paper.citation,
        "table": paper.table,
        "dataset": paper.dataset,
        "rows": [row.label for row in paper.rows],
        "columns": [column.name for column in paper.columns if column.name in reported],
        "runs": len(plan(paper, {}, root=Path(), budget="full")) if runs else 0,
        "budgets": [budget for budget in BUDGETS if budget in paper.budgets],
        "figures": [str(figure.get("title") or figure["draw"]) for figure in paper.figures],
        "command": f"medexp train -m paper={name}",
    }


def values_of(line: Line) -> dict[str, list[str]]:
    """KEY -> its values, of the overrides of a command line, as they are spelled there."""
    return {
        one.key_or_group: (
            [str(text) for text in one.sweep_string_iterator()]
            if one.is_sweep_override()
            else [str(one.input_line).partition("=")[2]]
        )
        for one in line.overrides
    }


def of_every_run(line: Line) -> list[str]:
    """The overrides of a command line that neither choose the table nor are Hydra's own."""
    return [
        str(one.input_line)
        for one in line.overrides
        if not re.match(r"paper($|\.)|hydra[./]", one.key_or_group)
    ]


def is_list(text: str) -> bool:
    return "," in text and text[0] not in "[{'\""


def value_text(value: Any) -> str:
    """A YAML value as the command line spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(value_text, value)) + "]"
    return str(value)


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def slug(text: str) -> str:
    """A folder's name: letters, digits and a few signs of a text."""
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-") or "row"


def folder_of(name: str, line: Line) -> str:
    """Where the runs of a table lie: one folder for a budget, a source and what else was said."""
    values = values_of(line)
    budget = values.get("paper.budget", ["full"])[0]
    source = values.get("source", ["disk"])[0]
    varied = (*REPEATED, "dataset.root", *without_numbers(Settings))
    kept = {
        key: texts[0]
        for key, texts in values.items()
        if len(texts) == 1 and key not in varied and not key.startswith(("paper.", "hydra"))
    }
    words = "".join(f"-{key}={kept[key]}" for key in sorted(kept) if key not in ("paper", "source"))
    if len(words) > 120:  # a folder's name has 255 bytes
        words = "-" + hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
    return f"outputs/papers/{slug(f'{name}-{budget}-{source}{words}')}"


# ---------------------------------------------------------------- what is there already


def state_of(folder: Path, settings: Mapping[str, Any]) -> str:
    """How a job stands: `missing`, `done`, `running`, `resume`, `failed` or `other`.

    settings: KEY -> value of the job's config as `decisive` gives it; `other` is a run of other
    settings, which a job of these must not go on with.
    """
    if not (folder / "status.json").is_file():
        return "missing"
    status = read_json(folder / "status.json")
    if status["state"] == "running" and _alive(status):
        return "running"
    if not (folder / "config.yaml").is_file():
        return "failed"
    if decisive(completed(read_config(folder))) != settings:
        return "other"
    if status["state"] == "done":
        return "done"
    saved_state = any(folder.glob("**/checkpoints/last.pt"))
    cut = status["state"] == "running" or "Interrupted" in (status.get("reason") or "")
    return "resume" if saved_state and cut else "failed"


def completed(content: dict[str, Any]) -> dict[str, Any]:
    """A saved config with the defaults of keys that came after it was written."""
    with suppress(ConfigError):  # one that is no config of today is compared as it is
        return dict(plain(build(Settings, content)))
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of a run."""
    file = folder / "config.yaml"
    return _read_config(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1024)  # each row of a table looks through the runs of the others
def _read_config(file: Path, changed: int) -> dict[str, Any]:
    content = read_yaml(file)
    return dict(of_today(content)) if isinstance(content, dict) else {}


def find_twin(root: Path, settings: Mapping[str, Any], paper: Mapping[str, Any]) -> Path | None:
    """A done run of another table beside `root` with the same settings, which need not run again.

    paper: the job's `paper` node; the twin's must agree in what the run's marks are made of.
    """
    for file in sorted(root.parent.glob("*/*/config.yaml")):
        folder = file.parent
        if folder.parent == root or state_of(folder, settings) != "done":
            continue
        other = read_config(folder).get("paper") or {}
        facts = ("citation", "epochs", "budget")
        if [other.get(key) for key in facts] == [paper.get(key) for key in facts]:
            return folder
    return None


def take(twin: Path, folder: Path, config: str, overrides: Sequence[str]) -> None:
    """Make `folder` the run of `twin` under its own name: the config and command line of its row.

    Weights are links where the file system has them. provenance.json says what it was taken from.
    """
    refuse_ways_out(twin)  # copying follows links
    unfinished = folder.with_name(f".{folder.name}.taken")
    shutil.rmtree(unfinished, ignore_errors=True)
    left = shutil.ignore_patterns(".hydra", "config.yaml", "table.*", "last.pt", "eval")
    shutil.copytree(twin, unfinished, ignore=left, copy_function=link_or_copy)
    write_text(unfinished / "config.yaml", config)
    (unfinished / ".hydra").mkdir()
    write_text(unfinished / ".hydra" / "overrides.yaml", "".join(f"- {o}\n" for o in overrides))
    provenance = read_json(twin / "provenance.json")
    write_json(unfinished / "provenance.json", provenance | {"taken_from": str(twin)})
    unfinished.rename(folder)


def link_or_copy(source: str, target: str) -> None:
    """Weights are only ever replaced; a log is added to, so that a link would change both runs."""
    if source.endswith(".pt"):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def set_aside(folder: Path) -> Path:
    """Move a run out of the way, into `.earlier` beside it: no run is ever written over."""
    shelf = folder.parent / ".earlier"
    shelf.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in shelf.glob(f"{folder.name}-*"))
    return folder.rename(shelf / f"{folder.name}-{number}")


def _alive(status: Mapping[str, Any]) -> bool:
    """Whether the process that writes a run may be alive; of another machine that is not known."""
    if status.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(status["pid"]), 0)
    except (OSError, KeyError, ValueError):
        return False
    return int(status["pid"]) != os.getpid()


def read_paper(name: str, node: Any) -> Paper:
    """The Paper of a composed `paper` node; ConfigError where there is none."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"paper={name}: composes to no table")
    return parse_paper(node)
