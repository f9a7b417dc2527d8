"""The tests that need a GPU, and how many of them pass."""

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

from benchmarks.on_gpu.figures import note
from benchmarks.on_gpu.sizes import SMALL

STEP = "tests"
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    report = Path(os.environ.get("WORK", ".")).absolute() / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q"]
    command += ["--tb=short", "--durations=5", f"--junitxml={report}", *files(SMALL)]
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if SMALL:
        environment["MEDEXP_REHEARSE"] = "1"
    else:
        command += ["-n", "4"]
        if importlib.util.find_spec("pytest_timeout"):  # one that hangs fails, and the rest goes on
            command += ["--timeout=45", "--timeout-method=thread"]
    subprocess.run(command, cwd=ROOT, env=environment)
    passed, failed, skipped = counts(report)
    note(STEP, "passed", passed)
    note(STEP, "failed", len(failed), goal="<= 0")
    note(STEP, "skipped", skipped)
    for name in failed[:20]:
        note(STEP, "failed", name)


def files(small: bool) -> list[str]:
    """Those with such a test; in a rehearsal those whose tests run without a GPU too."""
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    return [name for name in found if name.endswith("test_cuda.py")] if small else found


def counts(report: Path) -> tuple[int, list[str], int]:
    """Of a JUnit file: how many passed, the names of those that did not, how many were skipped."""
    passed, failed, skipped = 0, [], 0
    for case in xml.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


if __name__ == "__main__":
    main()
