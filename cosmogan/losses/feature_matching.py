"""Feature matching: mocks whose mean activations in the critic are those of the slices."""

from __future__ import annotations

import torch
from torch import Tensor

from cosmogan.networks.base import AbstractCritic, full_precision


def feature_matching(critic: AbstractCritic, real: Tensor, fake: Tensor) -> Tensor:
    """Return the squared distance of mean features, averaged over features; gradients flow through ``fake`` only.

    Means are over the slices given: with several processes, or parts of a batch, each matches its own.

    Parameters
    ----------
    critic
        Its `features` are compared.
    real, fake
        Network values ``(n, side, side)``.

    Raises
    ------
    UserError
        If the critic has no features to match.

    References
    ----------
    Salimans et al. 2016, arXiv:1606.03498, section 3.1.
    """
    with torch.no_grad():
        wanted = critic.features(real)
    found = critic.features(fake)
    with full_precision(real.device.type):
        return (found.float().mean(0) - wanted.float().mean(0)).square().mean()
