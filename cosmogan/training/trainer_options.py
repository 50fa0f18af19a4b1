"""Which options of Lightning's Trainer a run honours, and what to use instead of the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)

from cosmogan.errors import UserError

# What a run of `cosmogan fit` has where Lightning has something else.
DEFAULTS: dict[str, Any] = {
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
HONOURED = frozenset(
    {
        "accelerator",
        "benchmark",
        "callbacks",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_autolog_hparams",
        "enable_model_summary",
        "inference_mode",
        "log_every_n_steps",
        "logger",
        "max_epochs",
        "max_time",
        "num_nodes",
        "plugins",
        "precision",
        "profiler",
        "strategy",
        "sync_batchnorm",
    }
)
_LENGTH = "a run is as long as --model.max_slices says"
_PASSES = "validation comes after every --data.slices_per_epoch slices"
_PARTS = "the split of the data is set by --data.n_validation and --data.n_test"
_OWN_LOADER = "slices are drawn by their number, the same ones for any number of processes"
INSTEAD: Mapping[str, str] = {
    "accumulate_grad_batches": "a step is computed in parts by --model.n_microbatches",
    "barebones": "a run cannot do without its checkpoints and scores; --dry-run measures its speed",
    "check_val_every_n_epoch": _PASSES,
    "default_root_dir": "the run folder is --out",
    "enable_checkpointing": "checkpoints are always written; --validation.keep says how many of the best ones stay",
    "enable_progress_bar": "progress is shown in slices already",
    "fast_dev_run": "--dry-run takes a step of each kind and writes nothing",
    "gradient_clip_algorithm": "gradients are clipped by their norm, with --model.max_gradient_norm",
    "gradient_clip_val": "gradients are clipped by --model.max_gradient_norm",
    "limit_predict_batches": "mocks are made by `cosmogan generate`, as many as -n says",
    "limit_test_batches": "mocks are tested by `cosmogan validate`",
    "limit_train_batches": _PASSES,
    "limit_val_batches": f"{_PARTS}, and --validation.n_mocks says how many mocks are compared",
    "max_steps": f"{_LENGTH}; a step sees data.batch_size slices in each process",
    "min_epochs": _LENGTH,
    "min_steps": _LENGTH,
    "model_registry": "checkpoints lie in --out",
    "num_sanity_val_steps": "--dry-run tries a validation before anything is trained",
    "overfit_batches": _PARTS,
    "reload_dataloaders_every_n_epochs": _OWN_LOADER,
    "use_distributed_sampler": _OWN_LOADER,
    "val_check_interval": _PASSES,
}
# Callbacks of Lightning that need the one optimiser that a GAN does not have, and what does the same here.
_CALLBACKS: tuple[tuple[type[Callback], str], ...] = (
    (WeightAveraging, "the generator's weights are averaged already, with --model.average_halflife"),
    (StochasticWeightAveraging, "the generator's weights are averaged already, with --model.average_halflife"),
    (GradientAccumulationScheduler, INSTEAD["accumulate_grad_batches"]),
    (LearningRateFinder, "rates are --model.generator_lr and --model.critic_lr"),
    (BatchSizeFinder, "--dry-run says how much memory a --data.batch_size needs"),
)


def require_honoured(options: Mapping[str, Any]) -> None:
    """Refuse options of the trainer that would not do what their name says.

    Parameters
    ----------
    options
        All options of ``lightning.Trainer`` by name; values that are the defaults of a run are no wish.

    Raises
    ------
    UserError
        If one is not honoured, with what to use instead.
    """
    defaults = {name: value.default for name, value in inspect.signature(L.Trainer).parameters.items()} | DEFAULTS
    for name, instead in INSTEAD.items():
        if name in options and options[name] != defaults[name]:
            raise UserError(f"trainer.{name}: is not an option of this command; {instead}")
    if options.get("max_epochs") == 0:
        raise UserError(
            "trainer.max_epochs: expected at least 1, or -1 for no limit, found 0; use --dry-run for a trial"
        )


def require_callbacks(callbacks: list[Any]) -> None:
    """Refuse callbacks that cannot work with two optimisers.

    Raises
    ------
    UserError
        If there is one, with what to use instead.
    """
    for callback in callbacks:
        for kind, instead in _CALLBACKS:
            if isinstance(callback, kind):
                raise UserError(f"trainer.callbacks: {type(callback).__name__} is for one optimiser; {instead}")
