"""Minimal writers of SWIFT snapshots: one file, or distributed files with their virtual file.

After SWIFT's documentation ("Snapshots") and its writer; independent of the reader.
"""

from pathlib import Path

import h5py
import numpy as np

MPC_IN_CM = 3.08567758e24
H = 0.7


def cells_of(positions: np.ndarray, box: float, n_cells: int) -> np.ndarray:
    index = np.minimum((positions / (box / n_cells)).astype(int), n_cells - 1)
    return np.ravel_multi_index(tuple(index.T), (n_cells,) * 3)


def write_swift(
    path: Path,
    positions: np.ndarray,
    *,
    n_files: int = 1,
    box: float = 100.0,
    redshift: float = 0.0,
    masses: np.ndarray | None = None,
    n_cells: int = 4,
    drift: float = 0.0,
    envelopes: bool = True,
    unit_in_cm: float = MPC_IN_CM,
    particle_type: int = 1,
    compression: str | None = None,
) -> np.ndarray:
    """Write one file, or ``n_files`` and the virtual one at ``path``; return the order of the particles in it.

    Positions are in the file's unit (without h). Cells are those of the particles moved by ``drift``, as after a step
    without sorting.
    """
    cell = cells_of((positions + drift) % box, box, n_cells)
    n_all = n_cells**3
    # Ranks own cells in turn, so that the cells of a file are not neighbours.
    owner = np.arange(n_all) % n_files
    order = np.lexsort((cell, owner[cell]))
    masses = np.ones(len(positions)) if masses is None else masses
    counts = np.bincount(cell, minlength=n_all)
    names = [path] if n_files == 1 else [path.with_name(f"{path.stem}.{i}.hdf5") for i in range(n_files)]
    local, overall = np.zeros(n_all, np.int64), np.zeros(n_all, np.int64)
    before = 0
    common = {"box": box, "redshift": redshift, "unit_in_cm": unit_in_cm, "particle_type": particle_type}
    common |= {"total": len(positions)}
    for i in range(n_files):
        mine = np.flatnonzero(owner == i)
        local[mine] = np.cumsum(counts[mine]) - counts[mine]
        overall[mine] = local[mine] + before
        before += counts[mine].sum()
    for i, name in enumerate(names):
        members = order[owner[cell[order]] == i]
        with h5py.File(name, "w") as handle:
            _write_header(handle, n=len(members), n_files=n_files, this_file=i, **common)
            group = handle.create_group(f"PartType{particle_type}")
            handle["DMParticles"] = h5py.SoftLink(f"/PartType{particle_type}")
            options = {"fletcher32": True, "chunks": True, "compression": compression} if len(members) else {}
            data = group.create_dataset("Coordinates", data=positions[members], **options)
            _describe(data)
            group.create_dataset("Masses", data=masses[members].astype(np.float32), **options)
            _write_cells(handle, positions, cell, counts, local, owner, box, n_cells, envelopes, particle_type)
    if n_files > 1:
        with h5py.File(path, "w") as handle:
            _write_header(handle, n=len(positions), n_files=1, this_file=0, **common)
            handle["Header"].attrs["Virtual"] = [1]
            group = handle.create_group(f"PartType{particle_type}")
            for field in ("Coordinates", "Masses"):
                _write_virtual(group, field, names)
            _write_cells(handle, positions, cell, counts, overall, owner * 0, box, n_cells, envelopes, particle_type)
    return order


def _write_header(handle, *, n, total, n_files, this_file, box, redshift, unit_in_cm, particle_type) -> None:
    here, everywhere = np.zeros(7, np.int64), np.zeros(7, np.int64)
    here[particle_type], everywhere[particle_type] = n, total
    handle.create_group("Header").attrs.update(
        {
            "BoxSize": np.full(3, box),
            "Redshift": np.array([redshift]),
            "Scale-factor": np.array([1 / (1 + redshift)]),
            # SWIFT's time is cosmic time, not the scale factor.
            "Time": np.array([0.0142]),
            "Code": np.bytes_("SWIFT"),
            "NumPart_ThisFile": here,
            "NumPart_Total": everywhere.astype(np.uint32),
            "NumPart_Total_HighWord": (everywhere >> 32).astype(np.uint32),
            "TotalNumberOfParticles": everywhere,
            "MassTable": np.zeros(7),
            "NumFilesPerSnapshot": np.array([n_files], np.int32),
            "ThisFile": np.array([this_file], np.int32),
            "Virtual": np.array([0], np.int32),
        }
    )
    handle.create_group("Code").attrs["Code"] = np.bytes_("SWIFT")
    # H0 in units of 1 / U_t below.
    parameters = {"Cosmological run": 1, "h": H, "H0 [internal units]": 100 * H, "w_0": -1.0, "w_a": 0.0}
    parameters |= {"Omega_m": 0.3, "Omega_b": 0.045, "Omega_lambda": 0.7, "Omega_r": 0.0, "Omega_k": 0.0}
    parameters |= {"Redshift": redshift, "Scale-factor": 1 / (1 + redshift)}
    handle.create_group("Cosmology").attrs.update({name: [value] for name, value in parameters.items()})
    units = {"mass": ("U_M", 1.98848e43), "length": ("U_L", unit_in_cm), "time": ("U_t", 3.08567758e19)}
    units |= {"current": ("U_I", 1.0), "temperature": ("U_T", 1.0)}
    handle.create_group("Units").attrs.update(
        {f"Unit {name} in cgs ({symbol})": np.array([value]) for name, (symbol, value) in units.items()}
    )
    # The units of the code itself differ from those of the snapshot in some runs.
    handle.create_group("InternalCodeUnits").attrs["Unit length in cgs (U_L)"] = np.array([7 * unit_in_cm])


def _write_cells(handle, positions, cell, counts, offsets, files, box, n_cells, envelopes, particle_type) -> None:
    group, kind = handle.create_group("Cells"), f"PartType{particle_type}"
    n_all = n_cells**3
    group.create_group("Meta-data").attrs.update(
        {"nr_cells": [n_all], "size": np.full(3, box / n_cells), "dimension": np.full(3, n_cells)}
    )
    mesh = np.stack(np.unravel_index(np.arange(n_all), (n_cells,) * 3), axis=1)
    data = {"Centres": (mesh + 0.5) * (box / n_cells)}
    data |= {f"Counts/{kind}": counts, f"OffsetsInFile/{kind}": offsets, f"Files/{kind}": files.astype(np.int32)}
    if envelopes:
        lows, highs = np.zeros((n_all, 3)), np.zeros((n_all, 3))
        for i in np.flatnonzero(counts):
            lows[i], highs[i] = positions[cell == i].min(axis=0), positions[cell == i].max(axis=0)
        data |= {f"MinPositions/{kind}": lows, f"MaxPositions/{kind}": highs}
    for name, values in data.items():
        group.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)


def _write_virtual(group: h5py.Group, field: str, names: list[Path]) -> None:
    sources = []
    for name in names:
        with h5py.File(name) as part:
            data = part[f"{group.name}/{field}"]
            sources.append((name.name, data.shape, data.dtype))
    n = sum(shape[0] for _, shape, _ in sources)
    layout = h5py.VirtualLayout((n, *sources[0][1][1:]), sources[0][2])
    start = 0
    for name, shape, dtype in sources:
        if shape[0]:
            layout[start : start + shape[0]] = h5py.VirtualSource(name, f"{group.name}/{field}", shape, dtype)
        start += shape[0]
    data = group.create_virtual_dataset(field, layout)
    if field == "Coordinates":
        _describe(data)


def _describe(coordinates: h5py.Dataset) -> None:
    powers = {f"{unit} exponent": 0.0 for unit in ("U_M", "U_t", "U_I", "U_T", "h-scale")}
    powers |= {"U_L exponent": 1.0, "a-scale exponent": 1.0}
    coordinates.attrs.update({name: np.float32([power]) for name, power in powers.items()})
    coordinates.attrs["Description"] = np.bytes_("Co-moving positions of the particles")
    coordinates.attrs["Lossy compression filter"] = np.bytes_("None")
