"""A flag of the wrong type or out of its range, or an unknown one, ends fairseq-train in one line, and a setting of the
wrong type fairseq-hydra-train."""

import math
from argparse import Namespace
from typing import Any

from fairseq import options
from fairseq.dataclass import utils
from omegaconf.errors import OmegaConfBaseException

from ..system.command_line import report_mistakes_in_one_line
from ..system.errors import UsageError, require

RANGES = {  # fairseq's own flags: lowest and highest value, what is expected
    **dict.fromkeys(("log_interval", "max_tokens", "required_batch_size_multiple", "save_interval", "update_freq",
                     "validate_interval"), (1, math.inf, "1 or more")),
    "num_workers": (0, math.inf, "0 or more"),
    "seed": (0, 2**32 - 1, "0 to 4,294,967,295"),
    "clip_norm": (0, math.inf, "0 (gradients are not clipped) or more"),
    "ema_decay": (0, 1, "a number from 0 to 1"),
}


def report_bad_flags_in_one_line() -> None:
    """argparse would print the usage of all of fairseq's flags before its message, and values out of their range end in
    tracebacks, some of them after an epoch, or in weights that are nan. fairseq-train imports this plug-in when it
    makes its parser, before it calls the function that is replaced here."""
    fairseq_parse = options.parse_args_and_arch

    def parse_args_and_arch(parser: Any, *arguments: Any, **named: Any) -> Any:
        report_mistakes_in_one_line(parser)
        parsed = fairseq_parse(parser, *arguments, **named)
        if isinstance(parsed, Namespace):  # with parse_known=True, a tuple
            refuse_values_out_of_range(parsed)
        return parsed

    options.parse_args_and_arch = parse_args_and_arch


def refuse_values_out_of_range(args: Namespace) -> None:
    """Raise a UsageError that names the first flag outside its range in RANGES. args: of fairseq's parser, in which
    some of them may be missing."""
    for name, (lowest, highest, expected) in RANGES.items():
        values = getattr(args, name, None)
        for value in values if isinstance(values, list) else [values]:
            require(f"--{name.replace('_', '-')}", value, value is None or lowest <= value <= highest, expected)


def report_bad_settings_in_one_line() -> None:
    """The settings of a task, a model, … are checked where fairseq merges them with its dataclasses. A setting that
    does not fit would end fairseq-hydra-train in a traceback."""
    fairseq_merge = utils.merge_with_parent

    def merge_with_parent(*arguments: Any, **named: Any) -> Any:
        try:
            return fairseq_merge(*arguments, **named)
        except OmegaConfBaseException as error:
            raise UsageError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error

    utils.merge_with_parent = merge_with_parent
