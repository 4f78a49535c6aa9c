"""Which folders are splits and which are classes, and that nothing is passed over in silence."""

import os
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from PIL import Image

from alexnet.data.archives import list_folder
from alexnet.data.folders import FolderLayout
from alexnet.data.samples import find_split, tell_split
from alexnet.data.sources import open_source
from alexnet.errors import DataError

from .archives import files_of, tar_of


def put(root, *folders, names=("0.png", "1.png")):
    """Write small images, no two the same, into folders."""
    for folder in folders:
        for name in names:
            file = root / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            colour = hash((folder, name)) % (1 << 24)
            Image.new("RGB", (8, 8), (colour >> 16, colour >> 8 & 255, colour & 255)).save(file)
    return root


def both(*splits):
    return [f"{split}/{name}" for split in splits for name in ("bus", "car")]


def counts(source):
    return {split: len(items) for split, items in source.splits.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "Dev", "test_set"),
        ("train2017", "val2017", "test2017"),
        ("train/train", "valid/valid", "test/test"),
        ("seg_train/seg_train", "seg_val", "seg_test"),
        ("train/images", "val/images", "test/images"),
    ],
)
def test_splits_are_told_by_their_usual_names(tmp_path, train, val, test):
    source = open_source(put(tmp_path, *both(train, val, test)))
    assert source.classes == ("bus", "car")
    assert counts(source) == {"train": 4, "val": 4, "test": 4}
    assert not source.passed_over


@pytest.mark.parametrize("name", ["train", "test", "Validation", "dev"])
def test_a_folder_of_images_called_like_a_split_is_a_class_beside_others(tmp_path, name):
    assert open_source(put(tmp_path, "bus", "car", name)).classes == tuple(
        sorted(("bus", "car", name))
    )


@pytest.mark.parametrize("name", ["bullet_train", "test_tube", "trainers", "devil", "valley"])
def test_a_class_whose_name_has_a_word_of_a_split_in_it_is_a_class(tmp_path, name):
    assert tell_split(name) is None
    source = open_source(put(tmp_path, "bus/images", f"{name}/images"))
    assert set(source.classes) == {"bus", name}


@pytest.mark.parametrize("tops", [("fold1", "fold2"), ("Entrenamiento", "Prueba"), ("a", "b", "c")])
def test_folders_that_hold_the_same_folders_are_no_classes(tmp_path, tops):
    with pytest.raises(DataError, match=r"folders of the same names .*: they are no classes"):
        open_source(put(tmp_path, *both(*tops)))


def test_classes_with_one_folder_each_or_others_inside_stay_classes(tmp_path):
    source = open_source(put(tmp_path, "bus/images", "car/images", "hat/front", "hat/side"))
    assert source.classes == ("bus", "car", "hat")
    assert "Folders below a class belong to it: front, side to hat." in source.notes


def test_splits_below_each_class_are_splits(tmp_path):
    source = open_source(put(tmp_path, "bus/train", "bus/test", "car/train", "car/test"))
    assert (source.classes, counts(source)) == (("bus", "car"), {"train": 4, "test": 4})


def test_what_lies_beside_the_splits_and_in_no_class_is_named(tmp_path):
    put(tmp_path, *both("train", "test", "extra"), "test", names=("0.png", "1.png"))
    source = open_source(tmp_path)
    assert counts(source) == {"train": 4, "test": 4}
    assert {why: len(names) for why, names in source.passed_over.items()} == {
        "lies beside the splits": 4,
        "lies in no class folder": 2,
    }


def test_only_places_of_images_decide_what_the_top_is(tmp_path):
    put(tmp_path / "in", "photos/bus", "photos/car")
    files = files_of(tmp_path / "in")
    for name in ("LICENSE", "._photos", "__MACOSX/photos/bus/._0.png", "docs/README.md"):
        files[name] = b"about"
    for archive in (tmp_path / "photos.tar", tmp_path / "beside"):
        archive.mkdir() if archive.suffix == "" else archive.write_bytes(tar_of(files))
    for name, data in files.items():
        (tmp_path / "beside" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "beside" / name).write_bytes(data)
    plain = open_source(tmp_path / "in" / "photos")
    for where in (tmp_path / "photos.tar", tmp_path / "beside"):
        source = open_source(where)
        assert source.fingerprint() == plain.fingerprint()
        assert set(source.passed_over) == {"has no ending", "hidden", "ends in .md"}


@pytest.mark.parametrize("names", [("cat.0.png", "dog.0.png"), ("T-shirt.7.png", "hat.1.png")])
def test_flat_images_that_are_named_by_class(tmp_path, names):
    put(tmp_path, "train", names=[*names, *(name.replace(".", ".1", 1) for name in names)])
    source = open_source(put(tmp_path, "test1", names=("1.png", "2.png")))
    assert len(source.classes) == 2
    assert counts(source) == {"train": 2, "test": 2}  # a split of its own: test1 has no labels
    assert "The test split has no labels: passed over." in source.notes


@pytest.mark.parametrize("names", [("IMG_0001.png", "DSC_0002.png"), ("cat.png", "dog.png")])
def test_flat_images_that_may_mean_anything_are_refused(tmp_path, names):
    with pytest.raises(DataError, match=r"lie in no class folders. .* write a labels.csv"):
        open_source(put(tmp_path, "train", names=names))


TABLES = {
    "paths": "file,label\nimages/0.png,bus\nimages/1.png,car\n",
    "names alone, semicolons, a mark": "\ufefffile_name;label\n0.png;bus\n1.png;car\n",
    "without endings, more columns": "id,when,class\n0,2020,bus\n1,2021,car\n",
    "windows": "file,label\r\n.\\images\\0.png,bus\r\nimages\\1.png,car\r\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_of_labels_beside_a_flat_folder(tmp_path, text):
    put(tmp_path, "images")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    source = open_source(tmp_path)
    assert [(i.path, source.classes[i.label]) for items in source.splits.values() for i in items] \
        == [("images/0.png", "bus"), ("images/1.png", "car")]  # fmt: skip
    assert not any(source.passed_over.values())


def test_a_table_names_a_file_in_either_form_of_unicode(tmp_path):
    put(tmp_path, "images", names=("caf\u00e9.png", "the\u0301.png"))
    (tmp_path / "labels.csv").write_text("file,label\ncafe\u0301,bus\nth\u00e9.png,car\n")
    assert sum(map(len, open_source(tmp_path).splits.values())) == 2


def test_a_table_says_the_splits_and_what_it_lacks_is_named(tmp_path):
    put(tmp_path, "a", names=[f"{n}.png" for n in range(6)])
    rows = ["0,bus,train", "1,car,train", "2,bus,test", "3,car,test", "4,,train", "9,bus,train"]
    (tmp_path / "labels.csv").write_text("file,label,split\n" + "\n".join(rows))
    source = open_source(tmp_path)
    assert counts(source) == {"train": 2, "test": 2}
    assert source.passed_over == {
        "has no label in labels.csv": ["4"],
        "is named in labels.csv alone": ["9"],
        "is not in labels.csv": ["a/4.png", "a/5.png"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n0,bus\n", "no columns 'file' and 'label'"),
        ("file,label\n0,bus\n0,car\n", "labels '0' as 'bus' in line 2 and as 'car' in line 3"),
        ("file,label\n77,bus\n", "labels no image that is there"),
        (
            "file,label,split\n0,bus,Train\n0,bus,test\n",
            "has '0' as 'train' in line 2 and as 'test' in line 3",
        ),
        ("file,label,split\n0,bus,holdout\n", "Line 2 of .* has the split 'holdout'"),
        ("file,label,split\n0,bus,\nx/in/1,car,2\n", "Line 3 of .* has the split '2'"),
        ("file,label\n1.png,bus\n", "Line 2 .* may mean 2 files"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_with_the_line(tmp_path, text, message):
    put(tmp_path, "x", names=("0.png", "1.png", "in/1.png"))
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_class_folders_go_before_a_table_unless_it_is_named(tmp_path):
    put(tmp_path, "bus", "car")
    (tmp_path / "labels.csv").write_text("file,label\nbus/0.png,old\ncar/0.png,new\n")
    source = open_source(tmp_path)
    assert source.classes == ("bus", "car")
    assert any("name that file itself" in note for note in source.notes)
    assert open_source(tmp_path / "labels.csv").classes == ("new", "old")


def test_a_name_is_the_same_in_either_form_of_unicode(tmp_path):
    name = "caf\u00e9"
    put(tmp_path, "train/bus", "val/bus", f"val/{name}")
    put(tmp_path, f"train/{unicodedata.normalize('NFD', name)}")
    source = open_source(tmp_path)
    assert source.classes == ("bus", unicodedata.normalize("NFD", name))  # as in training
    assert Counter(item.label for item in source.splits["val"]) == {0: 2, 1: 2}


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    put(tmp_path, "bus", "caf\udce9")
    source = open_source(tmp_path)
    assert source.classes == ("bus", "caf\\udce9")
    assert "\n".join(source.classes).encode()


def test_links_are_followed_but_not_around(tmp_path):
    put(tmp_path / "away", "hat")
    put(tmp_path / "data", "bus")
    (tmp_path / "data" / "hat").symlink_to(tmp_path / "away" / "hat")
    (tmp_path / "data" / "bus" / "loop").symlink_to(tmp_path / "data" / "bus")
    (tmp_path / "data" / "bus" / "up").symlink_to("..")
    (tmp_path / "away" / "hat" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "bus" / "gone.png").symlink_to("nowhere")
    source = open_source(tmp_path / "data")
    assert (source.classes, sum(map(len, source.splits.values()))) == (("bus", "hat"), 4)
    assert source.passed_over["link that leads around"] == ["bus/loop", "bus/up", "hat/back"]
    assert source.passed_over["link to nothing"] == ["bus/gone.png"]


def test_files_that_are_none_are_passed_over(tmp_path):
    put(tmp_path, "bus", "car")
    os.mkfifo(tmp_path / "bus" / "9.png")
    for name in ("bus/a.HEIF2", "car/photo", "car/notes.txt", "car/.hidden.png"):
        (tmp_path / name).write_bytes(b"")
    contents = list_folder(tmp_path)
    contents.take_images()
    assert {why: len(names) for why, names in contents.passed_over.items()} == dict.fromkeys(
        ("no regular file", "ends in .heif2", "has no ending", "ends in .txt", "hidden"), 1
    )


def test_a_folder_that_may_not_be_read_costs_no_neighbour(tmp_path):
    (put(tmp_path, "bus", "car", "hat") / "hat").chmod(0)
    code = "import sys; from alexnet.data.sources import open_source as o; s = o(sys.argv[1])"
    command = [sys.executable, "-c", f"{code}; print(s.classes, s.passed_over)", tmp_path]
    if os.geteuid() == 0:  # who reads everything
        if shutil.which("setpriv") is None:
            pytest.skip("the right to read everything cannot be given up here")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "hat").chmod(0o700)
    assert done.stdout == (
        "('bus', 'car') {'folder that cannot be read (Permission denied)': ['hat/']}\n"
    ), done.stderr


def test_names_of_splits():
    assert [tell_split(n) for n in ("Train", "test_set", "val2", "eval", "trains", "pretrain")] == [
        "train", "test", "val", "test", None, None,
    ]  # fmt: skip
    assert [find_split(n) for n in ("x-train-00", "seg_test", "contest", "dev-train-1")] == [
        "train", "test", None, "train",
    ]  # fmt: skip
    layout = FolderLayout.of({("Train", "a"), ("Train", "b", "c"), ("Test", "a")}, "data")
    assert layout.place(("Train", "b", "c")) == ("train", "b", "c")
    assert layout.place(("other", "b")) == ("", "", "")
