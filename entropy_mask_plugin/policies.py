"""The parts that a policy is made of, by name:   entropy-mask policies, or python -m entropy_mask_plugin.policies"""

import sys
from typing import Any

from .masking.registry import Registry


def describe(registry: Registry) -> str:
    """A line for each part (its name, the beginning of its docstring, what it needs), followed by its flags."""
    lines = [registry.flag]
    for name, entry in registry.items():
        traits = ", ".join(trait if value is True else f"{trait}: {shown(value)}"
                           for trait, value in entry.traits.items() if value and not callable(value))
        lines.append(f"  {name:<14}{entry.summary}" + (f" [{traits}]" if traits else ""))
        lines += [f"    --{option.replace('_', '-')} {setting.default}: {setting.help}"
                  for option, setting in entry.options.items()]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """The value of a trait; of several, all of them."""
    return " + ".join(value) if isinstance(value, tuple) else str(value)


def print_parts() -> None:
    """All parts that a flag chooses."""
    from .config import registries  # fairseq logs while it is imported: the command has to come first
    from .models.mixers import MIXERS

    print(*map(describe, (*registries(), MIXERS)), sep="\n")


if __name__ == "__main__":
    from .cli import run_command

    sys.exit(run_command("policies", prog="python -m entropy_mask_plugin.policies"))
