"""Names that fairseq holds already, and its warnings about its own calls."""

import logging
import warnings

import fairseq.models

logger = logging.getLogger(__name__)


def make_room_for_bert_base():
    """fairseq's legacy `masked_lm` model holds the arch name `bert_base`, and a name can be registered once only."""
    legacy = fairseq.models.ARCH_MODEL_NAME_REGISTRY.pop("bert_base", None)
    if legacy is None:
        return
    del fairseq.models.ARCH_MODEL_REGISTRY["bert_base"]
    del fairseq.models.ARCH_CONFIG_REGISTRY["bert_base"]
    fairseq.models.ARCH_MODEL_INV_REGISTRY[legacy].remove("bert_base")
    logger.info(f"--arch bert_base is entropy_mask_plugin's BERT, not fairseq's legacy model '{legacy}'")


def silence_warnings_of_fairseqs_own_calls():
    """It calls hydra and torch's data loader in ways of older versions: two dozen lines that no user can do anything
    about."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"hydra\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.utils\.data\.")
    warnings.filterwarnings("ignore", message="(?s).*(is validated against ConfigStore schema|version_base parameter)")
