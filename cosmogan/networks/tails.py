"""Heavy-tailed latents: standard normal numbers to Student's t, for networks whose output has a heavy tail."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from cosmogan.errors import UserError
from cosmogan.transforms import interpolate

# Float32 normal numbers end before 8; relative errors of the table are spacing^2 / (8 nu), below 1e-6.
_REACH = 8.0
_N_KNOTS = 2049


class HeavyTails(nn.Module):
    """The increasing map of a standard normal number to Student's t of the same quantile, scaled to unit variance.

    A Lipschitz network of Gaussian numbers has Gaussian tails at most; the map gives it power laws to start from. The
    table holds ``ln(t / x)`` against ``|x|``, which is smooth: the relative accuracy is that of the centre in the tail
    too, and the map is exactly odd.

    Parameters
    ----------
    degrees_of_freedom
        nu of Student's t: its density falls as ``|t|^-(1 + nu)``. Above 2, where there is a variance.

    Raises
    ------
    UserError
        If ``degrees_of_freedom`` is not above 2.

    References
    ----------
    Feder, Berger & Stein 2020, arXiv:2005.03050.
    """

    knots: Tensor
    log_stretch: Tensor

    def __init__(self, degrees_of_freedom: float) -> None:
        super().__init__()
        if not 2 < degrees_of_freedom < float("inf"):
            raise UserError(f"tails: expected more than 2 degrees of freedom, or null, found {degrees_of_freedom}")
        knots = np.linspace(0, _REACH, _N_KNOTS)
        scale = np.sqrt(1 - 2 / degrees_of_freedom)
        # The limit at zero is the ratio of the densities there.
        stretch = np.full(_N_KNOTS, stats.norm.pdf(0) / stats.t.pdf(0, degrees_of_freedom))
        stretch[1:] = stats.t.isf(stats.norm.sf(knots[1:]), degrees_of_freedom) / knots[1:]
        # Not in the file of an emulator: made again from the setting.
        self.register_buffer("knots", torch.from_numpy(knots).float(), persistent=False)
        self.register_buffer("log_stretch", torch.from_numpy(np.log(scale * stretch)).float(), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Return numbers of Student's t, same shape as the standard normal ``latent``."""
        return latent * torch.exp(interpolate(latent.abs(), self.knots, self.log_stretch))
