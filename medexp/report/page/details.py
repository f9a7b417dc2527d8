"""What a page tells of each run: where it comes from, its settings, what they differ in."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup

from medexp.config.paper import CHOICES
from medexp.report.table.load import Run
from medexp.report.table.tables import MISSING
from medexp.runs.files import read_json

MANY_RUNS = 6  # above this, settings side by side are folded up
OWN = ("command", "seed", "started")  # what each run's provenance has of its own


class Named(NamedTuple):
    """A run, what it is called among the others, and the id of its place on the page."""

    run: Run
    label: str
    anchor: str

    @property
    def title(self) -> str:
        return f"{self.label} on {self.run.dataset}"


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


def differences(
    named: Sequence[Named], provenance: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The keys in which the runs' settings differ, and those of where they come from."""
    settings = [
        {key: value for key, value in flat(one.run.config) if _sets_something(key)} for one in named
    ]
    origins = [{key: value for key, value in one.items() if key not in OWN} for one in provenance]
    return [_beside(named, settings, "Settings"), _beside(named, origins, "Provenance")]


def _sets_something(key: str) -> bool:
    first, _, rest = key.partition(".")
    return rest in CHOICES if first == "paper" else not key.startswith("model.about.")


def _beside(
    named: Sequence[Named], nodes: Sequence[Mapping[str, Any]], what: str
) -> dict[str, Any]:
    """The keys in which nodes differ beside their runs, folded up where these are many.

    A run whose node is empty wrote none, and is left out.
    """
    runs = [one for one, node in zip(named, nodes, strict=True) if node]
    keys = differing([node for node in nodes if node])
    return {"what": what, "runs": runs, "changed": keys, "folded": len(runs) > MANY_RUNS}


def read_provenance(run: Run) -> dict[str, Any]:
    path = run.path / "provenance.json"
    return read_json(path) if path.exists() else {}


def run_details(
    one: Named, origin: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is told of a run by itself: facts, pictures, its config."""
    run = one.run
    status = {key: value for key, value in run.status.items() if key != "reason"}
    notes = (run.metrics or {}).get("notes") or ()
    facts = {
        "folder": str(run.path),
        **({"reason": run.reason} if run.reason else {}),
        **({"notes": notes} if notes else {}),
        **origin,
        "status": status,
    }
    return {
        **one._asdict(),
        "origin": origin,
        "facts": [
            (key.replace("_", " "), *_fact(value))
            for key, value in facts.items()
            if value not in (None, {}, [])
        ],
        "pictures": drawn,
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100),
    }


def _fact(value: Any) -> tuple[list[str], str]:
    """The parts of a fact, and what stands between them: a line a part, words in a line."""
    if isinstance(value, Mapping):
        nested = any(isinstance(part, Mapping) for part in value.values())
        colon = ":" if nested else ""
        parts = [f"{key}{colon} {_line(part)}" for key, part in value.items()]
        return parts, Markup("<br>") if nested else ", "
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [spelt(part) for part in value], Markup("<br>")
    return [spelt(value)], ""


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spelt(part)}" for key, part in value.items())
    return spelt(value)
