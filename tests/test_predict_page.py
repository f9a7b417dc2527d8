"""docs/predict.md, followed to the letter: its commands and its Python run as they stand."""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

from tests.conftest import MINE, OWN, ROOT, read
from tests.jobs.kit import write_folders

PAGE = (ROOT / "docs/predict.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^medexp (.*)$", PAGE, re.M)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_every_command_of_it_runs(workplace, medexp):
    write_folders(Path("own"), {"benign": 20, "malignant": 20})
    write_folders(Path("new"), {"x": 3, "y": 2}, seed=1)
    write_folders(Path("there"), {"malignant": 3, "benign": 3}, seed=2)
    Path("list.csv").write_text("path\nnew/x/000.png\nown/benign/000.png\n")
    own = ("dataset=image_folder", "dataset.root=own", "dataset.size=16", "trainer.epochs=1")
    words = ("--config-dir", MINE, "model=toynet", *own, "trainer.resamples=20")
    for seed, name in enumerate(("RUN", "OTHER")):
        assert medexp("train", *words, f"seed={seed}", f"hydra.run.dir={name}") == 0, medexp.err
    assert len(COMMANDS) == 10 and len(PYTHON) == 1
    for command in COMMANDS:
        assert medexp(*shlex.split(command), *OWN) == 0, (command, medexp.err)
    assert Path("mine/table.csv").is_file() and Path("table.parquet").is_file()
    assert read("mine/table.json")["predicted"] == 5
    (scored,) = Path("RUN/eval").iterdir()
    assert read(scored / "metrics.json")["all"]["n"] == 6
    assert len(list(Path("RUN/predict").iterdir())) == 6
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(PYTHON[0].replace('"RUN"', f'"RUN", config_dir={str(MINE)!r}'), {})
    assert len(out.getvalue().splitlines()) == 5 and "new/x/000.png" in out.getvalue()


def test_a_run_that_was_moved_still_predicts(workplace, medexp):
    """Nothing of a run's folder but its own files is needed: not its data, nor its cache."""
    write_folders(Path("own"), {"benign": 20, "malignant": 20})
    own = ("dataset=image_folder", "dataset.root=own", "dataset.size=16", "trainer.epochs=1")
    words = ("--config-dir", MINE, "model=toynet", *own, "trainer.resamples=20")
    assert medexp("train", *words, "hydra.run.dir=RUN") == 0, medexp.err
    assert medexp("predict", *OWN, "run=RUN", "images=own", "out=a.csv") == 0, medexp.err
    Path("far").mkdir()
    shutil.move("RUN", "far/RUN")
    shutil.move("own", "new")
    shutil.rmtree("cache")
    assert medexp("predict", *OWN, "run=far/RUN", "images=new", "out=b.csv") == 0, medexp.err
    rows = [Path(name).read_text().replace("own/", "new/") for name in ("a.csv", "b.csv")]
    assert rows[0] == rows[1], "known by their pixels wherever they lie"
