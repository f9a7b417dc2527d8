"""What a user gets from `pip install .`, and what CI can rely on."""

import re
import subprocess
import sys
import zipfile

import pytest

from medexp.config import compose
from medexp.config.targets import check_node
from tests.conftest import ROOT

CALL = re.compile(r"medexp train((?: (?:-m|[+]?[\w.]+=[^\s`;,][^\s`]*))+)")


@pytest.mark.slow
def test_the_wheel_brings_the_groups(tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("medexp-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [p.relative_to(ROOT) for p in (ROOT / "conf").rglob("*.yaml")]
    assert len(files) > 20
    assert {f"medexp/{path}" for path in files} <= names
    assert {"medexp/report/page/page.css", "medexp/report/page/page.js"} <= names
    assert "hydra_plugins/medexp_sweepers.py" in names
    assert not [name for name in names if name.startswith(("tests", "outputs", "conf"))]


def test_every_yaml_says_what_it_is_and_how_to_call_it():
    files = sorted((ROOT / "conf").glob("*/*.yaml"))
    assert len(files) > 20
    for path in files:
        text = path.read_text()
        header = text[: text.index("\n", text.rindex("\n#") + 1) if "\n#" in text else 200]
        assert text.startswith("# "), path
        assert "medexp " in header, path


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 12])
def test_every_call_in_a_header_or_the_readme_composes(step):
    """A sweep by its first values; what names a run or a folder of the reader's is left out."""
    files = [*sorted((ROOT / "conf").rglob("*.yaml")), ROOT / "README.md"]
    calls = {c for path in files for c in CALL.findall(path.read_text()) if "=PATH" not in c}
    calls = {c for c in calls if "resume=" not in c and "mynet" not in c}
    assert len(calls) > 40
    for call in sorted(calls)[::step]:
        overrides = [o if "[" in o else o.split(",")[0] for o in call.replace(" -m", "").split()]
        settings = compose.compose(overrides)
        for group in ("optimizer", "schedule", "augment", "loss", "sampling"):
            check_node(group, getattr(settings, group))
