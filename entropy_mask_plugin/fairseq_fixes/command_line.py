"""A flag of the wrong type or out of its range, or an unknown one, ends fairseq-train in one line, and a setting of the
wrong type fairseq-hydra-train."""

import logging
from typing import Any

from fairseq import options
from fairseq.dataclass import utils
from omegaconf.errors import OmegaConfBaseException

from ..system.command_line import escape_missing_letters, refuse_empty_values, report_mistakes_in_one_line
from ..system.errors import UsageError
from .ranges import check_numbers


def report_bad_flags_in_one_line() -> None:
    """argparse would print the usage of all of fairseq's flags before its message, and values out of their range end in
    tracebacks, some of them after an epoch, or in weights that are nan. fairseq-train imports this plug-in when it
    makes its parser, before it calls the function that is replaced here."""
    fairseq_parse = options.parse_args_and_arch

    def parse_args_and_arch(parser: Any, input_args: Any = None, *arguments: Any, **named: Any) -> Any:
        report_mistakes_in_one_line(parser)
        try:
            values = fairseq_parse(parser, input_args, *arguments, **named)
        except RuntimeError as error:
            if str(error):
                raise
            parser.error("--arch: none found, expected one, such as bertlet")  # fairseq raises it without a word
        given = values[0] if isinstance(values, tuple) else values
        if input_args is None:  # those of the command line
            refuse_empty_values(parser, given)
        check_numbers(vars(given))
        return values

    options.parse_args_and_arch = parse_args_and_arch


def drop_log_lines_that_cannot_be_written() -> None:
    """fairseq logs to the standard output. Where its reader has gone (`… | head`), logging prints a traceback for each
    line, while the training goes on."""
    logging.raiseExceptions = False
    escape_missing_letters()


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
