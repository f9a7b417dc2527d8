"""Replayed steps against plain ones.

No CPU has graphs, so `record` stands here for CUDA's: it runs the step once to know where its
results lie, takes that back, and a replay runs it again into them. What is captured is then the
real step on its own copies of the batch; only CUDA's part is not.
"""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from medexp.augment import FlipsTurns
from medexp.config.settings import Stage
from medexp.errors import ConfigError
from medexp.train import graphs, optimizers
from tests.train.kit import CPU, weights
from tests.train.test_loop import data, fit

GPU = torch.device("cuda")


@pytest.fixture
def replays(monkeypatch):
    """Graphs on the CPU; counts the replays."""
    counts = {"captured": 0, "replayed": 0}

    def record(work):
        network, optimizer = counts["of"]
        changed = [*network.state_dict().values()]
        changed += [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
        before = graphs.Snapshot(changed, CPU)
        totals = work()
        before.put_back()
        counts["captured"] += 1

        def replay():
            counts["replayed"] += 1
            for kept, value in zip(totals, work(), strict=True):
                kept.copy_(value)

        return replay, totals

    def of_choice(choice, step, device, **rest):
        counts["of"] = step.network, step.optimizer
        return real(choice, step, GPU, **rest)

    monkeypatch.setattr(graphs, "LONGEST", float("inf"))  # however busy the machine is
    real = graphs.of_choice
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr("medexp.train.work.of_choice", of_choice)
    return counts


def network(classes=2):
    torch.manual_seed(0)
    # No bias before the BatchNorm: its gradient is rounding, of which Adam makes whole steps.
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(64, classes if classes > 2 else 1),
    )  # fmt: skip


def falling(lr, *, iteration):
    return lr / (1 + iteration)


RECIPES = {
    "plain": {"optimizer": partial(torch.optim.SGD, lr=0.05)},
    "momentum": {"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9)},
    "keras": {"optimizer": partial(optimizers.SGD, lr=0.05, momentum=0.9)},
    "rmsprop": {"optimizer": partial(optimizers.RMSprop, lr=0.01)},
    "adam": {"optimizer": partial(optimizers.Adam, lr=0.01), "schedule": falling},
    "everything": {
        "optimizer": partial(optimizers.Adam, lr=0.01),
        "schedule": falling,
        "augment": FlipsTurns(),
        "accumulate": 2,
        "clip_norm": 0.1,
        "ema": 0.9,
        "stages": {"0": Stage(l2=0.1, lr=0.02)},
        "switch_at": 12,
        "switch_to": ["5"],
        "precision": torch.bfloat16,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_replayed_it_trains_the_same(tmp_path, replays, recipe):
    """18 steps, 15 of them of 16 images: 3 for each kind before it is replayed, 1 to compare."""
    settings = {"epochs": 3, "dataset": data(90)} | RECIPES[recipe]
    plain, plain_fitted = fit(tmp_path / "plain", network(), graphs="off", **settings)
    assert replays["replayed"] == 0
    net, fitted = fit(tmp_path / "replayed", network(), graphs="on", **settings)
    kinds = 2 if "switch_at" in settings else 1
    assert replays["captured"] == kinds
    # The odd last batch of 10 comes once an epoch, and those behind it begin a new row.
    assert replays["replayed"] > 15 - 6 * kinds
    exact = "torch" not in str(settings["optimizer"].func)
    if exact:  # torch's own take another kernel for a rate that is a tensor
        assert torch.equal(weights(plain), weights(net))
    else:
        torch.testing.assert_close(weights(plain), weights(net))
    rates = [[row["lr"] for row in one.history] for one in (plain_fitted, fitted)]
    assert rates[0] == rates[1] and len(fitted.history) == 3


def test_a_run_that_was_interrupted_goes_on_with_numbers_as_rates(tmp_path, replays):
    settings = {"dataset": data(90), "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9)}
    whole, _ = fit(tmp_path / "whole", network(), graphs="off", epochs=4, **settings)
    fit(tmp_path / "cut", network(), graphs="on", epochs=2, **settings)
    state = torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=True)
    assert torch.is_tensor(state["optimizer"]["param_groups"][0]["lr"])
    net, _ = fit(tmp_path / "cut", network(), graphs="off", epochs=4, resume=True, **settings)
    torch.testing.assert_close(weights(whole), weights(net))
    state = torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=True)
    group = state["optimizer"]["param_groups"][0]
    assert group["lr"] == 0.05 and not group["fused"]


class Unsteady(nn.Module):
    """What Python decides in a step is not in a graph: here the number of the call."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = network(), 0

    def forward(self, x):
        self.calls += self.training
        return self.inner(x) * (1 + self.calls % 2)


def test_what_differs_from_the_plain_step_is_run_plainly(tmp_path, replays, caplog):
    caplog.set_level(logging.INFO)
    calls = []

    def fit_one(folder, **changes):
        net, _ = fit(tmp_path / folder, Unsteady(), data(90), epochs=2, **changes)
        calls.append(net.calls)
        return net

    fit_one("replayed", graphs="auto")
    assert "not replays of a CUDA graph: its first replay differs from the step itself" in (
        caplog.text
    )
    # captured and replayed in vain, once each
    assert calls == [12 + 2]
    with pytest.raises(ConfigError, match="trainer.graphs=on: its first replay differs"):
        fit_one("required", graphs="on")


def test_a_replay_whose_loss_alone_differs_is_not_taken(tmp_path, replays, monkeypatch, caplog):
    """Its rates are numbers again from then on."""
    caplog.set_level(logging.INFO)
    record = graphs.record

    def off(work):
        replay, totals = record(work)

        def far():
            replay()
            totals.loss.mul_(2)

        return far, totals

    monkeypatch.setattr(graphs, "record", off)
    seen = []
    fit(
        tmp_path, network(), data(90), graphs="auto", optimizer=partial(torch.optim.SGD, lr=0.05),
        observers=[lambda row, state: seen.append(state.optimizer.param_groups[0]["lr"])],
    )  # fmt: skip
    assert "its first replay differs from the step itself" in caplog.text
    assert [type(rate) for rate in seen] == [float] * 3


def test_what_cannot_be_captured_is_run_plainly(tmp_path, replays, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def record(work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "record", record)
    settings = {"dataset": data(90), "optimizer": partial(optimizers.Adam, lr=0.01)}
    plain, _ = fit(tmp_path / "plain", network(), graphs="off", **settings)
    net, _ = fit(tmp_path / "tried", network(), graphs="auto", **settings)
    assert torch.equal(weights(plain), weights(net))
    assert "it cannot be captured (operation not permitted when stream is capturing)" in caplog.text
    with pytest.raises(ConfigError, match="trainer.graphs=on: it cannot be captured"):
        fit(tmp_path / "required", network(), graphs="on", **settings)


def test_long_steps_are_not_captured(tmp_path, replays, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(graphs, "LONGEST", 0.0)
    fit(tmp_path, network(), data(90), graphs="auto")
    assert replays["captured"] == 0 and "so that it would not pay" in caplog.text


def test_where_graphs_cannot_be_it_is_said(tmp_path):
    with pytest.raises(ConfigError, match="trainer.graphs=on: graphs are CUDA's"):
        fit(tmp_path, graphs="on")


def test_not_with_compile_profile_or_scaled_losses(tmp_path, replays):
    for changes in ({"compile": True}, {"profile": True}):
        with pytest.raises(ConfigError, match="not with trainer.compile or trainer.profile"):
            fit(tmp_path, network(), data(90), graphs="on", **changes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("place", ["device", "stream"])
def test_on_cuda_replays_train_to_the_same_place(tmp_path, recipe, place):
    settings = {"epochs": 3, "dataset": data(90), "device": GPU, "data": place} | RECIPES[recipe]
    plain, _ = fit(tmp_path / "plain", network(), graphs="off", **settings)
    net, _ = fit(tmp_path / "replayed", network(), graphs="on", **settings)
    torch.testing.assert_close(weights(plain), weights(net), rtol=2e-2, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_step_that_waits_for_the_device_is_run_plainly(tmp_path, caplog):
    class Waiting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) * (1 + np.sign(x.sum().item()))

    caplog.set_level(logging.INFO)
    _, fitted = fit(tmp_path, Waiting(), data(90), device=GPU, graphs="auto")
    assert "it cannot be captured" in caplog.text and len(fitted.history) == 3
