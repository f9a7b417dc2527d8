"""The state of a training: what an epoch begins and ends with, and what comes back from last.pt."""

import copy

import pytest
import torch
from torch import nn

from medexp.errors import ConfigError
from medexp.train.state import State
from medexp.train.step import Totals
from tests.train.kit import CPU, weights


def state(steps=3, ema=0.0, lr=0.1):
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return State(network, optimizer, scaler, steps=steps, device=CPU, ema=ema)


def totals(loss, hits, penalty=0.5):
    return Totals(torch.tensor(loss), torch.tensor(hits), torch.tensor(penalty))


def sums(one):
    return one.losses.tolist(), one.hits.item(), one.penalties.item()


def test_an_epoch_begins_with_no_sums():
    one = state()
    for epoch in range(2):
        one.begin_epoch()
        assert (one.epoch, one.step, sums(one)) == (epoch, 0, ([0, 0, 0], 0, 0))
        for step in range(3):
            one.add(totals(1.0 + step, 4.0))
        assert (one.step, sums(one)) == (3, ([1, 2, 3], 12, 1.5))
        one.end_epoch({"epoch": epoch + 1, "val_loss": 1.0}, 0.5, "val_auc")
        assert (one.epoch, one.step) == (epoch + 1, 0)


def kept(monitor, *rows):
    """Which of these (monitor's value, val_loss) were the best so far, and the best one's epoch."""
    one = state()
    found = [
        one.end_epoch({"epoch": k + 1, "val_loss": loss}, value, monitor)
        for k, (value, loss) in enumerate(rows)
    ]
    return found, one.best["epoch"], one.best["value"]


def test_the_best_epoch_has_the_best_value():
    rows = [(0.5, 0.9), (0.7, 0.8), (0.6, 0.1)]
    assert kept("val_auc", *rows) == ([True, True, False], 2, 0.7)
    rows = [(0.5, 0.5), (0.7, 0.7), (0.4, 0.4)]
    assert kept("val_loss", *rows) == ([True, False, True], 3, 0.4)


def test_of_epochs_with_one_value_the_lower_loss_is_kept_then_the_later_one():
    """As on a set where every epoch has a val_auc of 1 while the network still learns."""
    rows = [(1.0, 0.69), (1.0, 0.31), (1.0, 0.08), (1.0, 0.2), (1.0, 0.08), (0.9, 0.01)]
    assert kept("val_auc", *rows) == ([True, True, True, False, True, False], 5, 1.0)
    rows = [(0.3, 0.3), (0.3, 0.3), (0.4, 0.4)]
    assert kept("val_loss", *rows) == ([True, True, False], 2, 0.3)
    nan = float("nan")  # no number is worse than any, and the later of two such is kept
    rows = [(1.0, nan), (1.0, nan), (1.0, 5.0), (1.0, nan)]
    assert kept("val_auc", *rows) == ([True, True, True, False], 3, 1.0)


def test_in_the_middle_of_an_epoch_all_of_it_comes_back():
    one = state(ema=0.5)
    one.begin_epoch()
    one.seconds, one.history, one.epoch = 7.5, [{"epoch": 1}], 1
    one.add(totals(2.0, 3.0))
    with torch.no_grad():
        one.network.weight.add_(1)
    saved = copy.deepcopy(one.state_dict())
    drawn = torch.rand(3)

    other = state(ema=0.5, lr=0.3)
    other.load_state_dict(saved, 16)
    other.begin_epoch()
    assert torch.equal(torch.rand(3), drawn)  # the generators are where they were
    assert sums(other) == sums(one) == ([2, 0, 0], 3, 0.5)
    assert (other.epoch, other.step, other.seconds) == (1, 1, 7.5)
    assert other.history == one.history and other.best == one.best
    assert torch.equal(weights(other.network), weights(one.network))
    assert torch.equal(weights(other.kept), weights(one.kept))
    assert not torch.equal(weights(other.kept), weights(other.network))
    assert other.optimizer.param_groups[0]["lr"] == 0.3  # the config's, not the file's


def test_other_batches_are_refused_in_the_middle_of_an_epoch():
    one = state(steps=3)
    one.add(totals(2.0, 3.0))
    with pytest.raises(ConfigError, match="trainer.batch_size=8: epoch 1 was begun with batches"):
        state(steps=5).load_state_dict(one.state_dict(), 8)


def test_the_scale_of_the_loss_comes_back():
    one, other = state(), state()
    for each, scale in ((one, 256.0), (other, 65536.0)):
        each.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        each.scaler.scale(torch.ones(()))
    other.load_state_dict(one.state_dict(), 8)
    assert other.scaler.get_scale() == 256
