"""Five masking policies from the literature, one file each: a package for `--user-dir examples/policies`."""

import entropy_mask_plugin

from . import amlm, frequency, pmi, rho1, tf_icf  # noqa: F401

entropy_mask_plugin.register()  # fairseq-train now knows the options of these parts
