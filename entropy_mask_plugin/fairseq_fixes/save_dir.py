"""--save-dir belongs to one run at a time."""

from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils

from ..system.atomic_files import remove_leftovers
from ..system.errors import UsageError
from ..system.locks import lock_while_alive


def report_unusable_save_dir() -> None:
    """Where --save-dir is a file or cannot be written, fairseq ends in a traceback."""
    fairseq_verify = checkpoint_utils.verify_checkpoint_directory

    def verify_checkpoint_directory(save_dir):
        try:
            fairseq_verify(save_dir)
        except OSError as error:
            raise UsageError(f"--save-dir: {save_dir} ({error.strerror}), expected a folder that can be written, or a "
                             "name for a new one") from error

    checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory


def refuse_second_run() -> None:
    """Two runs with one --save-dir overwrite each other's checkpoints, and each resumes from the other's. The lock is
    held while the trainer exists; what a killed run was writing is removed."""
    fairseq_load = checkpoint_utils.load_checkpoint

    def load_checkpoint(cfg, trainer, **kwargs):
        if not cfg.no_save and distributed_utils.is_master(trainer.cfg.distributed_training):
            trainer.save_dir_lock = lock_while_alive(cfg.save_dir, "--save-dir")
            remove_leftovers(cfg.save_dir)
        return fairseq_load(cfg, trainer, **kwargs)

    checkpoint_utils.load_checkpoint = load_checkpoint
