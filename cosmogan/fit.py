"""The command ``cosmogan fit``: Lightning's command line over our module, data and callbacks."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from cosmogan.callbacks.physics import PhysicsValidation
from cosmogan.callbacks.progress import SliceProgress
from cosmogan.cli import plain_message
from cosmogan.data import SliceDataModule
from cosmogan.errors import UserError
from cosmogan.export import load_checkpoint
from cosmogan.gan import CosmoGAN
from cosmogan.log import run_loggers

# Objectives and penalties are named in recipes by their class; they must have been imported to be known.
from cosmogan.losses.energy_based import EnergyBased  # noqa: F401
from cosmogan.losses.hinge import Hinge  # noqa: F401
from cosmogan.losses.least_squares import LeastSquares  # noqa: F401
from cosmogan.losses.minimax import Minimax  # noqa: F401
from cosmogan.losses.non_saturating import NonSaturating  # noqa: F401
from cosmogan.losses.penalties import GradientNorm, ZeroCentred  # noqa: F401
from cosmogan.losses.relativistic import Relativistic  # noqa: F401
from cosmogan.losses.wasserstein import Wasserstein  # noqa: F401


def fit(words: list[str]) -> Path | None:
    """Train an emulator.

    Parameters
    ----------
    words
        ``--config NAME_OR_PATH --data.path slices.h5 [--out DIR] [--ckpt_path last.ckpt] [--overwrite]`` and any value
        of the recipe by its dotted name.

    Returns
    -------
        The best checkpoint; None in all processes but the first.

    Raises
    ------
    UserError
        If a key or a value is unknown, the data do not fit, or the run folder is in use.
    """
    words = [_find_recipes(word, before) for before, word in zip(["", *words], words, strict=False)]
    words = ["--overwrite=true" if word == "--overwrite" else word for word in words]
    _quieten()
    cli = _FitCLI(
        CosmoGAN,
        SliceDataModule,
        run=False,
        args=words,
        seed_everything_default=0,
        save_config_callback=SaveConfigCallback,
        # A resumed run writes into its own folder; `_require_free` keeps others out.
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"max_epochs": -1, "num_sanity_val_steps": 0, "enable_progress_bar": False},
        auto_configure_optimizers=False,
    )
    cli.model.recipe = cli.parser.dump(cli.config)
    checkpoint = cli.config.ckpt_path
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    if cli.trainer.interrupted:
        raise KeyboardInterrupt
    return Path(cli.config.out) / "best.ckpt" if cli.trainer.is_global_zero else None


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(f"{plain_message(message)}. See `cosmogan fit --help`")


class _FitCLI(LightningCLI):
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.pop("dump_header", None)
        parser = _Parser(prog="cosmogan fit", allow_abbrev=False, **kwargs)
        parser.add_argument("-c", "--config", action="config", help="recipe: a YAML file or the name of a shipped one")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, default="runs/fit", help="run folder")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="go on from this checkpoint")
        parser.add_argument("--overwrite", type=bool, default=False, help="start over in a run folder that is in use")
        parser.add_lightning_class_args(PhysicsValidation, "validation")
        for network in ("generator", "critic"):
            parser.link_arguments("data.n_pixels", f"model.{network}.init_args.n_pixels", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        config: Namespace = self.config
        self._n_slices_seen = 0
        if config.ckpt_path is not None:
            seen = json.loads(load_checkpoint(Path(config.ckpt_path))["cosmogan"])["training"]["n_slices_seen"]
            self._n_slices_seen = seen
            if seen >= config.model.max_slices:
                raise UserError(
                    f"--ckpt_path {config.ckpt_path}: has seen {seen} slices, all that model.max_slices "
                    f"({config.model.max_slices}) asks for; raise --model.max_slices to go on"
                )
            changed = [w for w in self._words if w.startswith("--model.") and not w.startswith("--model.max_slices")]
            if changed:
                raise UserError(
                    f"--ckpt_path together with {changed[0].split('=')[0]}: weights and settings of the checkpoint "
                    "would win silently; resume with the settings it was made with, or start anew without --ckpt_path"
                )
        _require_free(Path(config.out), resumed=config.ckpt_path is not None, overwrite=config.overwrite)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self._words: list[str] = list(args)
        super().parse_arguments(parser, args)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        out = self.config.out
        self.config_init.trainer.default_root_dir = out
        named = self.config_init.trainer.logger
        self.config_init.trainer.logger = run_loggers(out, named, n_slices_seen=self._n_slices_seen)
        # Two, because `save_last` follows the best one and would leave out passes without a record.
        common: dict[str, Any] = {"dirpath": out, "save_on_train_epoch_end": False, "enable_version_counter": False}
        best = ModelCheckpoint(filename="best", monitor="score", mode="min", **common)
        last = ModelCheckpoint(filename="last", **common)
        return super().instantiate_trainer(**kwargs, callbacks=[best, last, SliceProgress()])


def _require_free(out: Path, *, resumed: bool, overwrite: bool) -> None:
    used = [name for name in ("last.ckpt", "config.yaml") if (out / name).exists()]
    if used and not resumed and not overwrite:
        raise UserError(
            f"{out}: holds a run already ({used[0]}); go on with --ckpt_path {out / 'last.ckpt'}, choose another "
            "--out, or add --overwrite"
        )


def find_recipe(name: str) -> Path:
    """Return the file of a recipe given by path or by the name of a shipped one, such as ``demo/box500``.

    Raises
    ------
    UserError
        If there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    package = Path(__file__).parent
    # In a wheel the recipes lie inside the package, in a checkout beside it.
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    shipped = sorted(p.relative_to(f).with_suffix("").as_posix() for f in folders for p in f.glob("*/*.yaml"))
    raise UserError(f"--config {name}: no such file or recipe; shipped recipes: {', '.join(shipped)}")


def _find_recipes(word: str, before: str) -> str:
    if before in ("--config", "-c"):
        return str(find_recipe(word))
    if word.startswith("--config="):
        return f"--config={find_recipe(word.removeprefix('--config='))}"
    return word


def _quieten() -> None:
    """Drop messages that tell a user of this command nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "isinstance.treespec",
        "LightningCLI's args parameter",
        "Found .* module.s. in eval mode",
        ".*does not have many workers",
        "Checkpoint directory .* exists",
        "Experiment logs directory .* exists",
        "The number of training batches",
        "Trying to infer the `batch_size`",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    if not sys.stderr.isatty():
        # tqdm's monitor thread is of no use to a log file.
        logging.captureWarnings(True)
