"""Every model's loss on every policy's masks: a matrix, a picture, and how to read it.

The masks of each policy are chosen once, by its own last checkpoint as those of the next update, and frozen.

Shapes: B sentences, T positions, K masked tokens, V vocabulary; M models, P = M + 1 sets of masks.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from fairseq import utils
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.vocabulary import data_bin, first_difference, symbols_of_checkpoint
from ..evaluation.models import read_model
from ..models.positions import SelectedPositions
from ..reporting.figures import pyplot, save
from ..reporting.table import Table
from ..reporting.training_log import CHECKPOINT
from ..system.atomic_files import read_json, write_json, write_text
from ..system.digests import digest_of_file
from ..system.errors import UsageError, require
from .checkpoints import FLAG, read_checkpoints, times_of
from .choices import batches, choose_in_batch
from .names import differing_parts
from .restoring import RestoredPolicy, restore, source_of

SPLIT, RANDOM, RESULT = "valid", "random masks", "cross.json"
HOW_TO_READ = ("Read down a column, where every model predicts the same masked tokens and the lowest loss (bold) is "
               "the best; two columns are losses on different tokens and do not compare.")


class FrozenBatch(NamedTuple):
    """A masked batch on the host. src_tokens: B x T int64, with <mask>; target: B x T int64, clean; selected: B x T
    bool; has_padding: of the clean batch."""

    src_tokens: Tensor
    target: Tensor
    selected: Tensor
    has_padding: bool


class Cross(NamedTuple):
    """The matrix.

    losses: {model: {masks: mean loss in bits per masked token}}, both in the order of the runs, random masks first;
    n_masked: {masks: how many tokens are masked}.
    """

    losses: Dict[str, Dict[str, float]]
    n_masked: Dict[str, int]


def checkpoint_of(run: str) -> str:
    """The last checkpoint of a folder of fairseq-train, or the file itself.

    Raises:
        UsageError: a folder without one.
    """
    path = os.path.join(run, CHECKPOINT) if os.path.isdir(run) else run
    require(FLAG, f"{run} without {CHECKPOINT}", os.path.exists(path) or not os.path.isdir(run),
            "the --save-dir of a run, or a checkpoint file")
    return path


def names_of_runs(runs: Sequence[str]) -> List[str]:
    """See `differing_parts`.

    Raises:
        UsageError: a run is given twice.
    """
    paths = list(map(os.path.abspath, runs))
    for path, run in zip(paths, runs):
        require(FLAG, f"{run} twice", paths.count(path) == 1, "each run once")
    return differing_parts(paths)


def cross(runs: Sequence[str], data: Optional[str] = None, teacher: Optional[str] = None, limit: Optional[int] = None,
          max_tokens: int = 4096, out: Optional[str] = None) -> Cross:
    """Compute the matrix, with progress.

    Args:
        runs: folders of runs, or checkpoints.
        data: data-bin whose validation split is masked; None = that of the first run.
        teacher: in place of the runs' recorded ones; see `restore`.
        limit: the first blocks only.
        max_tokens: tokens in a batch.
        out: folder that keeps what is computed; a rerun goes on from there.
    Raises:
        UsageError: see `restore`; runs of different vocabularies or block lengths.
    """
    require("--limit", limit, limit is None or limit >= 1, "1 or more")
    require("--max-tokens", max_tokens, max_tokens >= 1, "1 or more")
    checkpoints = dict(zip(names_of_runs(runs), map(checkpoint_of, runs)))
    data = check_runs(list(checkpoints.values()), data)
    settings = {"checkpoints": {name: digest_of_file(path) for name, path in checkpoints.items()}, "data": data,
                "digest_of_text": digest_of_text(data), "teacher": teacher, "limit": limit}
    losses, n_masked = kept(out, settings)
    if all(name in losses for name in checkpoints):
        return Cross({name: losses[name] for name in checkpoints}, n_masked)
    frozen = freeze_all(checkpoints, data, teacher, limit, max_tokens)
    n_masked = {masks: sum(int(batch.selected.sum()) for batch in batches) for masks, batches in frozen.items()}
    for name in tqdm(checkpoints, desc="losses", unit="model"):
        if name not in losses:
            model = read_model(checkpoints[name]).model
            losses[name] = {masks: mean_loss_bits(model, batches) for masks, batches in frozen.items()}
            if out:
                write_json(os.path.join(out, RESULT), {**settings, "n_masked": n_masked, "loss_bits": losses})
    return Cross({name: losses[name] for name in checkpoints}, n_masked)


def check_runs(paths: Sequence[str], data: Optional[str]) -> str:
    """Refuse checkpoints of different vocabularies. Returns the data-bin: the given one, or that of the first run.

    Raises:
        UsageError: names both, with the first difference.
    """
    symbols, data_of_first = symbols_and_data(paths[0])
    for path in paths[1:]:
        theirs, _ = symbols_and_data(path)
        if theirs != symbols:
            raise UsageError(f"{FLAG}: {path} has another vocabulary than {paths[0]}: "
                             f"{first_difference(theirs, symbols)}")
    require("--data", f"none, nor in {paths[0]},", data or data_of_first,
            "the data-bin whose validation split is masked")
    return data or data_of_first


def symbols_and_data(path: str) -> Tuple[List[str], str]:
    """The vocabulary and the data-bin of a checkpoint, "" where it records none. The checkpoint itself is not kept: of
    many runs, they would not fit into memory."""
    state = read_checkpoint(path, FLAG)
    return symbols_of_checkpoint(state, path) or [], data_bin(state, path)


def digest_of_text(data: str) -> Optional[str]:
    """Of the validation split; None where there is none, which `restore` says."""
    path = os.path.join(utils.split_paths(data)[0], f"{SPLIT}.bin")
    return digest_of_file(path) if os.path.exists(path) else None


def kept(out: Optional[str], settings: Dict[str, Any]) -> Any:
    """(losses, n_masked) that an earlier call with the same settings has left in its folder; empty without one."""
    path = os.path.join(out, RESULT) if out else ""
    if not os.path.exists(path):
        return {}, {}
    content = read_json(path)
    if any(content.get(key) != value for key, value in settings.items()):
        return {}, {}
    return content["loss_bits"], content["n_masked"]


def freeze_all(checkpoints: Dict[str, str], data: str, teacher: Optional[str], limit: Optional[int],
               max_tokens: int) -> Dict[str, List[FrozenBatch]]:
    """{masks: batches}: random ones, and those of each run's policy."""
    frozen: Dict[str, List[FrozenBatch]] = {}
    lengths: Dict[str, int] = {}
    for name, path in tqdm(checkpoints.items(), desc="masks", unit="policy"):
        policy = last_policy(path, data, teacher)
        lengths[path] = policy.task.max_positions()
        first, expected = next(iter(lengths.items()))
        require(FLAG, f"{path} with --tokens-per-sample {lengths[path]}", lengths[path] == expected,
                f"{expected}, as {first}")
        if not frozen:
            frozen[RANDOM] = [freeze(sample, policy.task.mask_for_validation(sample)["selected"].mask, policy.task)
                              for sample in clean_batches(policy, limit, max_tokens)]
        frozen[name] = [freeze(sample, selected, policy.task)
                        for sample, selected in masks_of(policy, limit, max_tokens)]
    return frozen


def last_policy(path: str, data: str, teacher: Optional[str] = None) -> RestoredPolicy:
    """The policy of a checkpoint; arguments and errors as for `restore`."""
    checkpoints = read_checkpoints([path])
    ((when, _),) = times_of(checkpoints)
    return restore(checkpoints[0], when, data, teacher)


def clean_batches(policy: RestoredPolicy, limit: Optional[int] = None,
                  max_tokens: int = 4096) -> Iterator[Dict[str, Any]]:
    """The validation blocks, all or the first ones, in batches of so many tokens."""
    samples = policy.task.dataset(SPLIT).dataset
    number = len(samples) if limit is None else min(limit, len(samples))
    return batches(policy, samples, range(number), max_tokens)


def masks_of(policy: RestoredPolicy, limit: Optional[int] = None,
             max_tokens: int = 4096) -> Iterator[Tuple[Dict[str, Any], Tensor]]:
    """(clean batch, what the policy masks in it: B x T bool) of the validation blocks."""
    source = source_of(policy)
    for sample in clean_batches(policy, limit, max_tokens):
        _, masked, _ = choose_in_batch(policy, source, sample, n_draws=1, stride=1)
        yield sample, masked[0]


def freeze(sample: Dict[str, Any], selected: Tensor, task: Any) -> FrozenBatch:
    """sample: clean; selected: B x T bool."""
    tokens = sample["net_input"]["src_tokens"]
    masked = tokens.masked_fill(selected, task.mask_idx)
    return FrozenBatch(masked.cpu(), tokens.cpu(), selected.cpu(), sample["net_input"]["has_padding"])


@torch.no_grad()
def mean_loss_bits(model: Any, batches: Sequence[FrozenBatch]) -> float:
    """The mean loss over all masked tokens, in bits; nan where nothing is masked. model: in eval mode and fp32."""
    device, total, number = next(model.parameters()).device, 0.0, 0
    for batch in batches:
        positions = SelectedPositions(batch.selected.to(device))
        target = positions.gather(batch.target.to(device))  # K
        logits = model(batch.src_tokens.to(device), masked_tokens=positions, has_padding=batch.has_padding)[0]  # K x V
        total += F.cross_entropy(logits.float(), target, reduction="sum").item()
        number += positions.number
    return total / number / math.log(2) if number else math.nan


def table(result: Cross) -> Table:
    """For people: the lowest loss of each column in bold."""
    lowest = {masks: min(of_model[masks] for of_model in result.losses.values()) for masks in result.n_masked}
    rows = [[name, *(f"**{loss:.3f}**" if loss == lowest[masks] else f"{loss:.3f}" for masks, loss in of_model.items())]
            for name, of_model in result.losses.items()]
    rows.append(["masked tokens", *(f"{number:,}" for number in result.n_masked.values())])
    header = ["model", *(masks if masks == RANDOM else f"masks of {masks}" for masks in result.n_masked)]
    return Table("Loss in bits per masked token", header, rows, HOW_TO_READ)


def markdown(result: Cross) -> str:
    """The table, without a line end behind it."""
    return table(result).markdown(["left", *["right"] * len(result.n_masked)])


def draw(result: Cross, file: str) -> None:
    """A heat map of how far each loss is above the lowest of its column, with the losses; a frame around what a model
    has on its own policy's masks. file: PNG."""
    models, columns = list(result.losses), list(result.n_masked)
    losses = torch.tensor([[result.losses[name][masks] for masks in columns] for name in models])  # M x P
    above = losses - losses.min(0).values
    beyond = 0.085 * max(0, max(map(len, [*models, *columns])) - 16)  # inches that long names need
    size = (2.5 + 0.75 * len(columns) + beyond, 2 + 0.42 * len(models) + beyond)
    figure, axis = pyplot.subplots(figsize=size, layout="constrained")
    shown = axis.imshow(above.numpy(), cmap="viridis_r", aspect="auto", vmin=0)
    for row, column in itertools.product(range(len(models)), range(len(columns))):
        color = "white" if above[row, column] > above.max() / 2 else "black"
        weight = "bold" if above[row, column] == 0 else "normal"
        axis.text(column, row, f"{losses[row, column]:.2f}", ha="center", va="center", color=color, fontsize=8,
                  fontweight=weight)
        if models[row] == columns[column]:
            axis.add_patch(pyplot.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red"))
    axis.set(xticks=range(len(columns)), yticks=range(len(models)), yticklabels=models, xlabel="masks of",
             ylabel="model", title="loss in bits per masked token: read down a column")
    axis.set_xticklabels(columns, rotation=45, ha="right")
    figure.colorbar(shown, ax=axis, label="bits above the lowest of the column")
    save(figure, file)


def write_results(out: str, result: Cross) -> None:
    """Write cross.md, .csv and .png to a folder; cross.json is there already."""
    rows = [[name, *of_model.values()] for name, of_model in result.losses.items()]
    write_text(os.path.join(out, "cross.csv"), Table("", ["model", *result.n_masked], rows).csv())
    write_text(os.path.join(out, "cross.md"), markdown(result) + "\n")
    draw(result, os.path.join(out, "cross.png"))
