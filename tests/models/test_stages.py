"""Stages: rates, L2 and freezing by name."""

from functools import partial

import pytest
import torch
from torch import nn

from medexp.config.settings import ModelNode, Stage
from medexp.errors import ConfigError
from medexp.models import stages
from medexp.train import losses
from tests.mine.toy import Net
from tests.train.kit import weights
from tests.train.test_loop import data, fit


def net():
    torch.manual_seed(0)
    return Net(num_classes=2, in_channels=3, rate=0.0)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"heads": {}}, r"model\.stages\.heads: no such stage\. Did you mean 'head'\?"),
        ({"head": {"l3": 1.0}}, r"model\.stages\.head\.l3: no such key\. Did you mean 'l[r2]'\?"),
        ({"head": {"l2": "big"}}, r"model\.stages\.head\.l2='big': must be float, not str"),
        ({"head": {"l2": -1.0}}, r"model\.stages\.head\.l2=-1\.0: must be 0 or more"),
        ({"head": {"lr": -0.1}}, r"model\.stages\.head\.lr=-0\.1: must be 0 or more"),
        ({"head": {"frozen": True}, "features": {"frozen": True}}, "every stage is frozen"),
    ],
)
def test_wrong_stages_are_refused(node, message):
    with pytest.raises(ConfigError, match=message):
        stages.named_stages(net(), ModelNode({"stages": node}).stages)


def test_a_stage_has_its_own_rate_and_a_frozen_one_none():
    network = net()
    chosen = {"head": Stage(lr=0.5), "features": Stage()}
    groups = stages.parameter_groups(network, chosen)
    assert [group.get("lr") for group in groups] == [None, 0.5]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in network.head.parameters()}
    frozen = {"features": Stage(frozen=True)}
    stages.freeze(network, frozen)
    (only,) = stages.parameter_groups(network, frozen)
    assert {id(p) for p in only["params"]} == {id(p) for p in network.head.parameters()}
    stages.freeze(network, {})
    assert all(p.requires_grad for p in network.parameters())


def test_the_penalty_is_keras_kernel_regularizer():
    keras = pytest.importorskip("keras")
    network = net()
    kernel = network.head[3].weight
    value = stages.penalty(network, {"head": Stage(l2=0.1), "features": Stage()})
    regularizer = keras.regularizers.L2(0.1)
    assert value.item() == pytest.approx(float(regularizer(kernel.detach())), rel=1e-6)
    (gradient,) = torch.autograd.grad(value, kernel)
    torch.testing.assert_close(gradient, 0.2 * kernel)
    assert stages.penalty(network, {"head": Stage()}) is None


def test_frozen_stages_do_not_move_and_keep_their_statistics(tmp_path):
    network, before = net(), net()
    fit(tmp_path, network, stages={"features": Stage(frozen=True)})
    assert torch.equal(weights(network.features), weights(before.features))
    assert not torch.equal(weights(network.head), weights(before.head))


def test_sgd_with_l2_equals_weight_decay_of_twice_its_size(tmp_path):
    """d/dw (l2 w^2) = 2 l2 w: for plain SGD the same steps as weight_decay = 2 l2 on kernels."""
    first = nn.Sequential()
    first.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(108, 1, bias=False)))
    second = nn.Sequential()
    second.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(108, 1, bias=False)))
    second.load_state_dict(first.state_dict())
    sgd = partial(torch.optim.SGD, lr=0.1)
    fit(tmp_path / "l2", first, optimizer=sgd, stages={"head": Stage(l2=0.05)})
    fit(tmp_path / "decay", second, optimizer=partial(sgd, weight_decay=0.1))
    torch.testing.assert_close(weights(first), weights(second), rtol=1e-4, atol=1e-6)


class WithAuxiliary(nn.Module):
    aux_weight = 0.4

    def __init__(self):
        super().__init__()
        self.features = nn.Flatten()
        self.head, self.aux = nn.Linear(108, 2), nn.Linear(108, 2)

    def forward(self, x):
        x = self.features(x)
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def test_an_auxiliary_head_trains_with_its_weight_and_is_not_evaluated(tmp_path):
    torch.manual_seed(0)
    network = WithAuxiliary()
    start = {name: p.clone() for name, p in network.state_dict().items()}
    once = data(16)
    fit(tmp_path, network, once, optimizer=partial(torch.optim.SGD, lr=1.0), epochs=1,
        monitor="val_loss")  # fmt: skip
    x = torch.from_numpy(once.train.images).permute(0, 3, 1, 2) / 255
    y = torch.from_numpy(once.train.labels)
    for name, share in (("head", 1.0), ("aux", 0.4)):
        weight = start[f"{name}.weight"].requires_grad_()
        logits = nn.functional.linear(x.flatten(1), weight, start[f"{name}.bias"])
        (gradient,) = torch.autograd.grad(share * losses.cross_entropy(logits, y), weight)
        moved = getattr(network, name).weight.detach()
        torch.testing.assert_close(moved, weight.detach() - gradient, rtol=1e-4, atol=1e-6)
