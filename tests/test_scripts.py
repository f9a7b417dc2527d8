"""scripts/reproduce_*.sh: each paper's tables from one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = ROOT / "scripts"
PAPERS = ("pcam", "ldct", "cervix", "leukaemia", "tbt")
TABLES = {
    paper: re.findall(r" ([a-z]+_(?:table|fig)\d+)\b", text.split("exec", 1)[1])
    for paper in PAPERS
    for text in [(SCRIPTS / f"reproduce_{paper}.sh").read_text()]
}
PICTURES = {  # beside the tables' own figures
    "cervix": ("data/*.png", "cervix_table5/CervixNet-1/eval/*/explain/*.png"),
    "leukaemia": ("all_table2/Proposed-Model/eval/*/explain/*.png",),
}


def call(paper, *arguments, folder, **variables):
    """The script from a folder of its own: (exit code, what it printed)."""
    variables = {"MEDEXP_CACHE": str(folder / "cache"), "COLUMNS": "80", **variables}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [SCRIPTS / f"reproduce_{paper}.sh", *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_every_table_is_of_one_script():
    named = [table for tables in TABLES.values() for table in tables]
    options = {path.stem for path in (ROOT / "conf/paper").glob("*_*.yaml")}
    printed = {option for option in options if re.search(r"_(table|fig)\d+$", option)}
    assert len(named) == len(set(named)) and set(named) == printed
    headers = " ".join((SCRIPTS / f"reproduce_{paper}.sh").read_text() for paper in PAPERS)
    assert all(f"paper={option}" in headers for option in options - printed)  # trials, named there
    together = (SCRIPTS / "reproduce_all.sh").read_text()
    (listed,) = re.findall(r"for paper in (.*); do", together)
    assert sorted(listed.split()) == sorted(PAPERS)


@pytest.mark.parametrize("paper", [*PAPERS, "all"])
def test_help_and_wrong_usage(paper, tmp_path):
    code, text = call(paper, "--help", folder=tmp_path)
    assert code == 0 and "--budget" in text and max(map(len, text.splitlines())) <= 80
    code, text = call(paper, "--bugdet", "smoke", folder=tmp_path)
    assert code == 2 and "--bugdet: no such option" in text
    code, text = call(paper, "--budget", folder=tmp_path)
    assert code == 2 and "--budget: needs a value" in text


@pytest.mark.parametrize("paper", ["ldct", "all"])
def test_what_medexp_refuses_ends_the_script(paper, tmp_path):
    code, text = call(paper, "--budget", "tiny", "--source=phantom", folder=tmp_path)
    assert code == 2 and text.count("paper.budget=tiny: no such choice") == 1


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_in_smoke_mode(paper, tmp_path):
    smoke = ("--budget", "smoke", "--source=phantom", "--out", "here")
    code, text = call(paper, *smoke, folder=tmp_path)
    assert code == 0, text
    for table in TABLES[paper]:
        content = json.loads((tmp_path / "here" / table / "table.json").read_text())
        assert content["tables"]
        for one in content["tables"]:
            assert "PHANTOM" in " ".join(one["marks"]) and "PARTIAL" in " ".join(one["marks"])
            assert one["state"] == "done", (table, one["state"])
    for pattern in PICTURES.get(paper, ()):
        assert list((tmp_path / "here").glob(pattern)), (pattern, text)
    page = (tmp_path / "here" / "index.html").read_text()
    assert page.count("<table") > len(TABLES[paper]) and "PHANTOM" in page
    # Again: nothing is trained, and the tables are the same to the byte.
    files = sorted((tmp_path / "here").glob("*/table.*"))
    before = [path.read_bytes() for path in files]
    code, text = call(paper, *smoke, folder=tmp_path)
    assert code == 0 and "epoch 1/" not in text and "taken" in text
    assert len(files) == 5 * len(TABLES[paper])
    assert [path.read_bytes() for path in files] == before
