"""The ranges of fairseq's own numbers. It checks few of them: a run would divide by zero, find no batch, or follow
another schedule than the one that was meant."""

from collections.abc import Mapping, Sequence
from typing import Any, List, Optional

from fairseq.trainer import Trainer

from ..system.errors import require
from ..training.fused_adamw import betas_of

LARGEST = 1 << 62
AT_LEAST_0 = (0, LARGEST, "0 or more")
AT_LEAST_1 = (1, LARGEST, "1 or more")
FINITE = (0, 1e30, "a finite number, 0 or more")
RANGES = {  # setting: lowest, highest, in words; of a list, each number
    "seed": (0, (1 << 32) - 1, "0 to 4,294,967,295"),
    **dict.fromkeys(("batch_size", "batch_size_valid", "max_tokens", "max_tokens_valid", "update_freq", "log_interval",
                     "validate_interval", "save_interval", "required_batch_size_multiple", "distributed_world_size",
                     "total_num_update"), AT_LEAST_1),
    **dict.fromkeys(("num_workers", "data_buffer_size", "max_update", "max_epoch", "warmup_updates",
                     "save_interval_updates", "validate_interval_updates", "validate_after_updates"), AT_LEAST_0),
    **dict.fromkeys(("lr", "clip_norm", "weight_decay", "stop_time_hours"), FINITE),
    "ema_decay": (0, 1, "a number in [0, 1]"),
}


def check_numbers_before_training() -> None:
    """fairseq-train's are checked as soon as they are parsed; those of fairseq-hydra-train, here."""
    fairseq_init = Trainer.__init__

    def __init__(self, cfg, *arguments, **named):
        for section in cfg.values():
            if isinstance(section, Mapping):
                check_numbers(section)
        fairseq_init(self, cfg, *arguments, **named)

    Trainer.__init__ = __init__


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Raise a UsageError that names the first number that is out of its range. settings: {name: value}."""
    for name, (lowest, highest, expected) in RANGES.items():
        numbers = numbers_of(settings.get(name))
        if numbers is not None:
            shown = ",".join(map(str, numbers)) or "no number"
            fine = numbers and all(lowest <= number <= highest for number in numbers)
            require("--" + name.replace("_", "-"), shown, fine, expected)
    if settings.get("adam_betas") is not None:
        betas_of(settings["adam_betas"])  # fairseq's Adam evaluates the text, whatever it is


def numbers_of(value: Any) -> Optional[List[float]]:
    """Of a list or of one number, which argparse leaves as text where the default is another setting; None: unset, or
    such a default, "${…}"."""
    if isinstance(value, str):
        try:
            return [float(value)]
        except ValueError:
            return None
    return value if value is None else list(value) if isinstance(value, Sequence) else [value]
