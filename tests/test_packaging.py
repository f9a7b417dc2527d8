"""What a user gets from `pip install .`, and what CI can rely on."""

import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_wheel_brings_the_groups(tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("medexp-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [p.relative_to(ROOT) for p in (ROOT / "conf").rglob("*.yaml")]
    assert len(files) > 20
    assert {f"medexp/{path}" for path in files} <= names
    assert not [name for name in names if name.startswith(("tests", "outputs", "conf"))]


def test_every_yaml_says_what_it_is_and_how_to_call_it():
    files = sorted((ROOT / "conf").glob("*/*.yaml"))
    assert len(files) > 20
    for path in files:
        text = path.read_text()
        header = text[: text.index("\n", text.rindex("\n#") + 1) if "\n#" in text else 200]
        assert text.startswith("# "), path
        assert "medexp " in header, path
