"""`medexp data check | explore | cache`: exit codes, files, tables, messages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medexp.cli import data as data_commands
from medexp.report.figure import explore
from tests.conftest import MINE, ROOT, read

PHANTOM = ("source=phantom", "source.size=64")
OWN = ("--config-dir", MINE, "dataset=toy")


def folder():
    (found,) = Path("outputs/data").glob("*/*")
    return found


def test_check_writes_fingerprint_and_page_and_prints_both(medexp):
    assert medexp("data", "check", *PHANTOM) == 0, medexp.err
    assert re.fullmatch(r"outputs/data/pcam/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", str(folder()))
    assert medexp.out.splitlines()[-1] == str(folder() / "index.html")
    assert "Nothing found that would falsify a result." in medexp.out
    assert "PHANTOM: synthetic images, not patients (size 64, seed 0)" in medexp.out
    assert max(map(len, medexp.out.splitlines()[:-1])) <= 80
    found = read(folder() / "fingerprint.json")
    assert found["faults"] == [] and "PHANTOM" in found["marks"] and found["partial"] == []
    assert found["made"]["command"].startswith("medexp data check source=phantom")
    page = (folder() / "index.html").read_text()
    assert 'class="mark phantom"' in page and page.count("<img") == 16  # 8 of each class


def test_a_leak_exits_with_1_though_it_is_allowed(medexp):
    leaky = (*PHANTOM, "dataset.split=random")
    for more in ((), ("dataset.allow_leak=true",)):
        assert medexp("data", "check", *leaky, *more) == 1
        assert "slides stand in both train and test" in medexp.out
    assert max(len(line) for line in medexp.out.splitlines() if "outputs/" not in line) <= 80


def test_json_is_all_of_standard_output(medexp):
    assert medexp("data", "check", *OWN, "--json") == 0, medexp.err
    assert json.loads(medexp.out) == read(folder() / "fingerprint.json")


def test_out_is_never_written_over(medexp):
    assert medexp("data", "check", *OWN, "--out", "here") == 0, medexp.err
    assert {path.name for path in Path("here").iterdir()} == {"fingerprint.json", "index.html"}
    before = (Path("here") / "index.html").stat().st_mtime_ns
    assert medexp("data", "check", *OWN, "--out", "here") == 2
    assert "--out here: holds something already" in medexp.err
    assert medexp("data", "explore", *OWN, "--out", "here") == 2
    assert (Path("here") / "index.html").stat().st_mtime_ns == before
    Path("file").write_text("")
    assert medexp("data", "check", *OWN, "--out", "file/below") == 1
    assert "file/below: cannot be made" in medexp.err and "--out" in medexp.err


@pytest.fixture
def image_folder(workplace):
    """Two classes of 12 noisy images; two of them cut short, one in two classes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (workplace / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(workplace / "images" / name / f"{i}.png")
    (workplace / "images/b/twin.png").write_bytes((workplace / "images/a/3.png").read_bytes())
    for name in ("a/5.png", "b/6.png"):
        whole = (workplace / "images" / name).read_bytes()
        (workplace / "images" / name).write_bytes(whole[: len(whole) // 2])
    return ("dataset=image_folder", "dataset.root=images", "dataset.size=16")


def test_bad_files_and_twins_are_listed_without_stopping(medexp, image_folder):
    assert medexp("data", "check", *image_folder) == 1
    out = " ".join(medexp.out.split())
    assert "FAULT: 2 images cannot be read: dataset.on_error=fail stops a run there" in out
    assert "The first: images/a/5.png cannot be decoded" in out
    assert "unreadable: images/b/6.png cannot be decoded" in out
    assert "twice under different labels, pixel for pixel; the first:" in out
    assert "size 1 16x16 to 16x16 16x16 (23)" in out  # of the files that could be read
    page = (folder() / "index.html").read_text()
    assert "<h2>Images that cannot be read</h2>" in page and "b/twin.png" in page


def test_explore_writes_the_figures(medexp):
    arguments = ("--images", "40", "--perplexity", "5", "--samples", "3", "--seed", "1")
    assert medexp("data", "explore", *PHANTOM, *arguments) == 0, medexp.err
    names = ["classes.png", "samples.png", "pca.png", "tsne.png"]
    assert medexp.out.split() == [str(folder() / name) for name in names]
    for name in names:
        with Image.open(folder() / name) as image:
            assert round(image.info["dpi"][0]) == 200 and min(image.size) > 500


def test_explore_says_what_was_projected(medexp, monkeypatch):
    """As Figures 3 and 4 of the cervix paper, and otherwise."""
    titles = []
    scatter = explore.scatter_figure
    monkeypatch.setattr(explore, "scatter_figure", lambda *a: titles.append(a[3]) or scatter(*a))
    cervix = ("dataset=cervix", "source=phantom", "source.size=16", "dataset.size=64")
    few = ("--perplexity", "3", "--samples", "1")
    assert medexp("data", "explore", *cervix, *few, "--side", "0", "--components", "4") == 0
    assert medexp("data", "explore", *cervix, *few) == 0, medexp.err
    assert titles == [
        "cervix: PCA of all stored pixels, 16 of 16 images",
        "cervix: t-SNE of 4 principal components of all stored pixels, 16 of 16 images",
        "cervix: PCA of 32x32 pixels, 16 of 16 images",
        "cervix: t-SNE of 16 principal components of 32x32 pixels, 16 of 16 images",
    ]


def test_explore_shows_the_segmentation_where_there_is_one(medexp):
    cervix = ("dataset=cervix", "source=phantom", "source.size=16", "dataset.size=64")
    assert medexp("data", "explore", *cervix, "--images", "20") == 0, medexp.err
    assert (folder() / "segmentation.png").exists()
    assert medexp.out.split()[-1] == str(folder() / "segmentation.png")


def test_explore_takes_volumes_and_small_sets(medexp):
    own = ("--config-dir", MINE, "dataset=volumes", "model=viptt")
    assert medexp("data", "explore", *own) == 0, medexp.err
    assert len(medexp.out.split()) == 4


def test_the_cache_is_listed_and_cleared(medexp):
    assert medexp("data", "cache") == 0 and "0 entries, 0 B" in medexp.out
    assert medexp("data", "check", *PHANTOM) == 0
    assert medexp("data", "cache", "--json") == 0
    held = json.loads(medexp.out)
    assert held["path"] == os.environ["MEDEXP_CACHE"]
    assert sorted(entry["kind"] for entry in held["entries"]) == ["arrays", "phantom"]
    assert medexp("data", "cache") == 0
    lines = medexp.out.splitlines()
    assert any(re.match(r" +pcam +images +\d+ +[\d.]+ MB +now", line) for line in lines), medexp.out
    assert any(re.match(r" +pcam +phantom +[\d.]+ MB +now", line) for line in lines), medexp.out
    assert max(map(len, lines[:-1])) <= 80 and ": 2 entries, " in " ".join(medexp.out.split())
    assert medexp("data", "cache", "--clear") == 0
    assert "Removed 2 entries, " in medexp.out
    assert medexp("data", "cache", "--clear", "--json") == 0
    assert json.loads(medexp.out)["entries"] == [] and json.loads(medexp.out)["freed_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data: do what? Give an action: medexp data check, explore, cache"),
        (("chek",), "data chek: no such action. Did you mean 'check'?"),
        (("explore", "--images", "3"), "--images 3: must be 4 or more"),
        (("explore", "--perplexity", "0"), "--perplexity 0.0: must be 1 or more"),
        (("explore", "--perplexity", "nan"), "--perplexity nan: must be 1 or more"),
        (("explore", "--samples", "0"), "--samples 0: must be 1 or more"),
        (("explore", "--side", "-1"), "--side -1: must be 0 or more"),
        (("explore", "--components", "1"), "--components 1: must be 2 or more"),
        (("explore", "--seed", "-1"), "--seed -1: must be 0 or more"),
        (("check", "dataset=pcm"), "dataset=pcm: no such option. Did you mean 'pcam'?"),
        (("check", "dataset.splt=random"), "splt: no such key"),
        (("check", *PHANTOM, "dataset.split=radnom"), "Did you mean 'random'?"),
    ],
)
def test_wrong_usage_exits_with_2(medexp, arguments, message):
    assert medexp("data", *arguments) == 2
    assert message in " ".join(medexp.err.split()) and "Traceback" not in medexp.err
    assert not Path("outputs").exists()


def test_data_that_is_not_there_exits_with_1(medexp):
    assert medexp("data", "check", "dataset=pcam") == 1
    assert "data/pcam" in medexp.err and not Path("outputs").exists()


@pytest.mark.parametrize("action", data_commands.ACTIONS)
def test_every_action_has_help_with_examples(medexp, capsys, action):
    with pytest.raises(SystemExit) as stop:
        medexp("data", action, "--help")
    text = capsys.readouterr().out
    assert not stop.value.code and f"  medexp data {action} " in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_overview_names_every_action(medexp):
    assert medexp("data", "--help") == 0
    for action in data_commands.ACTIONS:
        assert f"  medexp data {action}" in medexp.out


def test_actions_and_overrides_complete():
    def query(line):
        environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
        command = [sys.executable, "-m", "medexp", "-sc", "query=bash"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        return done.stdout.split()

    assert query("medexp data ") == ["check", "explore", "cache"]
    assert "dataset=cervix" in query("medexp data explore dataset=")


@pytest.mark.real_data
def test_the_papers_split_of_all_and_the_challenges_folds(medexp, real_data):
    files = f"dataset.file_list={real_data / 'cnmc2019_filelist.csv'}"
    assert medexp("data", "check", "dataset=all", files) == 1
    out = " ".join(medexp.out.split())
    assert re.search(r"\d+ patients or slides stand in both train and test \(100\.0% of the", out)
    assert "all: a list of files" in out and "LEAKY" not in out
    assert max(map(len, medexp.out.splitlines()[:-1])) <= 80
    Path("outputs").rename("first")
    assert (
        medexp("data", "check", "dataset=all", files, "dataset.split=given", "dataset.fold=2") == 1
    )
    out = " ".join(medexp.out.split())
    assert "patients in two folds: 0/1: 0, 0/2: 0, 1/2: 0" in out
    assert "patients or slides stand in both" not in out
    # The folds share files, though: two names of patients are of one.
    assert "94 images stand in both train and test, byte for byte" in out
    assert "<h2>Folds that the data set comes with</h2>" in (folder() / "index.html").read_text()


def test_a_list_of_files_is_checked_without_pixels(medexp, workplace):
    lines = ["path,bytes,sha256_16"]
    for patient in range(8):
        kind = ("all", "hem")[patient % 2]
        name = f"fold_{patient // 4}/{kind}/UID_{patient}_1_1_{kind}.bmp"
        lines.append(f"{name},9,{patient:016x}")
    Path("list.csv").write_text("\n".join(lines))
    fold = ("dataset.split=given", "dataset.fold=1", "dataset.val_share=0")
    assert medexp("data", "check", "dataset=all", "dataset.file_list=list.csv", *fold) == 0
    assert "a list of files" in medexp.out and "patients in two folds: 0/1: 0" in medexp.out
    found = read(folder() / "fingerprint.json")
    assert "split: as all comes, fold 1 of the data set's own" in found["notes"]
    assert list(found["marks"]) == ["SELECTED ON TEST"] and found["patients"]["3"]["train"] == 1


def test_sizes_and_ages():
    sizes = [data_commands.size_of(n) for n in (0, 999, 1000, 999_600, 9_061_797_888, 10**16)]
    assert sizes == ["0 B", "999 B", "1 kB", "1 MB", "9.06 GB", "1e+04 TB"]
    ages = [data_commands.age_of(s) for s in (3, 61, 7300, 200_000)]
    assert ages == ["now", "1 min", "2 h", "2 d"]


@pytest.mark.real_data
def test_real_images(medexp, real_data, monkeypatch):
    """CT slices of one scan stand on both sides of the paper's split; PCam's patches are sound."""
    monkeypatch.setenv("MEDEXP_DATA", str(real_data))
    assert medexp("data", "check", "dataset=pcam") == 0, medexp.out
    assert medexp("data", "check", "dataset=ldct") == 1
    assert "look nearly the same as a training image" in medexp.out
