"""A flag of the wrong type, or an unknown one, ends fairseq-train in one line."""

from typing import Any

from fairseq import options

from ..system.command_line import report_mistakes_in_one_line


def report_bad_flags_in_one_line() -> None:
    """argparse would print the usage of all of fairseq's flags before its message. fairseq-train imports this plug-in
    when it makes its parser, before it calls the function that is replaced here."""
    fairseq_parse = options.parse_args_and_arch

    def parse_args_and_arch(parser: Any, *arguments: Any, **named: Any) -> Any:
        report_mistakes_in_one_line(parser)
        return fairseq_parse(parser, *arguments, **named)

    options.parse_args_and_arch = parse_args_and_arch
