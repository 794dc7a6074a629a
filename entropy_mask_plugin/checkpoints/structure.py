"""Is a file built like a checkpoint of fairseq's? What is read here once may be used everywhere without being doubted:
a setting of another type, or a tensor that is larger than the file, would otherwise end in a traceback far away."""

import argparse
import dataclasses
import typing
from typing import Any, Dict

from fairseq.dataclass.configs import OptimizationConfig
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from torch import Tensor

from ..system.errors import UsageError, require
from ..system.finite import is_in_memory

COUNTERS = ("epoch", "iterations_in_epoch")  # of the training's iterator
UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# ^ what fairseq and torch raise where a state is not what they expect
STAND_FOR = {float: (int,), str: (int, float)}
CHECKED = (bool, int, float, str)  # types of settings


def check_structure(state: Any, path: str, flag: str) -> None:
    """Raise a UsageError unless the parts of a checkpoint have the types that fairseq gives them.

    Args:
        state: what the file holds.
        path: the file.
        flag: the command-line flag that names it, for messages.
    """
    is_fairseq = isinstance(state, dict) and "model" in state and (
        isinstance(state.get("cfg"), dict) or state.get("args") is not None)
    if not is_fairseq:
        raise UsageError(f"{flag}: {path} is not a fairseq checkpoint, expected a dict with 'model' and 'cfg'")
    origin = f"{path}, which is damaged:"
    check_weights(state["model"], origin, flag)
    require(flag, f"{origin} 'args' {shown(state.get('args'))}",
            isinstance(state.get("args"), (argparse.Namespace, type(None))), "none, or a Namespace")
    check_settings(state.get("cfg") or {}, origin, flag)
    check_progress(state, origin, flag)


def check_weights(weights: Any, origin: str, flag: str) -> None:
    """The weights are ordinary tensors in memory, none of them larger than its part of the file."""
    require(flag, f"{origin} weights {shown(weights)}", isinstance(weights, dict) and weights, "{name: tensor}")
    for name, tensor in weights.items():
        fine = isinstance(name, str) and isinstance(tensor, Tensor) and is_plain(tensor)
        require(flag, f"{origin} weight {shown(name)}, {shown(tensor)},", fine, "a dense tensor, all of it in the file")


def is_plain(tensor: Tensor) -> bool:
    """Whether it is dense, not quantized, and each of its values is in memory once."""
    return is_in_memory(tensor) and tensor.device.type == "cpu" and not (tensor.is_quantized or tensor.is_complex())


def check_settings(cfg: Dict[str, Any], origin: str, flag: str) -> None:
    """Each section is a dict (a Namespace in old checkpoints), with the types of fairseq's dataclass for its name."""
    for section, values in cfg.items():
        fine = isinstance(section, str) and isinstance(values, (dict, argparse.Namespace, type(None)))
        require(flag, f"{origin} settings {shown(section)} {shown(values)}", fine, "a dict of settings")
        if isinstance(values, dict):
            fine = all(isinstance(name, str) for name in values)
            require(flag, f"{origin} names of settings in {section}", fine, "text")
            check_types(values, section, origin, flag)


def check_types(values: Dict[str, Any], section: str, origin: str, flag: str) -> None:
    """The settings of a section have the types of its dataclass, where one is registered."""
    name = values.get("_name")
    require(flag, f"{origin} {section} {shown(name)}", isinstance(name, (str, type(None))), "a name")
    dataclass = dataclasses_of(section).get(name)
    for field in dataclasses.fields(dataclass) if dataclass is not None else ():
        if field.name in values:
            require(flag, f"{origin} {field.name} {shown(values[field.name])}",
                    has_type(values[field.name], field.type, field.default), f"a value like {shown(field.default)}")


def dataclasses_of(section: str) -> Dict[Any, Any]:
    """{name: dataclass} of the settings of a section."""
    return {
        "task": TASK_DATACLASS_REGISTRY, "model": MODEL_DATACLASS_REGISTRY, "optimization": {None: OptimizationConfig},
        "criterion": REGISTRIES["criterion"]["dataclass_registry"],
    }.get(section, {})


def has_type(value: Any, kind: Any, default: Any) -> bool:
    """Whether a setting has one of the plain types of its field; other types are not checked.

    Integers may stand for floats, and numbers for text: --mask-prob was a number once.
    """
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(has_type(each, typing.get_args(kind)[0], default) for each in value)
    kinds = set(typing.get_args(kind)) or {kind}
    if not kinds & set(CHECKED) or not kinds <= {*CHECKED, type(None)}:
        return True
    if value is None:
        return type(None) in kinds or default is None or default is dataclasses.MISSING
    return type(value) in kinds or any(type(value) in others and kind in kinds for kind, others in STAND_FOR.items())


def check_progress(state: Dict[str, Any], origin: str, flag: str) -> None:
    """How far the training was: its iterator, its updates, its vocabulary."""
    for part in ("extra_state", "task_state"):
        require(flag, f"{origin} {part} {shown(state.get(part))}", isinstance(state.get(part), (dict, type(None))),
                "a dict")
    symbols, iterator = ((state.get("extra_state") or {}).get(name) for name in ("vocabulary", "train_iterator"))
    fine = symbols is None or isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
    require(flag, f"{origin} its vocabulary", fine, "a list of symbols")
    fine = iterator is None or isinstance(iterator, dict) and all(is_count(iterator.get(name)) for name in COUNTERS)
    require(flag, f"{origin} train_iterator {shown(iterator)}", fine, f"a dict with {' and '.join(COUNTERS)}")
    history = state.get("optimizer_history", [{}])
    require(flag, f"{origin} optimizer_history {shown(history)}", isinstance(history, list) and history and all(
        isinstance(entry, dict) and is_count(entry.get("num_updates", 0)) for entry in history),
        "a list of dicts with num_updates")


def section_of(state: Dict[str, Any], section: str) -> Dict[str, Any]:
    """The settings of a section of a checkpoint, such as "task"; empty where it has none."""
    values = (state.get("cfg") or {}).get(section) or {}
    return vars(values) if isinstance(values, argparse.Namespace) else values


def is_count(value: Any) -> bool:
    """Whether it counts something."""
    return type(value) is int and 0 <= value < 1 << 62


def shown(value: Any) -> str:
    """A value in a message: of a tensor or a container, what it is."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.60}" if isinstance(value, (str, int, float, bytes, type(None))) else f"a {type(value).__name__}"
