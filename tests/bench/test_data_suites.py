"""The suites on data run on real photographs, and what several of them need is made once."""

import pytest

from alexnet.bench import data_suites
from alexnet.bench.cases import make_cases
from alexnet.data.prepare import Options
from alexnet.errors import DataError
from tests.bench.networks import settings


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(data_suites, "LOADED", 12)
    monkeypatch.setattr(data_suites, "OPENED", 6)
    monkeypatch.setattr(data_suites, "Options", lambda: Options(shard_images=12))


@pytest.mark.parametrize("make", [data_suites.make_prepare_suite, data_suites.make_loader_suite])
def test_every_case_runs(make, photographs, tmp_path):
    at = settings(tmp_path, images=photographs)
    found = make(at)
    timed, ready = make_cases(found.cases, at)
    assert not ready.missing
    assert all(case.keeps_memory for case in found.cases)
    for one in timed.values():
        one.call()
    assert {round(amount) for amount in ready.amounts.values()} <= {6, 12}


def test_the_images_to_load_are_prepared_by_the_first_who_asks(photographs, tmp_path, monkeypatch):
    at = settings(tmp_path, images=photographs)
    first = data_suites.open_loaded_split(at)
    monkeypatch.setattr(data_suites, "make_shard", None)
    again = data_suites.open_loaded_split(at)
    assert len(first) == len(again) == 12
    assert first[3].image == again[3].image


def test_the_bare_decoder_has_the_photographs_as_they_are_prepared(photographs, tmp_path):
    one = data_suites.time_jpeg_decoding(settings(tmp_path, images=photographs))
    assert {pixels.shape for pixels in one.call()} == {(256, 256, 3)}
    assert one.amount == data_suites.JPEGS


def test_without_photographs_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(DataError, match="Add --images FOLDER"):
        data_suites.time_prepare(settings(tmp_path))
    with pytest.raises(DataError, match="has no images"):
        data_suites.time_prepare(settings(tmp_path, images=tmp_path))
