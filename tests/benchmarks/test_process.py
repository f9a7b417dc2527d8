"""Processes: their report, their reason to fail, and that nothing is left of them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.speed import process
from medexp.errors import ConfigError, MedexpError


def script(text, tmp_path):
    return process.run([sys.executable, "-c", text], tmp_path, {"MEDEXP_TOLD": "yes"})


def test_the_report_is_the_last_object_that_is_json():
    text = 'warming up\n{"images": 1}\n{"images": 2, "auc": [0.5]}\n{broken\n[3]\ndone\n'
    assert process.report_of(text) == {"images": 2, "auc": [0.5]}
    with pytest.raises(MedexpError, match="ended without a report"):
        process.report_of("nothing\n[1]\n{half")


def test_what_a_process_says_takes_and_when(tmp_path):
    before = time.time()
    done = script(
        "import os, sys; x = bytearray(90_000_000); print(os.environ['MEDEXP_TOLD']);"
        "print('no', file=sys.stderr); sys.exit(3)",
        tmp_path,
    )
    assert (done.status, done.out, done.err) == (3, "yes\n", "no\n")
    assert before <= done.started <= time.time() and 0 < done.seconds < 60
    assert done.memory > 90_000_000


def test_more_output_than_a_pipe_holds(tmp_path):
    assert len(script("print('x' * 1_000_000)", tmp_path).out) == 1_000_001


def test_the_reason_is_the_last_line_or_the_signal(tmp_path):
    assert process.reason_of(script("raise ValueError('too small')", tmp_path)) == (
        "ValueError: too small"
    )
    killed = script("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert process.reason_of(killed) == "killed by SIGKILL"
    assert process.reason_of(script("import sys; sys.exit(4)", tmp_path)) == "exit code 4"


def test_what_medexp_says_is_raised_as_it_was(tmp_path):
    def said(text, code):
        return script(f"import sys; print({text!r}, file=sys.stderr); sys.exit({code})", tmp_path)

    with pytest.raises(ConfigError, match="^model=x: no such option$"):
        process.raise_for(said("log\nmedexp: model=x: no such option", 2), "Preparing")
    with pytest.raises(MedexpError, match="^data/pcam: not found\nGet it$"):
        process.raise_for(said("medexp: data/pcam: not found\nGet it", 1), "Preparing")
    with pytest.raises(MedexpError, match="^Preparing failed: segfault$"):
        process.raise_for(said("segfault", 1), "Preparing")
    process.raise_for(said("medexp: a warning", 0), "Preparing")


def test_ctrl_c_leaves_no_process(tmp_path):
    """A child with a child of its own, as a DataLoader has; the signal comes while it runs."""
    text = (
        "import os, pathlib, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{worker.pid}}')\n"
        "time.sleep(60)"
    )

    def interrupt():
        while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts what it runs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            script(text, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    child, worker = map(int, (tmp_path / "pids").read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert gone(worker)


def gone(pid):
    """Nobody or a zombie that init has not reaped yet."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
