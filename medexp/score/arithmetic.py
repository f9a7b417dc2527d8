"""Arithmetic of printed numbers: each stands for all numbers that round to it."""

import ast
import math
import operator
import re
from collections.abc import Callable
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

from medexp.config.paper import Column, Paper, rounding
from medexp.errors import MedexpError, nearest

Span = tuple[float, float]


class Value(NamedTuple):
    """All that a number may be, from low to high, and what the printed digits make of it."""

    low: float
    high: float
    middle: float

    @property
    def span(self) -> Span:
        return self.low, self.high


class Expression(NamedTuple):
    """A value and its text, with the table's numbers put in; plain: it is a single one of them."""

    value: Value
    text: str
    plain: bool


OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
PICKS: dict[str, Callable[[list[float]], float]] = {"max": max, "min": min, "mean": fmean}
CELLS = {"at": 2, "column": 1, "gains": 3}  # their numbers of arguments


def expression(paper: Paper, formula: Any) -> Expression:
    """Evaluate numbers, + - * /, log(), max(), min(), mean() and a table's own numbers.

    A number with a point is rounded to its last digit ("63." to the unit), a whole number is exact.
    at('ROW', 'COLUMN') is a number of the table; column('COLUMN') are all of a column, and
    gains('COLUMN', 'BEFORE', 'AFTER') the differences between rows BEFORE + x and AFTER + x.

    Raises:
        MedexpError: it cannot be read, or names a row or column that the table does not have.
    """
    source = str(formula).strip()
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise MedexpError(f"{source!r} cannot be read: {error.msg}") from error
    value = _value(paper, tree, source)
    text = source
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (cells := _cells(paper, node)) is not None:
            texts = ", ".join(" - ".join(cell) for cell in cells)
            text = text.replace(ast.get_source_segment(source, node) or "", texts)
    text = text.replace("*", "·").rstrip(".")
    plain = re.fullmatch(r"[\d.]+", text) is not None
    return Expression(value, f"{int(text):,}" if text.isdecimal() else text, plain)


def overlap(first: Span, second: Span) -> bool:
    """Whether two spans share a number; what only the last bits of a float keep apart does."""
    slack = 1e-12 * max(map(abs, (*first, *second)))
    return max(first[0], second[0]) <= min(first[1], second[1]) + slack


def span_of(printed: str) -> Span:
    """What a printed number stands for, "93.02%" too."""
    if not printed.endswith("%"):
        return rounding(printed)
    low, high = rounding(printed[:-1])
    return low / 100, high / 100


def shown(value: float) -> str:
    """A number as text: whole ones in full, others to five digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.1f}"


def column_of(paper: Paper, name: str) -> Column:
    """A column by its name; MedexpError where there is none."""
    columns = {column.name: column for column in paper.columns}
    if name not in columns:
        raise MedexpError(f"no column {name!r} in {paper.table}. {nearest(name, columns)}")
    return columns[name]


def cell_of(paper: Paper, label: str, column: str) -> str:
    """A number of the table as printed; MedexpError where there is none."""
    rows = {row.label: row for row in paper.rows}
    if label not in rows:
        raise MedexpError(f"no row {label!r} in {paper.table}. {nearest(label, rows)}")
    if column_of(paper, column).name not in rows[label].reported:
        raise MedexpError(f"row {label!r} reports no {column!r}")
    return rows[label].reported[column]


# ---------------------------------------------------------------- an expression, node by node


def _value(paper: Paper, node: ast.expr, source: str) -> Value:
    part = ast.get_source_segment(source, node) or ""
    match node:
        case ast.Constant() if part[0] in "0123456789.":
            low, high = rounding(part) if "." in part else (float(part), float(part))
            return Value(low, high, float(part))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            x = _value(paper, operand, source)
            return Value(-x.high, -x.low, -x.middle)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            x, y = _value(paper, left, source), _value(paper, right, source)
            if isinstance(op, ast.Div) and y.low <= 0 <= y.high:
                raise MedexpError(f"{part!r} divides by what may be 0")
            apply = OPERATORS[type(op)]
            corners = [apply(a, b) for a, b in product(x.span, y.span)]
            return Value(min(corners), max(corners), apply(x.middle, y.middle))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as arguments) if name in PICKS:
            values = [value for one in arguments for value in _values(paper, one, source)]
            return Value(*(PICKS[name]([value[i] for value in values]) for i in range(3)))
        case ast.Call(func=ast.Name(id="log"), args=[argument]):
            x = _value(paper, argument, source)
            if x.low <= 0:
                raise MedexpError(f"{part!r} is of what may be 0 or less")
            return Value(*map(math.log, x))
        case ast.Call() if (cells := _cells(paper, node)) and len(cells) == 1:
            return _difference(*cells[0])
    raise MedexpError(
        f"{part!r} in {source!r} is none of: a number, + - * /, log(), max(), min(), mean(), "
        "at('ROW', 'COLUMN'), and inside max, min and mean column('COLUMN'), gains('COLUMN', "
        "'BEFORE', 'AFTER')"
    )


def _values(paper: Paper, node: ast.expr, source: str) -> list[Value]:
    """The values of an argument of max(), min() and mean()."""
    if isinstance(node, ast.Call) and (cells := _cells(paper, node)):
        return [_difference(*cell) for cell in cells]
    return [_value(paper, node, source)]


def _difference(printed: str, less: str | None = None) -> Value:
    """A printed number, or what it is more than another one."""
    low, high = rounding(printed)
    if less is None:
        return Value(low, high, float(printed))
    return Value(low - rounding(less)[1], high - rounding(less)[0], float(printed) - float(less))


def _cells(paper: Paper, call: ast.Call) -> list[tuple[str, ...]] | None:
    """The table's numbers that a call names: one each, or of gains() two, to be subtracted."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    words = [str(one.value) for one in call.args if isinstance(one, ast.Constant)]
    if CELLS.get(name) != len(words) or len(words) != len(call.args):
        return None
    if name == "at":
        return [(cell_of(paper, words[0], words[1]),)]
    column = column_of(paper, words[0]).name
    if name == "column":
        return [(row.reported[column],) for row in paper.rows if column in row.reported]
    _, before, after = words
    pairs = [row.label.removeprefix(after) for row in paper.rows if row.label.startswith(after)]
    return [(cell_of(paper, after + x, column), cell_of(paper, before + x, column)) for x in pairs]
