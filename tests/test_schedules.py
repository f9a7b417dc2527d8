"""schedules.py against the closed forms, values worked out by hand, and Keras."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from functools import partial
from pathlib import Path

import hydra.utils
import numpy as np
import pytest
import yaml

from medexp import schedules
from medexp.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf" / "schedule"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
TIMES = [0, 1, 2, 9, 10, 98, 99, 100, 198, 199, 200, 999]
STEP = {"factor": 0.5, "every": 100}
CASES = {
    "constant": (partial(schedules.constant), None, lambda t: 0.1 + 0 * t),
    "time": (
        partial(schedules.time, decay=0.01),
        "iteration",
        lambda t: 0.1 * np.reciprocal(1 + t / 100),
    ),
    "step": (
        partial(schedules.step, **STEP),
        "epoch",
        lambda t: 0.1 / np.exp2(np.floor((1 + t) / 100)),
    ),
    "exponential": (
        partial(schedules.exponential, k=0.02),
        "epoch",
        lambda t: 0.1 * np.power(np.e, -t / 50),
    ),
}
TIMED = [name for name in CASES if name != "constant"]


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("unit", ["epoch", "iteration", None])
def test_closed_form(name, unit):
    schedule, default, form = CASES[name]
    chosen = {} if unit is None else {"unit": unit}
    for t in TIMES:
        clock = {"epoch": 31, "iteration": 77} | {unit or default: t}
        rate = schedule(0.1, **clock, **chosen)
        assert type(rate) is float
        assert rate == pytest.approx(form(np.float64(t)), rel=1e-12)


def test_constant():
    assert {schedules.constant(0.1, epoch=t, iteration=9 * t) for t in TIMES} == {0.1}


def test_values_by_hand():
    step = partial(schedules.step, 0.08, iteration=0, factor=0.25, every=3)
    rates = [step(epoch=epoch) for epoch in range(9)]
    assert rates == [0.08, 0.08, 0.02, 0.02, 0.02, 0.005, 0.005, 0.005, 0.00125]
    time = partial(schedules.time, 0.6, epoch=5, decay=0.5)
    assert [time(iteration=i) for i in (0, 2, 4, 10)] == pytest.approx([0.6, 0.3, 0.2, 0.1])
    halving = partial(schedules.exponential, 1.0, iteration=5, k=np.log(2) / 10)
    assert [halving(epoch=e) for e in (0, 10, 20, 50)] == pytest.approx([1, 0.5, 0.25, 0.03125])


@pytest.mark.parametrize(
    "name, theirs, arguments",
    [
        ("time", "InverseTimeDecay", {"decay_steps": 1, "decay_rate": 0.01}),
        ("exponential", "ExponentialDecay", {"decay_steps": 50, "decay_rate": 1 / np.e}),
        (
            "step",
            "PiecewiseConstantDecay",
            {"boundaries": [98, 198, 298], "values": [0.1, 0.05, 0.025, 0.0125]},
        ),
    ],
)
def test_equals_keras_by_iteration(name, theirs, arguments):
    keras = pytest.importorskip("keras")
    if name != "step":
        arguments = {"initial_learning_rate": 0.1} | arguments
    expected = getattr(keras.optimizers.schedules, theirs)(**arguments)
    for t in (t for t in TIMES if t < 300):
        rate = CASES[name][0](0.1, epoch=0, iteration=t, unit="iteration")
        assert rate == pytest.approx(float(expected(t)), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_limits(name):
    schedule, _, form = CASES[name]
    for t in TIMES:
        clock = {"epoch": t, "iteration": t}
        free = float(form(np.float64(t)))
        both = schedule(0.1, **clock, lower=0.001, upper=0.06)
        assert both == pytest.approx(float(np.clip(free, 0.001, 0.06)))
        assert schedule(0.1, **clock, lower=0.03) == pytest.approx(max(free, 0.03))
        assert schedule(0.1, **clock, upper=0.03) == pytest.approx(min(free, 0.03))
    assert schedule(0.1, epoch=5, iteration=5, lower=0.02, upper=0.02) == 0.02


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("step", STEP | {"factor": 0}, r"schedule\.factor=0: must be a number above 0 and up to 1"),
        ("step", STEP | {"factor": 1.5}, r"schedule\.factor=1\.5"),
        ("step", STEP | {"factor": float("nan")}, r"schedule\.factor=nan"),
        ("step", STEP | {"every": 0}, r"schedule\.every=0: must be 1 or more"),
        ("time", {"decay": -0.1}, r"schedule\.decay=-0\.1: must be 0 or more"),
        ("exponential", {"k": -1}, r"schedule\.k=-1: must be 0 or more"),
        ("time", {"decay": 0, "unit": "step"}, r"schedule\.unit=step: must be epoch or iteration"),
        (
            "constant",
            {"lower": 0.1, "upper": 0.01},
            r"schedule\.lower=0\.1: must be schedule\.upper \(0\.01\) or less",
        ),
    ],
)
def test_refuses(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        getattr(schedules, name)(0.1, epoch=0, iteration=0, **arguments)


def test_the_glob_finds_the_files():
    assert set(NAMES) >= {"constant", "exponential", "step", "time"}


@pytest.mark.parametrize("name", NAMES)
def test_file_is_a_schedule_without_limits(name):
    text = (CONF / f"{name}.yaml").read_text()
    node = yaml.safe_load(text)
    assert node["_target_"] == f"medexp.schedules.{name}" and text.startswith(f"# {name}: ")
    assert node["lower"] is None and node["upper"] is None
    schedule = hydra.utils.instantiate(node, _convert_="all")
    rates = [schedule(0.1, epoch=t, iteration=1000 * t) for t in range(1000)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert (rates[-1] < 0.01) == (name != "constant")
