"""In YAML as hydra reads it, 0:0.5 without quotes is no text but a number in base 60: 0.5. The ramp would silently
become a constant."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional, Tuple

import yaml

from ..system.errors import UsageError


def refuse_numbers_in_base_60(names: Iterable[str]) -> None:
    """Check the YAML file that fairseq-hydra-train was started with, if it was.

    Hydra has read it before a plug-in is imported, so that the file must be read again. Values on the command line are
    text without quotes.

    Args:
        names: of settings that may contain a colon.
    Raises:
        UsageError: one of them is such a number.
    """
    file = config_file(sys.argv[1:])
    if file is None:
        return
    with open(file, encoding="utf-8") as stream:
        for name, text in numbers_in_base_60(yaml.compose(stream, yaml.SafeLoader)):
            if name in names:
                raise UsageError(f"{name}: {text} without quotes found in {file}, where YAML reads it as a number in "
                                 f"base 60, expected {name}: '{text}'")


def config_file(arguments: Sequence[str]) -> Optional[str]:
    """The file of --config-dir and --config-name; None where there is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    given, _ = parser.parse_known_args(list(arguments))
    if not given.config_name:
        return None
    name = given.config_name.removesuffix(".yaml") + ".yaml"
    files = (os.path.join(folder, name) for folder in (given.config_dir, given.config_path) if folder)
    return next(filter(os.path.exists, files), None)


def numbers_in_base_60(node: Any) -> Iterator[Tuple[str, str]]:
    """(key, text) of each such number under a key, at any depth of a YAML node."""
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from numbers_in_base_60(inner)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode) and ":" in value.value and value.tag in (
                    "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
                yield key.value, value.value
            yield from numbers_in_base_60(value)
