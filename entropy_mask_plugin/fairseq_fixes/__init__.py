"""All patches of fairseq, with their reasons; no other part of the package patches it.

registry            arch names that fairseq already uses, warnings about fairseq's own calls
checkpoint_files    content and writing of checkpoints, checks before a run resumes
save_dir            one run at a time
command_line        a bad flag is one line
refusals            what fairseq refuses by itself is one line
clock               training time
ranks               distributed training
ranges              fairseq's own numbers
background_reader   the thread that prefetches batches
data_files          data that cannot be opened
training_step       overhead of an update
average             the moving average of the weights
late_norm           gradients are checked for nan and inf one update later
yaml_numbers        ramps that hydra reads as numbers are refused
late_log            numbers stay on the device until the log is read
meters              their memory
tracking            TensorBoard and W&B
"""

import sys

from ..system.errors import UsageError
from ..system.supported import FAIRSEQ, installed_fairseq, python_problem
from . import (
    average,
    background_reader,
    checkpoint_files,
    clock,
    command_line,
    data_files,
    late_log,
    late_norm,
    meters,
    ranges,
    ranks,
    refusals,
    registry,
    save_dir,
    tracking,
    training_step,
)

# Each docstring says which behaviour of fairseq it changes, and why. The order of the last three, which patch one loop,
# matters.
PATCHES = (
    checkpoint_files.allow_harmless_classes_in_checkpoints,
    checkpoint_files.write_checkpoints_atomically,
    checkpoint_files.name_unreadable_checkpoints,
    checkpoint_files.save_plain_numbers,
    checkpoint_files.save_patience,
    checkpoint_files.save_learned_state,
    checkpoint_files.save_no_crash_file_after_a_usage_error,
    checkpoint_files.announce_checkpoints,
    checkpoint_files.begin_average_with_restored_weights,
    ranks.detect_torchrun,
    ranks.wrap_cpu_models_without_device_ids,
    ranks.broadcast_objects_with_torch,
    ranks.destroy_process_groups_at_exit,
    background_reader.stop_prefetching_at_exit,
    meters.forget_names_out_of_use,
    data_files.close_what_was_opened,
    data_files.name_what_cannot_be_read,
    checkpoint_files.validate_before_training,
    save_dir.report_unusable_save_dir,
    command_line.report_bad_flags_in_one_line,
    command_line.report_bad_settings_in_one_line,
    command_line.drop_log_lines_that_cannot_be_written,
    refusals.report_refusals_in_one_line,
    refusals.name_flags_of_parts,
    ranges.check_numbers_before_training,
    save_dir.refuse_second_run,
    tracking.continue_curves_over_resumes,
    clock.pass_training_time_to_schedulers,
    registry.silence_warnings_of_fairseq,
    average.update_average_at_once,
    training_step.trim_training_step,
    late_norm.check_gradients_late,
    late_log.read_numbers_late,
)


def apply_fairseq_fixes() -> None:
    """Apply all PATCHES. (`models` calls `registry.make_room_for_bert_base` itself, before it registers its archs.)

    Raises:
        UsageError: this Python, or this release of fairseq, is not supported.
    """
    refuse_another_python()
    refuse_another_fairseq()
    for patch in PATCHES:
        patch()


def refuse_another_python() -> None:
    """A checkout also runs in a Python that pip would have refused."""
    problem = python_problem(sys.version_info[:2])
    if problem:
        raise UsageError(problem)


def refuse_another_fairseq() -> None:
    """The patches replace private names, which another release may use differently."""
    name, release = installed_fairseq()
    if release != FAIRSEQ[name]:
        installed = f"{name} {release}" if release else f"a fairseq that is neither {' nor '.join(FAIRSEQ)}"
        expected = " or ".join(f"{name} {release}" for name, release in FAIRSEQ.items())
        raise UsageError(f"fairseq: {installed} is installed, expected {expected}, whose internals this plug-in "
                         "patches; run scripts/install.sh")
