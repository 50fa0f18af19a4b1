"""Energy based: low energy for real slices, at least a margin for fake ones."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.checks import require_positive
from cosmogan.losses.base import AbstractObjective


class EnergyBased(AbstractObjective):
    """The critic's energy, minus its score, is drawn to zero for real slices and pushed to the margin for fake ones.

    The energy must not be negative, as the error of `AutoencoderCritic` is not. The pulling-away term of the reference,
    which compares the mocks of a batch with each other, is left out: variety is held by `StatisticPins`, and seen by
    critics with minibatch standard deviation.

    Parameters
    ----------
    margin
        Energy above which fake slices no longer concern the critic, in units of the energy.

    Raises
    ------
    UserError
        If ``margin`` is not positive.

    References
    ----------
    Zhao, Mathieu and LeCun 2017, arXiv:1609.03126, eqs. 1 and 2.
    """

    needs_energies = True

    def __init__(self, margin: float = 1.0) -> None:
        require_positive("an energy", where="model.objective", margin=margin)
        self.margin = margin

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the energy of real slices and what fake ones lack to the margin; the margin at best if p = q."""
        return functional.relu(self.margin + fake).mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the energy of fake slices."""
        return -fake.mean()
