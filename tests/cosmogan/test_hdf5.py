"""HDF5 files on file systems without locks, with plug-ins and user blocks, and in parts found as HDF5 finds them."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.cli import main
from cosmogan.errors import UserError
from cosmogan.hdf5 import parts_of, signature_offset
from cosmogan.slices import SliceReader, check_slices, read_slices, write_example
from data_tools.files.arrays import Hdf5Array

INTERPOSER = """
#include <errno.h>
#include <stdlib.h>
int flock(int descriptor, int operation) { errno = atoi(getenv("LOCK_ERRNO")); return -1; }
"""
# What a run does with files: lock an output, write one, read it, check it.
USE = """
import sys
from cosmogan.cli import main
from cosmogan.machine.lock import OutputLock
from cosmogan.slices import read_slices, write_example
with OutputLock(sys.argv[1]):
    write_example(sys.argv[1])
assert read_slices(sys.argv[1]).slices.std() > 0
sys.exit(main(["check", sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library in front of libc whose locks always fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs cc, to stand in for a file system without locks")
    folder = tmp_path_factory.mktemp("interposer")
    (folder / "flock.c").write_text(INTERPOSER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "flock.so", folder / "flock.c"], check=True)
    return folder / "flock.so"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_used(interposer: Path, tmp_path: Path, code: int):
    environment = os.environ | {"LD_PRELOAD": str(interposer), "LOCK_ERRNO": str(code)}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "a.h5")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "this file system has no locks" in done.stderr
    assert "a valid slice file" in done.stdout


def test_locks_that_are_refused_as_held_are_told_from_held_ones(interposer: Path, tmp_path: Path):
    environment = os.environ | {"LD_PRELOAD": str(interposer), "LOCK_ERRNO": str(errno.EAGAIN)}
    command = [sys.executable, "-c", USE, str(tmp_path / "a.h5")]
    done = subprocess.run(command, env=environment | {"HDF5_USE_FILE_LOCKING": "FALSE"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "this file system has no locks" in done.stderr
    # HDF5 cannot tell the two apart, and says what to do.
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "HDF5_USE_FILE_LOCKING=FALSE" in done.stderr


def virtual_file(path: Path, names: list[str], *, whole: bool = True) -> Path:
    """A virtual data set ``v`` of shape (n, 4, 3), one source a plane."""
    layout = h5py.VirtualLayout((len(names), 4, 3), "f8")
    for i, name in enumerate(names):
        source = h5py.VirtualSource(name, "x", shape=(4, 3))
        layout[i] = source if whole else source[:4, :3]
    with h5py.File(path, "w") as handle:
        handle.create_virtual_dataset("v", layout)
    return path


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for i in range(3):
        with h5py.File(tmp_path / "data" / f"s{i}.h5", "w") as handle:
            handle["x"] = np.full((4, 3), i + 1.0)
    return tmp_path / "data"


@pytest.mark.parametrize("whole", [True, False])
def test_virtual_data_of_whole_sources_are_whole(sources: Path, whole: bool):
    path = virtual_file(sources / "v.h5", ["s0.h5", "s1.h5"], whole=whole)
    assert Hdf5Array(path, "v").read((slice(None), 0, 0)).tolist() == [1.0, 2.0]
    (sources / "s1.h5").unlink()
    with pytest.raises(UserError, match="keeps values in other files that are not there"):
        Hdf5Array(path, "v")


def test_a_source_of_another_shape_is_missing_data(sources: Path):
    path = virtual_file(sources / "v.h5", ["s0.h5", "s1.h5"])
    with h5py.File(sources / "s1.h5", "w") as handle:
        handle["x"] = np.ones((2, 3))
    with pytest.raises(UserError, match="keeps values in other files that are not there"):
        Hdf5Array(path, "v")


@pytest.mark.parametrize("place", ["link", "prefix", "absolute", "working folder"])
def test_sources_are_found_where_hdf5_finds_them(sources: Path, tmp_path: Path, place: str, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    names = [str(sources / "s0.h5") if place == "absolute" else "s0.h5"]
    path = virtual_file((sources if place == "link" else tmp_path / "elsewhere") / "v.h5", names)
    if place == "link":
        (tmp_path / "elsewhere" / "link.h5").symlink_to(path)
        path = tmp_path / "elsewhere" / "link.h5"
    if place == "prefix":
        monkeypatch.setenv("HDF5_VDS_PREFIX", f"/nowhere:{sources}")
    if place == "working folder":
        monkeypatch.chdir(sources)
    with h5py.File(path) as handle:
        (part,) = parts_of(handle["v"], path)
        # What HDF5 finds is what we found.
        assert handle["v"][0, 0, 0] == 1.0
    assert part.file.samefile(sources / "s0.h5")
    assert Hdf5Array(path, "v").read((0, 0, 0)) == 1.0


def test_a_prefix_may_begin_where_the_file_lies(sources: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    path = virtual_file(tmp_path / "elsewhere" / "v.h5", ["s0.h5"])
    code = (
        "import sys; from pathlib import Path; from data_tools.files.arrays import Hdf5Array; "
        "print(Hdf5Array(Path(sys.argv[1]), 'v').read((0, 0, 0)))"
    )
    # HDF5 takes this form from the environment that it starts in only.
    environment = os.environ | {"HDF5_VDS_PREFIX": "${ORIGIN}/../data"}
    done = subprocess.run([sys.executable, "-c", code, path], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "1.0", done.stderr


def test_numbered_sources_are_found(sources: Path):
    path = sources / "n.h5"
    space = h5py.h5s.create_simple((3, 4, 3), (h5py.h5s.UNLIMITED, 4, 3))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 1, 1), (1, 4, 3))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, b"s%b.h5", b"x", h5py.h5s.create_simple((4, 3)))
    with h5py.File(path, "w") as handle:
        h5py.h5d.create(handle.id, b"v", h5py.h5t.NATIVE_DOUBLE, space, plist)
    with h5py.File(path) as handle:
        found = list(parts_of(handle["v"], path))
        assert handle["v"][:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert [part.file.name for part in found] == ["s0.h5", "s1.h5", "s2.h5"]
    assert Hdf5Array(path, "v").read((slice(None), 0, 0)).tolist() == [1.0, 2.0, 3.0]


def test_an_index_of_shards_is_read_through_a_link(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i in range(2):
        write_example(tmp_path / "a" / f"mocks_{i:05d}-of-00002.h5", seed=i)
    whole = np.concatenate([read_slices(path).slices for path in sorted((tmp_path / "a").iterdir())])
    layout = h5py.VirtualLayout(whole.shape, whole.dtype)
    n = len(whole) // 2
    for i in range(2):
        layout[i * n : (i + 1) * n] = h5py.VirtualSource(f"mocks_{i:05d}-of-00002.h5", "slices", (n, *whole.shape[1:]))
    shutil.copy(tmp_path / "a" / "mocks_00000-of-00002.h5", tmp_path / "a" / "mocks.h5")
    with h5py.File(tmp_path / "a" / "mocks.h5", "r+") as handle:
        for name in ("slices", "realisation", "axis", "position"):
            held = handle[name][:]
            del handle[name]
            handle[name] = np.concatenate([held, held]) if name != "slices" else []
        del handle["slices"]
        handle.create_virtual_dataset("slices", layout)
    (tmp_path / "b" / "mocks.h5").symlink_to(tmp_path / "a" / "mocks.h5")
    np.testing.assert_array_equal(read_slices(tmp_path / "b" / "mocks.h5").slices, whole)
    assert check_slices(tmp_path / "b" / "mocks.h5") == []
    (tmp_path / "a" / "mocks_00001-of-00002.h5").unlink()
    with pytest.raises(UserError, match=r"mocks_00001-of-00002\.h5 is missing"):
        read_slices(tmp_path / "b" / "mocks.h5")


@pytest.mark.parametrize("size", [512, 4096])
def test_a_user_block_before_the_signature(tmp_path: Path, size: int):
    path = tmp_path / "u.h5"
    with h5py.File(path, "w", userblock_size=size) as handle:
        handle["x"] = np.arange(5.0)
    assert signature_offset(path) == size
    assert Hdf5Array(path, "x").read((slice(None),)).tolist() == [0, 1, 2, 3, 4]
    (tmp_path / "other").write_bytes(b"0" * 5000)
    assert signature_offset(tmp_path / "other") is None


def test_slices_packed_by_a_plug_in_are_valid(tmp_path: Path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    write_example(path)
    expected = read_slices(path).slices
    with h5py.File(path, "r+") as handle:
        del handle["slices"]
        handle.create_dataset("slices", data=expected, chunks=(1, *expected.shape[1:]), **hdf5plugin.Zstd())
    # In a process that has not imported the plug-in.
    command = [sys.executable, "-m", "cosmogan.cli", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"{path}: a valid slice file"), done.stderr
    np.testing.assert_array_equal(read_slices(path).slices, expected)


def test_a_missing_plug_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    path = tmp_path / "a.h5"
    write_example(path)
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with h5py.File(path, "r+") as handle:
        held = handle["slices"][:]
        del handle["slices"]
        handle.create_dataset("slices", data=held, chunks=(1, *held.shape[1:]), compression="gzip")
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "/slices is compressed with HDF5 filter 1" in said
    assert "pip install 'cosmogan[hdf5plugin]'" in said


def test_no_attribute_is_of_a_kind_that_others_cannot_write(tmp_path: Path):
    path = tmp_path / "a.h5"
    write_example(path)
    with h5py.File(path) as handle:
        held = [group.attrs[name] for group in (handle, handle["cosmology"]) for name in group.attrs]
        assert not any(isinstance(value, bool | np.bool_) for value in held)
        assert handle.attrs["periodic"] == 1
    with SliceReader(path) as reader:
        assert reader.metadata.periodic is True
    # As files were before.
    with h5py.File(path, "r+") as handle:
        handle.attrs["periodic"] = False
    with SliceReader(path) as reader:
        assert reader.metadata.periodic is False


def test_xarray_reads_and_writes_a_slice_file(tmp_path: Path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    write_example(tmp_path / "a.h5")
    with xarray.open_dataset(tmp_path / "a.h5", engine="h5netcdf", phony_dims="sort") as held:
        held.load().to_netcdf(tmp_path / "b.h5", engine="h5netcdf")
    with SliceReader(tmp_path / "a.h5") as ours, SliceReader(tmp_path / "b.h5") as theirs:
        np.testing.assert_array_equal(theirs.read(), ours.read())
        assert theirs.metadata.box_size == ours.metadata.box_size
        assert theirs.metadata.periodic == ours.metadata.periodic
