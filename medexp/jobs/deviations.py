"""Where a run is not the one that a row of a paper's table asks for, key by key.

A row is the paper's only if the run is: any key that can change a result and is not as the row's
command sets it makes the run's mark DEVIATES, and its numbers not comparable.
"""

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from medexp.config.compose import compose
from medexp.config.paper import BEFORE, Paper, PaperRow, parse_paper
from medexp.config.settings import Settings, decisive
from medexp.config.tree import plain
from medexp.errors import ConfigError
from medexp.jobs.paper import is_list, value_text

SHOWN = 4  # keys in the words of a mark; metrics.json and table.json have them all

# The one list of keys in which a run may differ from the row's and still be the paper's run. They
# change no result (where it computes and how fast, how often it is scored, names, paths and columns
# of files, facts), are the draw of a lottery (seeds), or are told by a mark or note of their own
# (source, amp, devices, allow_leak, on_error).
EXEMPT = (
    "names.*",
    "seed",
    "source.*",
    "metrics.*",
    "model.about.*",
    *(f"trainer.{key}" for key in ("amp", "channels_last", "deterministic", "graphs", "compile")),
    *(f"trainer.{key}" for key in ("eval_batch_size", "resamples", "prune_after")),
    *(f"trainer.{key}" for key in ("devices", "sync_batchnorm")),
    *(f"dataset.{key}" for key in ("phantom", "allow_leak", "on_error", "labels", "mask_folder")),
    "dataset.*_column",
)


def row_of(settings: Settings) -> tuple[Paper, PaperRow | None, Mapping[str, Any]] | None:
    """The table that a run belongs to, its row, and KEY -> VALUE of the command that makes it.

    The row is None for a run that rows start from. None where the run belongs to no table, or the
    table names no command.
    """
    if not settings.paper:
        return None
    paper, key = parse_paper(settings.paper), settings.paper.get("row")
    rows = paper.place(key, settings.names.model, settings.names.dataset)
    if rows is None:
        return None
    if not rows:
        return paper, None, paper.before[str(key).removeprefix(BEFORE)]["run"]
    run = {**paper.base, **rows[0].run}
    if settings.names.model in rows[0].models:  # another reading of the same network
        run["model"] = settings.names.model
    return (paper, rows[0], run) if paper.base or rows[0].run else None


def deviations(settings: Settings, scaled: Mapping[str, Any] = {}) -> dict[str, tuple[Any, Any]]:
    """KEY -> (the row's value, the run's), of all in which a run is not its row's.

    scaled: keys that a budget sets, which the mark PARTIAL tells. Empty for a run in no table.

    Raises ConfigError where the row's own command cannot be composed.
    """
    place = row_of(settings)
    if place is None:
        return {}
    paper, row, run = place
    texts = {key: value_text(value) for key, value in run.items()}
    lists = {key: text.split(",") for key, text in texts.items() if is_list(text)}
    words = [f"{key}={lists[key][0] if key in lists else text}" for key, text in texts.items()]
    if not {"dataset", "recipe"} & set(texts):
        words.insert(0, f"dataset={paper.dataset}")
    own = os.environ.get("MEDEXP_CONFIG_DIR")
    try:
        made = compose(words, ["--config-dir", own] if own else [])
    except ConfigError as error:
        where = f"row {row.label}" if row else "a run that rows start from"
        raise ConfigError(f"paper: the command of {where} of {paper.table}: {error}") from error
    theirs, ours = (decisive(plain(one)) for one in (made, settings))
    found = {}
    for key in dict.fromkeys([*theirs, *ours]):
        was, now = theirs.get(key), ours.get(key)
        if was == now or key in scaled or any(fnmatch(key, pattern) for pattern in EXEMPT):
            continue
        if key == "init_from" and was and now:  # a folder's name; its marks are handed on
            continue
        if key.endswith("dataset.split_seed") and was == 0:  # no paper states ours
            continue
        if key in lists and value_text(now) in lists[key]:
            continue
        found[key] = (was, now)
    return found


def reason_of(found: Mapping[str, tuple[Any, Any]], settings: Settings) -> str:
    """The mark's words: the first few keys, with what the row has in parentheses."""
    place = row_of(settings)
    assert place is not None
    paper, row, _ = place
    # What another target takes follows from it.
    other = tuple(key.removesuffix("_target_") for key in found if key.endswith("._target_"))
    shown = [
        f"{key}={value_text(now)} ({value_text(was)})"
        for key, (was, now) in found.items()
        if key.endswith("._target_") or not key.startswith(other)
    ]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    which = f"row {row.label}" if row else "the run that rows start from"
    return f"not the run of {which} in {paper.table}: {', '.join(shown[:SHOWN])}{more}"
