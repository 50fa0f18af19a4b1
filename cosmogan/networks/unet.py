"""The U-Net that corrects a start: periodic, with as little regard for its grid as strides allow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmogan.networks.base import full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution, doubled

# Space-to-depth by 2 and two strided layers: sides are multiples of this, and a shift by it shifts the correction.
COARSENING = 8


class UNet(nn.Module):
    """Correction to what it is shown; zero before training.

    Two layers at full resolution, the same for all pixels, make the correction. What comes from below may still differ
    between the pixels of a cell: waves of two pixels can have ten times the power of slices at 70 Mpc/h.

    Parameters
    ----------
    width
        Channels at half resolution; twice as many below, half as many above.
    n_conditions
        Conditions per slice.
    n_planes
        Planes of pixels that it is shown.
    """

    def __init__(self, width: int, n_conditions: int, n_planes: int = 2) -> None:
        super().__init__()
        self.conditioning = Conditioning(n_conditions, width)
        self.enter = CircularConvolution(4 * n_planes, width)
        self.block1 = _ResidualBlock(width)
        self.down1 = _halving(width, 2 * width)
        self.block2 = _ResidualBlock(2 * width)
        self.down2 = _halving(2 * width, 2 * width)
        self.block3 = nn.Sequential(_ResidualBlock(2 * width), _ResidualBlock(2 * width))
        self.up2 = CircularConvolution(4 * width, 2 * width)
        self.up1 = CircularConvolution(3 * width, width)
        self.block4 = _ResidualBlock(width)
        self.narrow = CircularConvolution(width, width // 2)
        self.join = CircularConvolution(width // 2 + n_planes, width // 2)
        self.leave = CircularConvolution(width // 2, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, planes: Tensor, conditions: Tensor | None) -> Tensor:
        """Return the correction, ``(n, side, side)``, of planes ``(n, n_planes, side, side)``."""
        fine = self.enter(functional.pixel_unshuffle(planes, 2).contiguous(memory_format=torch.channels_last))
        fine = self.block1(functional.silu(self.conditioning(fine, conditions)))
        middle = self.block2(functional.silu(self.down1(fine)))
        coarse = self.block3(functional.silu(self.down2(middle)))
        middle = functional.silu(self.up2(torch.cat([middle, doubled(coarse)], 1)))
        fine = functional.silu(self.up1(torch.cat([fine, doubled(middle)], 1)))
        fine = self.narrow(self.block4(fine))
        full = functional.silu(self.join(torch.cat([doubled(fine), planes.to(fine.dtype)], 1)))
        with full_precision(full.device.type):
            return self.leave(full.to(self.leave.weight.dtype)).squeeze(1)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = CircularConvolution(width, width), CircularConvolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(functional.silu(self.first(features)))


def _halving(n_in: int, n_out: int) -> nn.Conv2d:
    # Four taps lie evenly about the two pixels that become one. Three would shift all towards one corner, and slices
    # would lean to one diagonal.
    return CircularConvolution(n_in, n_out, 4, stride=2)
