"""The figures of all steps: each a line of one file, kept as soon as it is known.

A step that is ended by its time limit, or fails, so keeps what it measured before.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "figures.jsonl"


@dataclass(frozen=True)
class Figure:
    """value: a number, or a text (what failed and why). goal: what is asked of it, `<= 2`."""

    step: str
    what: str
    value: float | str
    unit: str = ""
    goal: str = ""

    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        if isinstance(self.value, str):
            return False
        return self.value <= float(limit) if sign == "<=" else self.value >= float(limit)


def file() -> Path:
    return Path(os.environ.get("OUT", ".")) / NAME


def note(step: str, what: str, value: float | str, unit: str = "", goal: str = "") -> None:
    """Keep a figure, and print it."""
    figure = Figure(step, what, value, unit, goal)
    with file().open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(figure)) + "\n")
    print(f"{step}: {what}: {shown(figure)}", flush=True)


def known(path: Path | None = None) -> list[Figure]:
    """All figures until now; a line that was cut short is left out."""
    path = path or file()
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(Figure(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def value_of(step: str, what: str) -> float | None:
    """The latest number of that name, from any step before."""
    values = [f.value for f in known() if (f.step, f.what) == (step, what)]
    numbers = [value for value in values if not isinstance(value, str)]
    return numbers[-1] if numbers else None


@contextmanager
def attempt(step: str, what: str) -> Iterator[None]:
    """What fails inside is a figure that says so, and no reason not to go on."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        note(step, what, f"failed: {type(error).__name__}: {lines[-1][:160]}")


def shown(figure: Figure) -> str:
    """A value as a person reads it: three digits, thousands apart."""
    value: Any = figure.value
    if not isinstance(value, str):
        value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value} {figure.unit}".strip()
