"""The profile of a run: parts add up, the trace agrees with the table, no number changes."""

import json
import logging
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from medexp import augment
from medexp.data.base import Dataset, Split
from medexp.train.profile import NOTHING, PARTS, Profile, shares, table, untimed
from tests.train import kit
from tests.train.kit import CPU


def data(n=70):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 6, 6, 3)).astype(np.uint8)
    split = Split(images, np.arange(n) % 2, np.arange(n).astype(str))
    return Dataset("toy", ("a", "b"), split, split, split)


def fit(folder, **changes):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 1)
    )
    settings = {"augment": augment.FlipsTurns(), "epochs": 2, "monitor": "val_loss", **changes}
    kit.fit(folder, network, data(), **settings)
    rows = (folder / "history.csv").read_text().splitlines()
    return [row.split(",")[:-2] for row in rows]  # all but the times


def read_table(folder):
    """part -> (ms a step, share)."""
    lines = (folder / "profile" / "profile.txt").read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("part "))
    rows = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    return {name: (float(ms), float(share.rstrip("%"))) for name, ms, share in rows}


def test_a_profile_changes_no_number(tmp_path):
    assert fit(tmp_path / "watched", profile=True) == fit(tmp_path / "not")
    assert sorted(p.name for p in (tmp_path / "watched/profile").iterdir()) == [
        "profile.txt",
        "trace.json",
    ]
    assert not (tmp_path / "not" / "profile").exists()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_table_is_of_the_steps_in_the_trace(tmp_path, accumulate):
    """The sums are taken again from the trace's own events: 3 of the 5 steps, behind 2."""
    fit(tmp_path, profile=True, accumulate=accumulate)
    found = read_table(tmp_path)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    events = [e for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    for name in PARTS:
        spans = [event["dur"] / 1e3 for event in events if event["name"] == name]
        often = {"forward": accumulate, "backward": accumulate, "augmentation": 2}.get(name, 1)
        assert len(spans) == 3 * often
        assert found[name][0] == pytest.approx(sum(spans) / 3, abs=0.001)
    *parts, step = found.values()
    assert list(found) == [*PARTS, "other", "step"]
    assert sum(ms for ms, _ in parts) == pytest.approx(step[0], abs=0.01) and step[1] == 100
    assert all(ms > 0 for ms, _ in parts)
    text = (tmp_path / "profile" / "profile.txt").read_text()
    assert "the mean of 3 steps of\n13 images, behind 2 of warm-up." in text
    assert "aten::convolution_backward" in text and max(map(len, text.splitlines())) <= 80


def test_time_is_counted_where_it_is_spent(tmp_path):
    """A slow augmentation shows as such: its sleep of 20 ms a step."""

    class Slow(augment.FlipsTurns):
        def __call__(self, images, draws):
            time.sleep(0.02)
            return super().__call__(images, draws)

    fit(tmp_path, profile=True, augment=Slow(), epochs=1)
    found = read_table(tmp_path)
    assert 20 <= found["augmentation"][0] <= found["step"][0]
    assert found["augmentation"][1] == max(share for name, (_, share) in found.items()
                                           if name != "step")  # fmt: skip


def event(key, total, own, *, label=False, kind="CPU", device=0.0, count=4):
    return SimpleNamespace(
        key=key, cpu_time_total=total, self_cpu_time_total=own, is_user_annotation=label,
        device_type=SimpleNamespace(name=kind), self_device_time_total=device, count=count,
    )  # fmt: skip


def test_shares_by_hand():
    """Two steps of 5 ms: 1 + 3 ms are in parts, so 1 ms is in none."""
    events = [
        event("forward", 2000, 10, label=True),
        event("backward", 6000, 10, label=True, count=2),
        event("forward", 999, 9),  # an operator of that name is no part
        event("mine", 999, 9, label=True),  # a label of the network's own is no operator
        event("aten::mm", 5000, 3000, device=100.0),
        event("aten::add", 5000, 400, device=900.0),
        event("kernel", 0, 0, kind="CUDA", device=900.0),
    ]
    found = shares(events, 0.01, 2, cuda=False)
    assert found.step == pytest.approx(5)
    assert found.parts == pytest.approx(
        {"data": 0, "augmentation": 0, "forward": 1, "backward": 3, "optimizer": 0, "other": 1}
    )
    assert found.operators == [("aten::mm", 1.5, 2), ("aten::add", 0.2, 2), ("forward", 0.0045, 2)]
    on_gpu = shares(events, 0.01, 2, cuda=True)
    assert on_gpu.operators[:2] == [("aten::add", 0.45, 2), ("aten::mm", 0.05, 2)]
    text = table(on_gpu, 2, 1, 64, cuda=True)
    assert "2 steps of\n32 images, behind 1" in text and "The GPU is waited for" in text
    assert "operator, on the GPU" in text and "kernel" not in text


@pytest.mark.parametrize(("steps", "looked_at"), [(1, 1), (2, 1), (9, 5), (30, 20), (100, 20)])
def test_a_short_epoch_is_watched_as_far_as_it_goes(tmp_path, caplog, steps, looked_at):
    caplog.set_level(logging.INFO)
    batches = [(torch.zeros(1, 3), torch.tensor([step])) for step in range(steps)]
    with Profile(tmp_path / "profile", CPU) as profile:
        assert list(profile.watch(iter([]), 0)) == []  # resumed behind the last step
        passed = list(profile.watch(iter(batches), steps))
        assert [id(x) for x, _ in passed] == [id(x) for x, _ in batches]
        again = iter(batches)
        assert profile.watch(again, steps) is again  # the epochs after
    assert caplog.messages == [f"Profile of {looked_at} steps in {tmp_path / 'profile'}"]


def test_nothing_is_paid_while_nothing_is_watched(tmp_path):
    with Profile(None, CPU) as profile:
        batches = iter([])
        assert profile.watch(batches, 5) is batches
        assert profile.timed("data") is NOTHING and untimed("data") is NOTHING


def test_a_loop_that_is_left_leaves_no_profiler_running(tmp_path):
    batches = [(torch.zeros(1), torch.zeros(1))] * 8
    with pytest.raises(KeyError), Profile(tmp_path / "profile", CPU) as profile:
        for step, _ in enumerate(profile.watch(iter(batches), 8)):
            if step == 6:
                assert torch.autograd._profiler_enabled()
                raise KeyError
    assert not torch.autograd._profiler_enabled() and not (tmp_path / "profile").exists()


def test_by_its_key(medexp, toy):
    run = toy("trainer.profile=true")
    assert read_table(run)["step"][1] == 100
