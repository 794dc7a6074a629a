"""The command line: `entropy-mask COMMAND`, the same as `python -m entropy_mask_plugin.cli COMMAND`.

A command is a module of this folder, named like it with underscores. Its docstring is the description in --help, with
%(prog)s for how it was called, and the first line of it stands in the list of commands. It defines

    add_arguments(parser)    its flags; imports the standard library alone, so that --help is quick (build-entropy-cache
                             does not: its flags are derived from the task's)
    run(args)                the work; returns what sys.exit takes

and may have an EPILOG for --help and a USAGE line.
"""

import argparse
import difflib
import importlib
import logging
import os
import sys
from typing import NamedTuple, Optional, Sequence, Tuple, Union

from ..system.command_line import refuse_empty_values, report_mistakes_in_one_line, writing_to_standard_output

ExitStatus = Union[int, str, None]  # what sys.exit takes: None is success, a string is printed as an error


class Command(NamedTuple):
    """What has to be there before `run` is called.

    fairseq: the plug-in is registered with it.
    extras: optional requirements, names of `system.extras`.
    extra_args: words after -- are no flags of the command; `run` finds them in args.extra_args.
    """

    fairseq: bool = False
    extras: Tuple[str, ...] = ()
    extra_args: bool = False


COMMANDS = {
    "prepare-corpus": Command(),
    "build-entropy-cache": Command(fairseq=True),
    "glue": Command(fairseq=True, extras=("glue", "report"), extra_args=True),
    "glue-table": Command(fairseq=True, extras=("glue", "report")),
    "minimal-pairs": Command(fairseq=True, extras=("report",)),
    "pseudo-perplexity": Command(fairseq=True, extras=("report",)),
    "cross": Command(fairseq=True, extras=("report",)),
    "studies": Command(fairseq=True, extras=("glue", "report"), extra_args=True),
    "compare-runs": Command(fairseq=True, extras=("report",)),
    "diff": Command(fairseq=True, extras=("report",)),
    "atlas": Command(fairseq=True, extras=("report",)),
    "flops": Command(fairseq=True, extras=("report",)),
    "benchmark": Command(extras=("report",)),  # registers itself, for its stages are processes of their own
    "mixer-scaling": Command(fairseq=True, extras=("report",)),
    "import-hf-bert": Command(fairseq=True),
    "export-hf-bert": Command(fairseq=True),
    "make-docstring-tasks": Command(fairseq=True, extras=("glue",)),  # whose docstrings it needs
    "weight-drift": Command(fairseq=True, extras=("report",)),
    "doctor": Command(),
    "policies": Command(fairseq=True),
}


SCRIPTS = {"reproduce": "studies", "finetune-glue": "glue"}  # whose names in scripts/ are others


@writing_to_standard_output()
def main(arguments: Optional[Sequence[str]] = None, prog: str = "entropy-mask") -> ExitStatus:
    """Run the command that the first argument names. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(list_of_commands(prog))
        return 0
    if arguments[0] == "--version":
        from .. import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        nearest = [SCRIPTS.get(match, match) for match in difflib.get_close_matches(
            name.replace("_", "-"), (*COMMANDS, *SCRIPTS), n=1)]
        guess = f"did you mean {nearest[0]}?" if nearest else "see the list above"
        print(f"{list_of_commands(prog)}\n\nerror: unknown command {name}, {guess}", file=sys.stderr)
        return 2
    return run_command(name, rest, f"{prog} {name}")


def list_of_commands(prog: str) -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{module_of(name).__doc__.splitlines()[0]}" for name in COMMANDS]
    return "\n".join([f"usage: {prog} COMMAND [arguments], {prog} COMMAND --help", "", "commands:", *lines])


@writing_to_standard_output()
def run_command(name: str, arguments: Optional[Sequence[str]] = None, prog: str = "entropy-mask") -> ExitStatus:
    """Run one command. `prog` is how --help says that it was called. Returns the exit status."""
    args = parse(name, sys.argv[1:] if arguments is None else arguments, prog)
    prepare_process(COMMANDS[name])
    return module_of(name).run(args)


def parse(name: str, arguments: Sequence[str], prog: str = "entropy-mask") -> argparse.Namespace:
    """The flags of a command. An unknown one and --help end the process, as argparse does."""
    extra_args = ()
    if COMMANDS[name].extra_args and "--" in arguments:
        at = arguments.index("--")
        arguments, extra_args = arguments[:at], tuple(arguments[at + 1 :])
    parser = make_parser(name, arguments, prog)
    args = parser.parse_args(arguments)
    refuse_empty_values(parser, args)
    vars(args).pop("user_dir", None)
    if COMMANDS[name].extra_args:
        args.extra_args = extra_args
    return args


def make_parser(name: str, arguments: Sequence[str] = (), prog: str = "entropy-mask") -> argparse.ArgumentParser:
    """The parser of a command's flags. arguments: those that will be parsed, for the effect of --user-dir."""
    module = module_of(name)
    parser = argparse.ArgumentParser(prog=prog, usage=getattr(module, "USAGE", None), description=module.__doc__,
                                     epilog=getattr(module, "EPILOG", None),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    report_mistakes_in_one_line(parser)
    if COMMANDS[name].fairseq:
        add_user_dir(parser, arguments)
    module.add_arguments(parser)
    return parser


def add_user_dir(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """The flag, and the effect of it: parts that the package registers may be flags of the command."""
    from ..system.extensions import USER_DIR

    parser.add_argument("--user-dir", metavar="DIR", help="a package of your own that registers parts, such as "
                                                          "a strategy or a GLUE-like task")
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--user-dir")
    folder = early.parse_known_args(arguments)[0].user_dir
    if folder is not None:
        os.environ[USER_DIR] = os.path.abspath(folder)
        prepare_process(Command(fairseq=True))


def module_of(name: str):
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def prepare_process(command: Command) -> None:
    """Logging, errors, optional requirements and the plug-in, after the flags: some of these imports take seconds."""
    logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
    from ..system.errors import show_usage_errors_as_one_line
    from ..system.extras import require_extras
    from ..system.processes import python_path

    show_usage_errors_as_one_line()
    require_extras(*command.extras)
    os.environ["PYTHONPATH"] = python_path()
    if command.fairseq:
        from .. import register

        register()
