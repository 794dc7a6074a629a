"""`--lr-scheduler budget_linear`: the learning rate follows the elapsed fraction of a time budget.

The budget is fairseq's --stop-time-hours, measured by the training time that fairseq keeps in checkpoints and stops by.
It covers training and validation, not the start-up (reading data, building an entropy cache). A resumed run continues
the count; a run that starts from another's weights starts at zero.
"""

import math
from dataclasses import dataclass, field
from typing import Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from ..system.errors import require


@dataclass
class BudgetLinearConfig(FairseqDataclass):
    """The flags of `--lr-scheduler budget_linear`."""

    warmup_share: float = field(
        default=0.05, metadata={"help": "fraction of the budget for the warm-up, in [0, 1)"}
    )
    end_learning_rate: float = field(default=0.0, metadata={"help": "learning rate at the budget's end, 0 or more"})
    stop_time_hours: float = II("optimization.stop_time_hours")
    lr: List[float] = II("optimization.lr")


@register_lr_scheduler("budget_linear", dataclass=BudgetLinearConfig)
class BudgetLinear(FairseqLRScheduler):
    """Linear from 0 to --lr during the warm-up, then linear to --end-learning-rate.

    `fairseq_fixes.clock.pass_training_time_to_schedulers` sets `seconds` before each step.

    Raises:
        UsageError: a flag out of its range, or no budget.
    """

    optimizer: Any
    seconds = 0.0  # of training time, as fairseq counts it: the same on all ranks

    def __init__(self, cfg: BudgetLinearConfig, optimizer: Any):
        super().__init__(cfg, optimizer)
        require("--warmup-share", cfg.warmup_share, 0 <= cfg.warmup_share < 1, "a fraction in [0, 1)")
        require("--lr", ", ".join(map(str, cfg.lr)), len(cfg.lr) == 1, "one number for --lr-scheduler budget_linear")
        require("--lr", cfg.lr[0], 0 <= cfg.lr[0] < math.inf, "0 or more")
        require("--end-learning-rate", cfg.end_learning_rate, 0 <= cfg.end_learning_rate <= cfg.lr[0],
                f"0 to --lr ({cfg.lr[0]})")
        require("--stop-time-hours", cfg.stop_time_hours, 0 < cfg.stop_time_hours < math.inf,
                "the budget of --lr-scheduler budget_linear, above 0")
        self.step_update(0)

    def step_update(self, num_updates: Optional[int]) -> float:
        """Set and return the learning rate. num_updates: unused."""
        elapsed = self.seconds / (3600 * self.cfg.stop_time_hours)
        rate = learning_rate(elapsed, self.cfg.lr[0], self.cfg.warmup_share, self.cfg.end_learning_rate)
        self.optimizer.set_lr(rate)
        return self.optimizer.get_lr()


def learning_rate(elapsed: float, peak: float, warmup: float, end: float) -> float:
    """The learning rate at an elapsed fraction of the budget.

    Args:
        elapsed: 0 = at the start, 1 or more = at the end.
        peak: the rate after the warm-up.
        warmup: fraction of the budget, in [0, 1).
        end: the rate at the end.
    """
    if elapsed < warmup:
        return peak * elapsed / warmup
    remaining = max(0.0, 1 - elapsed) / (1 - warmup)
    return end + (peak - end) * remaining
