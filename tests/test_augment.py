"""Augmentation against numpy on fixed draws, and its statistics against their definition."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from medexp.augment import FlipsTurns, Identity
from medexp.errors import MedexpError


def test_each_image_gets_its_own_draw_and_equals_numpy():
    images = torch.randint(0, 256, (32, 6, 6, 3), dtype=torch.uint8)
    columns = list(itertools.product([0.2, 0.7], [0.2, 0.7], [0.1, 0.3, 0.6, 0.9])) * 2
    draws = torch.tensor(columns)
    out = FlipsTurns()(images.clone(), draws).numpy()
    for image, (h, v, t), got in zip(images.numpy(), columns, out, strict=True):
        want = image[:, ::-1] if h < 0.5 else image
        want = want[::-1] if v < 0.5 else want
        np.testing.assert_array_equal(got, np.rot90(want, int(t * 4)))


def test_the_eight_symmetries_of_a_square_are_equally_likely():
    n = 8000
    marked = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1).expand(n, -1, -1, -1)
    augment = FlipsTurns()
    out = augment(marked.clone(), augment.draw(n, torch.Generator().manual_seed(0)))
    counts = Counter(tuple(image.flatten().tolist()) for image in out)
    assert len(counts) == 8
    assert all(abs(count - n / 8) < 5 * (n / 8) ** 0.5 for count in counts.values())


def test_parts_can_be_switched_off():
    images = torch.randint(0, 256, (64, 4, 5, 1), dtype=torch.uint8)
    draws = torch.rand(64, 3)
    assert torch.equal(
        FlipsTurns(horizontal=False, vertical=False, turns=False)(images.clone(), draws), images
    )
    flipped = FlipsTurns(vertical=False, turns=False)(images.clone(), draws)
    for before, after, draw in zip(images, flipped, draws, strict=True):
        assert torch.equal(after, before.flip(1) if draw[0] < 0.5 else before)


def test_volumes_turn_in_the_plane_of_their_slices():
    volumes = torch.randint(0, 256, (16, 3, 4, 4, 1), dtype=torch.uint8)
    draws = torch.rand(16, 3)
    slices = [FlipsTurns()(volumes[:, depth].clone(), draws) for depth in range(3)]
    assert torch.equal(FlipsTurns()(volumes, draws), torch.stack(slices, dim=1))


def test_turns_of_oblong_images_are_refused():
    with pytest.raises(MedexpError, match=r"augment\.turns=true: images are 4x5.*turns=false"):
        FlipsTurns()(torch.zeros(2, 4, 5, 3), torch.rand(2, 3))


def test_identity():
    augment = Identity()
    images = torch.rand(3, 4, 4, 1)
    assert augment(images, augment.draw(3, torch.Generator())) is images
