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
    masses: np.ndarray | None = None,
    ids: str | None = "u4",
    order: str = "<",
    version: int = 1,
    dtype: str = "f4",
) -> None:
    """Write dark matter, and gas before it; `masses` are those of the dark matter, gas weighs 1, 2, ..."""
    gas = positions[:0] if gas is None else gas
    header = binary_header(
        order,
        n_this_file=(len(gas), len(positions)),
        n_total=(len(gas), n_total),
        mass_table=(0.0, 0.5 if masses is None else 0.0),
        redshift=redshift,
        n_files=n_files,
        box_size=box_size,
    )
    everything = np.concatenate([gas, positions])
    blocks = {b"HEAD": header, b"POS ": everything.astype(order + dtype).tobytes(), b"VEL ": everything.tobytes()}
    if ids is not None:
        blocks[b"ID  "] = np.arange(len(everything)).astype(order + ids).tobytes()
        # Only particles whose type has no mass in the header.
        individual = np.concatenate([1.0 + np.arange(len(gas)), [] if masses is None else masses])
        if len(individual):
            blocks[b"MASS"] = individual.astype(order + dtype).tobytes()
    with open(path, "wb") as stream:
        for name, data in blocks.items():
            if version == 2:
                stream.write(record(name + struct.pack(order + "i", len(data) + 8), order))
            stream.write(record(data, order))


def binary_header(
    order: str,
    *,
    n_this_file: tuple[int, ...],
    n_total: tuple[int, ...],
    mass_table: tuple[float, ...],
    redshift: float,
    n_files: int,
    box_size: float,
) -> bytes:
    def six(values: tuple) -> tuple:
        return (*values, *(0,) * (6 - len(values)))

    return struct.pack(
        order + "6i6d2d2i6I2i4d2i6I",
        *six(n_this_file),
        *six(mass_table),
        *(1 / (1 + redshift), redshift),
        *(0, 0),
        *six(n_total),
        *(0, n_files),
        *(box_size, 0.3, 0.7, 0.68),
        *(0, 0),
        *(0, 0, 0, 0, 0, 0),
    ).ljust(256, b"\0")


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
        handle["PartType1/ParticleIDs"] = np.arange(len(positions), dtype=np.uint32)
