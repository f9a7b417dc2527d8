"""What is shown of a made-up result."""

import copy

import pytest

from benchmarks.speed import tables


def spread(*values):
    low, *_, high = sorted(values) if len(values) > 1 else values * 2
    return {"median": values[0], "low": low, "high": high, "rounds": list(values)}


def contestant(speed, precision="float32", first=4.2, device=None):
    return {
        "images_per_s": spread(speed, 0.9 * speed, 1.1 * speed),
        "training_images_per_s": spread(speed),
        "first_step": None if first is None else spread(first),
        "memory": spread(1.234e9),
        "device_memory": None if device is None else spread(device),
        "precision": precision,
        "versions": {},
        "extra": [],
    }


RESULT = {
    "command": "python -m benchmarks.speed --rounds 3",
    "time": "2026-01-02 03:04",
    "commit": "0123456789abcdef+",
    "machine": {"name": "A CPU, 2 threads; Linux", "cores": 2, "memory": 25e9, "load": 0.3},
    "versions": {"python": "3.11.7", "torch": "2.9.1"},
    "work": {
        "model": "native3",
        "data": "random patches laid out as pcam",
        "batch_size": 32,
        "precision": "auto",
        "epochs": 2,
        "rounds": 3,
        "images": {"train": 8192, "val": 1024, "test": 1024},
        "shape": [96, 96, 3],
        "classes": 2,
        "device": "cpu",
    },
    "measured": {
        "medexp": contestant(2600.0, "bfloat16"),
        "bare": contestant(2775.0, "bfloat16"),
        "lightning": contestant(3.456, first=None),
    },
    "ratios": {"bare": spread(0.937, 0.912, 0.95), "lightning": spread(752.3, 1.0, 800.0)},
    "share_of_bare": {"epoch": spread(0.937, 0.912, 0.95), "training": spread(0.981, 0.97, 0.99)},
    "ceilings": {
        "flops": spread(2.67e11),
        "bytes": spread(1.96e10),
        "precision": "bfloat16",
        "image": {},
    },
    "achieved": {
        "bare": {"flops": 2e11, "flops_share": 0.75, "bytes": 2e9, "bytes_share": 0.1},
    },
    "left_out": {"tf-keras": "not installed. pip install tensorflow h5py"},
}


def test_numbers_have_three_digits():
    assert [tables.three(v) for v in (0.9, 1.5, 9.99, 9.996, 12.34, 99.96, 123.4)] == [
        "0.90", "1.50", "9.99", "10.0", "12.3", "100", "123",
    ]  # fmt: skip
    assert [tables.short(v) for v in (3.456, 146, 2610, 99960, 999_600, 1.23e15)] == [
        "3.46", "146", "2.61k", "100k", "1.00M", "1.23P",
    ]  # fmt: skip


def test_a_range_has_one_unit():
    assert tables.between(2340.0, 2860.0) == "2.34..2.86k"
    assert tables.between(940.0, 1020.0) == "0.94..1.02k"
    assert tables.between(3.1, 3.8) == "3.10..3.80"


def test_markdown_says_what_was_run_where():
    text = tables.markdown(RESULT)
    for part in (
        "## native3 on random patches laid out as pcam, batch 32",
        "`python -m benchmarks.speed --rounds 3`",
        "8,192 training and 1,024 validation images of 96x96x3, 2 epochs a run",
        "A CPU, 2 threads; Linux, 2 cores, 25 GB; 2026-01-02 03:04, commit 0123456789ab",
        "python 3.11.7, torch 2.9.1.",
        "| with | in | images/s | min..max | medexp's ratio | first step | RAM GB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| medexp | bf16 | 2,600 | 2.34..2.86k |  | 4.20 s | 1.23 |",
        "| bare | bf16 | 2,775 | 2.50..3.05k | 0.94 (0.91..0.95) | 4.20 s | 1.23 |",
        "| lightning | fp32 | 3.46 | 3.11..3.80 | 752 (1.00..800) |  | 1.23 |",
        "reaches 0.94 (0.91..0.95) with data, augmentation and validation, 0.98 (0.97..0.99) in",
        "Ceilings measured: 267 GFLOP/s (bf16 matrix product), 19.6 GB/s",
        "- The bare step computes 200 GFLOP/s (75.0% of that) and moves at least 2.00 GB/s (10.0%)",
        "- tf-keras: not installed. pip install tensorflow h5py",
    ):
        assert part in text, part
    assert "busy" not in text


def test_a_busy_machine_is_said_so():
    result = copy.deepcopy(RESULT)
    result["machine"]["load"] = 1.4
    assert "The machine was busy at the start (load 1.4 on 2 cores)" in tables.markdown(result)


@pytest.mark.parametrize("device", [None, 1.2e10])
def test_the_table_fits_80_columns(capsys, monkeypatch, device):
    monkeypatch.setenv("COLUMNS", "80")
    result = copy.deepcopy(RESULT)
    result["measured"] = {
        name: contestant(1_234_567.0, "bfloat16", 12.3, device)
        for name in ("medexp", "keras-torch", "lightning")
    }
    result["ratios"] = {"keras-torch": spread(10.25, 10.12, 10.38), "lightning": spread(752.3)}
    tables.show(result)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text and "10.2 (10.1..10.4)" in text and "1,234,567" in text
    assert ("GPU" in text) == (device is not None)


def test_without_the_bare_step_nothing_is_said_of_it():
    result = RESULT | {"share_of_bare": None, "ceilings": None, "achieved": {}}
    assert tables.notes(result) == ["tf-keras: not installed. pip install tensorflow h5py"]
