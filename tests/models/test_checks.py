import re

import pytest

from medexp.errors import ConfigError
from medexp.models.checks import (
    require_data,
    require_image,
    require_rates,
    require_sizes,
    too_small,
)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: require_image((8, 48, 48)),
            "image_size=(8, 48, 48): this network takes 2D images (height, width), not volumes",
        ),
        (lambda: require_image(48), "image_size=48: must be 2 integers of at least 1"),
        (lambda: require_image((48,)), "image_size=(48,): must be 2 integers of at least 1"),
        (lambda: require_image((48, 0)), "image_size=(48, 0): must be 2 integers of at least 1"),
        (lambda: require_image((48, 4.0)), "image_size=(48, 4.0): must be 2 integers of at least"),
        (
            lambda: require_image((63, 62), 63),
            "image_size=(63, 62): too small for this network; the smallest that works is 63x63",
        ),
        (
            lambda: too_small_raised((9, 9), 10, "model.padding=valid"),
            "image_size=(9, 9): too small for this network; the smallest that works with "
            "model.padding=valid is 10x10",
        ),
        (lambda: require_data(1, 3, (8, 8)), "num_classes=1: must be an integer of at least 2"),
        (lambda: require_data(2, 0, (8, 8)), "in_channels=0: must be an integer of at least 1"),
        (lambda: require_data(2, 3, (8, 8, 8)), "image_size=(8, 8, 8): this network takes 2D"),
        (lambda: require_sizes("a", [True]), "a=True: must be an integer of at least 1"),
        (lambda: require_sizes("a", [2, 3], 3), "a=[2, 3]: must be 3 integers of at least 1"),
        (lambda: require_sizes("a", 2, 2, least=4), "a=2: must be 2 integers of at least 4"),
        (lambda: require_sizes("a", [9, 0], None), "a=[9, 0]: must be a list of integers of at"),
        (
            lambda: require_rates("a", [1.0]),
            "a=1.0: must be at least 0 and below 1, the share of activations dropped",
        ),
        (lambda: require_rates("a", [True]), "a=True: must be at least 0"),
        (lambda: require_rates("a", [1], of="tea kept"), "the share of tea kept"),
        (
            lambda: require_rates("a", [0.5], 2),
            "a=[0.5]: must be 2 numbers, each at least 0 and below 1, the shares of activations",
        ),
        (lambda: require_rates("a", 0.5, 2), "a=0.5: must be 2 numbers"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        call()


def too_small_raised(*arguments):
    raise too_small(*arguments)


def test_takes():
    require_data(2, 1, (1, 1))
    require_image([63, 64], 63)
    require_sizes("a", [4], least=4)
    require_sizes("a", (1, 2, 3), 3)
    require_sizes("a", [], None)
    require_rates("a", [0])
    require_rates("a", (0.0, 0.99), 2)
