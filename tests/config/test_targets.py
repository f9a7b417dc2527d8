"""The check of a node's keys and values against its target's signature."""

from collections.abc import Sequence
from typing import Literal

import pytest

from medexp.config.targets import check_node, locate
from medexp.errors import ConfigError, nearest, one_of


def target(
    root: str,
    *,
    width: int,
    rate: float = 0.5,
    kind: Literal["a", "b"] = "a",
    sizes: Sequence[int] = (),
    pair: tuple[int, int] = (1, 2),
    flag: bool = False,
    limit: float | None = None,
) -> None:
    pass


GOOD = {"_target_": f"{__name__}.target", "root": "x", "width": 3}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.parametrize(
    "extra",
    [{}, {"rate": 1}, {"kind": "b"}, {"sizes": [1, 2, 3]}, {"pair": [3, 4]}, {"limit": None}],
)
def test_good_nodes_pass(extra):
    check_node("model", GOOD | extra)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"widht": 3}, r"model\.widht: not an argument of .*target\. Did you mean 'width'\?"),
        ({"width": "3"}, r"model\.width='3': must be int, not str"),
        ({"width": 2.5}, r"model\.width=2\.5: must be int, not float"),
        ({"width": True}, r"model\.width=True: must be int, not bool"),
        ({"rate": "x"}, r"model\.rate='x': must be float"),
        ({"kind": "c"}, r"model\.kind='c': must be one of 'a', 'b'"),
        ({"sizes": 3}, r"model\.sizes=3: must be a list of int"),
        ({"sizes": ["3"]}, r"model\.sizes=\['3'\]: must be a list of int"),
        ({"pair": [1, 2, 3]}, r"model\.pair=\[1, 2, 3\]: must be a list of int"),
        ({"flag": 1}, r"model\.flag=1: must be bool"),
        ({"limit": "low"}, r"model\.limit='low': must be float or null"),
    ],
)
def test_bad_nodes_are_refused_with_the_full_key(extra, message):
    with pytest.raises(ConfigError, match=message):
        check_node("model", GOOD | extra)


def test_missing_arguments_and_targets():
    with pytest.raises(ConfigError, match=r"model\.width: missing, and .* needs it"):
        check_node("model", {"_target_": GOOD["_target_"], "root": "x"})
    with pytest.raises(ConfigError, match=r"model\._target_: missing"):
        check_node("model", {"width": 3})
    with pytest.raises(ConfigError, match="has no 'Conv'"):
        locate("torch.nn.Conv", "model._target_")
    with pytest.raises(ConfigError, match="no module 'nowhere'.*--config-dir"):
        locate("nowhere.Net", "model._target_")


def test_supplied_arguments_are_offered_and_the_node_wins():
    supplied = {"width": 9, "root": "y", "colour": "red"}
    assert check_node("model", {"_target_": GOOD["_target_"], "width": 3}, supplied) == {
        "root": "y"
    }


def test_facts_are_no_arguments():
    check_node("model", GOOD | {"about": {"paper": "x"}})
    with pytest.raises(ConfigError, match=r"optimizer\.about"):
        check_node("optimizer", GOOD | {"about": {}})


def test_choices():
    with pytest.raises(ConfigError, match="split=tset: no such choice. Did you mean 'test'?"):
        one_of("split", "tset", ("train", "val", "test"))
    assert nearest("zzz", ["one", "two"]) == "Valid: one, two"
