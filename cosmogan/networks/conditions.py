"""What a slice is conditioned on (box size, redshift, cosmology), told to a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosmogan.checks import require_least
from cosmogan.errors import UserError


class Conditioning(nn.Module):
    """Feature-wise scale and shift, linear in the conditions and zero at the start.

    The same at all places of a slice, so that it breaks no symmetry of a network; no random number is drawn, so that
    a network with conditions starts as the same one without.

    Parameters
    ----------
    n_conditions
        Conditions per slice, numbers of order one; 0 for none.
    n_features
        Channels that are scaled and shifted.

    Raises
    ------
    UserError
        If ``n_conditions`` is negative.

    References
    ----------
    Perez et al. 2017, arXiv:1709.07871.
    """

    def __init__(self, n_conditions: int, n_features: int) -> None:
        super().__init__()
        require_least(0, n_conditions=n_conditions)
        self.n_conditions, self.n_features = n_conditions, n_features
        if n_conditions:
            self.scale = nn.Parameter(torch.zeros(n_features, n_conditions))
            self.shift = nn.Parameter(torch.zeros(n_features, n_conditions))

    def forward(self, features: Tensor, conditions: Tensor | None) -> Tensor:
        """Return features of the same shape.

        Parameters
        ----------
        features
            Shape ``(n, n_features)`` or ``(n, n_features, side, side)``.
        conditions
            Shape ``(n, n_conditions)``; None exactly if there are none.

        Raises
        ------
        UserError
            If conditions are missing, too many, or not those of as many slices.
        """
        if conditions is None and not self.n_conditions:
            return features
        expected = (len(features), self.n_conditions) if self.n_conditions else None
        found = None if conditions is None else tuple(conditions.shape)
        if conditions is None or found != expected:
            raise UserError(f"conditions: this network takes {expected or 'none'}, found {found or 'none'}")
        # A sum, not a matrix product: autocast leaves it in float32.
        scale, shift = ((part * conditions.unsqueeze(1)).sum(2).to(features.dtype) for part in (self.scale, self.shift))
        shape = (*scale.shape, *(1 for _ in features.shape[2:]))
        return features * (1 + scale.view(shape)) + shift.view(shape)
