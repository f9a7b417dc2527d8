"""Images that a table labels: CSV and Parquet alike, and every table that is wrong."""

import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from medexp.config.settings import SplitSettings
from medexp.data.read.csv_table import load
from medexp.data.split import split_rows
from medexp.errors import MedexpError
from tests.data.read.kit import decoded, expected, pixels, save, table


@pytest.fixture
def listed(tmp_path):
    """Three images and their table; returns the root."""
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png")
    text = "path,label\nimages/a.png,sick\nimages/b.png,well\nimages/c.png,sick\n"
    return table(tmp_path, text)


@pytest.mark.real_data
def test_kaggles_table_equals_pillow(real_data):
    root = real_data / "pcam_kaggle"
    pool = load(
        root, table="train_labels.csv", path_column="id", folder="train", extension=".tif", size=96
    )
    lines = (root / "train_labels.csv").read_text().splitlines()[1:]
    assert pool.ids.tolist() == [f"train/{line.split(',')[0]}.tif" for line in lines]
    assert pool.labels.tolist() == [int(line.split(",")[1]) for line in lines]
    assert pool.classes == ("0", "1") and pool.groups is None and pool.parts is None
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(root / name)), name


def test_labels_by_name(listed):
    pool = load(listed, size=[16, 24], crop="square", channels="grey")
    assert pool.classes == ("sick", "well") and pool.labels.tolist() == [0, 1, 0]
    assert pool.ids.tolist() == ["images/a.png", "images/b.png", "images/c.png"]
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(listed / name, (16, 24), "L", square=True))


def test_labels_by_number(listed):
    table(listed, "path,label\nimages/a.png,10\nimages/b.png,9\nimages/c.png,-1\n")
    pool = load(listed)
    assert pool.classes == ("-1", "9", "10") and pool.labels.tolist() == [2, 1, 0]
    pool = load(listed, classes=[10, -1, 9])
    assert pool.classes == ("10", "-1", "9") and pool.labels.tolist() == [0, 2, 1]


def test_patients_and_parts(listed):
    table(listed, "split,path,patient,label\nTrain,images/a.png,7,x\nvalid, images/b.png ,7,y\n"
                  "test,./images/c.png,8,x\n")  # fmt: skip
    pool = load(listed)
    assert pool.groups.tolist() == ["7", "7", "8"]
    assert pool.parts.tolist() == ["train", "val", "test"]
    assert pool.ids.tolist() == ["images/a.png", "images/b.png", "images/c.png"]
    pool = load(listed, patient_column=None, split_column=None)
    assert pool.groups is None and pool.parts is None


def test_patients_stay_on_one_side(tmp_path):
    lines = ["path,label,patient"]
    for i in range(60):
        save(tmp_path / f"{i}.png", pixels(i, 8, 8))
        lines.append(f"{i}.png,{i % 2},p{i // 4}")
    pool = load(table(tmp_path, "\n".join(lines)))
    rows = split_rows(pool, SplitSettings()).rows
    sides = [set(pool.groups[rows[part]].tolist()) for part in ("train", "val", "test")]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_empty_split_cells_are_still_to_be_split(tmp_path):
    lines = ["path,label,split"]
    for i in range(40):
        save(tmp_path / f"{i}.png", pixels(i, 8, 8))
        lines.append(f"{i}.png,{i % 2},{'test' if i < 10 else ''}")
    pool = load(table(tmp_path, "\n".join(lines)))
    assert pool.parts.tolist() == ["test"] * 10 + [""] * 30
    rows = split_rows(pool, SplitSettings()).rows
    assert rows["test"].tolist() == list(range(10))
    assert len(rows["val"]) and not set(rows["val"]) & set(rows["train"])


def test_table_outside_the_root(listed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("tables") / "mine.csv"
    (listed / "labels.csv").rename(elsewhere)
    assert len(load(listed, table=str(elsewhere))) == 3


def test_byte_order_mark_and_quotes(listed):
    rows = '"images/a.png","x, y"\r\nimages/b.png,z\r\n'
    (listed / "labels.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\n" + rows.encode())
    assert load(listed).classes == ("x, y", "z")


@pytest.mark.parametrize("extension", [".png", "png"])
def test_folder_and_extension_are_joined(listed, extension):
    table(listed, "path,label\na,1\nb.c,0\n")
    save(listed / "images" / "b.c.png")
    pool = load(listed, folder="images", extension=extension)
    assert pool.ids.tolist() == ["images/a.png", "images/b.c.png"]
    assert all(file.exists() for file in pool.files)


def test_missing_file_is_the_decoders(listed):
    (listed / "images" / "b.png").unlink()
    pool = load(listed)
    assert len(pool) == 3 and pool.decode(0)[0].shape == (224, 224, 3)
    with pytest.raises(
        MedexpError, match=r"labels.csv, line 3 names .*b.png, which cannot be found"
    ):
        pool.decode(1)


def test_no_file_there_at_all(listed):
    message = r"names 3 images and none is there, the first as .*images/a.png.png. Paths are dat"
    with pytest.raises(MedexpError, match=message):
        load(listed, extension=".png")


def test_links_are_followed_where_that_is_asked_for(listed, tmp_path_factory):
    away = save(tmp_path_factory.mktemp("store") / "far.png")
    (listed / "images" / "far.png").symlink_to(away)
    table(listed, "path,label\nimages/far.png,1\nimages/a.png,0\n")
    with pytest.raises(MedexpError, match="line 2: .* leads out of .*dataset.follow_links=true"):
        load(listed)
    pool = load(listed, follow_links=True)
    assert pool.ids.tolist() == ["images/far.png", "images/a.png"]
    assert pool.decode(0)[0].shape == pool.shape
    table(listed, "path,label\n../far.png,1\nimages/a.png,0\n")
    with pytest.raises(MedexpError, match="line 2: '../far.png': not a plain path below"):
        load(listed, follow_links=True)


# ---------------------------------------------------------------- whose an image is


def many(root, header, row, n=24):
    """A table of n images, row(i) its cells after the path."""
    for i in range(n):
        save(root / f"case_{i // 4}" / f"{i % 4}.png", pixels(i, 8, 8))
    lines = [f"case_{i // 4}/{i % 4}.png,{row(i)}" for i in range(n)]
    return table(root, "\n".join([f"path,{header}", *lines]))


@pytest.mark.parametrize(
    "name", ["Patient_ID", "subject", "Case ID", "MRN", "slide", "SlideId", "participant_id"]
)
def test_a_column_of_patients_is_known_by_its_usual_name_and_said(tmp_path, name):
    pool = load(many(tmp_path, f"label,age,{name}", lambda i: f"{i % 2},{50 + i},x{i // 3}"))
    assert pool.groups.tolist() == [f"x{i // 3}" for i in range(24)]
    assert f"patients: column {name}, by its name (dataset.patient_column=null" in pool.notes[0]
    rows = split_rows(pool, SplitSettings(test_share=0.25, val_share=0.25)).rows
    sides = [set(pool.groups[rows[part]].tolist()) for part in ("train", "val", "test")]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert load(tmp_path, patient_column=None).groups is None


def test_of_patients_and_slides_patients_are_taken(tmp_path):
    root = many(tmp_path, "label,slide_id,patient_id", lambda i: f"{i % 2},s{i // 2},p{i // 4}")
    assert set(load(root).groups) == {f"p{i}" for i in range(6)}


def test_a_column_of_two_values_is_no_patient(tmp_path):
    pool = load(many(tmp_path, "label,case", lambda i: f"{i % 2},{i % 2}"))
    assert pool.groups is None and "column case has 2 values only" in pool.notes[0]
    assert set(load(tmp_path, patient_column="case").groups) == {"0", "1"}


def test_the_label_is_no_patient(tmp_path):
    root = many(tmp_path, "case", lambda i: i % 2)
    assert load(root, label_column="case").groups is None


@pytest.mark.parametrize(
    "rule, want",
    [
        ("who", lambda i: f"w{i // 6}"),
        ("folder", lambda i: f"case_{i // 4}"),
        (r"case_(\d+)/", lambda i: str(i // 4)),
        (r"case_\d+", lambda i: f"case_{i // 4}"),
    ],
)
def test_patient_is_a_column_a_folder_or_an_expression(tmp_path, rule, want):
    root = many(tmp_path, "label,who", lambda i: f"{i % 2},w{i // 6}")
    pool = load(root, patient=rule)
    assert pool.groups.tolist() == [want(i) for i in range(24)]


@pytest.mark.parametrize(
    "rule, message",
    [
        ("whom", r"dataset.patient=whom: .*labels.csv has no such column \(path, label\)"),
        (r"case_([0-2])/", r"12 of 24 images have no patient, as case_3/0.png is not matched"),
        ("case_(", r"dataset.patient=case_\(: no regular expression \("),
    ],
)
def test_a_rule_that_finds_no_patient_is_refused(tmp_path, rule, message):
    root = many(tmp_path, "label", lambda i: i % 2)
    with pytest.raises(MedexpError, match=message):
        load(root, patient=rule)


def test_folders_that_may_be_patients_are_suggested(tmp_path):
    root = many(tmp_path, "label", lambda i: i % 2)
    (note,) = load(root).notes
    assert "images share sub-folders, 6 of them" in note and "dataset.patient=folder" in note


def test_names_that_may_be_one_or_missing_are_said(tmp_path):
    labels = ("Benign", "benign", "malignant", "NaN")
    root = many(
        tmp_path, "label,patient", lambda i: f"{labels[i % 4]},{('p01', 'P1', 'nan')[i % 3]}"
    )
    notes = "\n".join(load(root).notes)
    assert "classes whose names differ in case, blanks or leading zeros only" in notes
    assert "'Benign' and 'benign'" in notes and "classes named 'NaN'" in notes
    assert "'P1' and 'p01'" in notes and "patients or slides named 'nan'" in notes
    quiet = many(tmp_path, "label,patient", lambda i: f"{'ab'[i % 2]},p{i // 4}")
    assert load(quiet).notes == ()


# ---------------------------------------------------------------- wrong tables


def test_missing_table_names_those_there(listed):
    table(listed, "path,label\n", "more.csv")
    message = r"train.csv: no such table \(tables there: labels.csv, more.csv\)"
    with pytest.raises(MedexpError, match=message):
        load(listed, table="train.csv")
    with pytest.raises(MedexpError, match=r"nowhere: no such folder; it should hold the table"):
        load(listed / "nowhere")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"labels.csv has no column path, label in its header \(empty file\)"),
        ("path,label\n", r"labels.csv has a header and no rows: need a row for each image"),
        ("file,label\nx,1\n", r"has no column path in its header \(file, label\)"),
        ("path;label\nx;1\n", r"has no column path, label in its header \(path;label\)"),
        ("path,label\nimages/a.png\n", r"line 2: too few cells: need path, label"),
        ("path,label,age\nimages/a.png,1\n", r"line 2: fewer cells than the header has"),
        ("path,label\nimages/a.png,1, severe\n", r"line 2: more cells than the header has. Put"),
        ("path,label\nimages/a.png, \n", r"line 2: the cell of column label is empty. Fill it in"),
        ("path,label\n,1\n", r"line 2: the cell of column path is empty"),
        ("path,label,patient\nimages/a.png,1,\n", r"line 2: the cell of column patient is empty"),
        ("path,label\n../a.png,1\n", r"line 2: '../a.png': not a plain path below"),
        ("path,label\nimages/a.png,1\nimages/..,1\n", r"line 3: 'images/..': not a plain path"),
        ("path,label\nimages\\a.png,1\n", r"line 2: .* not a plain path below .*Give paths rel"),
        ("path,label\n/etc/a.png,1\n", r"line 2: '/etc/a.png': not a plain path below"),
        (
            "path,label\nimages/a.png,1\nimages/b.png,0\nimages//a.png,0\n",
            r"line 4: images/a.png is named already, at .*labels.csv, line 2. Give each image one",
        ),
        ("path,label,split\nimages/a.png,1,dev\n", r"line 2: split 'dev': need train, val, test"),
        ("path,label\nimages/a.png,1\nimages/b.png,1\n", r"every row has the label '1': need two"),
        (
            "path,label,patient_code\nimages/a.png,1,7\n",
            r"has no column patient, but patient_code. If that is what it holds, give "
            r"dataset.patient_column=patient_code, if not, dataset.patient_column=null",
        ),
        (
            "path,label,Split\nimages/a.png,1,test\n",
            r"no column split, but Split. .*column=S",
        ),
    ],
)
def test_wrong_csv(listed, content, message):
    table(listed, content)
    with pytest.raises(MedexpError, match=message):
        load(listed)


def test_optional_columns_under_other_names_must_be_there(listed):
    for key in ("patient_column", "split_column"):
        with pytest.raises(MedexpError, match=r"has no column case in its header \(path, label\)"):
            load(listed, **{key: "case"})


def test_label_that_classes_lack(listed):
    message = r"line 3: label 'well' is not in dataset.classes \(sick, healthy\). Add it there"
    with pytest.raises(MedexpError, match=message):
        load(listed, classes=["sick", "healthy"])


def test_class_that_no_row_has(listed):
    with pytest.raises(MedexpError, match=r"no image of class unsure"):
        load(listed, classes=["sick", "well", "unsure"])


def test_csv_that_is_no_utf8(listed):
    (listed / "labels.csv").write_bytes("path,label\nimages/a.png,gr\xfcn\n".encode("latin-1"))
    with pytest.raises(MedexpError, match=r"labels.csv is not UTF-8 text .* save it as UTF-8"):
        load(listed)


@pytest.mark.parametrize("name", ["images/link.png", "link/x.png"])
def test_links_that_a_table_names(listed, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    target = save(outside / "x.png")
    (listed / name.split("/x")[0]).symlink_to(target if name.startswith("images") else outside)
    table(listed, f"path,label\nimages/a.png,1\n{name},0\n")
    with pytest.raises(MedexpError, match=rf"line 3: .*{name}: a symbolic link that leads out of"):
        load(listed)


# ---------------------------------------------------------------- Parquet


def parquet(folder, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "labels.parquet")
    return folder


def test_parquet_reads_as_the_csv(listed):
    columns = {
        "path": [f"images/{name}.png" for name in "abc"],
        "label": [10, 9, 10],
        "patient": [1, 2, 1],
        "split": ["train", None, "test"],
        "image": [b"\x00", b"\xff", b""],
        "box": [[1, 2], [3], []],
    }
    parquet(listed, **columns)
    table(listed, "path,label,patient,split\nimages/a.png,10,1,train\nimages/b.png,9,2,\n"
                  "images/c.png,10,1,test\n")  # fmt: skip
    one, two = load(listed, table="labels.parquet"), load(listed)
    assert one.classes == two.classes == ("9", "10") and one.settings == two.settings
    for name in ("labels", "ids", "groups", "parts"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.files == two.files
    assert np.array_equal(one.decode(1)[0], two.decode(1)[0])


def test_wrong_parquet(listed):
    parquet(listed, path=["images/a.png", "images/b.png"], label=["x", None])
    with pytest.raises(MedexpError, match=r"labels.parquet, row 2: the cell of column label is em"):
        load(listed, table="labels.parquet")
    with pytest.raises(MedexpError, match=r"has no column id in its header \(path, label\)"):
        load(listed, table="labels.parquet", path_column="id")
    whole = (listed / "labels.parquet").read_bytes()
    for broken in (b"", b"no parquet", whole[:100], whole[:4] + bytes(len(whole) - 8) + whole[-4:]):
        (listed / "labels.parquet").write_bytes(broken)
        with pytest.raises(MedexpError, match=r"labels.parquet cannot be read as Parquet \("):
            load(listed, table="labels.parquet")


def test_parquet_without_pyarrow(listed, monkeypatch):
    parquet(listed, path=["images/a.png"], label=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MedexpError, match=r'pip install "medexp\[parquet\]", or save it as CSV'):
        load(listed, table="labels.parquet")
