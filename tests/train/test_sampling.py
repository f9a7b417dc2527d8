"""Samplings against torch's own samplers, and their statistics against their definition."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import WeightedRandomSampler

from medexp.augment import FlipsTurns
from medexp.config import compose
from medexp.config.targets import check_node
from medexp.errors import ConfigError
from medexp.train.loop import epoch_draws
from medexp.train.sampling import Balanced, Offline, Shuffle

LABELS = np.repeat(np.arange(5), [335, 180, 81, 80, 56])
ALL = {"shuffle": Shuffle(), "balanced": Balanced(), "offline": Offline(size=1000)}
every = pytest.mark.parametrize("sampling", ALL.values(), ids=ALL)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def likely(counts, chance):
    """Whether counts are such as draws of these probabilities give: p of a chi-squared test."""
    return stats.chisquare(counts, np.asarray(chance) * np.sum(counts)).pvalue > 1e-3


@every
def test_an_order_is_rows_that_follow_from_the_generator(sampling):
    order = sampling.order(LABELS, seeded())
    assert order.dtype == torch.int64 and order.ndim == 1
    assert set(order.tolist()) <= set(range(len(LABELS)))
    assert torch.equal(order, sampling.order(LABELS, seeded()))
    other = sampling.order(LABELS, seeded(1))
    assert len(other) == len(order) and not torch.equal(other, order)


def test_shuffle_is_the_permutation_that_the_generator_draws_first():
    ours, theirs = seeded(3), seeded(3)
    assert torch.equal(Shuffle().order(LABELS, ours), torch.randperm(732, generator=theirs))
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_balanced_is_torchs_weighted_random_sampler():
    weights = 1 / np.bincount(LABELS)[LABELS]
    theirs = WeightedRandomSampler(weights.tolist(), 5000, generator=seeded())
    assert Balanced(size=5000).order(LABELS, seeded()).tolist() == list(theirs)


def test_balanced_draws_classes_alike_and_within_a_class_its_images():
    assert len(Balanced().order(LABELS, seeded())) == len(LABELS)
    order = Balanced(size=200_000).order(LABELS, seeded()).numpy()
    assert likely(np.bincount(LABELS[order], minlength=5), np.full(5, 1 / 5))
    drawn = np.bincount(order, minlength=len(LABELS))
    for label, count in enumerate(np.bincount(LABELS)):
        assert likely(drawn[label == LABELS], np.full(count, 1 / count))


def test_balanced_leaves_out_a_class_without_images():
    labels = np.array([0] * 90 + [2] * 10)  # as where a split or max_train left none of class 1
    order = Balanced(size=20_000).order(labels, seeded()).numpy()
    assert likely(np.bincount(labels[order])[[0, 2]], [0.5, 0.5])


def test_offline_draws_all_images_alike_with_replacement():
    """As Augmentor's sample: random.choice for each, so about exp(-M / N) are in no draw."""
    labels = np.zeros(8480, np.int64)
    order = Offline().order(labels, seeded())
    assert len(order) == 20_000
    missing = len(labels) - len(order.unique())
    chance = (1 - 1 / 8480) ** 20_000
    assert abs(missing - 8480 * chance) < 4 * (8480 * chance * (1 - chance)) ** 0.5
    many = Offline(size=200_000).order(LABELS, seeded()).numpy()
    assert likely(np.bincount(many, minlength=732), np.full(732, 1 / 732))
    assert likely(np.bincount(LABELS[many]), np.bincount(LABELS) / 732)


def test_offline_images_and_their_augmentation_are_made_once_and_then_shuffled():
    augment, sampling = FlipsTurns(), Offline(size=1000)

    def folder(seed, epoch):
        order, draws = epoch_draws(LABELS, augment, sampling, seed=seed, epoch=epoch)
        return torch.cat([order[:, None].float(), draws], dim=1)

    def as_set(made):
        return set(map(tuple, made.tolist()))

    first, second = folder(0, 0), folder(0, 1)
    assert as_set(first) == as_set(second) and not torch.equal(first, second)
    assert not as_set(first) & as_set(folder(1, 0))
    assert not ALL["shuffle"].fixed and not ALL["balanced"].fixed


def test_augmentors_four_operations_make_the_eight_symmetries_alike_as_flips_turns():
    """rotate90, rotate270, flip_left_right, flip_top_bottom, each done or not."""
    image = np.arange(9).reshape(3, 3)
    operations = (np.rot90, lambda x: np.rot90(x, 3), np.fliplr, np.flipud)
    augmentor, ours = [], []
    for done in itertools.product([False, True], repeat=4):
        made = image
        for operation in itertools.compress(operations, done):
            made = operation(made)
        augmentor.append(made.tobytes())
    for h, v, turn in itertools.product([0.2, 0.7], [0.2, 0.7], [0.1, 0.3, 0.6, 0.9]):
        x = torch.from_numpy(image.copy())[None, :, :, None]
        ours.append(FlipsTurns()(x, torch.tensor([[h, v, turn]])).numpy().tobytes())
    assert len(set(ours)) == 8
    assert sorted(ours) == sorted(augmentor)


@pytest.mark.parametrize("size", [0, -5])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ConfigError, match=rf"^sampling\.size={size}: .*or null for as many as"):
        Balanced(size=size)
    with pytest.raises(ConfigError, match=rf"^sampling\.size={size}: .*the paper's is 20000"):
        Offline(size=size)


@pytest.mark.parametrize(("name", "kind"), [(n, type(s)) for n, s in ALL.items()])
def test_options_compose(name, kind):
    node = compose.compose([f"sampling={name}"]).sampling
    check_node("sampling", node)
    assert isinstance(compose.instantiate("sampling", node), kind)
    with pytest.raises(ConfigError, match=r"sampling\.size"):
        check_node("sampling", {**node, "size": "many"})


def test_the_default_is_each_image_once_and_the_papers_20000():
    node = compose.compose([]).sampling
    assert isinstance(compose.instantiate("sampling", node), Shuffle)
    assert compose.compose(["sampling=offline"]).sampling["size"] == 20_000
