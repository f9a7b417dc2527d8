"""Every reader can read files without labels, by the arguments of its `load`."""

import importlib
import inspect

import numpy as np
import pytest
import yaml

from medexp.config.groups import conf_dir, options
from medexp.data.base import NewFiles
from medexp.data.fresh import Places, files_of, items_of, reader_of
from medexp.data.read import arrays, tbt
from medexp.errors import ConfigError, MedexpError


def target(name):
    return yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text())["_target_"]


@pytest.mark.parametrize("name", options("dataset"))
def test_load_new_takes_the_arguments_of_load_with_its_defaults(name):
    """A run's config may leave out what has a default, so both must have the same."""
    module, _, function = target(name).rpartition(".")
    found = importlib.import_module(module)
    own = inspect.signature(getattr(found, function)).parameters
    new = inspect.signature(getattr(found, f"{function}_new")).parameters
    assert next(iter(new)) == "shape"
    shared = [key for key in new if key != "shape"]
    assert set(shared) <= set(own)
    assert {key: new[key].default for key in shared} == {key: own[key].default for key in shared}


def test_a_reader_that_lacks_it_or_promises_another_shape(monkeypatch):
    node = {"_target_": "medexp.data.phantom.folders.write_folder"}
    with pytest.raises(ConfigError, match="A function write_folder_new beside it"):
        reader_of(node, (8, 8, 3))
    node = {"_target_": "medexp.data.read.all.load", "size": 16, "root": "x", "test": "split"}
    assert reader_of(node, (16, 16, 3)).shape == (16, 16, 3)
    with pytest.raises(MedexpError, match=r"are \(16, 16, 3\), and those of the run \(8, 8, 3\)"):
        reader_of(node, (8, 8, 3))


def test_a_folder_is_read_in_the_order_of_paths_without_what_is_hidden(tmp_path):
    names = ["b/2.PNG", "b/10.png", "a.png", "B.png", "b.png", "b/c/1.png", "a/x.txt", ".h/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = [item.file for item in files_of(tmp_path, (".png",), Places())()]
    expected = [tmp_path / n for n in [*names[:6], "link.png"]]
    assert found == sorted(expected)


def test_arrays_of_several_images_count_and_name_their_rows(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", train_images=images[:2], test_images=images[2:], other=images)
    np.savez(tmp_path / "c.npz", whatever=images[:1])
    np.savez(tmp_path / "d.npz", one=images, two=images)
    (tmp_path / "e.npy").write_bytes(b"cut")
    reader = arrays.load_new((6, 7, 3))
    items = list(items_of(files_of(tmp_path, reader.suffixes, Places())(), reader))
    listed = [(item.file.name, item.number) for item in items if not item.error]
    assert listed == [(f, n) for f in ("a.npy", "b.npz") for n in range(5)] + [("c.npz", None)]
    errors = {item.file.name: item.error for item in items if item.error}
    assert set(errors) == {"d.npz", "e.npy"}
    assert "it has: one (5, 6, 7, 3), two" in errors["d.npz"]
    for item in items[:10]:
        image, _ = reader.read(item.file, item.number)
        np.testing.assert_array_equal(image, images[item.number])


def test_a_volume_takes_the_mask_that_lies_in_a_folder_beside_it(tmp_path):
    nib = pytest.importorskip("nibabel")
    volume = np.full((8, 8, 6), 300.0, np.float32)
    lungs = np.zeros(volume.shape, np.uint8)
    lungs[2:6, 2:6, 1:5] = 1
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "one.nii.gz")
    nib.save(nib.Nifti1Image(lungs, affine), tmp_path / "masks/one_mask.nii.gz")
    size = (6, 8, 8)
    reader = tbt.load_new((*size, 1), size=size, masks=True)
    image, facts = reader.read(tmp_path / "one.nii.gz", 0)
    assert isinstance(reader, NewFiles) and image.shape == (6, 8, 8, 1)
    assert facts["mask_share"] == round(lungs.mean(), 4)
    assert np.count_nonzero(image) == lungs.sum(), "black outside the lungs"
    bare, _ = tbt.load_new((*size, 1), size=size).read(tmp_path / "one.nii.gz", 0)
    assert np.count_nonzero(bare) == volume.size
