"""How masks are made: pure tensor functions that import only torch and numpy (and triton for the GPU kernels).

policy        the parts of a masking policy, and their settings
scores/       how uncertain is a model about each token?
strategies/   which tokens are masked first?
units/        which tokens are masked together?
rates         which fraction of the tokens is masked, and when?
take          how many tokens are masked, and the cut between them and the rest
corruption    what does the model see there, and what must it predict?
masker        all of the above: from a clean batch to a masked one
refinement    the same selection from cheaper scores
folds         which tokens are hidden together while they are scored
vocabulary    what masking needs of a dictionary
noise         uniform noise as a function of (seed, epoch, sample id, position)
statistics    what did the masks of a batch look like?
registry      parts that a user chooses by name
when          epoch and update number
kernels       GPU kernels are checked once before they are used
devices       host and device without needless waiting

Whose predictions are scored is decided in `entropy_mask_plugin.scoring`.
"""

from .corruption import apply_80_10_10, corrupt
from .masker import Masked, Masker
from .policy import Policy
from .registry import Option
from .scores import SCORES, Answers, Learner, Scores, projected
from .scores.entropy import entropy, projected_entropy
from .strategies import STRATEGIES, select
from .take import number_to_mask, take
from .units import UNITS
from .vocabulary import Vocabulary
from .when import When

__all__ = [
    "SCORES", "STRATEGIES", "UNITS", "Answers", "Learner", "Masked", "Masker", "Option", "Policy", "Scores",
    "Vocabulary", "When",
    "apply_80_10_10", "corrupt", "entropy", "number_to_mask", "projected", "projected_entropy", "select", "take",
]
