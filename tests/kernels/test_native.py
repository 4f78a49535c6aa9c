"""Compiled kernels in the cache: only what this user compiled, whole, is loaded."""

import os
import shutil
from pathlib import Path

import pytest

from alexnet.kernels import native

SOURCE = 'extern "C" int answer() { return ANSWER; }\n'


@pytest.fixture
def compile_anew(tmp_path, monkeypatch):
    """Return a function that compiles or loads a small kernel, as another process would."""
    if not shutil.which(os.environ.get("CXX") or "g++"):
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "answer.cpp").write_text(SOURCE)

    def run() -> tuple[int, Path]:
        native.compile_kernel.cache_clear()
        library = native.compile_kernel(str(tmp_path / "answer.cpp"), answer=42)
        return library.answer(), Path(library._name)

    return run


def test_a_kernel_is_compiled_once_and_then_loaded(compile_anew):
    answer, library = compile_anew()
    made = library.stat().st_mtime_ns
    assert (answer, compile_anew()) == (42, (42, library))
    assert library.stat().st_mtime_ns == made
    assert list(library.parent.iterdir()) == [library]  # no lock is left
    assert not (library.stat().st_mode | library.parent.stat().st_mode) & 0o022


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_damaged_kernel_is_compiled_anew(compile_anew, length):
    _, library = compile_anew()
    whole = library.read_bytes()
    library.unlink()  # this process has it open
    library.write_bytes(whole[:length])
    library.chmod(0o700)
    assert compile_anew() == (42, library)
    assert library.read_bytes() == whole


def test_a_kernel_that_others_may_have_written_is_compiled_anew(compile_anew):
    _, library = compile_anew()
    library.chmod(0o722)
    assert compile_anew() == (42, library)
    assert library.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_what_another_user_owns_is_not_loaded(compile_anew):
    _, library = compile_anew()
    os.chown(library, 65534, 65534)
    assert compile_anew() == (42, library)
    assert library.stat().st_uid == 0
    os.chown(library.parent, 65534, 65534)
    with pytest.raises(OSError, match=r"others may write .*kernels"):
        compile_anew()
