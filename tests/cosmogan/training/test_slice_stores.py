"""Slices are the same wherever they lie, and lie where there is room."""

import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader, SliceWriter, check_slices, read_slices, write_example
from cosmogan.training import slice_stores as stores
from cosmogan.training.slice_stores import (
    DEVICE_SHARE,
    HOST_SHARE,
    FileStore,
    MemoryStore,
    choose_memory,
    fetch_ahead,
    load,
    sample,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
# In a file of 20 slices: neighbours, single ones, and the last.
ROWS = np.array([1, 2, 3, 4, 7, 11, 12, 19])


def write_kind(path: Path, kind: str) -> np.ndarray:
    """Write a file of 20 slices and return them as 1 + delta."""
    write_example(path, n_realisations=5, n_slices=4, quantity="counts" if kind == "counts" else "density")
    whole = read_slices(path)
    if kind == "float16, gzip":
        with SliceWriter(
            path, whole.metadata, n_slices=20, dtype="float16", compression="gzip", with_checksums=True, overwrite=True
        ) as writer:
            writer.append(whole.slices, realisation=whole.realisation, axis=whole.axis, position=whole.position)
        return whole.slices.astype(np.float16).astype(np.float32)
    return whole.slices / np.float32(8 if kind == "counts" else 1)


@pytest.mark.parametrize("kind", ["float32", "counts", "float16, gzip"])
def test_memory_and_file_give_the_same_bits(tmp_path: Path, kind: str, monkeypatch):
    path = tmp_path / "slices.h5"
    expected = write_kind(path, kind)[ROWS]
    # Runs of neighbours are read in more than one piece.
    monkeypatch.setattr(stores, "_READ_BYTES", 3 * 4 * 16 * 16)
    in_memory, in_file = MemoryStore(load(path, ROWS)), FileStore(path, ROWS)
    assert len(in_memory) == len(in_file) == len(ROWS)
    for index in (np.arange(8), np.array([6, 0, 3, 3, 7])):
        for store in (in_memory, in_file):
            taken = store.take(index)
            assert taken.dtype == torch.float32
            np.testing.assert_array_equal(taken.numpy(), expected[index])


@pytest.mark.gpu
def test_the_device_gives_the_same_bits(tmp_path: Path):
    path = tmp_path / "slices.h5"
    expected = write_kind(path, "counts")[ROWS]
    index = np.array([6, 0, 3, 3, 7])
    on_host = load(path, ROWS)
    for store in (
        MemoryStore(load(path, ROWS, device=GPU)),
        MemoryStore(on_host, pinned=True),
        FileStore(path, ROWS, pinned=True),
    ):
        np.testing.assert_array_equal(store.take(index).cpu().numpy(), expected[index])
    assert MemoryStore(on_host, pinned=True).take(index).is_pinned()


@pytest.mark.parametrize(("value", "expected"), [(np.nan, "1 NaN or infinite"), (-0.5, "1 negative")])
def test_bad_pixels_are_found_when_they_are_read(tmp_path: Path, value: float, expected: str):
    path = tmp_path / "slices.h5"
    write_kind(path, "float32")
    with h5py.File(path, "r+") as file:
        file["slices"][11, 3, 4] = value
    # What stands beside the pixels is right.
    assert check_slices(path, pixels=False) == []
    assert expected in check_slices(path)[0]
    store = FileStore(path, ROWS)
    store.take(np.array([4, 6]))
    with pytest.raises(UserError, match=rf"{expected} values \(first at slice 11\)"):
        store.take(np.array([4, 5, 6]))
    with pytest.raises(UserError, match=r"first at slice 11"):
        load(path, ROWS)


def test_checksums_are_compared_when_slices_are_loaded(tmp_path: Path):
    path = tmp_path / "slices.h5"
    write_kind(path, "float16, gzip")
    with h5py.File(path, "r+") as file:
        file["slices"][7, 3, 4] *= 2
    load(path, ROWS[:4])
    with pytest.raises(UserError, match="slice 7 is not what was written"):
        load(path, ROWS)


def test_a_sample_takes_the_same_share_of_each_realisation():
    label = np.repeat([3, 4, 9], [40, 20, 60])
    rows = 5 + np.arange(120)
    chosen = sample(rows, label, 30, seed=1)
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(np.unique(label[chosen - 5], return_counts=True)[1], [10, 5, 15])
    np.testing.assert_array_equal(chosen, sample(rows, label, 30, seed=1))
    assert not np.array_equal(chosen, sample(rows, label, 30, seed=2))
    np.testing.assert_array_equal(sample(rows, label, 120, seed=1), rows)
    # Over many seeds each slice comes as often as any other: 250 of 1000 times, five sigmas are 68.
    counts = np.bincount(np.concatenate([sample(rows, label, 30, seed=s) for s in range(1000)]) - 5, minlength=120)
    assert np.abs(counts - 250).max() < 68


@pytest.mark.parametrize(
    ("n_bytes", "device", "n_processes", "expected"),
    [
        (DEVICE_SHARE * 1e9, GPU, 1, "device"),
        (DEVICE_SHARE * 1e9 + 1, GPU, 1, "host"),
        (1000, CPU, 1, "host"),
        (HOST_SHARE * 8e9, GPU, 1, "host"),
        (HOST_SHARE * 8e9 + 1, GPU, 1, "file"),
        (HOST_SHARE * 1e9, CPU, 8, "host"),
        (HOST_SHARE * 1e9 + 1, CPU, 8, "file"),
    ],
)
def test_slices_lie_where_there_is_room(monkeypatch, n_bytes, device, n_processes, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    monkeypatch.setattr(stores, "available_memory", lambda: 8 * 10**9)
    assert choose_memory("auto", n_bytes, device=device, n_processes=n_processes) == expected
    assert choose_memory("file", n_bytes, device=device) == "file"
    assert choose_memory("host", n_bytes, device=device) == "host"


def test_a_device_without_room_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    assert choose_memory("device", 10**9, device=GPU) == "device"
    with pytest.raises(UserError, match=r"take 2\.00 GB and 1\.00 GB of the GPU are free"):
        choose_memory("device", 2 * 10**9, device=GPU)
    with pytest.raises(UserError, match="this one is on the CPU"):
        choose_memory("device", 10, device=CPU)


def test_fetching_ahead_keeps_the_order_and_its_distance():
    begun: list[int] = []

    def fetch(item: int) -> int:
        begun.append(item)
        # Later ones are ready earlier.
        time.sleep(0.01 if item % 2 == 0 else 0)
        return item * item

    got = []
    for value in fetch_ahead(fetch, range(9), 3):
        got.append(value)
        assert len(begun) <= len(got) + 3
    assert got == [i * i for i in range(9)]
    assert sorted(begun) == list(range(9))


def test_fetching_ahead_stops_when_nobody_asks_and_passes_errors_on():
    def fetch(item: int) -> int:
        if item == 5:
            raise UserError("damaged")
        return item

    batches = fetch_ahead(fetch, range(100), 3)
    assert [next(batches) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="damaged"):
        next(batches)
    batches = fetch_ahead(fetch, range(100), 3)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


def test_a_store_of_a_file_reads_in_the_order_of_the_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "slices.h5"
    write_kind(path, "float32")
    store, read = FileStore(path, ROWS), []
    original = SliceReader.stored
    monkeypatch.setattr(SliceReader, "stored", lambda self, a, b: read.append(a) or original(self, a, b))
    store.take(np.array([6, 0, 3, 7]))
    assert read == [1, 4, 12, 19]
