"""From checkpoints to the files of an atlas."""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from tqdm import tqdm

from ..evaluation.text_pairs import spread
from ..inspection.checkpoints import Checkpoint, read_checkpoints
from ..inspection.choices import Text, read_text
from ..inspection.restoring import task_of
from ..masking.units.word import prefix_of
from ..system.atomic_files import make_folder, write_json, write_text
from ..system.errors import UsageError, require
from . import pictures
from .groups import Grouping, frequencies, groupings
from .page import page
from .summary import Types, summary, table_of_types
from .views import Extent, Shown, names_of_policies, show
from .word_classes import installed_tagger, word_classes

SHOWN_TOKENS = 30_000  # of all passages at all checkpoints: the page stays below 5 MB
LONGEST_PASSAGE, SHORTEST_PASSAGE = 128, 24
MOST = {"epochs": 30, "passages": 100, "checkpoints": 50}  # bits of a number in the page's script; size of the page
SAME_BLOCKS = ("tokens_per_sample", "sample_break_mode", "shorten_method")
BESIDE = "--beside"


class Settings(NamedTuple):
    """What an atlas is made of; see the flags of `entropy-mask atlas`."""

    paths: Sequence[str]
    beside: Sequence[str]
    data: str
    names: Sequence[str] = ()
    teacher: Optional[str] = None
    limit: int = 512
    epochs: int = 4
    passages: int = 20
    checkpoints: int = 8
    word_classes: bool = True


class Atlas(NamedTuple):
    """summary: JSON, see there; text, types, policies: what it is of; passages: their blocks, longest: positions that
    are shown of each."""

    summary: Dict[str, Any]
    text: Text
    types: Types
    policies: List[Shown]
    extent: Extent
    sequences: List[np.ndarray]


def make_atlas(settings: Settings, show_progress: bool = False) -> Atlas:
    """Read the checkpoints, let each choose masks on the validation text, and count.

    Raises:
        UsageError: a flag is out of its range, a checkpoint cannot be used, or the two policies read other blocks.
    """
    check_numbers(settings)
    of_policies = [read_checkpoints(paths, settings.checkpoints, *flag)
                   for paths, flag in ((settings.paths, ()), (settings.beside, (BESIDE,))) if paths]
    check_same_blocks(of_policies)
    task = task_of(of_policies[0][0], settings.data, settings.teacher)
    samples, dictionary = task.dataset("valid").dataset, task.dictionary
    n_views = sum(map(len, of_policies))
    last_epoch = max(checkpoint.epoch for checkpoints in of_policies for checkpoint in checkpoints)
    extent = extent_of(settings, len(samples), n_views, last_epoch)
    with tqdm(total=n_views * len(extent.ids), unit="block", desc="masking", disable=not show_progress) as bar:
        policies = [show(name, checkpoints, settings.data, settings.teacher, extent, bar.update)
                    for name, checkpoints in zip(names(settings), of_policies)]
    text = read_text(samples, extent.ids)
    types = types_of(dictionary, samples.specials.numpy(), text)
    kinds = groups_of(text, types, task.max_positions(), settings.word_classes)
    record = {"data": settings.data, **summary(policies, text, kinds, types)}
    sequences = [samples[i]["src_tokens"][: extent.longest].numpy() for i in extent.passages]
    return Atlas(record, text, types, policies, extent, sequences)


def check_numbers(settings: Settings) -> None:
    """Raise a UsageError where one is out of its range."""
    require("--limit", settings.limit, settings.limit >= 1, "1 or more")
    for name, most in MOST.items():
        value = getattr(settings, name)
        require(f"--{name}", value, 1 <= value <= most, f"1 to {most}")


def types_of(dictionary: Any, specials: np.ndarray, text: Text) -> Types:
    """The token types. dictionary: fairseq's; specials: int64, those that are never masked."""
    counts = np.array(dictionary.count)
    counts[specials] = 0
    return Types(dictionary.symbols, *frequencies(counts, text.tokens))


def names(settings: Settings) -> Sequence[str]:
    """Of the policies: as given, or from their paths."""
    require("--names", " ".join(settings.names), not settings.names or len(settings.names) == 1 + bool(settings.beside),
            "a name for each policy")
    return settings.names or names_of_policies(settings.paths, settings.beside)


def check_same_blocks(of_policies: Sequence[List[Checkpoint]]) -> None:
    """Raise a UsageError where two policies read other blocks of text."""
    first, last = (of_policies[place][0].settings for place in (0, -1))
    for name in SAME_BLOCKS:
        if first[name] != last[name]:
            raise UsageError(f"{BESIDE}: a run with --{name.replace('_', '-')} {last[name]} found, expected "
                             f"{first[name]}: the policies are compared token by token")


def extent_of(settings: Settings, n_blocks: int, n_views: int, last_epoch: int) -> Extent:
    """Which blocks are read, and how much of them is shown; the arguments are numbers."""
    ids = spread(n_blocks, settings.limit)
    passages = tuple(ids[i] for i in spread(len(ids), settings.passages))
    longest = min(LONGEST_PASSAGE, max(SHORTEST_PASSAGE, SHOWN_TOKENS // (len(passages) * n_views)))
    return Extent(ids, passages, longest, settings.epochs, last_epoch)


def groups_of(text: Text, types: Types, block_length: int, has_word_classes: bool) -> List[Grouping]:
    """All groupings, with word classes where a tagger is installed and the vocabulary marks words."""
    kinds = groupings(text.tokens, text.positions, types.frequencies, types.symbols, block_length)
    tagger, prefix = (installed_tagger() if has_word_classes else None), prefix_of(types.symbols)
    if tagger is not None and prefix is not None:
        kinds.append(word_classes(tagger, text.tokens, text.blocks, text.positions, types.symbols, prefix))
    return kinds


def write_atlas(atlas: Atlas, folder: str) -> None:
    """Write atlas.html, atlas.json, tokens.csv and the pictures."""
    make_folder(folder, "--out")
    write_json(os.path.join(folder, "atlas.json"), atlas.summary)
    write_text(os.path.join(folder, "tokens.csv"), table_of_types(atlas.policies, atlas.text, atlas.types).csv())
    pictures.draw_token_map(atlas.policies, atlas.text, atlas.types, os.path.join(folder, "token_map.png"))
    pictures.draw_masked_fractions(atlas.summary, os.path.join(folder, "masked_fraction.png"))
    pictures.draw_checkpoints(atlas.summary, os.path.join(folder, "checkpoints.png"))
    write_text(os.path.join(folder, "atlas.html"),
               page(atlas.summary, atlas.policies, atlas.text, atlas.types, atlas.extent, atlas.sequences))
