"""Valid snapshots of every kind that the field's codes write, drawn at random, each with what it truly holds.

Written after the formats' documentation, independent of the readers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

H, OMEGA_M = 0.68, 0.3
KPC, MPC = 3.085678e21, 3.085678e24
# 1e10 Msun/h per (Mpc/h)^3.
CRITICAL_DENSITY = 27.7536627
# Particles of dark matter along a side; each in the inner part of its own cell, far from the edges of pixels.
SIDE = 8
N = SIDE**3
FORMATS = ("binary 1", "binary 2", "gadget", "arepo", "gadget-4", "gizmo", "swift", "npy", "array in hdf5")
BOXES = (3.0, 25.0, 100.0, 350.0, 3000.0)


@dataclass(frozen=True)
class Case:
    """What one snapshot is like.

    Parameters
    ----------
    seed
        Seed of the positions, and the number of the case.
    kind
        One of `FORMATS`.
    box
        Side of the box, Mpc/h.
    unit
        Unit of length in the file: ``"kpc/h"``, ``"Mpc/h"``, and free of h ``"kpc"`` or ``"Mpc"``.
    said
        Where the file says its unit: ``"header"``, ``"data set"``, or ``"nowhere"``.
    masses
        ``"table"``, ``"equal"`` or ``"unequal"`` (two resolutions, 8:1) in a data set, ``"none"``, or ``"odd"``: in a
        unit of mass that nobody knows.
    gas
        Whether there is gas beside the dark matter, and all matter is asked for.
    n_files
        Number of files; with ``empty`` the last one holds no particles.
    wrap
        ``"inside"``, ``"centred"`` on 0, or ``"drifted"``: some particles outside of the box.
    dtype
        Of the positions, with byte order.
    lists
        Types in the lists of the header.
    """

    seed: int
    kind: str
    box: float
    unit: str
    said: str
    masses: str
    gas: bool
    n_files: int
    empty: bool
    wrap: str
    dtype: str
    lists: int
    float_counts: bool
    user_block: bool
    link: bool
    packed: bool
    scale_factor_only: bool
    redshift: float

    @property
    def length(self) -> float:
        """The file's unit of length in Mpc/h."""
        return {"kpc/h": 1e-3, "Mpc/h": 1.0, "kpc": 1e-3 * H, "Mpc": H}[self.unit]

    @property
    def tags(self) -> set[str]:
        """Reasons for which the snapshot may be refused."""
        in_file = self.box / self.length
        told = self.masses in ("table", "equal", "unequal")
        ambiguous = in_file < 5 or 500 <= in_file <= 5e4
        return {"unit"} if self.said == "nowhere" and not told and ambiguous else set()

    @property
    def options(self) -> dict[str, Any]:
        """What a user must say beside the file."""
        if self.kind in ("npy", "array in hdf5"):
            return {"box_size": f"{self.box} Mpc/h", "length_unit": self.unit, "redshift": self.redshift}
        return {"types": "all-matter"} if self.gas else {}


def draw(seed: int) -> Case:
    """Draw a case."""
    rng = np.random.default_rng([17, seed])

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    kind = one_of(*FORMATS)
    plain, binary = kind in ("npy", "array in hdf5"), kind.startswith("binary")
    masses = "none" if plain else one_of("table", "equal", "unequal", "none", "odd")
    unit = "Mpc" if kind == "swift" else one_of("kpc/h", "Mpc/h")
    said = "nowhere"
    if kind in ("arepo", "gadget-4"):
        unit, said = one_of("kpc/h", "Mpc/h", "kpc", "Mpc"), one_of("header", "data set", "both")
    elif kind == "gizmo" or kind == "swift":
        said = "header"
    elif kind == "gadget":
        said = one_of("header", "nowhere")
    elif plain:
        said = "user"
    gas = not plain and masses in ("table", "equal", "unequal") and bool(rng.integers(3) == 0)
    n_files = 1 if plain else int(rng.integers(1, 4))
    return Case(
        seed=seed,
        kind=kind,
        box=float(one_of(*BOXES)),
        unit=unit,
        said=said,
        masses=masses,
        gas=gas,
        n_files=n_files,
        empty=n_files > 1 and bool(rng.integers(3) == 0),
        wrap=one_of("inside", "inside", "centred", "drifted"),
        dtype=("<" if not binary and rng.integers(3) else one_of("<", ">")) + one_of("f4", "f8"),
        lists=6 if binary or kind == "swift" else one_of(2, 6, 8),
        float_counts=bool(rng.integers(8) == 0),
        user_block=not binary and kind not in ("npy", "swift") and bool(rng.integers(6) == 0),
        link=bool(rng.integers(6) == 0),
        packed=bool(rng.integers(4) == 0),
        scale_factor_only=kind in ("gadget", "arepo", "gizmo") and bool(rng.integers(5) == 0),
        redshift=one_of(0.0, 0.5, 3.0),
    )


@dataclass(frozen=True)
class Truth:
    """What a snapshot holds, in the order of its files: positions in Mpc/h within the box, and relative masses."""

    positions: np.ndarray
    masses: np.ndarray


def particles(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in units of the box, within it; masses in 1e10 Msun/h; types."""
    rng = np.random.default_rng([29, case.seed])
    axis = np.arange(SIDE)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    kinds = np.ones(N, int)
    if case.gas:
        kinds[rng.permutation(N)[: N // 4]] = 0
    positions = (cells + rng.uniform(0.2, 0.8, (N, 3))) / SIDE
    masses = np.ones(N)
    if case.masses == "unequal":
        masses[rng.permutation(N)[: N // 2]] = 8.0
    if case.gas:
        masses[kinds == 0] *= 0.2
    masses *= OMEGA_M * CRITICAL_DENSITY * case.box**3 / masses.sum()
    if case.masses == "odd":
        masses *= 1e5
    order = rng.permutation(N)
    return positions[order], masses[order], kinds[order]


def write(case: Case, folder: Path) -> tuple[str, Truth]:
    """Write a snapshot; return the name to open it by, and what it holds."""
    unit, masses, kinds = particles(case)
    shown = unit * case.box / case.length
    in_file = case.box / case.length
    rng = np.random.default_rng([31, case.seed])
    if case.wrap == "centred":
        shown = np.where(shown >= in_file / 2, shown - in_file, shown)
    elif case.wrap == "drifted":
        # A particle that left the box on one side, as codes that wrap at their next step write it.
        low = (unit < 0.02) & (rng.random(unit.shape) < 0.3)
        shown = np.where(low, shown + in_file, shown)
    n_full = case.n_files - case.empty
    part = np.sort(np.arange(N) % n_full)
    # Types one after another within a file, as formats with blocks have them.
    order = np.lexsort((kinds, part))
    part, shown, unit, masses, kinds = part[order], shown[order], unit[order], masses[order], kinds[order]
    truth = Truth(unit * case.box, masses / masses.mean())
    if case.kind == "npy":
        np.save(folder / "positions.npy", shown.astype(case.dtype))
        return _linked(case, folder, folder / "positions.npy"), truth
    if case.kind == "array in hdf5":
        path = folder / "some.h5"
        with h5py.File(path, "w", userblock_size=512 if case.user_block else 0) as handle:
            handle.create_dataset("a/b", data=shown.astype(case.dtype), **_packing(case))
        return _linked(case, folder, path) + ":a/b", truth
    paths = []
    for i in range(case.n_files):
        mine = part == i
        ending = ".hdf5" if not case.kind.startswith("binary") else ""
        path = folder / (f"snap.{i}{ending}" if case.n_files > 1 else f"snap{ending}")
        paths.append(path)
        writer = _write_binary if case.kind.startswith("binary") else _write_hdf5
        writer(
            case,
            path,
            shown[mine],
            masses[mine],
            kinds[mine],
            n_total=[int((kinds == k).sum()) for k in (0, 1)],
            mass_of=[float(masses[kinds == k][0]) if (kinds == k).any() else 0.0 for k in (0, 1)],
        )
    return _linked(case, folder, paths[0]), truth


def _linked(case: Case, folder: Path, path: Path) -> str:
    if not case.link:
        return str(path)
    (folder / "links").mkdir()
    link = folder / "links" / path.name
    link.symlink_to(path)
    return str(link)


def _packing(case: Case) -> dict[str, Any]:
    return {"chunks": True, "compression": "gzip", "shuffle": True} if case.packed else {}


def _mass_kind(case: Case) -> str:
    return {"odd": "table", "table": "table", "none": "none"}.get(case.masses, "data set")


def _write_binary(
    case: Case,
    path: Path,
    shown: np.ndarray,
    masses: np.ndarray,
    kinds: np.ndarray,
    *,
    n_total: list[int],
    mass_of: list[float],
) -> None:
    order, size = case.dtype[0], case.dtype[1:]
    table = mass_of if _mass_kind(case) == "table" else [0.0, 0.0]
    here = [int((kinds == k).sum()) for k in (0, 1)]
    zeros = [0] * 4
    header = struct.pack(
        order + "6i6d2d2i6I2i4d2i6I",
        *here,
        *zeros,
        *table,
        *zeros,
        1 / (1 + case.redshift),
        case.redshift,
        0,
        0,
        *n_total,
        *zeros,
        0,
        case.n_files,
        case.box / case.length,
        OMEGA_M,
        1 - OMEGA_M,
        H,
        0,
        0,
        *[0] * 6,
    ).ljust(256, b"\0")
    blocks = {b"HEAD": header, b"POS ": shown.astype(order + size).tobytes(), b"VEL ": shown.astype("f4").tobytes()}
    blocks[b"ID  "] = np.arange(len(shown), dtype="u4").tobytes()
    if _mass_kind(case) == "data set":
        blocks[b"MASS"] = masses.astype(order + size).tobytes()
    with open(path, "wb") as stream:
        for name, data in blocks.items():
            if case.kind == "binary 2":
                label = name + struct.pack(order + "i", len(data) + 8)
                stream.write(struct.pack(order + "i", 8) + label + struct.pack(order + "i", 8))
            length = struct.pack(order + "I", len(data))
            stream.write(length + data + length)


def _write_hdf5(
    case: Case,
    path: Path,
    shown: np.ndarray,
    masses: np.ndarray,
    kinds: np.ndarray,
    *,
    n_total: list[int],
    mass_of: list[float],
) -> None:
    def listed(values: list[float], dtype: str) -> np.ndarray:
        return np.array([*values, *[0] * (case.lists - 2)], dtype if not case.float_counts or dtype == "f8" else "f8")

    here = [int((kinds == k).sum()) for k in (0, 1)]
    swift = case.kind == "swift"
    header: dict[str, Any] = {
        "BoxSize": np.full(3, case.box / case.length) if swift else case.box / case.length,
        "NumPart_ThisFile": listed(here, "i8" if swift else "i4"),
        "NumPart_Total": listed(n_total, "u4"),
        "NumPart_Total_HighWord": np.zeros(6, "u4"),
        "NumFilesPerSnapshot": case.n_files,
        "MassTable": listed(mass_of if _mass_kind(case) == "table" else [0.0, 0.0], "f8"),
        "Redshift": case.redshift,
        "Scale-factor" if swift else "Time": 1 / (1 + case.redshift),
    }
    if case.scale_factor_only:
        del header["Redshift"]
    # In cm, of the file's unit and, where it is per h, of that times h.
    in_cm = {"k": KPC, "M": MPC}[case.unit[0]]
    cosmology = {"Omega0": OMEGA_M, "HubbleParam": H}
    attributes: dict[str, float] = {}
    with h5py.File(path, "w", userblock_size=512 if case.user_block else 0) as handle:
        if case.kind in ("gadget", "arepo"):
            header |= cosmology
            if case.said in ("header", "both"):
                header["UnitLength_in_cm"] = in_cm
        elif case.kind == "gizmo":
            header |= {"Omega_Matter": OMEGA_M, "HubbleParam": H, "UnitLength_In_CGS": in_cm / H}
        elif case.kind == "gadget-4":
            parameters = cosmology | ({"UnitLength_in_cm": in_cm} if case.said in ("header", "both") else {})
            handle.create_group("Parameters").attrs.update(parameters)
        else:
            header["Code"] = "SWIFT"
            handle.create_group("Cosmology").attrs.update({"Omega_m": [OMEGA_M], "h": [H], "Cosmological run": [1]})
            handle.create_group("Units").attrs["Unit length in cgs (U_L)"] = np.array([MPC])
            attributes["a-scale exponent"] = 1.0
        if case.kind in ("arepo", "gadget-4"):
            attributes |= {"a_scaling": 1.0, "h_scaling": -1.0 if case.unit.endswith("/h") else 0.0}
            if case.said in ("data set", "both"):
                attributes["to_cgs"] = in_cm
        handle.create_group("Header").attrs.update(header)
        for kind in (0, 1):
            mine = kinds == kind
            group = handle.create_group(f"PartType{kind}") if mine.any() or case.seed % 2 else None
            if group is None or not mine.any():
                continue
            positions = group.create_dataset("Coordinates", data=shown[mine].astype(case.dtype), **_packing(case))
            positions.attrs.update(attributes)
            group["ParticleIDs"] = np.arange(mine.sum(), dtype="u8")
            if _mass_kind(case) == "data set":
                group["Masses"] = masses[mine].astype(case.dtype)
