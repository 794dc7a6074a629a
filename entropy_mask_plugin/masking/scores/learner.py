"""Scores that learn from the training's own answers, without a forward pass for the learning.

    @SCORES.add("name", needs="history", unit="", version=1, options={"speed": Option(0.1, "…")})
    class Name(Learner):
        def __init__(self, vocabulary_size, width, speed): ...
        def observe(self, answers): ...
        def update(self, update_num, all_reduce): ...
        def scores(self, tokens, features, noise): ...

needs: "history" = the scores follow from what was learned and the tokens; "features" = also from the model's features
of the clean tokens, which costs its layers, but not the output projection.

A `Learner` is a module: buffers and parameters move to the training's device and are kept in checkpoints, except
buffers with persistent=False. It must not draw from torch's global generators: other dropout masks would follow.

Shapes: B sentences, T positions, C width, V vocabulary, K masked positions.
"""

from typing import Any, Callable, NamedTuple, Optional

from torch import Tensor, nn


class Answers(NamedTuple):
    """What the model predicted at the K masked positions of a batch; on the device, without gradient.

    target: K int64, the tokens there; correct: K bool, whether the largest logit is theirs; losses: K fp32, nats; rows:
    K int64, the sentence of each, ascending; features: K x C, the input of the LM head, in the precision of the layers;
    None where the arch does not return them.
    """

    target: Tensor
    correct: Tensor
    losses: Tensor
    rows: Tensor
    features: Optional[Tensor]


class Learner(nn.Module):
    """Learns in each update what it needs to score tokens; see above.

    Args:
        vocabulary_size: V.
        width: C; 0 where the arch does not return features.
        options: of the score.
    """

    def __init__(self, vocabulary_size: int, width: int, **options: Any):
        super().__init__()

    def observe(self, answers: Answers) -> None:
        """Take notice of the answers to a batch, before the model is updated; called on each rank with its own batches,
        several times in an update under --update-freq. Must not wait for the device."""
        raise NotImplementedError

    def update(self, update_num: int, all_reduce: Callable[[Tensor], None]) -> None:
        """Learn; called once in an update, on all ranks, after the model was updated.

        The state that is kept in checkpoints must be the same on all ranks afterwards.

        Args:
            update_num: the number of this update, counted from 0.
            all_reduce: replaces a tensor by its sum over all ranks, which must call it equally often.
        """
        raise NotImplementedError

    def scores(self, tokens: Tensor, features: Optional[Tensor], noise: Tensor) -> Tensor:
        """Score clean tokens.

        Args:
            tokens: B x T int64.
            features: B x T x C, the model's features of them, in the precision of the layers; None for needs="history".
            noise: B x T fp32 in [0, 1), a function of (seed, epoch, sample id, position), to break ties.
        Returns:
            B x T fp32, finite: large = uncertain.
        """
        raise NotImplementedError
