"""What a small file declares is refused before memory is taken for it."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from alexnet import bounds
from alexnet.errors import AlexNetError, RunError
from alexnet.pickles import load_arrays


def most_memory(function) -> int:
    """Return the most memory, in bytes, that Python held while a function ran."""
    tracemalloc.start()
    try:
        function()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


@pytest.mark.parametrize("text", ["[[]]", '{"a": [1, 2.5, "x, [y"]}', b'{"\xc3\xa9": null}', "7"])
def test_ordinary_json_is_what_json_makes_of_it(text):
    assert bounds.parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" + "[]," * bounds.MAX_VALUES + "[]]", "more than 2,000,000 values"),
        ("[" + "1," * bounds.MAX_VALUES + "1]", "more than 2,000,000 values"),
        ("[1e999]", "1e999 is not finite"),
        ("[NaN]", "NaN is not finite"),
        ("{", "Expecting property name"),
    ],
    ids=range(7),
)
def test_json_that_would_grow_is_refused_before_it_does(text, told):
    def parse() -> None:
        with pytest.raises(ValueError, match=told):
            bounds.parse_json(text)

    assert most_memory(parse) < 3_000_000  # the wide ones would be objects of over 100 MB


def safetensors_file(path, size: int, header: bytes) -> None:
    path.write_bytes(size.to_bytes(8, "little") + header)


def test_a_header_is_as_long_as_the_file_allows(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.ones(3, np.float32)}, {"b": "c"}))
    header = bounds.read_safetensors_header(path)
    assert header["a"]["shape"] == [3]
    assert header["__metadata__"] == {"b": "c"}
    for size, content, told in (
        (1 << 40, b"{}", "header is said to have 1,099,511,627,776 bytes"),
        (3, b"{}", "header is said to have 3 bytes"),
        (2, b"[]", "no object"),
    ):
        safetensors_file(path, size, content)
        with pytest.raises(bounds.FormatError, match=told):
            bounds.read_safetensors_header(path)


def test_parts_of_a_zip_are_as_large_as_they_lie_there():
    def zipped(how: int) -> tuple[zipfile.ZipFile, int]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as archive:
            archive.writestr("a/data.pkl", bytes(10_000))
        return zipfile.ZipFile(out), len(out.getvalue())

    assert [*bounds.list_stored(*zipped(zipfile.ZIP_STORED))] == ["a/data.pkl"]
    with pytest.raises(RunError, match="parts are compressed"):
        bounds.list_stored(*zipped(zipfile.ZIP_DEFLATED))
    archive, size = zipped(zipfile.ZIP_STORED)
    archive.infolist()[0].file_size = size + 1
    with pytest.raises(RunError, match="larger than the file"):
        bounds.list_stored(archive, size)


def test_rows_of_parquet_are_measured_before_they_are_unpacked(monkeypatch):
    out = io.BytesIO()
    pq.write_table(pa.table({"image": [bytes(300_000)] * 4}), out, compression="zstd")
    file = pq.ParquetFile(out)
    assert len(out.getvalue()) < 20_000
    bounds.check_parquet(file.metadata)
    monkeypatch.setattr(bounds, "MAX_ROWS", 100_000)
    with pytest.raises(bounds.FormatError, match=r"group of its rows unpacks to [\d,]+ bytes"):
        bounds.check_parquet(file.metadata)


@pytest.mark.parametrize("dtype", [b"S0", b"U0", b"V8", b"O"])
def test_pickled_arrays_have_numbers_or_short_text(dtype):
    """Of numbers without bytes a shape could declare any number."""
    text = b"X\x02\0\0\0" + dtype if len(dtype) == 2 else b"X\x01\0\0\0" + dtype
    state = b"(K\x01M\xe8\x03\x85cnumpy\ndtype\n" + text + b"\x85R\x89C\0tb."
    told = "an array of objects" if dtype == b"O" else f"array of type '{dtype.decode()}'"
    with pytest.raises(AlexNetError, match=f"{told}: not read"):
        load_arrays(b"\x80\x03cnumpy\nndarray\n)R" + state)
