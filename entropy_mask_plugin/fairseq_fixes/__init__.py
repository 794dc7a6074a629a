"""Every place where the plug-in changes something of fairseq itself, and why. Nothing else in the package does.

registry            names that fairseq holds already
checkpoint_files    what checkpoints hold, how they are written, what is checked before a run continues from one
clock               training time
ranks               several processes of one training
background_reader   the thread that reads batches ahead
training_step       what an update does beside the update
late_norm           are the gradients finite? asked for an update later
late_log            numbers stay on the device until the log is read
"""

import importlib.metadata

from ..system.errors import UsageError
from . import background_reader, checkpoint_files, clock, late_log, late_norm, ranks, registry, training_step

RELEASE = "0.12.3.1"  # of fairseq-fixed: the one whose internals the patches below were written for

# Each docstring says which behaviour of fairseq it changes, and why. The last three patch the same loop, in this order.
PATCHES = (
    checkpoint_files.allow_harmless_classes_in_checkpoints,
    checkpoint_files.copy_checkpoints_atomically,
    checkpoint_files.say_that_a_checkpoint_cannot_be_written,
    checkpoint_files.remember_patience,
    ranks.detect_torchrun,
    ranks.wrap_cpu_models_without_device_ids,
    ranks.send_objects_between_ranks,
    ranks.leave_process_groups_before_python_ends,
    background_reader.stop_reading_ahead_before_python_ends,
    checkpoint_files.validate_before_training,
    clock.tell_schedulers_the_time,
    registry.silence_warnings_of_fairseqs_own_calls,
    training_step.apply,
    late_norm.apply,
    late_log.apply,
)


def apply_fairseq_fixes() -> None:
    """Apply all PATCHES. (`models` asks for `registry.make_room_for_bert_base` itself, before its archs.)

    Raises:
        UsageError: another release of fairseq is installed.
    """
    refuse_another_fairseq()
    for patch in PATCHES:
        patch()


def refuse_another_fairseq() -> None:
    """The patches replace private names, which another release may use for something else."""
    try:
        release = importlib.metadata.version("fairseq-fixed")
    except importlib.metadata.PackageNotFoundError:
        release = None
    if release != RELEASE:
        installed = f"fairseq-fixed {release}" if release else "a fairseq that is not fairseq-fixed"
        raise UsageError(f"fairseq: {installed} is installed, expected fairseq-fixed {RELEASE}, whose internals this "
                         "plug-in patches; run scripts/install.sh")
