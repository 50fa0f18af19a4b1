"""What every generator and critic offers to the training loop and to the emulator."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cosmogan.errors import UserError
from cosmogan.networks.tails import HeavyTails
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import AbstractTransform

# More pixels at a time leave a processor's cache: 256 x 256 takes twice as long in blocks of 16 slices.
_CACHED_SLICES, _CACHED_PIXELS = 16, 2**16


def cached_slices(n_pixels: int) -> int:
    """Return how many slices a CPU computes best together: 16, fewer of more than 64 x 64 pixels, 1 from 256 x 256."""
    return max(1, min(_CACHED_SLICES, _CACHED_PIXELS // n_pixels**2))


class AbstractGenerator(nn.Module, ABC):
    """Latent numbers to network values of a slice.

    Parameters
    ----------
    n_pixels
        Pixels along a side of the slices to make.
    n_conditions
        Numbers of order one that tell each slice what it is to be (box size, redshift, cosmology); 0 for none.
    tails
        Degrees of freedom, above 2, of Student's t, to which the latent numbers are mapped at the start; normal numbers
        if None.
    """

    # Whether `forward` returns 1 + delta instead of network values.
    emits_density = False
    # Particles per pixel of slices that are whole numbers of them before smoothing; None where they are not.
    mean_count: float | None = None
    # Planes of the latent that come first and are no noise: slabs of a coarse simulation (`GravityStartGenerator`).
    n_start_planes = 0
    # Sides of the slices that `resized` can make are multiples of this; None where the network makes one size only.
    side_multiple: int | None = None

    def __init__(self, n_pixels: int, *, n_conditions: int = 0, tails: float | None = None) -> None:
        super().__init__()
        self.n_pixels, self.n_conditions, self.tails = n_pixels, n_conditions, tails
        self.heavy_tails = nn.Identity() if tails is None else HeavyTails(tails)

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of what one slice is made of: standard normal numbers, behind the planes of a start if it has one."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """`latent_shape` without the planes of a start."""
        return (self.latent_shape[0] - self.n_start_planes, *self.latent_shape[1:])

    @property
    def training_latent_shape(self) -> tuple[int, ...]:
        """As `latent_shape` for the fields that are made during training, which may be smaller."""
        return self.latent_shape

    @property
    def training_side(self) -> int:
        """Pixels along a side of the fields that are made during training; the whole slice by default."""
        return self.n_pixels

    @abstractmethod
    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return network values, or 1 + delta, ``(n, n_pixels, n_pixels)``, of latents ``(n, *latent_shape)``.

        Parameters
        ----------
        latent
            Standard normal numbers.
        conditions
            Shape ``(n, n_conditions)``; None exactly if there are none.

        Raises
        ------
        UserError
            If conditions are missing or superfluous.
        """

    @property
    def bytes_per_pixel(self) -> int:
        """Memory per pixel while a slice is computed, where `resized` can make it any size."""
        return 0

    def resized(self, n_pixels: int) -> AbstractGenerator:
        """Return this generator for slices of another side, with the same pixels; for those with a `side_multiple`.

        Parameters
        ----------
        n_pixels
            A multiple of `side_multiple`.
        """
        raise NotImplementedError(f"{type(self).__name__} makes slices of one size")

    def portable(self) -> AbstractGenerator:
        """Return a copy that makes the same slices, up to rounding, with operations that other runtimes have."""
        return copy.deepcopy(self)

    def use_bfloat16(self) -> None:
        """Compute the body of the network in bfloat16 from now on, and what makes pixels of it in float32.

        Raises
        ------
        UserError
            If the network has no body to tell from its head.
        """
        raise UserError(f"precision: {type(self).__name__} computes in float32 only")

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Take from the training slices what is fitted, not learnt; by default nothing.

        Parameters
        ----------
        density
            1 + delta of the training slices, shape ``(n, n_pixels, n_pixels)``.
        transform
            The fitted pixel transform of the run.
        metadata
            Metadata of the slices.
        seed
            Seed of the random numbers that the fit may need.
        """

    def calibrate(self, *, seed: int) -> None:
        """Measure, in evaluation mode, the normalisations that training takes from each batch; by default nothing.

        Averaged weights are not the weights whose batches were normalised, so this is done before they are used.

        Parameters
        ----------
        seed
            Seed of the latents.
        """

    def refit(self, *, seed: int, n_mocks: int | None = None, power_only: bool = False) -> None:
        """Fit again what `prepare` has fitted, now that the network is trained; for generators with a fitted part.

        Parameters
        ----------
        seed
            Seed of the latents.
        n_mocks
            Mocks to fit with; as many as the generator thinks best if None.
        power_only
            Fit P(k) alone.

        Raises
        ------
        UserError
            If there is nothing to fit.
        """
        raise UserError(f"refit: {type(self).__name__} has nothing that is fitted to the slices; export it as it is")

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor that build this generator again."""


class AbstractCritic(nn.Module, ABC):
    """Network values of slices to one score each, higher for real ones.

    Parameters
    ----------
    n_pixels
        Pixels along a side of the slices to judge.
    n_conditions
        Numbers of order one that tell what each slice should be; 0 for none.
    """

    def __init__(self, n_pixels: int, *, n_conditions: int = 0) -> None:
        super().__init__()
        self.n_pixels, self.n_conditions = n_pixels, n_conditions

    # Whether scores are minus an energy, never positive.
    scores_energies = False

    # Particles per pixel, where the critic sees their numbers beside the network values.
    mean_count: float | None = None

    @property
    def n_planes(self) -> int:
        """Planes of pixels that the critic sees of each slice; one stands for network values alone, without an axis."""
        return 1 if self.mean_count is None else 2

    @property
    def patch_pixels(self) -> int:
        """Side of the patches that the critic sees; the whole slice by default."""
        return self.n_pixels

    def prepare(self, density: Tensor, *, metadata: SliceMetadata) -> None:
        """Take from the training slices what the critic needs to know of them; by default nothing.

        Parameters
        ----------
        density
            1 + delta of the training slices, shape ``(n, n_pixels, n_pixels)``.
        metadata
            Metadata of the slices.
        """

    # Whether the critic judges slices beside the starts they were made from, real ones beside those of their phases.
    pairs = False

    def shown(self, density: Tensor, values: Tensor, start: Tensor | None = None) -> Tensor:
        """Return what the critic sees of whole slices, before patches are cut; by default the network values.

        Parameters
        ----------
        density
            1 + delta, shape ``(n, side, side)``.
        values
            The same as network values.
        start
            Network values of their starts, for critics of `pairs`.

        Returns
        -------
            Shape ``(n, side, side)``, or ``(n, n_planes, side, side)`` if there are several planes.
        """
        return values

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the activations that feature matching compares, shape ``(n, n_features)``.

        Raises
        ------
        UserError
            If the network has none to offer.
        """
        raise UserError(f"model.feature_matching: {type(self).__name__} has no features to match; set the weight to 0")

    @abstractmethod
    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, patch_pixels, patch_pixels)``.

        Parameters
        ----------
        values
            Values of slices, or of patches of them; what `shown` returns, ``(n, n_planes, ...)`` if there are several
            planes.
        conditions
            Shape ``(n, n_conditions)``; None exactly if there are none.

        Raises
        ------
        UserError
            If conditions are missing or superfluous.
        """


def full_precision(device_type: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which heads, transforms and statistics are computed: float32, whatever trains in bfloat16.

    bfloat16 keeps 8 bits: next to 1 it cannot tell a density of 2,000 from one of 4,000 in the paper's transform.
    Inputs made under autocast are still to be converted with ``.float()``.
    """
    # No context where there is no autocast: exporters would trace it into their graph.
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def count_parameters(module: nn.Module, *, trainable: bool = True) -> int:
    """Return the number of parameters, or of trainable ones only."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad or not trainable)
