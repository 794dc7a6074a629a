"""The masks that a trained policy chooses on validation text: of a checkpoint, with the flags that it was trained with.

The scores are those of the checkpoint's own source (its teacher, its weights, its average, what its score has learned),
at the end of its training: the epoch, the number of updates, and where rates change over a run, the last ones. All that
is random is a function of its seed. Every selected token becomes <mask>, whatever the corruption of the training was.

Shapes: B sentences, T positions.
"""

import copy
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from fairseq import checkpoint_utils, utils
from torch import Tensor

from ..checkpoints.reading import NO_HEAD, read_checkpoint
from ..checkpoints.vocabulary import check_vocabulary, data_bin, read_dictionary_of_shards
from ..config import policy_of
from ..fairseq_fixes.checkpoint_files import LEARNED
from ..masking.when import When
from ..pretrained.teacher import Teacher, load_teacher, refuse_headless, with_separate_projection
from ..scoring.learners import new_learner
from ..scoring.sources import models_read
from ..system.errors import UsageError, require

SPLIT = "valid"
TASK = "entropy_masked_lm"
AS_CHOSEN = {  # settings that would change masks, or need files, and are none of the policy
    "leave_unmasked_prob": 0.0, "random_token_prob": 0.0, "precision": "fp32", "entropy_precision": None,
    "entropy_cache": None, "self_entropy_every": 1, "record_masks": None, "init_from": None, "init_layers": None,
    "valid_pairs": None,
}


class TrainedPolicy(NamedTuple):
    """A checkpoint that can choose masks.

    path: of the checkpoint; task: an EntropyMaskedLMTask with the validation split, its learner and its teacher; model:
    in eval mode; average: fairseq's average of its weights, None where no score reads it; when: the end of its
    training.
    """

    path: str
    task: Any
    model: Teacher
    average: Optional[Teacher]
    when: When

    def masks(self, limit: Optional[int] = None, max_tokens: int = 4096) -> Iterator[Tuple[Dict[str, Any], Tensor]]:
        """(clean batch, selected positions B x T bool) of all blocks, or of the first ones; see `clean_batches`."""
        for number, sample in enumerate(clean_batches(self.task, self.device, limit, max_tokens)):
            # Each batch is as of another update, so that strategies that alternate do.
            yield sample, self.select(sample, self.when._replace(update=self.when.update + number))

    @torch.no_grad()
    def select(self, sample: Dict[str, Any], when: When) -> Tensor:
        """The positions that the policy masks in a clean batch: B x T bool."""
        scores = self.task.score(sample, self.model, when, self.average)
        for model in (self.model, self.average):
            if model is not None:
                model.eval()  # a source leaves them in training mode
        return self.task.mask(sample, scores, when)[0]["selected"].mask

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def read_policy(path: str, data: Optional[str] = None, teacher: Optional[str] = None,
                flag: str = "RUN") -> TrainedPolicy:
    """Read a checkpoint and the validation split of its data.

    Args:
        path: of a checkpoint of --task entropy_masked_lm.
        data: data-bin; None = that of the training.
        teacher: of the training, where it is no longer where the checkpoint says.
        flag: which names the checkpoint, for messages.
    Raises:
        UsageError: no such checkpoint, data or teacher; another task or vocabulary; a run that replays masks.
    """
    state = read_checkpoint(path, flag)
    recorded = (state.get("cfg") or {}).get("task") or {}
    require(flag, f"{path} of --task {recorded.get('_name')}", recorded.get("_name") == TASK, f"--task {TASK}")
    refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), path, flag, "masks and losses")
    if recorded.get("replay_masks"):
        raise UsageError(f"{flag}: {path} was trained with --replay-masks, expected a run that chooses its own masks")
    model, task = load(path, state, data or data_bin(state, path), flag)
    device = task.scoring_device()
    model = with_separate_projection(path, model, flag).float().to(device).requires_grad_(False).eval()
    when = end_of_training(state, task)
    if "teacher" in models_read(task.sources_by_epoch.at(when.epoch)):
        task.teacher = load_teacher(teacher or task.cfg.teacher, task)
    add_learner(task, model, state, device)
    task.load_dataset(SPLIT)
    longest = int(task.datasets[SPLIT].dataset.sizes.max())
    require(flag, f"{path} with {model.max_positions()} positions", model.max_positions() >= longest,
            f"at least the {longest} tokens of the longest block")
    return TrainedPolicy(path, task, model, average_of(path, task, model, state, flag), when)


def load(path: str, state: Dict[str, Any], data: str, flag: str) -> Tuple[Any, Any]:
    """(model, task) of a checkpoint, the task on some data, with masks as the policy chooses them."""
    dictionary = read_dictionary_of_shards(utils.split_paths(data))
    dictionary.add_symbol("<mask>")
    check_vocabulary(state, path, flag, Namespace(source_dictionary=dictionary))
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([path], {"data": data})
    for name, value in AS_CHOSEN.items():
        setattr(task.cfg, name, value)
    return model, task


def end_of_training(state: Dict[str, Any], task: Any) -> When:
    """The last epoch and update that a checkpoint has seen; the task is in that epoch from now on."""
    place, update = state["extra_state"]["train_iterator"], state["optimizer_history"][-1]["num_updates"]
    finished, iterations = place["epoch"] - 1, place["iterations_in_epoch"]
    task.epoch = place["epoch"] if iterations or not finished else finished
    if finished:
        task.updates_per_epoch = (update - iterations / task.cfg.update_freq[0]) / finished
    return task.when(update)


def add_learner(task: Any, model: Teacher, state: Dict[str, Any], device: torch.device) -> None:
    """What the checkpoint's score has learned, for the task; nothing for a score that does not learn."""
    task.learner = new_learner(task.cfg, policy_of(task.cfg), model, len(task.dictionary))
    if task.learner is not None:
        task.load_learned_state(state["extra_state"].get(LEARNED, {}))
        task.learner.to(device)


def average_of(path: str, task: Any, model: Teacher, state: Dict[str, Any], flag: str) -> Optional[Teacher]:
    """The average of the weights that the checkpoint keeps, None where no score reads it."""
    if not task.uses_ema:
        return None
    require(flag, f"{path} without the average of its weights", "ema" in state["extra_state"],
            "a checkpoint of a run with --store-ema")
    average = copy.deepcopy(model)
    average.load_state_dict(state["extra_state"]["ema"])
    return average.eval()


def clean_batches(task: Any, device: torch.device, limit: Optional[int] = None,
                  max_tokens: int = 4096) -> Iterator[Dict[str, Any]]:
    """The blocks of the validation split, in the order of the text, as `training.blocks` collates them.

    Args:
        task: with the split.
        device: where the tensors of the batches go.
        limit: the first blocks only; None = all.
        max_tokens: tokens in a batch; a longer block is a batch of its own.
    """
    samples = task.datasets[SPLIT].dataset
    number = len(samples) if limit is None else min(limit, len(samples))
    rows = max(1, max_tokens // int(samples.sizes[:number].max()))
    for first in range(0, number, rows):
        batch = samples.collater([samples[i] for i in range(first, min(first + rows, number))])
        yield utils.apply_to_sample(lambda tensor: tensor.to(device), batch)
