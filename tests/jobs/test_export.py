"""`medexp export`: the files give what the run gives, by the runtimes that others use."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import medexp as package
from medexp.jobs import export as exports
from tests.conftest import MINE, OWN, ROOT, read
from tests.jobs.kit import train_once, write_folders

OF_FOLDERS = ("dataset=image_folder", "dataset.root=own", "dataset.size=16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_folders(folder / "own", {"benign": 30, "malignant": 30})
    return train_once(folder, *OF_FOLDERS, "+model.normalise=true", "hydra.run.dir=run")


@pytest.fixture
def place(workplace, trained):
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return workplace


def scored(run):
    with open(Path(run) / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [row["id"] for row in rows], np.array([[float(r["p_0"]), float(r["p_1"])] for r in rows])


def stored(ids):
    """The test images as the reader makes them, by OpenCV alone."""
    images = [cv2.imread(f"own/{key}")[..., ::-1] for key in ids]
    return np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA) for one in images])


def test_onnxruntime_gives_the_probabilities_of_predictions_csv(place, medexp):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert medexp("export", *OWN, "run=run") == 0, medexp.err
    file = Path("run/export/image_folder-toynet.onnx")
    assert medexp.out.splitlines()[-1] == str(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.type, given.shape[1:]) == ("tensor(uint8)", [16, 16, 3])
    assert isinstance(given.shape[0], str), "the size of a batch is open"
    ids, expected = scored("run")
    images = stored(ids)
    (got,) = session.run(None, {"images": images})
    np.testing.assert_allclose(got, expected, atol=1e-6)
    for count in (1, 2, 5):
        (some,) = session.run(None, {"images": images[:count]})
        np.testing.assert_allclose(some, expected[:count], atol=1e-6)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["medexp.classes"]) == ["benign", "malignant"]
    assert json.loads(told["medexp.reader"])["size"] == 16
    assert told["medexp.normalised as ImageNet inside"] == "true"
    facts = read(f"{file}.json")
    assert facts["verified"]["of"] == "test images" and facts["verified"]["images"] == len(ids)
    assert facts["verified"]["largest difference"] < 1e-6
    assert facts["bytes"] == file.stat().st_size < 10**5
    assert facts["input"]["axes"] == "N, H, W, C" and facts["input"]["colours"] == "RGB"


def test_a_program_of_torch(place, medexp):
    assert medexp("export", *OWN, "run=run", "format=torch_export", "out=there/a.pt2") == 0, (
        medexp.err
    )
    extra = {"medexp.classes": ""}
    program = torch.export.load("there/a.pt2", extra_files=extra).module()
    ids, expected = scored("run")
    with torch.no_grad():
        got = program(torch.from_numpy(stored(ids))).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert json.loads(extra["medexp.classes"]) == ["benign", "malignant"]


def test_safetensors_hold_the_weights_and_load_again(place, medexp):
    safetensors = pytest.importorskip("safetensors")
    assert medexp("export", *OWN, "run=run", "format=safetensors", "out=a.safetensors") == 0, (
        medexp.err
    )
    with safetensors.safe_open("a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["medexp.classes"]) == ["benign", "malignant"]
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = torch.load("run/checkpoints/best.pt", weights_only=True)["model"]
    assert set(held) == set(weights)
    assert all(torch.equal(held[name], weights[name]) for name in held)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(Path("a.safetensors").stat().st_mode) == 0o666 & ~mask
    words = ("+model.weights=a.safetensors", "optimizer.lr=0", "trainer.epochs=1")
    assert train_once(place, *OF_FOLDERS, *words, "hydra.run.dir=again")
    carried = sum(not name.startswith("input_") for name in weights)
    assert f"\n{carried} of {carried} tensors" in Path("again/transferred.txt").read_text()


def test_without_the_runs_images_noise_shows_an_error_too(place, medexp):
    shutil.rmtree("own")
    shutil.rmtree("cache")
    assert medexp("export", *OWN, "run=run", "format=torch_export") == 0, medexp.err
    assert "images of noise: the run's are not here" in medexp.out.replace("\n  ", " ")
    (file,) = Path("run/export").glob("*.json")
    assert read(file)["verified"]["of"] == "noise"


def test_a_file_that_gives_something_else_is_not_left(place, medexp, monkeypatch):
    own = exports.READERS["torch_export"]

    def wrong(file, run):
        call = own(file, run)
        return lambda images: call(images) + 1e-3

    monkeypatch.setitem(exports.READERS, "torch_export", wrong)
    assert medexp("export", *OWN, "run=run", "format=torch_export") == 1
    assert "its probabilities differ by up to 0.001" in medexp.err
    assert not list(Path("run/export").iterdir())


class Odd(torch.nn.Module):
    """Its path depends on what it sees, which cannot be traced."""

    def __init__(self, *, num_classes: int, in_channels: int):
        super().__init__()
        self.head = torch.nn.Linear(in_channels, num_classes)

    def forward(self, x):
        x = x.mean((2, 3))
        return self.head(x if x.sum() > 0 else -x)


def test_wrong_usage_and_networks_that_cannot_be_traced(place, medexp, monkeypatch):
    (place / "there.pt2").write_text("")
    for words, code, message in (
        ([], 2, "run: missing"),
        (["run=run", "format=onxn"], 2, "Did you mean 'onnx'?"),
        (["run=run,run"], 2, "one at a time"),
        (["run=run", "size=3"], 2, "size: not a key of export"),
        (["run=run", "format=torch_export", "out=a.onnx"], 2, "ends in .pt2"),
        (["run=run", "format=torch_export", "out=there.pt2"], 2, "is there already"),
    ):
        assert medexp("export", *OWN, *words) == code, words
        assert message in medexp.err, (words, medexp.err)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    model = exports.Deployed(Odd(num_classes=2, in_channels=3))
    with pytest.raises(exports.MedexpError, match="Odd cannot be traced for batches of any size"):
        exports.traced(model, images)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert medexp("export", *OWN, "run=run") == 1
    assert 'pip install "medexp[onnx]"' in medexp.err


@pytest.mark.parametrize("name, shape", [("native3", (48, 48, 3)), ("viptt", (4, 32, 32, 1))])
def test_networks_of_the_papers(name, shape, tmp_path):
    """Of pictures and of volumes, in ONNX by onnxruntime, for batches of any size."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from medexp.config.compose import compose
    from medexp.jobs.apply import OfRun
    from medexp.jobs.build import build_network

    settings = compose([f"model={name}", "model.weights=null"])
    network = build_network(settings.model, OfRun(("a", "b", "c"), shape)).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    model = exports.Deployed(network).eval()
    exports.write_onnx(model, images, tmp_path / "a.onnx", {})
    call = exports.read_onnx(tmp_path / "a.onnx", None)
    assert exports.largest_difference(model, call, images) < 1e-5


def test_the_exported_input_is_what_load_reads(place, medexp):
    """read(path) of medexp.load is what the file takes."""
    assert medexp("export", *OWN, "run=run", "format=torch_export", "out=a.pt2") == 0, medexp.err
    model = package.load("run", config_dir=MINE)
    image = model.read("own/benign/000.png")
    with torch.no_grad():
        got = torch.export.load("a.pt2").module()(torch.from_numpy(image[None]))
    np.testing.assert_allclose(got[0], model.probabilities(image[None])[0], atol=1e-6)


def test_its_page_runs_as_it_stands(place, medexp):
    """docs/export.md, to the letter."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    shutil.move("run", "RUN")
    commands = re.findall(r"^medexp (.*)$", page, re.M)
    assert len(commands) == 5
    for command in commands:
        assert medexp(*shlex.split(command), *OWN) == 0, (command, medexp.err)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue().startswith("['benign', 'malignant'] [")


def test_int8_is_smaller_and_its_cost_is_measured_on_the_test_images(place, medexp, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("medexp.jobs.quantise.SECONDS", 0.05)
    assert medexp("export", *OWN, "run=run", "int8=true") == 0, medexp.err
    (file,) = Path("run/export").glob("*.onnx")
    facts = read(f"{file}.json")
    ids, expected = scored("run")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": stored(ids)})
    labels = np.array([key.startswith("malignant") for key in ids])
    assert facts["int8"]["accuracy int8"] == np.mean((got[:, 1] > 0.5) == labels)
    assert facts["int8"]["accuracy float32"] == np.mean((expected[:, 1] > 0.5) == labels)
    assert facts["int8"]["images"] == len(ids)
    assert 0 < np.abs(got - expected).max() < 0.1, "close, and not the same"
    assert facts["int8"]["largest difference"] == pytest.approx(
        np.abs(got - expected).max(), abs=1e-5
    )
    kinds = {one.type for one in session.get_inputs()}
    assert kinds == {"tensor(uint8)"}
    assert b"QuantizeLinear" in file.read_bytes()
    assert json.loads(session.get_modelmeta().custom_metadata_map["medexp.classes"])
    assert "with 32 bits" in medexp.out and medexp.out.splitlines()[-1] == str(file)
    assert medexp("export", *OWN, "run=run", "int8=true", "format=safetensors") == 2
    assert "int8=true: of format=onnx" in medexp.err
    assert sorted(path.name for path in Path("run/export").iterdir()) == [
        file.name,
        f"{file.name}.json",
    ]
