"""A trained generator as people use it: load, sample, save. One safetensors file; nothing is ever unpickled."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

# Imported so that the names of all networks are known.
import cosmogan.networks.dcgan
import cosmogan.networks.spectral_prior  # noqa: F401
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator
from cosmogan.slices import SliceMetadata, require_absent
from cosmogan.transforms import AbstractTransform

FORMAT = "cosmogan-emulator"
FORMAT_VERSION = 1
# Matrix products round differently for other numbers of slices: a slice always shares its block with the same others.
_BLOCK = 16
_SHIPPED = Path(__file__).with_name("emulators")
_SUFFIX = ".safetensors"

_Part = TypeVar("_Part", bound=nn.Module)


class Emulator:
    """Makes mock slices: a generator, its pixel transform, and what the pixels are.

    Parameters
    ----------
    generator, transform
        Trained and fitted.
    metadata
        What the pixels of its slices are; always densities.
    training
        Record of how it was trained: plain numbers and strings.

    Examples
    --------
    ``Emulator.load("emulator.safetensors").sample(16, seed=1)`` returns 1 + delta, shape ``(16, n, n)``.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        transform: AbstractTransform,
        *,
        metadata: SliceMetadata,
        training: dict[str, Any] | None = None,
    ) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.transform = transform.eval().requires_grad_(False)
        self.metadata, self.training = metadata, training or {}

    @classmethod
    def load(cls, name_or_path: str | Path, *, device: torch.device | str = "cpu") -> Emulator:
        """Read an emulator file.

        Parameters
        ----------
        name_or_path
            A safetensors file written by `save`, or the name of an emulator that ships with the package.
        device
            Where to generate.

        Raises
        ------
        UserError
            If there is no such emulator or device, or the file is damaged or something else.
        """
        path = find_emulator(name_or_path)
        try:
            torch.zeros(1, device=device)
        # torch raises another kind for each way in which a device is not there.
        except (RuntimeError, AssertionError, TypeError, NotImplementedError):
            raise UserError(f"device {str(device)!r}: cannot be used here; try 'cpu'") from None
        try:
            with safe_open(path, framework="pt", device="cpu") as handle:
                header = (handle.metadata() or {}).get("cosmogan")
                tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            pickled = zipfile.is_zipfile(path)
            raise UserError(
                f"{path}: is not a safetensors file"
                + ("; it looks like a checkpoint, turn it into an emulator with `cosmogan export`" if pickled else "")
                + ("" if pickled else f" or is damaged ({error})")
            ) from None
        if header is None:
            raise UserError(f"{path}: is a safetensors file but not an emulator written by `cosmogan export`")
        try:
            record = json.loads(header)
            if (record["format"], record["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise UserError(
                    f"{path}: format {record['format']} {record['format_version']}; "
                    f"this cosmogan reads {FORMAT} {FORMAT_VERSION}"
                )
            return cls.from_record(record, tensors, device=device)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: the emulator's record does not fit its weights ({error})") from None

    @classmethod
    def from_record(
        cls, record: dict[str, Any], tensors: dict[str, Tensor], *, device: torch.device | str = "cpu"
    ) -> Emulator:
        """Build from the record of networks and metadata, and tensors named ``generator.*`` and ``transform.*``."""
        generator = _build(_descendants(AbstractGenerator), record["generator"])  # type: ignore[type-abstract]
        transform = _build(_descendants(AbstractTransform), record["transform"])  # type: ignore[type-abstract]
        for name, module in (("generator", generator), ("transform", transform)):
            prefix = name + "."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return cls(
            generator.to(device),
            transform.to(device),
            metadata=SliceMetadata.from_dict(record["metadata"]),
            training=record["training"],
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file with weights, transform, metadata and training record.

        Raises
        ------
        UserError
            If the file exists and may not be replaced, or cannot be written.
        """
        path = Path(path)
        require_absent(path, overwrite=overwrite)
        record = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generator": {"name": type(self.generator).__name__, "settings": self.generator.settings()},
            "transform": {"name": type(self.transform).__name__, "settings": self.transform.settings()},
            "metadata": self.metadata.to_dict(),
            "training": self.training,
        }
        tensors = {
            f"{name}.{key}": value.contiguous()
            for name, module in (("generator", self.generator), ("transform", self.transform))
            for key, value in module.state_dict().items()
        }
        partial = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata={"cosmogan": json.dumps(record)})
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"{path}: cannot be written ({error})") from None

    def sample(self, n: int, *, seed: int = 0, first: int = 0, batch_size: int = 64) -> np.ndarray:
        """Make slices ``first`` to ``first + n`` of a seed.

        Parameters
        ----------
        n
            How many.
        seed
            0 or larger.
        first
            Number of the first slice. Slice i depends on (seed, i) only.
        batch_size
            Slices computed at a time on a GPU. A CPU always computes slice i in the same block of 16, so that its bits
            depend on nothing else.

        Returns
        -------
            1 + delta, float32, shape ``(n, n_pixels, n_pixels)``.

        Raises
        ------
        UserError
            If ``n`` is not positive, or seed or first is negative.
        """
        side = self.metadata.n_pixels
        out = np.empty((max(n, 0), side, side), np.float32)
        done = 0
        for block in self.stream(n, seed=seed, first=first, batch_size=batch_size):
            out[done : done + len(block)] = block
            done += len(block)
        return out

    def stream(self, n: int, *, seed: int = 0, first: int = 0, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Iterate over the slices of `sample` in blocks, in bounded memory."""
        for name, value, least in (("n", n, 1), ("seed", seed, 0), ("first", first, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise UserError(f"{name}: expected at least {least}, found {value}")
        return self._stream(n, seed, first, batch_size)

    def _stream(self, n: int, seed: int, first: int, batch_size: int) -> Iterator[np.ndarray]:
        on_cpu = next(self.generator.parameters()).device.type == "cpu"
        size = _BLOCK if on_cpu else batch_size
        for start in range(first - first % size, first + n, size):
            latent = torch.from_numpy(latents(range(start, start + size), self.generator.latent_shape, seed=seed))
            block = self.density(latent).cpu().numpy()
            yield block[max(0, first - start) : first + n - start]

    @torch.inference_mode()
    def density(self, latent: Tensor) -> Tensor:
        """Return 1 + delta, shape ``(n, n_pixels, n_pixels)``, of latents ``(n, *generator.latent_shape)``."""
        device = next(self.generator.parameters()).device
        made = self.generator(latent.to(device))
        return made if self.generator.emits_density else self.transform.inverse(made)


def latents(index: range, shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Return the standard normal numbers of slices, float32, shape ``(len(index), *shape)``.

    Those of slice i are the first of ``numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))``,
    so that any program with NumPy can make them for any slice alone.
    """
    out = np.empty((len(index), *shape), np.float32)
    for row, i in zip(out, index, strict=True):
        random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i]))
        random.standard_normal(dtype=np.float32, out=row)
    return out


def shipped_emulators() -> list[str]:
    """Return the names of the emulators that ship with the package."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _SHIPPED.glob(f"*{_SUFFIX}"))


def find_emulator(name_or_path: str | Path) -> Path:
    """Return the file of an emulator given by path or by the name of a shipped one.

    Raises
    ------
    UserError
        If there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected an emulator file")
    shipped = _SHIPPED / f"{name_or_path}{_SUFFIX}"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    names = shipped_emulators()
    known = f"shipped emulators: {', '.join(names)}" if names else "no emulator ships with this version yet"
    raise UserError(f"{name_or_path}: no such emulator file; {known}. `cosmogan fit` and `cosmogan export` make one")


def export_checkpoint(checkpoint: str, *, out: str, overwrite: bool = False) -> Path:
    """Turn a checkpoint of `cosmogan fit` into an emulator file.

    The averaged generator, the fitted transform and the metadata go into one safetensors file. The checkpoint is read
    without running any code it may hold.

    Parameters
    ----------
    checkpoint
        A ``.ckpt`` file.
    out
        Emulator file to write, ending in ``.safetensors``.
    overwrite
        Replace an existing file.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If the checkpoint is missing, damaged or of something else.
    """
    path = Path(checkpoint)
    content = load_checkpoint(path)
    record = json.loads(content["cosmogan"])
    weights = content["state_dict"]
    tensors = {
        key.replace("average.", "generator.", 1): value
        for key, value in weights.items()
        if key.startswith(("average.", "transform."))
    }
    try:
        emulator = Emulator.from_record(record, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: weights and record of the checkpoint do not fit ({error})") from None
    emulator.save(out, overwrite=overwrite)
    return Path(out)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `cosmogan fit` without unpickling anything but tensors and plain values.

    Raises
    ------
    UserError
        If the file is missing, damaged, unsafe or of something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    # torch raises many kinds of errors for files that are not its own.
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UserError(
            f"{path}: is not a checkpoint of `cosmogan fit`, is damaged, or holds code, which is never run"
        ) from None
    if not isinstance(content, dict) or "cosmogan" not in content or "state_dict" not in content:
        raise UserError(f"{path}: is a checkpoint of another program; expected one written by `cosmogan fit`")
    return content


def _build(kinds: list[type[_Part]], record: dict[str, Any]) -> _Part:
    """Build a known network or transform by name; a file can never make us import anything."""
    known = {kind.__name__: kind for kind in kinds}
    if record["name"] not in known:
        raise UserError(
            f"needs {record['name']}, which is not among {', '.join(sorted(known))}; "
            "import the module that defines it first"
        )
    return known[record["name"]](**record["settings"])


def _descendants(base: type[_Part]) -> list[type[_Part]]:
    direct = base.__subclasses__()
    return direct + [kind for child in direct for kind in _descendants(child)]
