"""Arch names that fairseq already uses, and warnings about fairseq's own calls."""

import logging
import warnings

import fairseq.models

logger = logging.getLogger(__name__)


def make_room_for_bert_base() -> None:
    """fairseq's legacy `masked_lm` model uses the arch name `bert_base`, and a name can be registered only once."""
    legacy = fairseq.models.ARCH_MODEL_NAME_REGISTRY.pop("bert_base", None)
    if legacy is None:
        return
    del fairseq.models.ARCH_MODEL_REGISTRY["bert_base"]
    del fairseq.models.ARCH_CONFIG_REGISTRY["bert_base"]
    fairseq.models.ARCH_MODEL_INV_REGISTRY[legacy].remove("bert_base")
    logger.info(f"--arch bert_base is entropy_mask_plugin's BERT, not fairseq's legacy model '{legacy}'")


def silence_warnings_of_fairseq() -> None:
    """fairseq calls hydra and torch's data loader in deprecated ways: two dozen warnings that no user can fix."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"hydra\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.utils\.data\.")
    warnings.filterwarnings("ignore", message="(?s).*(is validated against ConfigStore schema|version_base parameter)")
