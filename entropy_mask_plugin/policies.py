"""The parts that a policy is made of, by name:   entropy-mask policies, or python -m entropy_mask_plugin.policies"""

from .masking.registry import Registry
from .masking.strategies import STRATEGIES


def describe(registry: Registry) -> str:
    """A line for each part: its name, what it needs, and the first line of its docstring."""
    lines = [registry.flag]
    for name, entry in registry.items():
        traits = ", ".join(trait for trait, value in entry.traits.items() if value)
        lines.append(f"  {name:<14}{entry.summary}" + (f" [{traits}]" if traits else ""))
    return "\n".join(lines)


def main() -> None:
    print(describe(STRATEGIES))


if __name__ == "__main__":
    main()
