"""What a policy chooses on the blocks of a text: the score of each token, and the masks of several epochs.

Draw 0 is what the run would mask in its next update: weights, learned scores, source, rate, guided fraction and noise
are those of the checkpoint. Draw d has the noise of an epoch d strides later, and all else as it is.

Shapes: N blocks, P maskable positions of all blocks, B sentences of a batch, T positions, D draws, V vocabulary.
"""

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from ..masking.scores import Scores, is_learned
from ..masking.when import When
from ..scoring.sources import models_read
from .restoring import RestoredPolicy, source_of

BATCH_TOKENS = 1 << 12
N_PREDICTIONS = 5


class Text(NamedTuple):
    """The maskable tokens of some blocks. ids: N, the numbers of the blocks in the text; tokens, blocks, positions: P
    int64, each token, which of the N blocks it is in, and where."""

    ids: Tuple[int, ...]
    tokens: np.ndarray
    blocks: np.ndarray
    positions: np.ndarray


class Choices(NamedTuple):
    """What a policy makes of a `Text`. scores: P fp32; masked, guided: D x P bool, what is masked in each draw, and
    which of it the scores chose."""

    scores: np.ndarray
    masked: np.ndarray
    guided: np.ndarray


class Prediction(NamedTuple):
    """The most probable tokens at each position of a block: T x 5 int64, and their probabilities, T x 5 fp32."""

    tokens: np.ndarray
    probabilities: np.ndarray


def read_text(samples: Any, ids: Sequence[int]) -> Text:
    """The maskable tokens of these blocks. samples: a `training.blocks.Samples`."""
    rows = [samples[i]["src_tokens"] for i in ids]
    where = [samples.maskable(row).nonzero().flatten() for row in rows]
    blocks = np.repeat(np.arange(len(rows)), [len(positions) for positions in where])
    tokens = torch.cat([row[positions] for row, positions in zip(rows, where)])
    return Text(tuple(ids), tokens.numpy(), blocks, torch.cat(where).numpy())


def choose(policy: RestoredPolicy, samples: Any, ids: Sequence[int], n_draws: int, stride: int,
           advance: Callable[[int], Any] = lambda n: None) -> Choices:
    """The choices of a policy in these blocks.

    Args:
        policy: see `restore`.
        samples: a `training.blocks.Samples`.
        ids: of the blocks.
        n_draws: D.
        stride: epochs from one draw to the next: more than the run has, and draws of two checkpoints share no noise
            unless both are of one epoch.
        advance: called with the number of blocks after each batch.
    """
    source, parts = source_of(policy), []
    for sample in batches(policy, samples, ids):
        maskable = sample["maskable"].cpu()
        scores, masked, guided = choose_in_batch(policy, source, sample, n_draws, stride)
        parts.append((scores.cpu()[maskable].numpy(), masked.cpu()[:, maskable].numpy(),
                      guided.cpu()[:, maskable].numpy()))
        advance(sample["nsentences"])
    return Choices(*(np.concatenate(part, axis=-1) for part in zip(*parts)))


def batches(policy: RestoredPolicy, samples: Any, ids: Sequence[int],
            max_tokens: int = BATCH_TOKENS) -> Iterator[Dict[str, Any]]:
    """The blocks as batches on the scoring device, of so many tokens at most, or of one block."""
    device = policy.task.scoring_device()
    rows = max(1, max_tokens // max(int(samples.sizes[i]) for i in ids))
    for begin in range(0, len(ids), rows):
        batch: Any = utils.apply_to_sample(lambda tensor: tensor.to(device),
                                           samples.collater([samples[i] for i in ids[begin : begin + rows]]))
        yield batch


@torch.no_grad()
def choose_in_batch(policy: RestoredPolicy, source: Any, sample: Dict[str, Any], n_draws: int,
                    stride: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Scores B x T, and masked and guided, D x B x T bool. source: see `source_of`."""
    scores = scores_of(policy, source, sample, policy.when)
    masked, guided = [], []
    for draw in range(n_draws):
        when = policy.when._replace(epoch=policy.when.epoch + draw * stride, update=policy.when.update + draw)
        if draw and is_drawn_anew(policy):
            scores = scores_of(policy, source, sample, when)
        chosen = policy.task.masker(sample["net_input"]["src_tokens"], sample["id"], sample["maskable"],
                                    guiding(policy, scores, sample, when), when, sample["n_maskable"])
        masked.append(chosen.selected)
        guided.append(torch.zeros_like(chosen.selected) if chosen.guided is None else chosen.guided)
    return scores, torch.stack(masked), torch.stack(guided)


def scores_of(policy: RestoredPolicy, source: Any, sample: Dict[str, Any], when: When) -> Tensor:
    """The scores that are shown, at all positions: B x T fp32."""
    if source is None:
        return policy.scorer.exact(policy.reference, sample)
    return source(sample, policy.model if policy.average is None else policy.average, when).exact()


def is_drawn_anew(policy: RestoredPolicy) -> bool:
    """Whether the scores of another epoch are others although no weight has changed, by their noise."""
    return policy.source is not None and (is_learned(policy.scorer.score) or not models_read(policy.source))


def guiding(policy: RestoredPolicy, scores: Tensor, sample: Dict[str, Any], when: When) -> Optional[Scores]:
    """The scores as the training gives them to the masker: of the sentences alone whose masks follow them; None where
    no masks do."""
    rows = policy.task.masker.guided_rows(sample["ids"], when)
    if policy.source is None:
        return None
    if rows is None:
        return Scores(scores)
    rows = rows.to(scores.device)
    return Scores(scores[rows], rows=rows) if len(rows) else None


@torch.no_grad()
def predictions(policy: RestoredPolicy, samples: Any, ids: Sequence[int], longest: int) -> List[Prediction]:
    """The best predictions of the model whose scores are shown, on the clean text (hidden in turn with
    --entropy-folds), at the first positions of each block.

    Args:
        policy: see `restore`.
        samples: a `training.blocks.Samples`.
        ids: of the blocks.
        longest: positions of a block.
    """
    of_blocks = []
    policy.reference.eval()  # a source leaves it in training mode
    for sample in batches(policy, samples, ids):
        hidden, weight, bias = policy.scorer.projection(policy.reference, sample)
        for row, block in zip(hidden, sample["ids"]):
            logits = row[: min(longest, int(samples.sizes[block]))].float() @ weight.float().t() + bias.float()  # T x V
            best = logits.softmax(-1).topk(N_PREDICTIONS)
            of_blocks.append(Prediction(best.indices.cpu().numpy(), best.values.cpu().numpy()))
    return of_blocks
