"""Labelled images are found, in a fixed order, and nothing is decided silently."""

import shutil
from collections import Counter

import pytest

from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.sources import open_source
from alexnet.errors import DataError


def test_elpv_is_split_by_class_the_same_at_every_run():
    source, again, other = open_source("elpv"), open_source("elpv"), open_source("elpv", seed=1)
    assert source.classes == ("functional", "defective")
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 1968,
        "test": 656,
    }
    assert Counter(item.label for item in source.splits["test"]) == {0: 451, 1: 205}
    assert source.fingerprint() == again.fingerprint() != other.fingerprint()
    assert [i.path for i in source.splits["test"]] == [i.path for i in again.splits["test"]]
    paths = [{item.path for item in items} for items in source.splits.values()]
    assert not paths[0] & paths[1]
    assert "656 of its 2,624 images" in source.notes[0]


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_class_folders_with_a_held_out_split_by_any_of_its_names(photographs, tmp_path, name):
    shutil.copytree(photographs / "train", tmp_path / "train")
    shutil.copytree(photographs / "test", tmp_path / name)
    source = open_source(tmp_path)
    assert source.classes == ("defective", "functional")
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 36,
        "test" if name == "test" else "val": 12,
    }


def test_class_folders_without_splits_hold_a_quarter_of_each_class_out(photographs):
    source = open_source(photographs / "train")
    assert Counter(item.label for item in source.splits["train"]) == {0: 14, 1: 14}
    assert Counter(item.label for item in source.splits["test"]) == {0: 4, 1: 4}


def test_labels_go_by_name_when_a_split_lacks_a_class(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "test" / "defective")
    source = open_source(tmp_path / "data")
    assert {source.classes[item.label] for item in source.splits["test"]} == {"functional"}
    assert source.notes == ("The test split has no image of: defective.",)


def test_hidden_folders_and_other_files_are_passed_over(photographs, tmp_path):
    shutil.copytree(photographs / "train", tmp_path / "data")
    (tmp_path / "data" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "data" / "defective" / "notes.txt").write_text("no image")
    (tmp_path / "data" / "defective" / ".hidden.png").write_bytes(b"")
    assert (
        open_source(tmp_path / "data").fingerprint()
        == open_source(photographs / "train").fingerprint()
    )


def test_odd_names_work(photographs, tmp_path):
    for name in ('it\'s a "cell"', "zwölf 電池"):
        shutil.copytree(photographs / "train" / "defective", tmp_path / name)
    assert open_source(tmp_path).classes == ('it\'s a "cell"', "zwölf 電池")


def test_splits_that_contradict_each_other_are_refused(photographs, tmp_path):
    shutil.copytree(photographs / "test", tmp_path / "val")
    with pytest.raises(DataError, match="has 'val' images and no 'train'"):
        open_source(tmp_path)
    shutil.copytree(photographs / "train", tmp_path / "train")
    shutil.copytree(photographs / "test", tmp_path / "validation")
    with pytest.raises(DataError, match="more than one of val"):
        open_source(tmp_path)


def test_two_images_a_class_are_one_to_train_and_one_to_test(photographs, tmp_path):
    for name in ("defective", "functional"):
        (tmp_path / name).mkdir()
        for file in sorted((photographs / "train" / name).iterdir())[:2]:
            shutil.copy(file, tmp_path / name)
    assert {split: len(items) for split, items in open_source(tmp_path).splits.items()} == {
        "train": 2,
        "test": 2,
    }


def test_the_cache_notices_a_changed_photograph(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    shutil.copytree(photographs, tmp_path / "data")
    before = open_or_prepare(tmp_path / "data", Options(size=32))
    assert open_or_prepare(tmp_path / "data", Options(size=32)).root == before.root
    files = sorted((tmp_path / "data" / "train" / "defective").iterdir())
    files[0].write_bytes(files[1].read_bytes())
    after = open_or_prepare(tmp_path / "data", Options(size=32))
    assert after.root != before.root
    assert after.splits["train"][0].image == after.splits["train"][1].image


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "No images were found"),
        (lambda root: (root / "train").mkdir(), "No images were found"),
        (lambda root: (root / "train.parquet").write_bytes(b"PAR1"), "is not Parquet"),
        (lambda root: (root / "one.parquet").write_bytes(b""), "names its split"),
    ],
)
def test_what_is_no_source_is_a_sentence(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_a_folder_without_an_image_makes_no_class_and_is_named(photographs, tmp_path):
    """Scenario 18."""
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data" / "train" / "cracked").mkdir()
    (tmp_path / "data" / "train" / "burnt").mkdir()
    (tmp_path / "data" / "train" / "burnt" / "notes.txt").write_text("none yet")
    source = open_source(tmp_path / "data")
    assert source.classes == ("defective", "functional")
    assert source.notes == ("No class is made of folders without an image: burnt, cracked.",)


def test_one_image_in_all_and_one_in_a_class(photographs, tmp_path):
    picture = next(photographs.rglob("*.png"))
    (tmp_path / "a").mkdir()
    shutil.copy(picture, tmp_path / "a")
    with pytest.raises(DataError, match="one class only, 'a'"):
        open_source(tmp_path)
    (tmp_path / "b").mkdir()
    shutil.copy(picture, tmp_path / "b")
    source = open_source(tmp_path)
    assert {split: len(items) for split, items in source.splits.items()} == {"train": 2, "test": 0}


def test_a_class_of_the_held_out_split_that_is_not_trained_on_is_refused(photographs, tmp_path):
    """Scenario 19."""
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data" / "test" / "defective").rename(tmp_path / "data" / "test" / "broken")
    with pytest.raises(DataError, match=r"Class 'broken' of the test split .* no training image"):
        open_source(tmp_path / "data")
