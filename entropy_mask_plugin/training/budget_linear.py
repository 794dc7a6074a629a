"""`--lr-scheduler budget_linear`: the learning rate follows the share of a time budget that is gone, not the updates.

The budget is fairseq's own --stop-time-hours, and so is the account: the training time that it keeps in checkpoints
and ends the run by. It counts training and validation, not the start-up (reading data, building an entropy cache); a
resumed run goes on where the account stood, one that starts from another's weights begins anew.
"""

from dataclasses import dataclass, field
from typing import List

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from ..system.errors import UsageError, require


@dataclass
class BudgetLinearConfig(FairseqDataclass):
    warmup_share: float = field(
        default=0.05, metadata={"help": "share of the budget in which the learning rate grows, in [0, 1)"}
    )
    end_learning_rate: float = field(default=0.0, metadata={"help": "learning rate when the budget is gone, 0 or more"})
    stop_time_hours: float = II("optimization.stop_time_hours")
    lr: List[float] = II("optimization.lr")


@register_lr_scheduler("budget_linear", dataclass=BudgetLinearConfig)
class BudgetLinear(FairseqLRScheduler):
    """From 0 to --lr in the first share of the time, then down to the end value, both in a straight line.

    `fairseq_fixes.clock.tell_schedulers_the_time` sets `seconds` before each step.
    """

    seconds = 0.0  # of training time, by fairseq's account: the same on all ranks

    def __init__(self, cfg, optimizer):
        """Raises `UsageError` for values out of their range, and where there is no budget."""
        super().__init__(cfg, optimizer)
        require("--warmup-share", cfg.warmup_share, 0 <= cfg.warmup_share < 1, "a share in [0, 1)")
        require("--lr", ", ".join(map(str, cfg.lr)), len(cfg.lr) == 1, "one number for --lr-scheduler budget_linear")
        require("--end-learning-rate", cfg.end_learning_rate, 0 <= cfg.end_learning_rate <= cfg.lr[0],
                f"0 to --lr ({cfg.lr[0]})")
        if cfg.stop_time_hours <= 0:
            raise UsageError("--lr-scheduler budget_linear: expected --stop-time-hours, the budget, above 0")
        self.step_update(0)

    def step_update(self, num_updates):
        """Set and return the learning rate."""
        share = self.seconds / (3600 * self.cfg.stop_time_hours)
        self.optimizer.set_lr(learning_rate(share, self.cfg.lr[0], self.cfg.warmup_share, self.cfg.end_learning_rate))
        return self.optimizer.get_lr()


def learning_rate(share, highest, warmup_share, end):
    """At a share of the budget: 0 = nothing has passed, 1 and more = all of it."""
    if share < warmup_share:
        return highest * share / warmup_share
    left = max(0.0, 1 - share) / (1 - warmup_share)
    return end + (highest - end) * left
