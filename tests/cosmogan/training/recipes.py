"""The recipes of small trainings that tests run."""

from pathlib import Path

from cosmogan.networks.spectral_prior import SpectralPriorGenerator

# Where `python -m tests...` finds these tests.
ROOT = Path(__file__).parents[3]
SPECTRAL_PRIOR = """
  generator: {class_path: SpectralPriorGenerator, init_args: {width: 4}}
  critic: {class_path: PatchCritic, init_args: {patch: 16, width: 4}}
  objective: {class_path: Relativistic}
  penalty: {class_path: ZeroCentred, init_args: {gamma: 1.0, every: 2}}
  transform: {class_path: GaussianisingTransform, init_args: {n_knots: 65}}
"""
PINNED = f"{SPECTRAL_PRIOR.rstrip()}\n  pins: {{class_path: StatisticPins}}\n"
DCGAN = """
  generator: {class_path: DCGANGenerator, init_args: {latent_size: 8, width: 4, bounded: false}}
  critic: {class_path: DCGANCritic, init_args: {width: 4, normalisation: none}}
  transform: {class_path: LogTransform}
"""


def recipe(
    networks: str,
    *,
    data: str = "batch_size: 4, slices_per_epoch: 24",
    validation: str = "n_mocks: 8, draw: false",
    trainer: str = "accelerator: cpu",
    **model: object,
) -> str:
    """The text of a recipe: one of the networks above, and settings of the model by name."""
    settings = "".join(f"  {name}: {value}\n" for name, value in model.items())
    return f"""
data: {{{data}}}
model:{networks}{settings}validation: {{{validation}}}
trainer: {{{trainer}}}
"""


def shorten_fits() -> None:
    """Have this process fit the prior of toy generators to few fields; tests themselves have a fixture for that."""
    SpectralPriorGenerator.FIT_PIXELS = SpectralPriorGenerator.CALIBRATION_PIXELS = 2**13
