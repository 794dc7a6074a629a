"""TensorBoard and Weights & Biases: a training that is resumed continues its curves."""

import os
import sys
from dataclasses import dataclass
from typing import Any, Dict, Optional
from uuid import uuid4

from fairseq import checkpoint_utils
from fairseq.logging import progress_bar

from ..system.atomic_files import write_text
from ..system.errors import UsageError
from ..system.extras import install

WANDB_ID = "wandb_run_id.txt"  # in --save-dir


@dataclass(frozen=True)
class Training:
    """What fairseq does not tell its writers. save_dir: identifies the run; restored_update: of the checkpoint that it
    resumes from, 0 for a new run."""

    save_dir: str = ""
    restored_update: int = 0


_training = Training()  # fairseq's writers and W&B's run belong to the process, too
_wandb_run: Any = None  # where WandbBar has begun one


def continue_curves_over_resumes() -> None:
    """fairseq begins a run of W&B with every process and leaves in TensorBoard what a killed run had written after its
    checkpoint, beside what is computed again. It ignores both flags where their package is missing, and writes a second
    training of a process to the folder of the first."""
    progress_bar.TensorboardProgressBarWrapper = TensorBoardBar
    progress_bar.WandBProgressBarWrapper = WandbBar
    fairseq_load = checkpoint_utils.load_checkpoint

    def load_checkpoint(cfg, trainer, **kwargs):
        refuse_missing_packages(trainer.cfg.common)  # before the training data are read, and scored for a cache
        loaded = fairseq_load(cfg, trainer, **kwargs)
        begin(Training(cfg.save_dir, trainer.get_num_updates()))
        return loaded

    checkpoint_utils.load_checkpoint = load_checkpoint


def refuse_missing_packages(common: Any) -> None:
    """common: fairseq's CommonConfig.

    Raises:
        UsageError: a flag needs a package that is not installed.
    """
    for flag, value, package, imported in (
            ("--tensorboard-logdir", common.tensorboard_logdir, "tensorboard", progress_bar.SummaryWriter),
            ("--wandb-project", common.wandb_project, "wandb", progress_bar.wandb)):
        if value and imported is None:
            raise UsageError(f"{flag}: {package} is not installed, expected {install('tracking')}")


def begin(training: Training) -> None:
    """Close what an earlier training of this process has written to."""
    global _training, _wandb_run
    _training = training
    progress_bar._close_writers()
    progress_bar._tensorboard_writers.clear()
    if _wandb_run is not None:
        _wandb_run.finish()
        _wandb_run = None


class TensorBoardBar(progress_bar.TensorboardProgressBarWrapper):
    """fairseq's, whose readers drop what was written after the checkpoint that the run resumes from."""

    def _writer(self, key: str) -> Any:
        writers = progress_bar._tensorboard_writers
        if key not in writers:
            writers[key] = progress_bar.SummaryWriter(os.path.join(self.tensorboard_logdir, key),
                                                      purge_step=_training.restored_update + 1)
            writers[key].add_text("sys.argv", " ".join(sys.argv))
        return writers[key]


class WandbBar(progress_bar.WandBProgressBarWrapper):
    """fairseq's, with one run of W&B for one --save-dir."""

    def __init__(self, wrapped_bar: Any, wandb_project: str, run_name: Optional[str] = None):
        self.wrapped_bar = wrapped_bar
        if progress_bar.wandb.run is None:  # not another bar's, nor begun by the user's own program
            begin_wandb_run(wandb_project, run_name)

    def update_config(self, config: Dict[str, Any]) -> None:
        """A resumed run may have other flags, such as a later --max-update; W&B would raise an error."""
        progress_bar.wandb.config.update(config, allow_val_change=True)
        self.wrapped_bar.update_config(config)

    def _log_to_wandb(self, stats: Dict[str, Any], tag: Optional[str] = None, step: Optional[int] = None) -> None:
        """W&B keeps what the killed run has logged, and would warn of each number that is computed again."""
        if (stats["num_updates"] if step is None else step) >= progress_bar.wandb.run.starting_step:
            super()._log_to_wandb(stats, tag, step)


def begin_wandb_run(project: str, name: Optional[str]) -> None:
    """Begin the run of --save-dir, or continue it.

    Raises:
        UsageError: W&B refuses, for example without a login.
    """
    global _wandb_run
    wandb = progress_bar.wandb
    name = name or os.path.basename(os.path.normpath(_training.save_dir))  # fairseq's is empty after "runs/a/"
    try:
        _wandb_run = wandb.init(project=project, name=name, id=wandb_run_id(_training), resume="allow")
    except wandb.Error as error:
        raise UsageError(f"--wandb-project: {' '.join(str(error).split())}") from error


def wandb_run_id(training: Training) -> str:
    """The id in the folder of the checkpoints where the run resumes from one, else $WANDB_RUN_ID or a new one. It is
    kept there."""
    file = os.path.join(training.save_dir, WANDB_ID)
    if training.restored_update and os.path.exists(file) and "WANDB_RUN_ID" not in os.environ:
        with open(file, encoding="utf-8") as stream:
            return stream.read().strip()
    run_id = os.environ.get("WANDB_RUN_ID") or uuid4().hex[:8]
    write_text(file, run_id + "\n")
    return run_id
