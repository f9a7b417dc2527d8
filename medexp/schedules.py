"""Learning rates as functions of training time (Johny et al. 2021, equations 1-3 and Fig. 5).

Every schedule is a pure function `f(lr, *, epoch, iteration, ...)`, used as a partial: `lr` is the
initial rate, `epoch` counts the epochs and `iteration` the optimizer steps completed so far (both
start at 0), and the result is the rate of the next step. `unit` says which of the two is time.

The result is clipped to [lower, upper] (None: no limit; the paper's are 0.001 and 0.1). All raise
ConfigError for a parameter out of its range.
"""

import math
from typing import Literal

from medexp.errors import ConfigError

Unit = Literal["epoch", "iteration"]


def constant(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """The initial rate throughout."""
    return _limited(lr, lower, upper)


def time(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    decay: float,
    unit: Unit = "iteration",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """Equation (1): lr / (1 + decay * t). Keras' old `decay` argument, which counts iterations."""
    _require(decay >= 0, "decay", decay, "must be 0 or more")
    return _limited(lr / (1 + decay * _elapsed(unit, epoch, iteration)), lower, upper)


def step(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    factor: float,
    every: int,
    unit: Unit = "epoch",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """Equation (2): lr * factor ** floor((1 + t) / every).

    The paper prints it without the floor, which a step has. Its 1 + t makes the rate drop one unit
    early: with every=100, the 100th epoch (epoch=99) is the first at the lower rate.
    """
    _require(0 < factor <= 1, "factor", factor, "must be a number above 0 and up to 1")
    _require(every >= 1, "every", every, "must be 1 or more")
    drops = (1 + _elapsed(unit, epoch, iteration)) // every
    return _limited(lr * factor**drops, lower, upper)


def exponential(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    k: float,
    unit: Unit = "epoch",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """Equation (3): lr * exp(-k * t)."""
    _require(k >= 0, "k", k, "must be 0 or more")
    return _limited(lr * math.exp(-k * _elapsed(unit, epoch, iteration)), lower, upper)


def _elapsed(unit: str, epoch: int, iteration: int) -> int:
    _require(unit in ("epoch", "iteration"), "unit", unit, "must be epoch or iteration")
    return epoch if unit == "epoch" else iteration


def _limited(lr: float, lower: float | None, upper: float | None) -> float:
    if lower is not None and upper is not None:
        _require(lower <= upper, "lower", lower, f"must be schedule.upper ({upper}) or less")
    if lower is not None:
        lr = max(lr, lower)
    if upper is not None:
        lr = min(lr, upper)
    return lr


def _require(ok: bool, key: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(f"schedule.{key}={value}: {remedy}")
