"""Scores that learn: their learner, and what a checkpoint contains of it."""

import logging
from typing import Any, Dict, Mapping, Optional

from fairseq import utils

from ..masking.policy import Policy
from ..masking.scores import SCORES, Learner, is_learned
from ..system.errors import require
from ..system.finite import refuse_not_finite

logger = logging.getLogger(__name__)


def new_learner(cfg: Any, policy: Policy, model: Any, vocabulary_size: int) -> Optional[Learner]:
    """What learns the scores of a policy, on the host; None where they are not learned.

    Args:
        cfg: an EntropyMaskedLMConfig.
        policy: as `cfg` describes it.
        model: the one that will be trained.
        vocabulary_size: V.
    Raises:
        UsageError: it needs features that the arch does not return.
    """
    if not (policy.needs_scores and is_learned(policy.score)):
        return None
    entry, has_features = SCORES[policy.score], hasattr(model, "decode")
    require("--mask-score", f"{policy.score} with --arch {cfg.arch}",
            has_features or entry.traits["needs"] != "features", "one of this plug-in's archs")
    width = model.output_projection()[0].size(1) if has_features else 0
    return entry.fn(vocabulary_size, width, **entry.chosen(policy.options))


def learned_state(learner: Optional[Learner], cfg: Any) -> Dict[str, Any]:
    """What a checkpoint contains of the learner of --mask-score; nothing where there is none."""
    if learner is None:
        return {}
    version = SCORES[cfg.mask_score].traits["version"]
    return {"score": cfg.mask_score, "version": version, "state": utils.move_to_cpu(learner.state_dict())}


def load_learned_state(learner: Optional[Learner], cfg: Any, state: Mapping[str, Any]) -> None:
    """Resume from the `learned_state` of a checkpoint; with another score, the learner starts from scratch."""
    if learner is None:
        return
    own = learned_state(learner, cfg)
    if any(state.get(name) != own[name] for name in ("score", "version")):
        logger.warning(f"--mask-score {own['score']}: not in the checkpoint, it is learned from scratch")
        return
    refuse_not_finite(state["state"], own["score"], "--mask-score")
    learner.load_state_dict(state["state"])
