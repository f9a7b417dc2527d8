"""Learning rates as functions of training time (Johny et al. 2021, equations 1-3 and Fig. 5).

Every schedule is a pure function `f(lr, *, ...) -> rate of the next step`, used as a partial: `lr`
is the initial rate, and of the loop's clock it takes what it needs: `epoch` and `iteration` (epochs
and optimizer steps completed, both from 0), `epochs` (planned), `steps` (of an epoch) and `history`
(val_loss of each completed epoch). `unit` says what time is counted in. As nothing is kept between
calls, a resumed run has the rates of one that was not interrupted.

The result is clipped to [lower, upper] (None: no limit; the paper's are 0.001 and 0.1). All raise
ConfigError for a parameter out of its range.
"""

import math
from collections.abc import Sequence
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


def anneal(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    factor: float,
    every: int,
    unit: Unit = "iteration",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """lr * factor ** floor(t / every): Nguyen et al. 2017, sections 6.2 to 6.4.

    Unlike `step` it drops after `every` units and not one before. It is TensorFlow's
    exponential_decay with staircase=True, and PyTorch's StepLR.
    """
    _require(0 < factor <= 1, "factor", factor, "must be a number above 0 and up to 1")
    _require(every >= 1, "every", every, "must be 1 or more")
    return _limited(lr * factor ** (_elapsed(unit, epoch, iteration) // every), lower, upper)


def plateau(
    lr: float,
    *,
    history: Sequence[float],
    factor: float,
    patience: int,
    min_delta: float = 1e-4,
    cooldown: int = 0,
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """lr * factor ** (how often the validation loss has stagnated): Keras' ReduceLROnPlateau.

    Stagnation is `patience` epochs without a loss that is more than `min_delta` below the best one.
    After a reduction they are counted anew from the `cooldown`-th epoch on (0 is as 1). `lower` is
    Keras' min_lr. All is worked out from the losses so far, which is what makes it a function.
    """
    _require(0 < factor < 1, "factor", factor, "must be a number between 0 and 1")
    _require(patience >= 1, "patience", patience, "must be 1 or more")
    _require(min_delta >= 0, "min_delta", min_delta, "must be 0 or more")
    _require(cooldown >= 0, "cooldown", cooldown, "must be 0 or more")
    best: float | None = None
    waited = resting = reductions = 0
    for loss in history:
        resting = max(resting - 1, 0)
        if _improves(loss, best, min_delta):
            best, waited = loss, 0
        elif not resting:
            waited += 1
            if waited >= patience:
                reductions += 1
                waited, resting = 0, cooldown
    return _limited(lr * factor**reductions, lower, upper)


def cosine(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    epochs: int,
    steps: int,
    end: float = 0.0,
    warmup: float = 0.0,
    warmup_unit: Unit = "epoch",
    unit: Unit = "iteration",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """Half a cosine from lr down to `end` at the end of the run, after a linear warm-up.

    Loshchilov & Hutter 2017, equation (5), without restarts: PyTorch's CosineAnnealingLR. The rate
    falls with each `unit`. `warmup` is a time in units of `warmup_unit`; its first rate is a step
    above 0 and the first after it is lr (Goyal et al. 2017, section 2.2).
    """
    risen, done = _progress(epoch, iteration, epochs, steps, warmup, warmup_unit, unit)
    left = (1 + math.cos(math.pi * done)) / 2
    return _limited(risen * _down_to(lr, end, left), lower, upper)


def polynomial(
    lr: float,
    *,
    epoch: int,
    iteration: int,
    epochs: int,
    steps: int,
    power: float = 1.0,
    end: float = 0.0,
    warmup: float = 0.0,
    warmup_unit: Unit = "epoch",
    unit: Unit = "iteration",
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """end + (lr - end) * (1 - t / T) ** power over a run of length T, after a linear warm-up.

    Keras' PolynomialDecay, and with end=0 PyTorch's PolynomialLR. The other arguments are those of
    `cosine`.
    """
    _require(power > 0, "power", power, "must be above 0")
    risen, done = _progress(epoch, iteration, epochs, steps, warmup, warmup_unit, unit)
    return _limited(risen * _down_to(lr, end, (1 - done) ** power), lower, upper)


def one_cycle(
    lr: float,
    *,
    iteration: int,
    epochs: int,
    steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    three_phase: bool = False,
    lower: float | None = None,
    upper: float | None = None,
) -> float:
    """Up from lr / div_factor to lr, and down to lr / div_factor / final_div_factor.

    Smith & Topin (arXiv:1708.07120) in the form of PyTorch's OneCycleLR, whose argument names
    these are; here lr is the highest rate (max_lr), and momentum stays as it is. `pct_start` is the
    share (no percentage) of the run in which the rate rises. With `three_phase` it falls back to
    lr / div_factor in as much time, and to the end in the rest.
    """
    most = 0.5 if three_phase else 1
    _require(0 <= pct_start <= most, "pct_start", pct_start, f"must lie between 0 and {most}")
    _require(div_factor >= 1, "div_factor", div_factor, "must be 1 or more")
    _require(final_div_factor > 0, "final_div_factor", final_div_factor, "must be above 0")
    curves = ("cos", "linear")
    _require(anneal_strategy in curves, "anneal_strategy", anneal_strategy, "must be cos or linear")
    total = epochs * steps
    first = lr / div_factor
    turns, rates = [pct_start * total - 1, total - 1], [first, lr, first / final_div_factor]
    if three_phase:
        turns.insert(1, 2 * pct_start * total - 2)
        rates.insert(2, first)
    now = min(iteration, total - 1)
    phase = next(i for i, turn in enumerate(turns) if now <= turn)
    began = turns[phase - 1] if phase else 0.0
    length = turns[phase] - began
    done = (now - began) / length if length > 0 else 1.0
    left = 1 - done if anneal_strategy == "linear" else (1 + math.cos(math.pi * done)) / 2
    start, goal = rates[phase : phase + 2]
    return _limited(goal + (start - goal) * left, lower, upper)


def early_stop(history: Sequence[float], *, patience: int, min_delta: float = 0.0) -> bool:
    """Whether to stop after these losses, one an epoch: Keras' EarlyStopping.

    True where the last `patience` epochs (0 is taken as 1) brought no loss that is more than
    `min_delta` below the best one before.
    """
    best: float | None = None
    waited = 0
    for loss in history:
        waited += 1
        if _improves(loss, best, min_delta):
            best, waited = loss, 0
    return waited >= max(patience, 1)


def _improves(loss: float, best: float | None, min_delta: float) -> bool:
    return best is None or loss + min_delta < best


def _progress(
    epoch: int,
    iteration: int,
    epochs: int,
    steps: int,
    warmup: float,
    warmup_unit: str,
    unit: str,
) -> tuple[float, float]:
    """How much of lr the warm-up has reached, (0, 1], and the share of what follows it, [0, 1]."""
    _require_unit("warmup_unit", warmup_unit)
    run = epochs if warmup_unit == "epoch" else epochs * steps
    remedy = f"must be 0 or more, and less than the {run} {warmup_unit}s of the run"
    _require(0 <= warmup < run, "warmup", warmup, remedy)
    now = _elapsed(unit, epoch, iteration)
    total = epochs if unit == "epoch" else epochs * steps
    rise = warmup * total / run
    if now < rise:
        return (now + 1) / (rise + 1), 0.0
    return 1.0, min((now - rise) / (total - rise), 1.0)


def _down_to(lr: float, end: float, left: float) -> float:
    """From lr (left=1) to end (left=0)."""
    _require(0 <= end <= lr, "end", end, f"must lie between 0 and the initial rate ({lr})")
    return end + (lr - end) * left


def _elapsed(unit: str, epoch: int, iteration: int) -> int:
    _require_unit("unit", unit)
    return epoch if unit == "epoch" else iteration


def _require_unit(key: str, unit: str) -> None:
    _require(unit in ("epoch", "iteration"), key, unit, "must be epoch or iteration")


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
