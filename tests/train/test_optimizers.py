"""optimizers.py against the written formulas in NumPy (float64), Keras 3 and PyTorch."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import copy
import math
from pathlib import Path

import hydra.utils
import numpy as np
import pytest
import torch
import yaml

from medexp.errors import ConfigError
from medexp.train.optimizers import SGD, Adam, RMSprop

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
STEPS = 12
RATES = [0.1 / (1 + i) * (1 + i % 3) for i in range(STEPS)]  # up and down
SHAPES = [(3, 4), (5,), ()]


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def gradients(steps=STEPS, seed=1):
    """For every step and weight; sizes from 1e-4 to 1, so that an epsilon's place is seen."""
    rng = np.random.default_rng(seed)
    scales = [10.0 ** rng.uniform(-4, 0, size=shape) for shape in SHAPES]
    return [[rng.normal(size=s.shape) * s for s in scales] for _ in range(steps)]


def run(make, rates=RATES, grads=None, dtype=torch.float64):
    """The weights after each step of an optimizer built by `make(params)`."""
    params = [torch.nn.Parameter(torch.tensor(w, dtype=dtype)) for w in starts()]
    optimizer = make(params)
    return advance(optimizer, params, rates, grads or gradients())


def advance(optimizer, params, rates, grads):
    path = []
    for rate, step_grads in zip(rates, grads, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for param, grad in zip(params, step_grads, strict=True):
            param.grad = None if grad is None else torch.tensor(grad, dtype=param.dtype)
        optimizer.step()
        path.append([param.detach().clone() for param in params])
    return path


def agree(ours, theirs, tolerance):
    assert len(ours) == len(theirs) > 0
    for mine, yours in zip(ours, theirs, strict=True):
        for a, b in zip(mine, yours, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# The formulas, one weight array at a time.


def sgd_formula(w, grads, rates, momentum, nesterov):
    v, path = np.zeros_like(w), []
    for g, lr in zip(grads, rates, strict=True):
        v = momentum * v - lr * g
        w = w + momentum * v - lr * g if nesterov else w + v
        path.append(w)
    return path


def adam_formula(w, grads, rates, beta1, beta2, eps):
    m, v, path = np.zeros_like(w), np.zeros_like(w), []
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        alpha = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        w = w - alpha * m / (np.sqrt(v) + eps)
        path.append(w)
    return path


def rmsprop_formula(w, grads, rates, rho, momentum, eps, inside, initial, centered):
    s, mean, v, path = np.full_like(w, initial), np.zeros_like(w), np.zeros_like(w), []
    for g, lr in zip(grads, rates, strict=True):
        s = rho * s + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        square = s - mean**2 if centered else s
        v = momentum * v + lr * g / (np.sqrt(square + eps) if inside else np.sqrt(square) + eps)
        w = w - v
        path.append(w)
    return path


def written(formula, *arguments, rates=RATES):
    """The formula's weights after each step, for all weights."""
    columns = list(zip(*gradients(), strict=True))
    paths = [formula(w, g, rates, *arguments) for w, g in zip(starts(), columns, strict=True)]
    return list(zip(*paths, strict=True))


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_its_formula(momentum, nesterov):
    path = run(lambda p: SGD(p, momentum=momentum, nesterov=nesterov))
    agree(path, written(sgd_formula, momentum, nesterov), 1e-12)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99), (0.5, 0.0)])
@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_adam_is_its_formula(betas, eps):
    agree(run(lambda p: Adam(p, 0.1, *betas, eps)), written(adam_formula, *betas, eps), 1e-12)


def test_adam_in_float32_starts_right():
    """1 - 0.999 in float32 would be off by 5e-5, and the first step by half of that."""
    path = run(lambda p: Adam(p), dtype=torch.float32)
    first = [a.numpy() - w for a, w in zip(path[0], starts(), strict=True)]
    expected = written(adam_formula, 0.9, 0.999, 1e-7)[0]
    agree([first], [[b - w for b, w in zip(expected, starts(), strict=True)]], 2e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("eps", [1e-10, 1e-3])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("initial", [0.0, 1.0])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_is_its_formula(momentum, eps, inside, initial, centered):
    path = run(lambda p: RMSprop(p, 0.1, 0.8, momentum, eps, inside, initial, centered))
    expected = written(rmsprop_formula, 0.8, momentum, eps, inside, initial, centered)
    agree(path, expected, 1e-9)


def test_centered_rmsprop_survives_a_constant_gradient():
    """s - mean^2 is then 0 in truth and may be below it in floats."""
    grads = [[np.full(shape, 0.1) for shape in SHAPES]] * 400
    path = run(
        lambda p: RMSprop(p, centered=True, eps=1e-10),
        rates=[1e-6] * 400,
        grads=grads,
        dtype=torch.float32,
    )
    assert all(w.isfinite().all() for w in path[-1])


KERAS = {
    "sgd": (lambda p: torch.optim.SGD(p), "SGD", {}),
    "sgd_keras": (lambda p: SGD(p, momentum=0.9), "SGD", {"momentum": 0.9}),
    "nesterov": (
        lambda p: SGD(p, momentum=0.9, nesterov=True),
        "SGD",
        {"momentum": 0.9, "nesterov": True},
    ),
    "adam": (lambda p: Adam(p), "Adam", {}),
    "adam_eps": (
        lambda p: Adam(p, beta1=0.8, beta2=0.9, eps=1e-2),
        "Adam",
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-2},
    ),
    "rmsprop": (lambda p: RMSprop(p), "RMSprop", {}),
    "rmsprop_eps": (
        lambda p: RMSprop(p, rho=0.8, momentum=0.9, eps=1e-2),
        "RMSprop",
        {"rho": 0.8, "momentum": 0.9, "epsilon": 1e-2},
    ),
    "rmsprop_centered": (
        lambda p: RMSprop(p, centered=True, eps=1e-3),
        "RMSprop",
        {"centered": True, "epsilon": 1e-3},
    ),
}


@pytest.mark.parametrize("case", KERAS)
def test_equals_keras(case):
    keras = pytest.importorskip("keras")
    make, name, arguments = KERAS[case]
    path = run(make, dtype=torch.float32)
    variables = [keras.Variable(w.astype("float32")) for w in starts()]
    theirs = getattr(keras.optimizers, name)(**arguments)
    expected = []
    for rate, grads in zip(RATES, gradients(), strict=True):
        theirs.learning_rate = rate
        theirs.apply([torch.tensor(g, dtype=torch.float32) for g in grads], variables)
        expected.append([v.value.detach().clone() for v in variables])
    # Keras' own 1 - 0.999^t is off by up to 5e-5 of a step in float32.
    agree(path, expected, 5e-5 if case == "adam" else 2e-6)


CONSTANT = [0.05] * STEPS
TORCH = {
    "sgd": (RATES, lambda p: SGD(p), lambda p: torch.optim.SGD(p)),
    "momentum": (
        CONSTANT,
        lambda p: SGD(p, momentum=0.9),
        lambda p: torch.optim.SGD(p, momentum=0.9),
    ),
    "nesterov": (
        CONSTANT,
        lambda p: SGD(p, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True),
    ),
    "adam": (RATES, lambda p: Adam(p, eps=0.0), lambda p: torch.optim.Adam(p, eps=0.0)),
    "rmsprop": (
        RATES,
        lambda p: RMSprop(p, rho=0.8, eps=1e-3, eps_inside_root=False),
        lambda p: torch.optim.RMSprop(p, alpha=0.8, eps=1e-3),
    ),
    "rmsprop_momentum": (
        CONSTANT,
        lambda p: RMSprop(p, momentum=0.9, eps=1e-3, eps_inside_root=False, centered=True),
        lambda p: torch.optim.RMSprop(p, alpha=0.9, momentum=0.9, eps=1e-3, centered=True),
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_equals_torch_where_the_forms_agree(case):
    rates, ours, theirs = TORCH[case]
    agree(run(ours, rates), run(theirs, rates), 1e-9)


def test_forms_differ_where_they_should():
    def apart(a, b, rates=RATES):
        pairs = zip(run(a, rates)[-1], run(b, rates)[-1], strict=True)
        return max((x - y).abs().max().item() for x, y in pairs)

    sgd = (lambda p: SGD(p, momentum=0.9), lambda p: torch.optim.SGD(p, momentum=0.9))
    assert apart(*sgd) > 1e-3 > 1e-12 > apart(*sgd, CONSTANT)
    assert apart(lambda p: Adam(p, eps=1e-3), lambda p: torch.optim.Adam(p, eps=1e-3)) > 1e-3


def test_adam_counts_steps_for_all_parameters_as_keras():
    """A parameter that is thawed at step 4 has the bias correction of step 4."""
    frozen = 3
    grads = [[a, None if i < frozen else b, c] for i, (a, b, c) in enumerate(gradients())]
    path = run(lambda p: Adam(p), grads=grads)
    full = [np.zeros_like(g[1]) if i < frozen else g[1] for i, g in enumerate(gradients())]
    expected = adam_formula(starts()[1], full, RATES, 0.9, 0.999, 1e-7)
    np.testing.assert_allclose(path[-1][1], expected[-1], rtol=1e-12)


def options(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def from_file(name, **changes):
    return hydra.utils.instantiate(options(name) | changes, _convert_="all")


def test_the_glob_finds_the_files():
    assert set(NAMES) >= {
        "sgd",
        "sgd_keras",
        "adam",
        "adam_torch",
        "rmsprop",
        "rmsprop_keras2",
        "rmsprop_tf1",
    }


FILES = {
    "sgd": (sgd_formula, (0.0, False), 0.01),
    "sgd_keras": (sgd_formula, (0.9, False), 0.01),
    "sgd_all": (sgd_formula, (0.0, False), 0.0002),  # Mir and Nissa, 3.5
    "sgd_tbt": (sgd_formula, (0.0, False), 0.001),  # Zunair et al., 2.3
    "adam": (adam_formula, (0.9, 0.999, 1e-7), 0.001),
    "rmsprop": (rmsprop_formula, (0.9, 0.0, 1e-7, True, 0.0, False), 0.001),
    "rmsprop_keras2": (rmsprop_formula, (0.9, 0.0, 1e-7, False, 0.0, False), 0.001),
    "rmsprop_tf1": (rmsprop_formula, (0.9, 0.0, 1e-10, True, 1.0, False), 0.001),
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_the_formula_that_its_header_names(name):
    formula, arguments, rate = FILES[name]
    assert options(name)["lr"] == rate
    assert f"# {name}: " in (CONF / f"{name}.yaml").read_text()
    rates = [rate] * STEPS
    agree(run(from_file(name), rates), written(formula, *arguments, rates=rates), 1e-9)


def test_adam_torch_file_is_torchs_default():
    agree(run(from_file("adam_torch")), run(lambda p: torch.optim.Adam(p)), 1e-15)


MOMENTUM = {"sgd": 0.9, "rmsprop": 0.9, "rmsprop_tf1": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_restored_state_goes_on_to_the_bit(name, tmp_path):
    changes = {"momentum": MOMENTUM[name]} if name in MOMENTUM else {}
    make = from_file(name, **changes)
    params = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float32)) for w in starts()]
    optimizer = make(params)
    grads = gradients()
    advance(optimizer, params, RATES[:5], grads[:5])
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    others = copy.deepcopy(params)
    path = advance(optimizer, params, RATES[5:], grads[5:])

    restored = make(others)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other_path = advance(restored, others, RATES[5:], grads[5:])
    for ours, theirs in zip(path, other_path, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


OURS = {
    "sgd": lambda p, lr: SGD(p, lr, momentum=0.9, nesterov=True),
    "adam": lambda p, lr: Adam(p, lr),
    "rmsprop": lambda p, lr: RMSprop(p, lr, momentum=0.9, centered=True),
}


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_step_reads_nothing_back(make):
    """Tensors without data (meta) refuse every read, as a CUDA graph's capture does."""
    params = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    for lr in (0.1, torch.tensor(0.1)):
        optimizer = make(params, lr)
        if isinstance(lr, torch.Tensor):
            optimizer.param_groups[0]["lr"] = lr.to("meta")
        for _ in range(2):
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step()


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_a_rate_in_a_tensor_is_changed_in_place(make):
    params = [torch.nn.Parameter(torch.tensor(w)) for w in starts()]
    rate = torch.tensor(0.0, dtype=torch.float64)
    optimizer = make(params, rate)
    for lr, grads in zip(RATES, gradients(), strict=True):
        rate.fill_(lr)
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
    agree([[p.detach() for p in params]], run(lambda p: make(p, 0.1))[-1:], 1e-12)


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_groups_have_their_own_rate_and_state_survives_channels_last(make):
    weights = [torch.nn.Parameter(torch.ones(4, 3, 2, 2)) for _ in range(2)]
    weights[1].data = weights[1].data.to(memory_format=torch.channels_last)
    optimizer = make([{"params": weights[:1], "lr": 0.0}, {"params": weights[1:]}], 0.1)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.equal(weights[0], torch.ones(4, 3, 2, 2))
    assert not torch.equal(weights[1], torch.ones(4, 3, 2, 2))
    slots = [t for t in optimizer.state[weights[1]].values()]
    assert slots and all(t.is_contiguous(memory_format=torch.channels_last) for t in slots)


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_closure_and_missing_gradients(make):
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = make([param], 0.1)
    assert optimizer.step() is None
    assert torch.equal(param, torch.ones(2))

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (param < 1).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: SGD(p, lr=-1), r"optimizer\.lr=-1: must be 0 or more"),
        (lambda p: SGD(p, lr=float("nan")), r"optimizer\.lr=nan"),
        (lambda p: SGD(p, momentum=1.5), r"optimizer\.momentum=1\.5: must be a number in \[0, 1\]"),
        (lambda p: SGD(p, nesterov=True), r"optimizer\.nesterov=True"),
        (lambda p: Adam(p, lr=-1), r"optimizer\.lr=-1"),
        (lambda p: Adam(p, beta1=1.0), r"optimizer\.beta1=1\.0: must be a number in \[0, 1\)"),
        (lambda p: Adam(p, beta2=-0.1), r"optimizer\.beta2=-0\.1"),
        (lambda p: Adam(p, eps=-1e-7), r"optimizer\.eps=-1e-07"),
        (lambda p: RMSprop(p, lr=-1), r"optimizer\.lr=-1"),
        (lambda p: RMSprop(p, rho=1.0), r"optimizer\.rho=1\.0"),
        (lambda p: RMSprop(p, momentum=-1.0), r"optimizer\.momentum=-1\.0"),
        (lambda p: RMSprop(p, eps=-1.0), r"optimizer\.eps=-1\.0"),
        (lambda p: RMSprop(p, initial=-1.0), r"optimizer\.initial=-1\.0: must be 0 or more"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ConfigError, match=message):
        make([torch.nn.Parameter(torch.ones(1))])
