"""What all phantoms share: they are refused, reproduced and counted alike; and their kit."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

from medexp.data.load import sources
from medexp.data.phantom import cervix, kit, tbt
from medexp.errors import ConfigError, MedexpError
from tests.conftest import ROOT

WRITERS = sorted(
    {
        yaml.safe_load(path.read_text())["phantom"]
        for path in (ROOT / "conf" / "dataset").glob("*.yaml")
    }
)
DEFAULTS = {"pcam": 4096, "folders": 1000, "all": 600, "cervix": 400, "ldct": 1500, "tbt": 60,
            "ucf50": 120, "arrays": 1000}  # fmt: skip


def writer(name):
    module, function = name.rsplit(".", 1)
    return getattr(import_module(module), function)


def written(name, folder, seed):
    folder.mkdir()
    writer(name)(folder, size=16, seed=seed)
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_every_data_set_has_phantoms():
    assert len(WRITERS) == 11
    for name in WRITERS:
        stem = name.split(".")[-2]
        assert writer(name).__kwdefaults__ == {"size": DEFAULTS[stem], "seed": 0}


@pytest.mark.parametrize("name", WRITERS)
def test_same_call_same_bytes_other_seed_other_pixels(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tbt, "counts", lambda size: [1] * 5)  # as many are enough here
    monkeypatch.setattr(cervix, "REFERENCES", 2)
    monkeypatch.setattr(cervix, "ADDITIONAL", 2)
    one, two, other = (
        written(name, tmp_path / folder, seed) for folder, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert one == two
    pixels = [
        {content for path, content in files.items() if path.suffix != ".csv"
         and not path.name.endswith("_y.h5")}
        for files in (one, other)
    ]  # fmt: skip
    assert not pixels[0] & pixels[1]


@pytest.mark.parametrize("name", WRITERS)
def test_impossible_sizes_and_seeds_are_refused_before_anything_is_written(name, tmp_path):
    least = 2 if "pcam" in name else 16
    with pytest.raises(ConfigError, match=rf"source\.size={least - 1}: need {least} or more"):
        writer(name)(tmp_path, size=least - 1)
    with pytest.raises(ConfigError, match=r"source\.seed=-1: need 0 or more"):
        writer(name)(tmp_path, seed=-1)
    assert not list(tmp_path.iterdir())


def test_shares_add_up_and_the_largest_class_gives_way():
    assert kit.shares(10_661, (7_272, 3_389)) == [7_272, 3_389]
    assert kit.shares(16, (250, 781, 450), least=4) == [4, 7, 5]
    for size in range(16, 60):
        assert sum(kit.shares(size, (250, 781, 450), least=4)) == size


def test_results_come_in_order_and_a_failure_comes_through(tmp_path):
    assert list(kit.side_by_side(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    with pytest.raises(MedexpError, match=r"gone/1.png: cannot be written"):
        image = np.zeros((4, 4, 3), np.uint8)
        kit.write_each(lambda n: kit.save(tmp_path / "gone" / f"{n}.png", image), [1])


def test_colours_and_masks_are_written_as_they_are(tmp_path):
    from PIL import Image

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for suffix in ("png", "bmp", "tif"):
        for name, pixels in (("image", image), ("mask", image[..., 0])):
            kit.save(tmp_path / f"{name}.{suffix}", pixels)
            assert np.array_equal(np.asarray(Image.open(tmp_path / f"{name}.{suffix}")), pixels)


def test_a_change_of_what_draws_a_phantom_is_seen():
    """The cache tells phantoms of other sources apart (data/load.py)."""
    files = {name: {path.name for path in sources(writer(name))} for name in WRITERS}
    assert files["medexp.data.phantom.folders.write_folder"] == {"folders.py", "kit.py", "pcam.py"}
    assert files["medexp.data.phantom.tbt.write"] == {"tbt.py", "kit.py"}
    assert all("kit.py" in names for names in files.values())
    assert Path(__file__) in sources(written)
