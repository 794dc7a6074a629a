"""Every place where the plug-in changes something of fairseq itself, and why. Nothing else in the package does."""

import argparse
import logging
import os
import shutil

import fairseq.models
import torch
from fairseq.file_io import PathManager

logger = logging.getLogger(__name__)


def apply_fairseq_fixes():
    make_room_for_bert_base()
    allow_harmless_classes_in_checkpoints()
    copy_checkpoints_atomically()


def make_room_for_bert_base():
    """fairseq's legacy `masked_lm` model holds the arch name `bert_base`, and a name can be registered once only."""
    legacy = fairseq.models.ARCH_MODEL_NAME_REGISTRY.pop("bert_base", None)
    if legacy is None:
        return
    del fairseq.models.ARCH_MODEL_REGISTRY["bert_base"]
    del fairseq.models.ARCH_CONFIG_REGISTRY["bert_base"]
    fairseq.models.ARCH_MODEL_INV_REGISTRY[legacy].remove("bert_base")
    logger.info(f"--arch bert_base is entropy_mask_plugin's BERT, not fairseq's legacy model '{legacy}'")


def allow_harmless_classes_in_checkpoints():
    """Checkpoints of fairseq's older models hold an argparse.Namespace, which torch.load(weights_only=True) refuses."""
    torch.serialization.add_safe_globals([argparse.Namespace])


def copy_checkpoints_atomically():
    """fairseq writes checkpoint1.pt atomically and then copies it over checkpoint_last.pt byte by byte: a run killed in
    that moment could not be resumed."""

    def copy(src_path, dst_path, overwrite=False):
        shutil.copyfile(src_path, dst_path + ".tmp")
        os.replace(dst_path + ".tmp", dst_path)
        return dst_path

    PathManager.copy = staticmethod(copy)
