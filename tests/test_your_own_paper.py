"""docs/your_own_paper.md, followed to the letter: its files written, its commands run."""

import csv
import re
import shlex
from pathlib import Path

import cv2
import numpy as np

from tests.conftest import ROOT, read

PAGE = (ROOT / "docs/your_own_paper.md").read_text(encoding="utf-8")
FILES = re.findall(r"`(mine/[\w./]+)`:\n\n```\w+\n(.*?)```", PAGE, re.S)
COMMANDS = [shlex.split(line) for line in re.findall(r"```sh\nmedexp (.*?)\n```", PAGE)]


def write_smears(folder):
    """48 patients with two images each; the ill ones have a dark nucleus."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "patient"])
        for number in range(96):
            patient, ill = number // 2, number // 2 % 2
            image = rng.integers(150, 250, (32, 32, 3)).astype(np.uint8)
            if ill:
                y, x = rng.integers(4, 20, 2)
                image[y : y + 8, x : x + 8] = rng.integers(0, 90, (8, 8, 3))
            path = f"images/{number:03}.png"
            cv2.imwrite(str(folder / path), image)
            table.writerow([path, ["healthy", "ill"][ill], f"p{patient:02}"])


def test_a_sixth_paper_in_ten_minutes(medexp, workplace):
    assert [Path(name).parent.name for name, _ in FILES] == [
        "mine", "model", "dataset", "recipe", "paper",
    ]  # fmt: skip
    for name, text in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    write_smears(Path("data/smears"))
    said = {}
    for command in COMMANDS:
        assert medexp(*command) == 0, (command, medexp.err)
        said[" ".join(command[:2])] = medexp.out
    assert list(said) == [
        "models --config-dir", "data check", "train --config-dir", "papers audit", "train -m",
    ]  # fmt: skip
    assert "agrees of 1,426 reported" in said["models --config-dir"]
    audit = " ".join(said["papers audit"].split())
    assert "contradicts: 2" in audit and "SmearNet-8 48.3%, SmearNet-16 39.6%" in audit
    assert "SmearNet-16: 2·0.93·0.89/(0.93+0.89) = 0.90956; reported 0.95" in audit
    folder = Path("outputs/papers/smears_table2-smoke-disk")
    table = (folder / "table.md").read_text()
    assert "Doe et al., blood smears: Table 2 · PARTIAL" in table
    for label, width in (("SmearNet-8", 8), ("SmearNet-16", 16)):
        metrics = read(folder / label / "metrics.json")
        assert f"{100 * metrics['test']['accuracy']:.1f}" in table
        assert metrics["parameters"]["trainable"] == 27 * width + 18 * width**2 + 7 * width + 2
    assert "\\toprule" in (folder / "table.tex").read_text()
    assert {path.name for path in (folder / "figures").iterdir()} == {"roc.png", "roc.svg"}
    page = (folder / "index.html").read_text()
    assert "SmearNet-16" in page and "PARTIAL" in page and "contradict" in page
    assert medexp(*COMMANDS[-1]) == 0 and medexp.out.count("done, taken") == 2
