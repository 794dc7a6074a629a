"""The parts that a policy is made of, by name, and what policies cost:   entropy-mask policies, or
python -m entropy_mask_plugin.policies"""

import sys
from typing import Any, Dict, NamedTuple, Optional

from .masking.registry import Registry

SELF, EMA = "--self-mask-from-epoch 1", "--self-mask-model ema --store-ema --ema-decay 0.999"
HIGH, HALF = f"--mask-strategy high {SELF}", "--guided-fraction 0.5"


class PolicyCost(NamedTuple):
    """What an update costs, as a multiple of one with random masks.

    flags: of the policy; in them, TEACHER and CACHE stand for paths. scoring: arguments of `models.flops.macs_of_step`,
    for the FLOPs. fp32, bf16: time as measured for BERTlet on two cores (examples/speed/README.md has the commands and
    the spread); None = not measured.
    """

    flags: str
    scoring: Dict[str, Any]
    fp32: Optional[float] = None
    bf16: Optional[float] = None


TEACHER = "--mask-strategy high --teacher TEACHER"
COSTS = {
    "teacher on the fly": PolicyCost(TEACHER, {"entropies": "teacher"}, 1.45, 1.69),
    "teacher cached": PolicyCost(f"{TEACHER} --entropy-cache CACHE", {}, 0.99, 1.00),
    "self": PolicyCost(HIGH, {"entropies": "self"}, 1.48, 1.67),
    "self, half guided by tokens": PolicyCost(f"{HIGH} {HALF}", {"entropies": "self"}, 1.45, 1.61),
    "self, half guided by sequences": PolicyCost(f"{HIGH} {HALF} --guided-by sequences",
                                                 {"entropies": "self", "scored_rows": 0.5}, 1.26, 1.36),
    "ema": PolicyCost(f"{HIGH} {EMA}", {"entropies": "ema"}, 1.50, 1.66),
    "ema, half guided by sequences": PolicyCost(f"{HIGH} {EMA} {HALF} --guided-by sequences",
                                                {"entropies": "ema", "scored_rows": 0.5}, 1.24, 1.36),
    "surprisal": PolicyCost(f"{HIGH} --mask-score surprisal", {"entropies": "self"}, 1.44, 1.67),
    "margin": PolicyCost(f"{HIGH} --mask-score margin", {"entropies": "self"}, 1.66, 1.94),
    "gumbel": PolicyCost(f"--mask-strategy gumbel {SELF}", {"entropies": "self"}, 1.69, 2.25),
    "accuracy": PolicyCost("--mask-strategy gumbel --mask-score accuracy", {"entropies": "self", "needs": "history"},
                           0.97, 1.02),
    "predicted-loss": PolicyCost("--mask-strategy high --mask-score predicted-loss",
                                 {"entropies": "self", "needs": "features"}, 1.24, 1.23),
    "contextual": PolicyCost(f"{HIGH} --entropy-folds 7", {"entropies": "self", "folds": 7}, 2.99, 2.71),
    "words": PolicyCost(f"{HIGH} --mask-unit word", {"entropies": "self"}, 1.69, 2.13),
    "spans": PolicyCost(f"{HIGH} --mask-unit span", {"entropies": "self"}, 1.70, 2.16),
    "random words": PolicyCost("--mask-strategy random --mask-unit word", {}, 1.00, 1.01),
}
LENGTH, VOCABULARY, ARCHS = 128, 30522, ("bertlet", "bert_base")


def describe(registry: Registry) -> str:
    """A line for each part (its name, the beginning of its docstring, what it needs), followed by its flags."""
    lines, width = [registry.flag], max(12, *map(len, registry)) + 2
    for name, entry in registry.items():
        traits = ", ".join(trait if value is True else f"{trait}: {shown(value)}"
                           for trait, value in entry.traits.items() if value and not callable(value))
        lines.append(f"  {name:<{width}}{entry.summary}" + (f" [{traits}]" if traits else ""))
        lines += [f"    --{option.replace('_', '-')} {setting.default}: {setting.help}"
                  for option, setting in entry.options.items()]
    return "\n".join(lines)


def describe_costs() -> str:
    """A table of what policies cost: FLOPs, and the time that was measured."""
    from .config import PAPERS
    from .models.flops import macs_of_step
    from .reporting.flops_table import build_meta_model
    from .reporting.table import Table

    models = [build_meta_model(arch, VOCABULARY, LENGTH) for arch in ARCHS]
    rows = []
    for name, cost in COSTS.items():
        flops = [macs_of_step(model, LENGTH, PAPERS, model, **cost.scoring) / macs_of_step(model, LENGTH, PAPERS)
                 for model in models]
        times = ["" if time is None else f"{time:.2f}" for time in (cost.fp32, cost.bf16)]
        rows.append([name, *(f"{ratio:.2f}" for ratio in flops), *times, cost.flags])
    header = ["policy", *(f"FLOPs, {arch}" for arch in ARCHS), "time, bertlet, fp32", "bf16", "flags"]
    return Table("", header, rows).markdown(align=("left", *["right"] * 4, "left"))


def shown(value: Any) -> str:
    """The value of a trait; of several, all of them."""
    return " + ".join(value) if isinstance(value, tuple) else str(value)


def print_parts() -> None:
    """All parts that a flag chooses, and what policies cost."""
    from .config import registries  # fairseq logs while it is imported: the command has to come first
    from .masking.rates import RATES
    from .models.mixers import MIXERS

    print(*map(describe, (*registries(), RATES, MIXERS)), sep="\n")
    print(f"\nWhat an update costs, as a multiple of one with random masks: {LENGTH} positions, {VOCABULARY:,} "
          "symbols, 15 % masked, scores computed in each update.")
    print(describe_costs())


if __name__ == "__main__":
    from .cli import run_command

    sys.exit(run_command("policies", prog="python -m entropy_mask_plugin.policies"))
