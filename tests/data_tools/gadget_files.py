"""Minimal writers of GADGET snapshots, after the user guide of GADGET-2, independent of the readers."""

import struct
from pathlib import Path

import h5py
import numpy as np


def record(data: bytes, order: str) -> bytes:
    length = struct.pack(order + "I", len(data))
    return length + data + length


def write_binary(
    path: Path,
    positions: np.ndarray,
    *,
    n_total: int,
    n_files: int = 1,
    box_size: float = 100.0,
    redshift: float = 0.0,
    gas: np.ndarray | None = None,
    order: str = "<",
    version: int = 1,
    dtype: str = "f4",
) -> None:
    n_gas = 0 if gas is None else len(gas)
    header = struct.pack(
        order + "6i6d2d2i6I2i4d2i6I",
        *(n_gas, len(positions), 0, 0, 0, 0),
        *(0.0, 0.5, 0.0, 0.0, 0.0, 0.0),
        *(1 / (1 + redshift), redshift),
        *(0, 0),
        *(n_gas, n_total, 0, 0, 0, 0),
        *(0, n_files),
        *(box_size, 0.3, 0.7, 0.68),
        *(0, 0),
        *(0, 0, 0, 0, 0, 0),
    ).ljust(256, b"\0")
    everything = positions if gas is None else np.concatenate([gas, positions])
    blocks = {b"HEAD": header, b"POS ": everything.astype(order + dtype).tobytes(), b"VEL ": everything.tobytes()}
    with open(path, "wb") as stream:
        for name, data in blocks.items():
            if version == 2:
                stream.write(record(name + struct.pack(order + "i", len(data) + 8), order))
            stream.write(record(data, order))


def write_hdf5(
    path: Path,
    positions: np.ndarray,
    *,
    n_total: int | None = None,
    n_files: int = 1,
    unit_in_cm: float | None = None,
    **header: object,
) -> None:
    n_total = len(positions) if n_total is None else n_total
    values = {
        "BoxSize": 100.0,
        "Redshift": 0.0,
        "Omega0": 0.3,
        "HubbleParam": 0.68,
        "NumFilesPerSnapshot": n_files,
        "NumPart_ThisFile": np.array([0, len(positions), 0, 0, 0, 0], np.int32),
        "NumPart_Total": np.array([0, n_total, 0, 0, 0, 0], np.uint32),
    }
    with h5py.File(path, "w") as handle:
        attributes = handle.create_group("Header").attrs
        for name, value in (values | header).items():
            if value is not None:
                attributes[name] = value
        if unit_in_cm is not None:
            handle.create_group("Parameters").attrs["UnitLength_in_cm"] = unit_in_cm
        handle["PartType1/Coordinates"] = positions
