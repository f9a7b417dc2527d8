"""What the processes of a run share: rows, draws, statistics, gradients, questions."""

import copy
import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from medexp import augment
from medexp.data.base import Rows, Split
from medexp.errors import ConfigError
from medexp.models.inception_v2 import ShiftNorm2d
from medexp.train import ranks, whole_batch
from medexp.train.feed import Feed
from medexp.train.profile import untimed
from tests.conftest import ROOT
from tests.train.kit import CPU, settings_of


def rank(number, count):
    return ranks.Ranks(number, count, None, None)


@pytest.mark.parametrize(("n", "count"), [(10, 2), (10, 3), (2, 4), (1, 2), (0, 3)])
def test_shares_are_all_of_it_in_order_and_rank_0_has_the_most(n, count):
    shares = [rank(r, count).share(n) for r in range(count)]
    assert [i for start, end in shares for i in range(start, end)] == list(range(n))
    sizes = [end - start for start, end in shares]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


def split(n=11):
    images = np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3)
    labels = (np.arange(n) % 2).astype(np.int64)
    return Split(Rows(images, np.arange(n)), labels, np.array([str(i) for i in range(n)]))


@pytest.mark.parametrize(
    "augmentation", [augment.Identity(), augment.FlipsTurns(), augment.Mixup()]
)
def test_the_ranks_rows_put_together_are_the_batches_of_one(augmentation):
    """From the second batch on, as where a run goes on within an epoch; the last has one image."""
    feed = Feed(split(), CPU, augmentation, classes=2)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(11, generator=generator)
    draws, cuts = augmentation.draw(11, generator), [(4, 8), (8, 10), (10, 11)]
    whole = list(feed.batches(order, draws, cuts))
    shared = []
    for r in range(3):
        batch = ranks.Batch(rank(r, 3))
        rows = []
        for x, target in ranks.batches(feed, batch, order, draws, cuts, untimed):
            assert len(x) == max(1, batch.end - batch.start)
            rows.append((x[: batch.end - batch.start], target))
        shared.append(rows)
    for i, (x, target) in enumerate(whole):
        assert torch.equal(torch.cat([rows[i][0] for rows in shared]), x)
        assert all(torch.equal(rows[i][1], target) for rows in shared)


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("shape", [(6,), (6, 4, 4), (6, 2, 4, 4)])
@pytest.mark.parametrize("last", [False, True])
def test_dropout_drops_in_a_ranks_rows_what_one_process_drops_there(each, shape, last):
    """each: rows of an image, such as slices of a volume; last: channels lie together."""
    x = torch.randn(7 * each, *shape)
    if last:  # channels_last, or channels_last_3d
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    torch.manual_seed(3)
    whole = F.dropout(x, 0.4, True)
    got = []
    for r in range(3):
        batch = ranks.Batch(rank(r, 3))
        batch.begin(7)
        layer = whole_batch.Dropout(nn.Dropout(0.4), batch).train()
        torch.manual_seed(3)
        got.append(layer(x[batch.start * each : batch.end * each]))
        assert torch.equal(layer.eval()(x[:2]), x[:2])
    torch.testing.assert_close(torch.cat(got), whole, rtol=1e-6, atol=0)


def test_dropout_of_something_else_than_images_is_refused():
    batch = ranks.Batch(rank(0, 2))
    batch.begin(6)
    with pytest.raises(ConfigError, match="a dropout layer sees 4 rows of 3 images"):
        whole_batch.Dropout(nn.Dropout(0.4), batch).train()(torch.ones(4, 2))


def test_layers_are_put_back(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(0.1)))
    before, state = list(net.modules()), list(net.state_dict())
    parameters = list(net.parameters())
    batch = ranks.Batch(rank(0, 2))
    with whole_batch.prepared(net, batch, settings_of(sync_batchnorm=True)):
        assert isinstance(net[1], whole_batch.SyncBatchNorm) and isinstance(
            net[2][0], whole_batch.Dropout
        )
        assert list(net.state_dict()) == state
        assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
        net[1].running_mean.fill_(3)
        net.eval()
    assert all(a is b for a, b in zip(net.modules(), before, strict=True))
    assert net[1].running_mean.tolist() == [3, 3] and not net[1].training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graphs": "on"}, "trainer.graphs=on: not with trainer.devices=2: .*graphs=off, or trai"),
        ({"cache_features": "on"}, "trainer.cache_features=on: not with trainer.devices=2"),
        (
            {"compile": True},
            "trainer.compile=true: not with .* trainer.compile=false, or train",
        ),
        ({"accumulate": 2}, "trainer.accumulate=2: not with trainer.devices=2: a batch is divided"),
        ({"prune_after": 3}, "trainer.prune_after=3: not with trainer.devices=2"),
        ({"profile": True}, "trainer.profile=true: not with trainer.devices=2"),
    ],
)
def test_what_several_devices_cannot_do_is_refused_by_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        ranks.adapted(settings_of(**changes), 2)
    kept = ranks.adapted(settings_of(), 2)
    assert kept.graphs == kept.cache_features == "off"


def test_a_layer_that_normalises_in_its_own_way_is_not_taken_for_batchnorm():
    class Own(nn.BatchNorm2d):
        def forward(self, input):
            return input

    with (
        pytest.raises(ConfigError, match="sync_batchnorm=true: Own is a BatchNorm of its own kind"),
        whole_batch.prepared(
            nn.Sequential(Own(2)), ranks.Batch(rank(0, 2)), settings_of(sync_batchnorm=1)
        ),
    ):
        pass


def test_a_share_without_statistics_is_refused():
    net, cuts = nn.Sequential(nn.BatchNorm1d(2)), [(0, 16), (16, 19)]
    with pytest.raises(ConfigError, match="an epoch has a batch of 3, and BatchNorm on 2 devices "):
        ranks.check_batches(cuts, net, rank(0, 2), settings_of())
    ranks.check_batches(cuts, net, rank(0, 2), settings_of(sync_batchnorm=True))
    ranks.check_batches(cuts, nn.Sequential(nn.Linear(2, 2)), rank(0, 2), settings_of())


def started(number, count, work, folder):
    """In a process of its own: the ranks of a run, and the work that is done as one of them."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), count)
    dist.init_process_group("gloo", store=store, rank=number, world_size=count)
    groups = [dist.new_group(backend="gloo") for _ in range(2)]
    work(ranks.Ranks(number, count, *groups), folder)
    dist.barrier()
    dist.destroy_process_group()


def together(work, folder, count=2):
    torch.multiprocessing.spawn(started, (count, work, folder), nprocs=count)


def statistics(us, folder):
    """Uneven shares, 3 and 2 images; float64, so that nothing but the formula differs."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 3, 1),
        nn.BatchNorm2d(3, momentum=None),
        ShiftNorm2d(3, eps=1e-3, momentum=0.1),
    )
    plain = plain.double()
    net = copy.deepcopy(plain)
    x = 5 + torch.randn(5, 4, 3, 3, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    batch = ranks.Batch(us)
    batch.begin(5)
    own = x[batch.start : batch.end].clone().requires_grad_()
    whole = x.clone().requires_grad_()
    settings = SimpleNamespace(sync_batchnorm=True)
    for _ in range(2):  # statistics that run on
        plain(whole)
        with whole_batch.prepared(net, batch, settings):
            net(own)
    (plain(whole) * weight).sum().backward()
    with whole_batch.prepared(net, batch, settings):
        made = net(own)
        (made * weight[batch.start : batch.end]).sum().backward()
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    close(made, plain(whole)[batch.start : batch.end])
    close(own.grad, whole.grad[batch.start : batch.end])
    for mine, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        dist.all_reduce(mine.grad)
        close(mine.grad, theirs.grad)
    assert int(net[0].num_batches_tracked) == 3
    close(net.eval()(x), expected_of(net, x))


def expected_of(net, x):
    """By the running statistics, written out."""
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            x = layer(x)
            continue
        mean, var = (t.view(1, -1, 1, 1) for t in (layer.running_mean, layer.running_var))
        scale = 1 if layer.weight is None else layer.weight.view(1, -1, 1, 1)
        x = (x - mean) / (var + layer.eps).sqrt() * scale + layer.bias.view(1, -1, 1, 1)
    return x


@pytest.mark.slow
def test_synchronised_statistics_are_torchs_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    together(statistics, tmp_path)


def questions(us, folder):
    """Rank 1 alone is asked to stop, at its third step; both stop at the fourth."""
    asked = iter([False, False, us.rank == 1, False, False])
    agreed = ranks.Agreed(lambda: next(asked), us)
    assert [agreed() for _ in range(4)] == [False, False, False, True]
    assert agreed.answer() is False
    parts = us.over(split(11), 4, lambda part: part.labels * 10 + len(part))
    assert parts.tolist() == [*[8, 18] * 4, 3, 13, 3]  # 2 batches of rank 0, 1 of rank 1
    few = us.over(split(3), 4, lambda part: part.labels)  # rank 1 has no batch
    assert few.tolist() == [0, 1, 0]


@pytest.mark.slow
def test_all_stop_at_the_same_step_and_split_a_prediction_by_whole_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    together(questions, tmp_path)


def unused(us, folder):
    """DDP's own message says what to do in DDP's words, at the second step."""
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    net.forward = lambda x: net["used"](x)
    batch = ranks.Batch(us)
    batch.begin(4)
    forward = ranks.Forward(net, batch)
    forward(torch.ones(2, 2)).sum().backward()
    with pytest.raises(ConfigError, match="trainer.devices=2: ModuleDict has parameters that"):
        forward(torch.ones(2, 2))


@pytest.mark.slow
def test_a_network_with_idle_parameters_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    together(unused, tmp_path)
