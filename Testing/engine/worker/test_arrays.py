"""Arrays on disk: complete or not at all, and nowhere but in their folder."""

import errno
import resource

import numpy as np
import pytest

from difftumor.worker.protocol import ProtocolError, is_disk_full, read_array, write_array

CUBE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        CUBE,
        CUBE.T,
        CUBE.transpose(1, 0, 2),
        CUBE[::-1, :, 1:3],
        CUBE.astype(">f4"),
        CUBE > 5,
        CUBE[:0],
        np.float64(2.5),
        np.zeros((1, 1, 1), np.uint8),
        CUBE.astype(np.complex64),
    ],
)
def test_an_array_comes_back_as_it_was(tmp_path, array):
    write_array(tmp_path, "ct", array)
    array = np.asarray(array)
    for mapped in (False, True) if array.size else (False,):
        back = read_array(tmp_path, "ct", mapped=mapped)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array)
    assert np.array_equal(np.load(tmp_path / "ct.npy"), array)
    assert [path.name for path in tmp_path.iterdir()] == ["ct.npy"]


@pytest.mark.parametrize(
    "name", ["", "a/b", "../ct", "ct.npy", "CT", "1ct", "ct\n", "c t", "ä", "x" * 65, ".", "\0"]
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ProtocolError, match="allowed are"):
        write_array(tmp_path, name, CUBE)
    with pytest.raises(ProtocolError, match="allowed are"):
        read_array(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.array([None])])
def test_only_numbers_travel(tmp_path, array):
    with pytest.raises(ProtocolError, match="only numbers"):
        write_array(tmp_path, "ct", array)
    assert not list(tmp_path.iterdir())


def test_a_pickle_in_the_place_of_an_array_is_not_opened(tmp_path):
    np.save(tmp_path / "ct.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ProtocolError, match="damaged"):
        read_array(tmp_path, "ct")


@pytest.mark.parametrize("length", [0, 5, 100, 150])
def test_a_truncated_file_is_called_damaged(tmp_path, length):
    content = write_array(tmp_path, "ct", CUBE).read_bytes()
    (tmp_path / "ct.npy").write_bytes(content[:length])
    for mapped in (False, True):
        with pytest.raises(ProtocolError, match="damaged"):
            read_array(tmp_path, "ct", mapped=mapped)


def test_a_missing_array_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="'mask'"):
        read_array(tmp_path, "mask")


def test_a_write_that_fails_leaves_the_old_array_and_nothing_else(tmp_path):
    write_array(tmp_path, "ct", CUBE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_array(tmp_path, "ct", np.zeros(10**6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_disk_full(caught.value), "a limit of the file's size is another matter"
    assert [path.name for path in tmp_path.iterdir()] == ["ct.npy"]
    assert np.array_equal(read_array(tmp_path, "ct"), CUBE)


def test_a_full_disk_is_recognised_and_left_as_it_was(small_disk):
    write_array(small_disk, "ct", CUBE)
    with pytest.raises(OSError, match="No space") as caught:
        write_array(small_disk, "mask", np.zeros(10**7, np.uint8))
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["ct.npy"]
