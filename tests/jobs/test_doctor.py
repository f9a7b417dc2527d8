"""`medexp doctor`: what is found on this machine, and every way in which training cannot work."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy
import pytest
import torch

from medexp.cli import doctor as command
from medexp.data.phantom.folders import write_folder
from medexp.jobs import doctor
from medexp.train.device import pick_device, pick_precision
from tests.conftest import ROOT


def named(found):
    return {one.name: one for one in found}


def test_what_is_found_here(medexp, monkeypatch):
    monkeypatch.setenv("MEDEXP_DATA", "data")
    Path("data/ldct").mkdir(parents=True)
    assert medexp("doctor", "--quick") == 0, medexp.out
    assert "Training works here" in medexp.out.splitlines()[-1]
    lines = [line.strip() for line in medexp.out.splitlines()]
    assert f"torch: {torch.__version__.partition('+')[0]}" in lines
    assert f"numpy: {numpy.__version__}" in lines
    assert "found: ldct (data/ldct)" in lines
    assert max(map(len, medexp.out.splitlines())) <= 80
    assert medexp("doctor", "--quick", "--json") == 0
    content = json.loads(medexp.out)
    assert content["works"] is True
    sections = dict.fromkeys(one["section"] for one in content["findings"])
    assert list(sections) == ["installation", "devices", "memory", "disk", "data", "extras"]
    assert all(one["remedy"] or one["state"] == "ok" or one["name"] == "cuda"
               for one in content["findings"])  # fmt: skip


def test_each_precision_is_tried_and_its_speed_told(workplace):
    found = named(doctor.devices(0.05))
    device = pick_device("auto")
    name = "cuda:0" if device.type == "cuda" else device.type
    for precision in ("float32", "bf16"):
        assert "images/s" in found[f"{name}, {precision}"].text
    auto = pick_precision("auto", device)
    word = {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[auto]
    taken = [key for key, one in found.items() if "trainer.amp=auto takes" in one.text]
    assert taken == [f"{name}, {word}"]


def test_the_packages_and_extras_are_those_of_the_project(workplace):
    found = named([*doctor.packages(), *doctor.extras()])
    listed, _ = doctor.requirements()
    assert len(listed) > 25 and any("pyarrow" in one and "parquet" in one for one in listed)
    for name in ("torch", "hydra-core", "opencv-python", "tifffile"):
        assert found[name].text == metadata.version(name)
    assert {"parquet", "tune", "tiff"} <= set(found) and not {"test", "lint"} & set(found)


def test_packages_that_are_missing_old_or_broken_are_told_with_their_remedy(medexp, monkeypatch):
    own, imported = metadata.version, doctor.importlib.import_module

    def version(name):
        if name in ("scipy", "optuna"):
            raise metadata.PackageNotFoundError(name)
        return "0.9" if name == "numpy" else own(name)

    def broken(name):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return imported(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    found = named([*doctor.packages(), *doctor.extras()])
    bad = {name: one for name, one in found.items() if one.state == doctor.BAD}
    assert set(bad) == {"scipy", "numpy", "opencv-python"}
    assert bad["scipy"].remedy.startswith('pip install "scipy>=')
    assert bad["numpy"].text.startswith("0.9, and medexp needs >=")
    assert "libGL.so.1" in bad["opencv-python"].text
    assert (found["tune"].state, found["tune"].remedy) == ("note", 'pip install "medexp[tune]"')
    assert medexp("doctor", "--quick") == 1
    assert "! scipy: not installed" in medexp.out
    last = "Training cannot work here (marked !): numpy, scipy, opencv-python"
    assert medexp.out.splitlines()[-1] == last


def test_no_room_no_memory_and_folders_that_cannot_be_written(workplace, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("MEDEXP_CACHE", str(workplace / "file/cache"))
    monkeypatch.setattr(doctor, "free_memory", lambda: (5 * 10**8, 8 * 10**9))
    (found,) = doctor.memory()
    of_disk = named(doctor.disk())
    assert of_disk["cache"].state == doctor.BAD and "MEDEXP_CACHE=" in of_disk["cache"].remedy
    assert of_disk["outputs"].state == doctor.OK
    assert found.state == doctor.BAD and found.text.startswith("0.5 of 8.0 GB")
    monkeypatch.setattr(doctor, "LEAST_DISK", 10**18)
    assert named(doctor.disk())["outputs"].remedy.startswith("make room")


def test_a_step_that_fails_on_the_device_that_training_takes(workplace, monkeypatch):
    def fails(device, precision, seconds):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(doctor, "images_per_second", fails)
    found = named(doctor.devices(0.0))
    key = next(key for key in found if key.endswith("float32"))
    assert found[key].state == doctor.BAD and "no kernel image" in found[key].text
    assert found[key].remedy == "trainer.device=cpu trainer.amp=off"


def test_a_container_with_a_limit_of_its_own():
    free, total = doctor.free_memory()
    assert 0 < free <= total
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert total <= page * 1.001


def test_a_check_that_fails_hides_no_other(workplace, monkeypatch):
    def broken():
        raise OSError("odd machine")

    monkeypatch.setattr(doctor, "memory", broken)
    found = list(doctor.examine(0.0))
    assert any("odd machine" in one.text for one in found)
    assert found[-1].section == "extras"


def test_without_torch_it_still_says_so(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so: cannot open')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [sys.executable, "-m", "medexp", "doctor", "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "! torch" in done.stdout and "libcudart.so" in done.stdout
    assert "extras" in done.stdout


@pytest.mark.parametrize("word", ["--nonsense"])
def test_wrong_usage(word, capsys):
    with pytest.raises(SystemExit) as stop:
        command.doctor([word])
    assert stop.value.code == 2


def test_data_sets_of_the_public_kind_only(workplace, monkeypatch):
    monkeypatch.setenv("MEDEXP_DATA", str(workplace / "data"))
    (workplace / "data/image_folder").mkdir(parents=True)
    write_folder(workplace / "data/image_folder", size=16, seed=0)
    found = named(doctor.data_sets(()))
    assert "image_folder" in found["found"].text
    assert "csv_table" not in found["not found"].text and "pcam" in found["not found"].text
