"""The works on data run on real photographs, and what several of them need is made once."""

import pytest

from alexnet.bench import data_works, limits
from alexnet.bench.rounds import made
from alexnet.data.prepare import Options
from alexnet.errors import DataError
from tests.bench.networks import setting


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(data_works, "LOADED", 12)
    monkeypatch.setattr(data_works, "OPENED", 6)
    monkeypatch.setattr(data_works, "Options", lambda: Options(shard_images=12))


@pytest.mark.parametrize("work", [data_works.prepare_work, data_works.loader_work])
def test_every_contender_runs(work, photographs, tmp_path):
    at = setting(tmp_path, images=photographs)
    found = work(at)
    timed, ready = made(found.contenders, at)
    assert not ready.missing
    assert all(contender.keeps_memory for contender in found.contenders)
    for one in timed.values():
        one.call()
    assert {round(amount) for amount in ready.amounts.values()} <= {6, 12}


def test_the_images_to_load_are_prepared_by_the_first_who_asks(photographs, tmp_path, monkeypatch):
    at = setting(tmp_path, images=photographs)
    first = data_works.loaded(at)
    monkeypatch.setattr(data_works, "make_shard", None)
    again = data_works.loaded(at)
    assert len(first) == len(again) == 12
    assert first[3].image == again[3].image


def test_the_bare_decoder_has_the_photographs_as_they_are_prepared(photographs, tmp_path):
    one = limits.jpeg(setting(tmp_path, images=photographs))
    assert {pixels.shape for pixels in one.call()} == {(256, 256, 3)}
    assert one.amount == limits.JPEGS


def test_without_photographs_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(DataError, match="Add --images FOLDER"):
        data_works.our_shard(setting(tmp_path))
    with pytest.raises(DataError, match="has no images"):
        data_works.our_shard(setting(tmp_path, images=tmp_path))
