"""One measurement in a process of its own: started, awaited, read, and ended with its workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import ConfigError, MedexpError

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Finished:
    """started: seconds since 1970. memory: peak resident bytes, see figures.Measured."""

    started: float
    seconds: float
    memory: int
    status: int
    out: str
    err: str


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Finished:
    """Run to the end; what it says goes through files in `folder`, so that no pipe can block it.

    However this is left, the process and its workers are gone.
    """
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        started = time.time()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            end(process)
    return Finished(
        started,
        time.time() - started,
        usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        process.returncode,
        out.read_text(errors="replace"),
        err.read_text(errors="replace"),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's session, and reap the process."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the latter
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait()


def python_path() -> dict[str, str]:
    """The environment in which another process of this interpreter imports this very medexp."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def report_of(text: str) -> dict[str, Any]:
    """The report in a process's output: the last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    raise MedexpError("it ended without a report")


def reason_of(done: Finished) -> str:
    """Why a process failed, in the words of its last line."""
    if done.status < 0:
        return f"killed by {signal.Signals(-done.status).name}"
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {done.status}"


def raise_for(done: Finished, what: str) -> None:
    """Raise what a process of medexp itself said, as the kind of error that it was."""
    if done.status == 0:
        return
    said = done.err.rpartition("medexp: ")[2].strip() if "medexp: " in done.err else ""
    if said:
        raise (ConfigError if done.status == 2 else MedexpError)(said)
    raise MedexpError(f"{what} failed: {reason_of(done)}")
