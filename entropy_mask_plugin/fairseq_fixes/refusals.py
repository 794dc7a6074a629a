"""What fairseq refuses by itself ends in one line: it raises plain exceptions, which end in tracebacks."""

import dis
import os
import sys
import traceback
from types import TracebackType
from typing import Any, Optional

import fairseq
import hydra._internal.utils as hydra_utils
import torch
from fairseq import optim
from fairseq.optim import lr_scheduler
from hydra.errors import CompactHydraException, ConfigCompositionException
from omegaconf.errors import MissingMandatoryValue, ValidationError

from ..system.errors import UsageError, message_of
from ..system.text import one_line

FOLDERS = tuple(
    os.path.join(os.path.dirname(os.path.dirname(fairseq.__file__)), name, "") for name in ("fairseq", "fairseq_cli")
)


def report_refusals_in_one_line() -> None:
    """fairseq checks its own flags by assertions and plain exceptions; hydra prints those that are not its own."""
    show_other = sys.excepthook

    def show(kind: Any, error: Any, where: Any) -> None:
        reason = refusal(error)
        if reason is None:
            show_other(kind, error, where)
        else:
            print(f"error: {message_of(UsageError(reason))}", file=sys.stderr)

    sys.excepthook = show
    hydra_utils.CompactHydraException = Compact  # pyright: ignore


class CompactOrRefusal(type):
    """For isinstance: hydra's compact exceptions, and whatever fairseq refuses."""

    def __instancecheck__(cls, error: Any) -> bool:
        return isinstance(error, CompactHydraException) or refusal(error) is not None


class Compact(CompactHydraException, metaclass=CompactOrRefusal):
    """Stands in for CompactHydraException where hydra decides whether the user sees a traceback."""


def refusal(error: BaseException) -> Optional[str]:
    """What fairseq, or hydra for it, refuses; None for anything else, of which the traceback is worth reading."""
    if isinstance(error, UsageError) or not isinstance(error, Exception):
        return None
    if isinstance(error, ConfigCompositionException):  # Error merging override lr_scheduler.total_num_update=null
        setting, _, value = str(error).rpartition(" ")[2].partition("=")
        flag = "--" + setting.rpartition(".")[2].replace("_", "-")
        return f"{flag}: {value} found, expected another value ({one_line(str(error.__cause__))})"
    if isinstance(error, (MissingMandatoryValue, ValidationError)):
        return f"{error.full_key}: {one_line(str(error).splitlines()[0])}"
    return reason_of(error) if is_raised_by_fairseq(error.__traceback__) else None


def is_raised_by_fairseq(where: Optional[TracebackType]) -> bool:
    """Whether its innermost frame is a `raise` or an `assert` of fairseq's: then it is a check. An accident comes from
    what such a line calls or computes."""
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    if where is None:
        return False
    code = where.tb_frame.f_code
    if code.co_filename.endswith(".pyx"):  # compiled, without instructions of Python's; named from fairseq's folder
        return code.co_filename.startswith("fairseq/")
    return code.co_filename.startswith(FOLDERS) and code.co_code[where.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def reason_of(error: BaseException) -> str:
    """Its message; without one, its type and the line that raised it, such as an assertion."""
    if str(error):
        return one_line(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {one_line(frames[-1].line or '')}" if frames else type(error).__name__


def name_flags_of_parts() -> None:
    """An optimizer or a scheduler that cannot be built from its flags: fairseq divides by them, evaluates them, …"""
    optim.build_optimizer = naming_flag("--optimizer", optim.build_optimizer)
    lr_scheduler.build_lr_scheduler = naming_flag("--lr-scheduler", lr_scheduler.build_lr_scheduler)


def naming_flag(flag: str, fairseq_build: Any) -> Any:
    """fairseq's function, whose exceptions name the flag and its value."""

    def build(cfg: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return fairseq_build(cfg, *arguments, **named)
        except (UsageError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a text that is evaluated can raise anything
            name = getattr(cfg, "_name", cfg)
            raise UsageError(f"{flag}: {name} cannot be built from its flags ({reason_of(error)})") from error

    return build
