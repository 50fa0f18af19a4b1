"""The command ``cosmogan fit``: Lightning's command line over our module, data and callbacks."""

from __future__ import annotations

import logging
import os
import sys
import typing
import warnings
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from cosmogan.errors import UserError

# Objectives, penalties and networks are named in recipes by their class; they must have been imported to be known.
from cosmogan.losses.energy_based import EnergyBased  # noqa: F401
from cosmogan.losses.hinge import Hinge  # noqa: F401
from cosmogan.losses.least_squares import LeastSquares  # noqa: F401
from cosmogan.losses.minimax import Minimax  # noqa: F401
from cosmogan.losses.non_saturating import NonSaturating  # noqa: F401
from cosmogan.losses.penalties import GradientNorm, ZeroCentred  # noqa: F401
from cosmogan.losses.relativistic import Relativistic  # noqa: F401
from cosmogan.losses.wasserstein import Wasserstein  # noqa: F401
from cosmogan.machine.ranks import find_rank
from cosmogan.networks.autoencoder import AutoencoderCritic  # noqa: F401
from cosmogan.networks.patch_critic import PatchCritic  # noqa: F401
from cosmogan.settings_file import ambiguity, read_settings
from cosmogan.text import plain_message
from cosmogan.training.callbacks.alarms import Alarms
from cosmogan.training.callbacks.checkpoints import BestCheckpoints
from cosmogan.training.callbacks.physics import PhysicsValidation
from cosmogan.training.callbacks.progress import SliceProgress
from cosmogan.training.checkpoint_file import CheckpointFile
from cosmogan.training.data import SliceDataModule
from cosmogan.training.dry_run import Announcement
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.interruption import Interrupted, Interruption, Unstarted, ended_by_signals
from cosmogan.training.log import run_loggers
from cosmogan.training.parser_messages import SEE, explain, nameable
from cosmogan.training.run_folder import LAST, Resumption, find_resumption, prepare_folder, remove_checkpoints
from cosmogan.training.trainer_options import DEFAULTS, require_callbacks, require_honoured

# Of a recipe.
_SECTIONS = ("seed_everything", "data", "model", "validation", "alarms", "trainer")
# Text that may look like a number: a path, and days:hours:minutes:seconds.
_TEXTS = ("--data.path", "--trainer.max_time")
_FLAGS = ("--overwrite", "--resume", "--allow-changes", "--dry-run")
# Of GANs with penalties: float16 overflows, and whole networks in bfloat16 lose the densest pixels.
_PRECISIONS = ("32-true", "32", 32, "bf16-mixed", "bf16", None)


def fit(words: list[str]) -> Path | None:
    """Train an emulator.

    Parameters
    ----------
    words
        ``--config NAME_OR_PATH --data.path slices.h5 [--out DIR] [--resume | --ckpt_path FILE | --overwrite]
        [--allow-changes] [--dry-run]`` and any value of the recipe by its dotted name.

    Returns
    -------
        The best checkpoint; None in all processes but the first, and after a dry run.

    Raises
    ------
    UserError
        If a key or a value is unknown, the data do not fit, or the run folder is in use.
    SystemExit
        With code 128 plus its number after a signal; ``last.ckpt`` holds the run as it was after the last step.
    """
    with ended_by_signals(is_first=find_rank(os.environ)[0] == 0):
        return _fit(words)


def _fit(words: list[str]) -> Path | None:
    words = [_find_recipes(word, before) for before, word in zip(["", *words], words, strict=False)]
    words = _with_values(words)
    _quieten()
    try:
        cli = _FitCLI(
            CosmoGAN,
            SliceDataModule,
            run=False,
            args=words,
            seed_everything_default=0,
            save_config_callback=SaveConfigCallback,
            # A resumed run writes into its own folder; `find_resumption` keeps others out.
            save_config_kwargs={"overwrite": True},
            trainer_defaults=DEFAULTS,
            auto_configure_optimizers=False,
        )
    except _Complete as complete:
        print(complete, file=sys.stderr)
        return complete.best
    if cli.dry:
        if find_rank(os.environ)[0] == 0:
            from cosmogan.training.dry_run import dry_run

            print(dry_run(cli.model, cli.datamodule, cli.trainer, n_processes=cli.n_processes))
        return None
    _train(cli)
    return _kept(Path(cli.config.out)) if cli.trainer.is_global_zero else None


def _train(cli: _FitCLI) -> None:
    trainer, out = cli.trainer, Path(cli.config.out)
    if cli.overwrite and trainer.is_global_zero:
        remove_checkpoints(out)
    checkpoint = None if cli.resumption is None else cli.resumption.path
    had_recipe = (out / "config.yaml").exists()
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except Unstarted:
        # Else the folder would count as one in use.
        if trainer.is_global_zero and not had_recipe:
            (out / "config.yaml").unlink(missing_ok=True)
        raise
    except Interrupted:
        if trainer.is_global_zero:
            cli.interruption.report(cli.model, out)
        raise
    except MisconfigurationException as error:
        raise UserError(f"trainer: {plain_message(str(error))}") from None
    except SystemExit:
        # What Lightning makes of Ctrl-C.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise UserError(
            f"{checkpoint}: holds other networks than the recipe ({plain_message(str(error))[:200]} ...); continue "
            "with the recipe that it was made with"
        ) from None
    # A limit of time or a callback may have ended the run between two validations, which write checkpoints.
    if cli.model.n_slices_saved != cli.model.n_slices_seen:
        trainer.save_checkpoint(out / LAST)


def _kept(out: Path) -> Path:
    """Return the checkpoint to use: the best one, or the last one where no validation has given a score."""
    best, last = out / "best.ckpt", out / LAST
    if best.exists():
        return best
    print(f"cosmogan fit: no validation gave a score; {last} is what the run ended with", file=sys.stderr)
    return last


class _Complete(Exception):  # noqa: N818, because it is none
    """There is nothing left to train."""

    def __init__(self, out: Path, n_slices_seen: int, max_slices: int) -> None:
        super().__init__(
            f"complete: {n_slices_seen:,} of {max_slices:,} slices; raise --model.max_slices to train longer"
        )
        self.best = _kept(out)


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [option.lstrip("-") for action in self._actions for option in action.option_strings]
        if 'key "trainer.precision"' in message:
            raise UserError(_precision_error(message.rsplit(": ", 1)[-1]))
        raise UserError(explain(message, options=options, classes=_classes) + SEE)


def _classes(key: str) -> list[type]:
    hints = typing.get_type_hints(CosmoGAN.__init__)
    return nameable(hints.get(key.rsplit(".", 1)[-1]))


class _FitCLI(LightningCLI):
    """Parses the words, finds out where the run starts, and builds module, data and trainer."""

    resumption: Resumption | None

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.pop("dump_header", None)
        parser = _Parser(prog="cosmogan fit", allow_abbrev=False, **kwargs)
        parser.add_argument("-c", "--config", action="config", help="recipe: a YAML file or the name of a shipped one")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, default="runs/fit", help="run folder")
        parser.add_argument(
            "--resume", type=bool, default=False, help="continue where --out has a checkpoint, or start"
        )
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="continue from this checkpoint; 'last' is that of --out"
        )
        parser.add_argument(
            "--allow_changes", type=bool, default=False, help="continue under other settings than the checkpoint's"
        )
        parser.add_argument("--overwrite", type=bool, default=False, help="start over in a run folder that is in use")
        parser.add_argument(
            "--dry_run", type=bool, default=False, help="print cost, memory, data split and steps; try one step of each"
        )
        parser.add_lightning_class_args(PhysicsValidation, "validation")
        # Behind the validation, of whose measurements it makes use.
        parser.add_lightning_class_args(Alarms, "alarms")
        for network in ("generator", "critic"):
            parser.link_arguments("data.n_pixels", f"model.{network}.init_args.n_pixels", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        config: Namespace = self.config
        out = Path(config.out)
        self.dry, self.overwrite = bool(config.dry_run), bool(config.overwrite)
        require_honoured(config.trainer.as_dict())
        if config.trainer.precision not in _PRECISIONS:
            raise UserError(_precision_error(config.trainer.precision))
        self.resumes, self.resumption = config.resume, None
        if not self.dry:
            self.resumption = find_resumption(
                out, checkpoint=config.ckpt_path, resume=config.resume, overwrite=self.overwrite
            )
        may_change = bool(config.allow_changes)
        if may_change and config.ckpt_path is None and not config.resume:
            raise UserError("--allow-changes: there is nothing to continue from; add --ckpt_path FILE, or --resume")
        # Where a run started is no part of its recipe.
        config.ckpt_path, config.resume, config.overwrite, config.dry_run = None, False, False, False
        config.allow_changes = False
        self.recipe = self.parser.dump(config)
        if self.resumption is not None:
            if not may_change:
                self.resumption.require_recipe(self.recipe)
            if self.resumption.n_slices_seen >= config.model.max_slices and not self.resumes:
                raise UserError(
                    f"{self.resumption.path}: has seen {self.resumption.n_slices_seen} slices, all that "
                    f"model.max_slices ({config.model.max_slices}) asks for; raise --model.max_slices to continue"
                )

        if find_rank(os.environ)[0] == 0:
            prepare_folder(out, make=not self.dry)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ModuleNotFoundError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            # Such as the package of a logger.
            raise UserError(f"a class named in the recipe needs what is not installed: {cause}") from None
        self.model.recipe = self.recipe
        data: SliceDataModule = self.datamodule
        if self.resumption is not None:
            self.resumption.require_data(data.metadata, data.path)
            self.model.stages = self.resumption.stages(self.recipe)
        n_slices = data.n_training
        # The data module would say so too, but in each process.
        if data.batch_size * self.n_processes > n_slices:
            raise UserError(
                f"data.batch_size: {data.batch_size} in each of {self.n_processes} processes is more than the "
                f"{n_slices} training slices of {data.path}; lower it, or train on more realisations"
            )
        # Not before: another recipe, or other data, than those of the run must be said here too.
        if self.resumption is not None and self.resumption.n_slices_seen >= self.model.max_slices:
            raise _Complete(Path(self.config.out), self.resumption.n_slices_seen, self.model.max_slices)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer, out = self.config_init.trainer, self.config.out
        trainer.default_root_dir = out
        seen = self.resumption.n_slices_seen if self.resumption else 0
        trainer.logger = run_loggers(out, trainer.logger, n_slices_seen=seen)
        # `save_last` of Lightning follows the best ones and would leave out passes without a record.
        common: dict[str, Any] = {"dirpath": out, "save_on_train_epoch_end": False, "enable_version_counter": False}
        kept = [
            BestCheckpoints(out, name="best"),
            BestCheckpoints(Path(out) / "checkpoints", keep=self.config_init.validation.keep),
            ModelCheckpoint(filename="last", **common),
        ]
        self.interruption = Interruption()
        try:
            self._distribute(trainer)
            named = trainer.callbacks or []
            named = named if isinstance(named, list) else [named]
            require_callbacks(named)
            callbacks = [*named, Announcement(), SliceProgress(), *kept]
            return super().instantiate_trainer(**kwargs, callbacks=[*callbacks, self.interruption])
        except (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"trainer: {plain_message(str(error))} (see --trainer.accelerator, .devices, .num_nodes, .strategy)"
            ) from None

    def _distribute(self, trainer: Namespace) -> None:
        """Find out how many processes there will be, and how they work together."""
        plugins = trainer.plugins or []
        # `Interruption` puts jobs back into the queue.
        slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
        trainer.plugins = [*(plugins if isinstance(plugins, list) else [plugins]), *slurm, CheckpointFile()]
        trial = L.Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            num_nodes=trainer.num_nodes,
            plugins=list(slurm),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        self.n_processes = trial.num_devices * trial.num_nodes
        if self.n_processes == 1:
            return
        if trainer.strategy in ("auto", "ddp"):
            # Each loss of a GAN leaves the parameters of the other network without a gradient.
            trainer.strategy = "ddp_find_unused_parameters_true"
        if isinstance(trial.accelerator, CUDAAccelerator):
            trainer.sync_batchnorm = True
        elif any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            print(
                "cosmogan fit: batch normalisation takes its means in each process; torch shares them on CUDA only",
                file=sys.stderr,
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
    package = Path(__file__).parents[1]
    # In a wheel the recipes lie inside the package, in a checkout beside it.
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    shipped = sorted(p.relative_to(f).with_suffix("").as_posix() for f in folders for p in f.glob("*/*.yaml"))
    raise UserError(f"--config {name}: no such file or recipe; shipped recipes: {', '.join(shipped)}")


def _find_recipes(word: str, before: str) -> str:
    if before in ("--config", "-c"):
        return str(_readable(find_recipe(word)))
    if word.startswith("--config="):
        return f"--config={_readable(find_recipe(word.removeprefix('--config=')))}"
    return word


def _readable(recipe: Path) -> Path:
    """Return the file if it is YAML that can be a recipe; the parser does not say which file is not."""
    read_settings(recipe, expected="settings such as data, model and trainer")
    return recipe


def _precision_error(found: object) -> str:
    return (
        f"trainer.precision: expected 32-true or bf16-mixed, found {found}; penalties overflow in float16, and "
        "weights, densities and statistics need float32"
    )


def _with_values(words: list[str]) -> list[str]:
    """Return the words with flags as the parser knows them: ``--dry-run`` is ``--dry_run=true``."""
    plain = []
    for word, behind in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in _FLAGS:
            name = name.replace("-", "_").replace("__", "--", 1)
            equals, value = ("=", "true") if not equals and behind not in ("true", "false") else (equals, value)
        plain.append(name + equals + value)
        setting = name.lstrip("-").partition(".")[0] in _SECTIONS and name not in _TEXTS
        if setting and (problem := ambiguity(value if equals else behind)):
            raise UserError(f"{name}: {problem}")
    return plain


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
