"""How masks are made: pure tensor functions that import only torch (and for its kernels, triton).

policy        which parts a masking policy is made of
scores/       how uncertain is a model about each token?
strategies/   which tokens come first?
units/        what is masked together?
rates         which fraction, when?
take          how many are masked, and where is the cut?
corruption    what does the model see there, and what must it predict?
masker        all of it: from a clean batch to a masked one
refinement    the same selection from cheaper scores
noise         uniform noise that is a function of (seed, epoch, sample id, position)
statistics    what did the masks of a batch look like?
registry      parts that a user chooses by name

Whose predictions are scored is the business of `entropy_mask_plugin.scoring`.
"""

from .corruption import apply_80_10_10, corrupt
from .masker import Masked, Masker, Vocabulary
from .policy import Policy
from .registry import Option
from .scores import SCORES, Scores, projected
from .scores.entropy import entropy, projected_entropy
from .strategies import STRATEGIES, select
from .take import number_to_mask, take
from .units import UNITS
from .when import When

__all__ = [
    "SCORES", "STRATEGIES", "UNITS", "Masked", "Masker", "Option", "Policy", "Scores", "Vocabulary", "When",
    "apply_80_10_10", "corrupt", "entropy", "number_to_mask", "projected", "projected_entropy", "select", "take",
]
