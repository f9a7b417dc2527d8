"""Files of unknown origin: bounds in time and memory, ways out, what a terminal would obey."""

import logging
import os
import time

import pytest
import yaml

from medexp.errors import MedexpError, printable
from medexp.runs import guard
from medexp.runs.files import read_json, write_text


def laughs(levels):
    """The billion laughs: each line is the one above it ten times over."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(12), r"line 2: refers to another part by an alias \(\*a0\)"),
        ("a: &a [*a]", "by an alias"),
        ("[" * 900, "nested more than 64 deep"),
        ("[" * 500_000, "is not valid YAML .*nesting depth"),
        ("{a: " * 80, "nested more than 64 deep"),
        ("- " * 100 + "x", "nested more than 64 deep"),
        ("x: 1" + ":1" * 300_000, "line 1: a number of 600,001 characters"),
        ("x: " + "9" * 10_000, "a number of 10,000 characters"),
        ("x: !!int '" + "1" * 5000 + "'", "a number of 5,000 characters"),
        ("x: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("x: !!int [1]", "is not valid YAML"),
        ("x: !!timestamp {a: b}", "is not valid YAML"),
        ("x: 2026-99-99", "is not valid YAML"),
        ("{[1]: 2}", "is not valid YAML"),
        ("x: \x1b[0m", r"is not valid YAML \((?!.*\x1b)"),
        ("a: [", "f is not valid YAML"),
        ("a" * (guard.MAX_YAML + 1), "f: has 1,048,577 bytes; a file of medexp has 1,048,576"),
    ],
)
def test_yaml_that_makes_much_of_little_is_refused_in_bounded_time(tmp_path, text, message):
    (tmp_path / "f").write_text(text)
    began = time.process_time()
    with pytest.raises(MedexpError, match=message):
        guard.read_yaml(tmp_path / "f")
    assert time.process_time() - began < 5


def test_other_yaml_is_read_as_ever():
    text = "a: [1, 2.5, 1e-3, yes, null, 'x: y']\nb: {c: |\n  long\n, d: '" + "9" * 400 + "'}\n"
    text = text.replace("{c: |\n  long\n, d", "{d")
    assert guard.parse_yaml(text, "f") == yaml.safe_load(text)
    assert guard.parse_yaml("", "f") is None


def test_json_that_nests_too_deep_is_named(tmp_path):
    (tmp_path / "f.json").write_text('{"a": ' + "[" * 200_000)
    with pytest.raises(MedexpError, match=r"f\.json: cannot be read as JSON \(nested too deep"):
        read_json(tmp_path / "f.json")


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        for read in (guard.read_yaml, read_json):
            with pytest.raises(MedexpError, match=f"{name}: is no regular file"):
                read(tmp_path / name)


def test_ways_out_of_a_run(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/best.pt").touch()
    (run / "best").symlink_to("checkpoints/best.pt")
    (run / "here").symlink_to(".")
    (tmp_path / "named").symlink_to(run)
    guard.refuse_ways_out(run)
    guard.refuse_ways_out(tmp_path / "named")  # whoever names a link to a run means the run
    for name, target in {"up": "../..", "etc": "/etc", "gone": "/nowhere/at/all"}.items():
        link = run / "checkpoints" / name
        link.symlink_to(target)
        with pytest.raises(MedexpError, match=f"checkpoints/{name}: a link that leads out of"):
            guard.refuse_ways_out(run)
        link.unlink()
    os.mkfifo(run / "split.csv")
    with pytest.raises(MedexpError, match=r"split\.csv: is no regular file, and a run holds no"):
        guard.refuse_ways_out(run)


def test_text_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".status.json.tmp").symlink_to("mine")
    write_text(tmp_path / "status.json", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "status.json").read_text() == "new"


def test_what_a_terminal_would_obey_is_spelled_out():
    shown = printable({"a\x1b": ["\x1b]0;t\x07", "\x9b2J", "a\rb", "\u202egnp.exe", 1.5, None]})
    assert shown == {"a\\x1b": ["\\x1b]0;t\\x07", "\\x9b2J", "a\\rb", "\\u202egnp.exe", 1.5, None]}
    kept = "Zwölf → 3 × 4,\ttab\nline, 中文, ✓"
    assert printable(kept) == kept
    record = logging.LogRecord("medexp", 20, "", 0, "class %s", ("\x1b[31m",), None)
    assert guard.Shown("%(message)s").format(record) == "class \\x1b[31m"
