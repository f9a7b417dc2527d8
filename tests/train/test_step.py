"""A step against its lines written out, and what it sums up."""

from functools import partial

import pytest
import torch
from torch import nn

from medexp.config.settings import Stage
from medexp.train.losses import cross_entropy
from medexp.train.step import Step, set_rate
from tests.train.kit import settings_of

X, Y = torch.rand(7, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3))


def step_of(network, scaler=None, **changes):
    return Step(
        network,
        network,
        cross_entropy,
        torch.optim.SGD(network.parameters(), lr=0.1),
        settings_of(
            **{key: changes.pop(key) for key in ("accumulate", "clip_norm") if key in changes}
        ),
        autocast=partial(torch.autocast, "cpu", enabled=False),
        scaler=scaler or torch.amp.GradScaler("cpu", enabled=False),
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_is_its_lines_written_out(accumulate):
    one, other = linear(), linear()
    sums = step_of(one, accumulate=accumulate)(X, Y, {"0": Stage(l2=0.5)})
    logits = other(X)
    loss = nn.functional.cross_entropy(logits, Y)
    extra = 0.5 * other[0].weight.square().sum()
    (loss + extra).backward()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(one[0].weight, other[0].weight)
    assert sums.loss.item() == pytest.approx(7 * loss.item())
    assert sums.penalty.item() == pytest.approx(7 * extra.item())
    assert sums.hits.item() == (logits.argmax(1) == Y).sum()


def test_a_scaled_loss_is_clipped_by_its_own_gradients_and_the_scale_goes_on():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    plain, scaled = linear(), linear()
    step_of(plain, clip_norm=0.05)(X, Y, {})
    step_of(scaled, scaler, clip_norm=0.05)(X, Y, {})
    torch.testing.assert_close(plain[0].weight, scaled[0].weight)
    assert not torch.equal(plain[0].weight, linear()[0].weight)
    assert scaler.get_scale() == 2048


class WithHead(nn.Module):
    """Returns the logits of an auxiliary head too, as Inception does."""

    aux_weight = 0.3

    def __init__(self):
        super().__init__()
        self.main, self.head = linear(), linear()

    def forward(self, x):
        return self.main(x), self.head(x)


def test_an_auxiliary_head_is_minimised_by_its_weight_and_not_reported():
    network, start = WithHead(), linear()
    sums = step_of(network)(X, Y, {})
    loss = nn.functional.cross_entropy(start(X), Y)
    loss.backward()
    assert sums.loss.item() == pytest.approx(7 * loss.item())
    for part, weight in ((network.main, 1.0), (network.head, 0.3)):
        moved = start[0].weight - 0.1 * weight * start[0].weight.grad
        torch.testing.assert_close(part[0].weight, moved)


def test_of_a_mixed_target_the_largest_share_is_what_is_right():
    shares = torch.eye(3)[Y] * 0.6 + 0.4 / 3
    one, other = (step_of(linear())(X, target, {}) for target in (Y, shares))
    assert one.hits == other.hits and one.loss != other.loss


def test_a_rate_is_a_number_or_a_tensor_that_stays():
    number, tensor = {"lr": 0.1}, {"lr": torch.tensor(0.1)}
    held = tensor["lr"]
    for group in (number, tensor):
        set_rate(group, 0.25)
    assert number["lr"] == 0.25 and tensor["lr"] is held and held == 0.25
