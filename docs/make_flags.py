#!/usr/bin/env python3
"""Write docs/flags.md from the dataclasses that declare the flags:   python docs/make_flags.py

tests/test_docs.py fails when the page is out of date.
"""

import argparse
import logging
import re
import sys
from pathlib import Path

logging.disable(logging.WARNING)  # fairseq's, about packages that it does not find
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this folder

import fairseq  # noqa: E402, F401
from fairseq.dataclass.utils import gen_parser_from_dataclass  # noqa: E402
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY  # noqa: E402
from fairseq.registry import REGISTRIES  # noqa: E402
from fairseq.tasks import TASK_DATACLASS_REGISTRY  # noqa: E402
from omegaconf import MISSING  # noqa: E402

import entropy_mask_plugin  # noqa: E402

PAGE = Path(__file__).with_name("flags.md")
INTRODUCTION = """\
<!-- Written by docs/make_flags.py from the dataclasses: edit those. -->

# Flags

Every flag that the plug-in adds to `fairseq-train` and `fairseq-hydra-train`.
(`fairseq-train --help` stops before the flags of tasks, criteria and archs.)
In hydra, `--mask-prob` of the task is `task.mask_prob`, and so on; in YAML, FIRST:LAST needs quotes
([why](policies.md#rate)). Formulas are in [definitions](definitions.md).
"""


def actions(config):
    """{flag: argparse's action} of a dataclass, by fairseq's own rules for which fields are flags."""
    parser = argparse.ArgumentParser(add_help=False)
    gen_parser_from_dataclass(parser, config())
    return {action.option_strings[0] if action.option_strings else action.dest: action for action in parser._actions}


def default_of(action):
    if action.default == MISSING or action.required:
        return "required"
    if action.default in (None, "", argparse.SUPPRESS):
        return "unset"
    if isinstance(action.default, bool):
        return "on" if action.default else "off"
    return str(getattr(action.default, "value", action.default))


def described(action):
    """(meaning, default): a help text that ends in "(default: …)" knows better what happens without the flag."""
    meaning, default = action.help or "", default_of(action)
    stated = re.search(r" ?\((?:([^()]*); )?default: ([^()]*)\)", meaning)
    if stated:
        meaning = meaning.replace(stated[0], f" ({stated[1]})" if stated[1] else "")
        default = stated[2]
    unnamed = [str(choice) for choice in action.choices or () if str(choice) not in meaning]
    return meaning + (f": {', '.join(unnamed)}" if unnamed else ""), default


def cell(text):
    """Markdown would take <s> for HTML and | for the end of the cell."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z0-9-]*|</?[a-z]+>)", r"`\1`", text)
    return text.replace("|", "\\|").replace("\n", " ")


def table(rows):
    lines = [f"| `{flag}` | {cell(meaning)} | {cell(default)} |" for flag, meaning, default in rows]
    return "\n".join(["| flag | meaning | default |", "|---|---|---|", *lines])


def rows_of(config):
    return [(flag, *described(action)) for flag, action in actions(config).items()]


def our_archs():
    """{arch: its dataclass}."""
    package = entropy_mask_plugin.__name__ + "."
    return {name: config for name, config in MODEL_DATACLASS_REGISTRY.items()
            if MODEL_REGISTRY[name].__mro__[1].__module__.startswith(package)}


def rows_of_archs(archs):
    """One row for each flag of any arch: its most common default, then those of the other archs."""
    flags = {arch: actions(config) for arch, config in archs.items()}
    names = dict.fromkeys(flag for of_arch in flags.values() for flag in of_arch)
    return [row_of_archs(flag, {arch: of_arch[flag] for arch, of_arch in flags.items() if flag in of_arch}, len(archs))
            for flag in names]


def row_of_archs(flag, actions_of, n_archs):
    by_default = {}
    for arch, action in actions_of.items():
        by_default.setdefault(described(action)[1], []).append(f"`{arch}`")
    common = max(by_default, key=lambda default: len(by_default[default]))
    others = [f"{default} for {', '.join(archs)}" for default, archs in by_default.items() if default != common]
    meaning = described(next(iter(actions_of.values())))[0]
    if len(actions_of) < n_archs:
        meaning += f" (only {', '.join(f'`{arch}`' for arch in actions_of)})"
    return flag, meaning, "; ".join([common, *others])


def registered(kind, name):
    """The dataclass of a criterion, an optimizer or a scheduler."""
    return REGISTRIES[kind]["dataclass_registry"][name]


def page():
    entropy_mask_plugin.register()
    archs = our_archs()
    sections = (
        ("Task", "`--task entropy_masked_lm`", rows_of(TASK_DATACLASS_REGISTRY["entropy_masked_lm"])),
        ("Criterion", "`--criterion entropy_masked_lm`", rows_of(registered("criterion", "entropy_masked_lm"))),
        ("Optimizer", "`--optimizer fused_adamw`", rows_of(registered("optimizer", "fused_adamw"))),
        ("Learning rate schedule", "`--lr-scheduler budget_linear`, with fairseq's `--stop-time-hours` as the budget",
         rows_of(registered("lr_scheduler", "budget_linear"))),
        ("Archs", "`--arch` " + ", ".join(f"`{arch}`" for arch in archs), rows_of_archs(archs)),
    )
    return "\n".join([INTRODUCTION, *(f"## {title}\n\n{how}\n\n{table(rows)}\n" for title, how, rows in sections)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
