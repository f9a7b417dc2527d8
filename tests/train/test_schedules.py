"""schedules.py against the closed forms, values worked out by hand, Keras and PyTorch."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import inspect
import random
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import hydra.utils
import numpy as np
import pytest
import torch
import yaml

from medexp.errors import ConfigError
from medexp.train import schedules

CONF = Path(__file__).parents[2] / "conf" / "schedule"
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
    "anneal": (
        partial(schedules.anneal, factor=0.4, every=100),
        "iteration",
        lambda t: 0.1 * np.power(0.4, np.floor(t / 100)),
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
            "anneal",
            "ExponentialDecay",
            {"decay_steps": 100, "decay_rate": 0.4, "staircase": True},
        ),
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


# ---------------------------------------------------------------- schedules that know the end


def planned(name, *, epochs, steps, lr=0.1, **arguments):
    """The rate before each step of a run."""
    schedule = getattr(schedules, name)
    taken = inspect.signature(schedule).parameters
    return [
        schedule(
            lr,
            **({"epoch": i // steps} if "epoch" in taken else {}),
            iteration=i,
            epochs=epochs,
            steps=steps,
            **arguments,
        )
        for i in range(epochs * steps)
    ]


def torchs(make, steps, lr=0.1):
    """The rate before each of so many steps with a scheduler of PyTorch's."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warmed(optimizer, after, warmup):
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, after], [warmup])


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("end", [0.0, 0.002])
@pytest.mark.parametrize("warmup", [0, 1, 7, 29])
def test_cosine_equals_pytorch_and_keras(end, warmup):
    keras = pytest.importorskip("keras")

    def theirs(optimizer):
        after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30 - warmup, end)
        return warmed(optimizer, after, warmup) if warmup else after

    rates = planned("cosine", epochs=6, steps=5, end=end, warmup=warmup, warmup_unit="iteration")
    assert rates == pytest.approx(torchs(theirs, 30), rel=1e-9, abs=1e-12)
    assert rates[warmup] == 0.1
    decay = keras.optimizers.schedules.CosineDecay(
        0.1 / (warmup + 1),
        decay_steps=30 - warmup,
        alpha=end / 0.1,
        warmup_target=0.1,
        warmup_steps=warmup,
    )
    assert rates == pytest.approx([float(decay(i)) for i in range(30)], rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0, 2.0])
def test_polynomial_equals_pytorch_and_keras(power):
    keras = pytest.importorskip("keras")
    polynomial = partial(torch.optim.lr_scheduler.PolynomialLR, total_iters=24, power=power)
    rates = planned("polynomial", epochs=4, steps=6, power=power)
    assert rates == pytest.approx(torchs(polynomial, 24), rel=1e-9)
    rates = planned("polynomial", epochs=4, steps=6, power=power, end=0.003)
    decay = keras.optimizers.schedules.PolynomialDecay(0.1, 24, 0.003, power)
    assert rates == pytest.approx([float(decay(i)) for i in range(24)], rel=1e-5)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 2, 3.9])
def test_a_warm_up_in_epochs_rises_by_iteration(warmup):
    """A straight line up and one down, in units of one step."""
    rates = planned("polynomial", epochs=4, steps=10, warmup=warmup, end=0.02)
    corners = [-1, 10 * warmup, 40]
    assert rates == pytest.approx(np.interp(range(40), corners, [0, 0.1, 0.02]))
    same = {"warmup": 10 * warmup, "warmup_unit": "iteration"}
    assert rates == planned("polynomial", epochs=4, steps=10, end=0.02, **same)


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_by_epoch_a_run_is_as_one_of_a_step_an_epoch(name, warmup):
    rates = planned(name, epochs=8, steps=5, unit="epoch", warmup=warmup)
    assert rates == [r for r in planned(name, epochs=8, steps=1, warmup=warmup) for _ in range(5)]
    shorter = {"warmup": 5 * warmup, "warmup_unit": "iteration"}
    assert rates == pytest.approx(planned(name, epochs=8, steps=5, unit="epoch", **shorter))


@pytest.mark.parametrize("name", ["cosine", "polynomial", "one_cycle"])
def test_beyond_the_end_the_rate_stays(name):
    """A resumed run of fewer epochs asks there; one step is the shortest run there is."""
    at = partial(getattr(schedules, name), 0.1, epochs=2, steps=3)
    epoch = {} if name == "one_cycle" else {"epoch": 2}
    assert at(**epoch, iteration=6) == at(**epoch, iteration=600) < 1e-4
    assert 0 <= planned(name, epochs=1, steps=1)[0] <= 0.1


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize(
    "three_phase, pct_start", [*product([False], [0.0, 0.3, 0.77, 0.95]), (True, 0.31), (True, 0.5)]
)
def test_one_cycle_equals_pytorch(strategy, three_phase, pct_start):
    arguments = {
        "pct_start": pct_start,
        "anneal_strategy": strategy,
        "three_phase": three_phase,
        "div_factor": 20.0,
        "final_div_factor": 300.0,
    }
    for epochs, steps in [(4, 10), (1, 7), (5, 1)]:
        cycle = partial(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=0.1,
            total_steps=epochs * steps,
            **arguments,
        )
        expected = torchs(cycle, epochs * steps)
        assert planned("one_cycle", epochs=epochs, steps=steps, **arguments) == pytest.approx(
            expected, rel=1e-12, abs=1e-15
        )


def test_one_cycle_has_pytorchs_defaults():
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=40)
    assert planned("one_cycle", epochs=4, steps=10) == pytest.approx(torchs(cycle, 40))


def test_one_cycle_whose_rise_is_one_step_starts_at_the_top():
    """PyTorch divides by zero there."""
    rates = planned("one_cycle", epochs=1, steps=10, pct_start=0.1)
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True)


# ---------------------------------------------------------------- schedules that follow the loss


def histories(count, length):
    """Losses that fall and stagnate; on a grid of 1/64, so that ties occur and float32 is exact."""
    rng = np.random.default_rng(0)
    for k in range(count):
        trend = np.exp(-np.arange(length) / rng.uniform(2, 20))
        noise = rng.normal(0, rng.choice([0.01, 0.05, 0.2]), length)
        losses = np.maximum(trend + noise, 0) + 0.1
        yield (np.round(losses * 64) / 64 if k % 2 else losses).tolist()


def keras_plateau(history, lr, **arguments):
    """The rate of each epoch, and of the one after the last."""
    import keras

    callback = keras.callbacks.ReduceLROnPlateau(**arguments)
    optimizer = SimpleNamespace(learning_rate=lr)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    rates = [lr]
    for epoch, loss in enumerate(history):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        rates.append(optimizer.learning_rate)
    return rates


@pytest.mark.parametrize("patience, cooldown", [(1, 0), (1, 3), (2, 1), (3, 2), (5, 0), (4, 6)])
@pytest.mark.parametrize("min_delta", [0.0, 1 / 64, 1e-4])
def test_plateau_equals_keras_from_any_epoch_on(patience, cooldown, min_delta):
    pytest.importorskip("keras")
    rule = {"factor": 0.5, "patience": patience, "min_delta": min_delta, "cooldown": cooldown}
    reduced = 0
    for history in histories(count=6, length=40):
        expected = keras_plateau(history, 0.1, **rule, min_lr=0.002)
        reduced += len(set(expected)) - 1
        epochs = list(range(len(expected)))
        random.Random(0).shuffle(epochs)  # a function has no past but its history
        for epoch in epochs:
            rate = schedules.plateau(0.1, history=history[:epoch], **rule, lower=0.002)
            assert rate == pytest.approx(expected[epoch], rel=1e-6), (epoch, history)
    assert reduced > 5


@pytest.mark.parametrize("patience, cooldown", [(1, 0), (2, 1), (3, 4)])
def test_plateau_equals_pytorch(patience, cooldown):
    """There patience is how many epochs are let pass, and all of the cooldown's count."""
    rule = {"factor": 0.3, "patience": patience, "min_delta": 1 / 64}
    for history in histories(count=12, length=60):
        losses = iter(history)

        class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
            def step(self):
                super().step(next(losses))  # noqa: B023  used within the loop

        theirs = partial(
            Plateau,
            factor=0.3,
            patience=patience - 1,
            threshold=1 / 64,
            threshold_mode="abs",
            cooldown=cooldown,
            eps=0,
        )
        ours = [
            schedules.plateau(0.1, history=history[:epoch], **rule, cooldown=cooldown + 1)
            for epoch in range(60)
        ]
        assert ours == pytest.approx(torchs(theirs, 60), rel=1e-9)


def test_plateau_by_hand():
    at = partial(schedules.plateau, 0.8, factor=0.5, patience=2, min_delta=0.0)
    assert at(history=[]) == at(history=[5.0, 5.0]) == 0.8
    assert at(history=[5.0, 5.0, 5.0]) == 0.4
    assert at(history=[5.0, 5.0, 4.9, 4.9, 4.9, 4.9, 4.9]) == 0.2
    assert at(history=[5.0] * 100, lower=0.01, upper=0.3) == 0.01
    assert at(history=[5.0], upper=0.3) == 0.3
    assert at(history=[float("nan"), 1.0, 1.0]) == 0.4  # nothing improves on it, as in Keras
    assert at(history=[1.0, float("nan"), float("inf")]) == 0.4


@pytest.mark.parametrize("patience", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("min_delta", [0.0, 1 / 64, 0.05])
def test_early_stop_equals_keras(patience, min_delta):
    keras = pytest.importorskip("keras")
    stops = 0
    for history in histories(count=10, length=50):
        callback = keras.callbacks.EarlyStopping(patience=patience, min_delta=min_delta)
        callback.set_model(SimpleNamespace(stop_training=False))
        callback.on_train_begin()
        for epoch, loss in enumerate(history):
            callback.on_epoch_end(epoch, {"val_loss": loss})
            stop = callback.model.stop_training
            seen = history[: epoch + 1]
            assert schedules.early_stop(seen, patience=patience, min_delta=min_delta) == stop
            if stop:
                stops += 1
                break
    assert stops > 3


def test_early_stop_by_hand():
    stop = partial(schedules.early_stop, patience=2)
    assert not stop([]) and not stop([1.0]) and not stop([1.0, 1.0])
    assert stop([1.0, 1.0, 1.0]) and stop([1.0, 0.5, 0.6, 0.5])
    assert not stop([1.0, 1.0, 0.9]) and stop([1.0, 1.0, 0.9], min_delta=0.1)


# ---------------------------------------------------------------- limits, refusals, files


@pytest.mark.parametrize("name", ["cosine", "polynomial", "one_cycle"])
def test_limits_of_a_planned_schedule(name):
    free = planned(name, epochs=3, steps=20)
    both = planned(name, epochs=3, steps=20, lower=0.02, upper=0.07)
    assert min(free) < 0.02 and max(free) > 0.07
    assert both == np.clip(free, 0.02, 0.07).tolist()


def test_shared_refusals_of_the_planned():
    for name in ("cosine", "polynomial"):
        refused = partial(planned, name, epochs=3, steps=20)
        with pytest.raises(ConfigError, match=r"schedule\.warmup=3: must be 0 or more, and less "):
            refused(warmup=3)
        with pytest.raises(ConfigError, match=r"less than the 3 epochs of the run"):
            refused(warmup=-1)
        with pytest.raises(ConfigError, match=r"less than the 60 iterations of the run"):
            refused(warmup=60, warmup_unit="iteration")
        with pytest.raises(ConfigError, match=r"schedule\.warmup_unit=step: must be epoch or iter"):
            refused(warmup=1, warmup_unit="step")
        with pytest.raises(ConfigError, match=r"schedule\.unit=step: must be epoch or iteration"):
            refused(unit="step")
        with pytest.raises(ConfigError, match=r"schedule\.end=0\.2: .* the initial rate \(0\.1\)"):
            refused(end=0.2)
        with pytest.raises(ConfigError, match=r"schedule\.end=-1"):
            refused(end=-1)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("polynomial", {"power": 0}, r"schedule\.power=0: must be above 0"),
        ("one_cycle", {"pct_start": 30}, r"schedule\.pct_start=30: must lie between 0 and 1"),
        (
            "one_cycle",
            {"pct_start": 0.6, "three_phase": True},
            r"schedule\.pct_start=0\.6: must lie between 0 and 0\.5",
        ),
        ("one_cycle", {"div_factor": 0.5}, r"schedule\.div_factor=0\.5: must be 1 or more"),
        ("one_cycle", {"final_div_factor": 0}, r"schedule\.final_div_factor=0: must be above 0"),
        ("one_cycle", {"anneal_strategy": "cosine"}, r"anneal_strategy=cosine: must be cos or lin"),
    ],
)
def test_planned_refuses(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        planned(name, epochs=2, steps=3, **arguments)


@pytest.mark.parametrize(
    "key, value, remedy",
    [
        ("factor", 1, "must be a number between 0 and 1"),
        ("factor", 0, "must be a number between 0 and 1"),
        ("patience", 0, "must be 1 or more"),
        ("min_delta", -0.1, "must be 0 or more"),
        ("cooldown", -1, "must be 0 or more"),
    ],
)
def test_plateau_refuses(key, value, remedy):
    arguments = {"factor": 0.1, "patience": 5} | {key: value}
    with pytest.raises(ConfigError, match=f"schedule.{key}={value}: {remedy}"):
        schedules.plateau(0.1, history=[], **arguments)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("step", STEP | {"factor": 0}, r"schedule\.factor=0: must be a number above 0 and up to 1"),
        ("step", STEP | {"factor": 1.5}, r"schedule\.factor=1\.5"),
        ("step", STEP | {"factor": float("nan")}, r"schedule\.factor=nan"),
        ("step", STEP | {"every": 0}, r"schedule\.every=0: must be 1 or more"),
        ("anneal", {"factor": 2, "every": 9}, r"schedule\.factor=2: must be a number above 0 and"),
        ("anneal", {"factor": 0.5, "every": 0}, r"schedule\.every=0: must be 1 or more"),
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
    theirs = {"anneal", "cosine", "one_cycle", "plateau", "polynomial"}
    assert set(NAMES) >= {"constant", "exponential", "step", "time"} | theirs


@pytest.mark.parametrize("name", NAMES)
def test_file_is_a_schedule_without_limits(name):
    text = (CONF / f"{name}.yaml").read_text()
    node = yaml.safe_load(text)
    assert node["_target_"] == f"medexp.train.schedules.{name}" and text.startswith(f"# {name}: ")
    assert node["lower"] is None and node["upper"] is None
    schedule = hydra.utils.instantiate(node, _convert_="all")
    taken = inspect.signature(schedule).parameters
    rates = []
    for t in range(1000):
        clock = {"epoch": t, "iteration": 1000 * t, "epochs": 1000, "steps": 1000}
        clock["history"] = [0.7] * t
        rates.append(schedule(0.1, **{key: clock[key] for key in clock if key in taken}))
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(0.1) and (top > 0) == (name == "one_cycle")
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert (rates[-1] < 0.01) == (name != "constant")


def test_the_papers_recipes():
    """Cervix, sections 6.2 and 6.3; TBT, the authors' callback."""
    nodes = {name: yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in NAMES}
    assert (nodes["anneal"]["factor"], nodes["anneal"]["every"]) == (0.95, 400)
    assert nodes["anneal"]["unit"] == "iteration"
    defaults = {"min_delta": 1e-4, "cooldown": 0, "lower": None}
    assert {"factor": 0.1, "patience": 5, **defaults}.items() <= nodes["plateau"].items()
    resnet = partial(schedules.anneal, 0.003, epoch=0, factor=0.4, every=100)
    rates = [resnet(iteration=i) for i in (0, 99, 100, 199, 200, 499)]
    assert rates == pytest.approx([3e-3, 3e-3, 1.2e-3, 1.2e-3, 4.8e-4, 7.68e-5])
