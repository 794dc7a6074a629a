"""A checkpoint of ours -> a folder that unmodified `transformers` loads."""

import os
from dataclasses import fields
from typing import Any, Dict, List, Optional, Tuple

import safetensors.torch
import torch
from torch import Tensor

from ..checkpoints.reading import NO_HEAD, read_checkpoint
from ..checkpoints.structure import UNFIT, section_of, shown
from ..checkpoints.vocabulary import read_dictionary, symbols_of_checkpoint
from ..models.architecture import check_model, class_of, settings_of_model, with_defaults
from ..models.bert import BertConfig, BertModel
from ..models.hbert import HybridModel
from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite
from .config import write_config
from .importing import new_model
from .model_card import model_card
from .tokenizer_files import TokenizerFiles, find_tokenizer, read_tokenizer_files
from .vocabulary import TokenizerVocabulary, json_bytes
from .weights import to_classifier, to_encoder, to_huggingface

FLAG = "--checkpoint"
HEAD = ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
MASKED_LM, CLASSIFIER, ENCODER = "BertForMaskedLM", "BertForSequenceClassification", "BertModel"


def export_bert(
    checkpoint: str, out: str, tokenizer: Optional[str] = None, architecture: Optional[str] = None
) -> str:
    """Write a `BertForMaskedLM` folder; a `BertForSequenceClassification` folder for a fine-tuned checkpoint; a
    `BertModel` folder for one with a mask decoder.

    Args:
        checkpoint: path of one of our BERTs with post-LayerNorm layout.
        out: a new folder.
        tokenizer: path of its tokenizer; None = look next to the checkpoint and to its training data.
        architecture: another of these classes, if the checkpoint can become one.
    Returns:
        the name of the class in transformers.
    Raises:
        UsageError: another kind of model, no vocabulary or tokenizer found, or `out` exists.
    """
    if os.path.exists(out):
        raise UsageError(f"--out: {out} exists already, expected a new folder")
    state = read_checkpoint(checkpoint, FLAG)
    check_exportable(state, checkpoint)
    refuse_not_finite(state["model"], checkpoint, FLAG)
    architecture = architecture_of(state, checkpoint, architecture)
    symbols = symbols_of_checkpoint(state, checkpoint)
    if symbols is None:
        raise UsageError(f"{FLAG}: {checkpoint} does not record its vocabulary, expected a dict.txt in its folder")
    check_weights_of_model(state, symbols, checkpoint)
    positions = state["cfg"]["model"]["max_positions"]
    files = read_tokenizer_files(find_tokenizer(tokenizer, checkpoint, state), symbols, positions)
    if architecture == CLASSIFIER:
        check_classifier(state, checkpoint)
        return write_folder(out, state, CLASSIFIER, *classifier(state, files))
    if architecture == ENCODER:
        return write_folder(out, state, ENCODER, files, to_encoder(tensors_of(state, files.vocabulary)), {})
    if NO_HEAD in (state.get("extra_state") or {}):
        raise UsageError(f"{FLAG}: {checkpoint} has no trained masked-LM head, expected one: it was imported without "
                         "a head and not trained since")
    return write_folder(out, state, MASKED_LM, files, tensors_of(state, files.vocabulary), {})


def check_exportable(state: dict, checkpoint: str) -> None:
    """Raise a UsageError for a model that transformers' BERT cannot compute."""
    settings = settings_of_model(state)
    name = settings.get("_name") or settings.get("arch")
    if not issubclass(class_of(name), BertModel):
        raise UsageError(f"{FLAG}: {checkpoint} is of arch {shown(name)}, expected bert_base, bertlet or another BERT "
                         "of this plug-in")
    check_model(state, checkpoint, FLAG)
    state["cfg"]["model"] = model = with_defaults(settings, name)
    if issubclass(class_of(name), HybridModel):
        raise UsageError(f"{FLAG}: {checkpoint} is of arch {name}, expected a BERT: transformers has no model with "
                         "additive attention or sub-LayerNorm")
    if model["encoder_normalize_before"]:
        raise UsageError(f"{FLAG}: {checkpoint} was trained with --encoder-normalize-before, expected post-LayerNorm: "
                         "transformers' BERT has no other layout")


def check_weights_of_model(state: dict, symbols: List[str], checkpoint: str) -> None:
    """Raise a UsageError unless the weights are those of the model that the settings and the vocabulary describe."""
    sizes = {field.name: state["cfg"]["model"][field.name] for field in fields(BertConfig)}
    try:
        with torch.device("meta"):  # shapes, no weights
            expected = new_model(BertConfig(**sizes), symbols).state_dict()
    except UNFIT as error:
        raise UsageError(f"{FLAG}: {checkpoint} cannot be built: {error}") from error
    for name, tensor in expected.items():
        shape = tuple(state["model"][name].shape) if name in state["model"] else "missing"
        require(FLAG, f"{checkpoint} with {name} {shape}", shape == tuple(tensor.shape),
                f"{tuple(tensor.shape)} by its settings and vocabulary")


def architecture_of(state: dict, checkpoint: str, requested: Optional[str]) -> str:
    """The class in transformers that a checkpoint becomes: the requested one, or the one that keeps its head.

    Raises:
        UsageError: the checkpoint cannot become the requested one.
    """
    names = state["model"].keys()
    if any(name.startswith("classification_heads.") for name in names):
        possible = (CLASSIFIER, ENCODER)
    elif any(name.startswith("mask_decoder.") for name in names):
        possible = (ENCODER,)
        if requested == MASKED_LM:
            raise UsageError(f"--architecture: {MASKED_LM} found, expected {ENCODER}: the LM head of {checkpoint} "
                             "reads its mask decoder (--mask-decoder-layers), which transformers' BERT does not have")
    else:
        possible = (MASKED_LM, ENCODER)
    require("--architecture", requested, requested is None or requested in possible, " or ".join(possible))
    return requested or possible[0]


def check_classifier(state: dict, checkpoint: str) -> None:
    """Raise a UsageError for a fine-tuned model whose input format no tokenizer of transformers produces, or without
    its head."""
    task, head = section_of(state, "task"), section_of(state, "criterion").get("classification_head_name")
    for name in HEAD:
        full = f"classification_heads.{head}.{name}"
        require(FLAG, f"{checkpoint} without {full}", full in state["model"], "a fine-tuned model with its head")
    for name, fine, expected in (("_name", ("sentence_prediction",), "sentence_prediction"),
                                 ("init_token", (0,), "0, which is <s>"), ("separator_token", (None, 2), "2 or none")):
        if task.get(name) not in fine:
            flag = "--task" if name == "_name" else "--" + name.replace("_", "-")
            raise UsageError(f"{FLAG}: {checkpoint} was fine-tuned with {flag} {task.get(name)}, expected {expected}")


def tensors_of(state: dict, vocabulary: TokenizerVocabulary) -> Dict[str, Tensor]:
    """Hugging Face's tensors of a checkpoint, see `to_huggingface`."""
    return to_huggingface(state["model"], state["cfg"]["model"]["encoder_layers"], vocabulary.rows())


def classifier(state: dict, files: TokenizerFiles) -> Tuple[TokenizerFiles, Dict[str, Tensor], Dict[str, Any]]:
    """(tokenizer files, tensors, more keys of config.json) of a checkpoint fine-tuned by `sentence_prediction`."""
    task = state["cfg"]["task"]
    prefix = f"classification_heads.{state['cfg']['criterion']['classification_head_name']}."
    head = {name[len(prefix):]: tensor for name, tensor in state["model"].items() if name.startswith(prefix)}
    separators = 1 if task.get("separator_token") is None else 2
    names = class_names(task, len(head["out_proj.bias"]))
    more = {"num_labels": len(head["out_proj.bias"]), "problem_type": "single_label_classification"}
    if section_of(state, "criterion").get("regression_target"):
        more["problem_type"] = "regression"
    elif names:
        more |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    tensors = to_classifier(tensors_of(state, files.vocabulary), head)
    return files.with_pairs(separators), tensors, more


def class_names(task: Dict[str, Any], count: int) -> List[str]:
    """The classes' names in the label dictionary of the fine-tuning data; empty where it is missing or smaller."""
    folder = os.path.join(task.get("data") or "", "label")
    if not os.path.exists(os.path.join(folder, "dict.txt")):
        return []
    labels = read_dictionary(folder)
    names = labels.symbols[labels.nspecial :][:count]  # fairseq pads dictionaries with "madeupword0000", …
    return names if len(names) == count and not any(name.startswith("madeupword") for name in names) else []


def write_folder(out: str, state: dict, architecture: str, files: TokenizerFiles, tensors: Dict[str, Tensor],
                 more: Dict[str, Any]) -> str:
    """Write all files of the model at once; return its architecture. more: keys of config.json."""
    config = {**write_config(state["cfg"]["model"], files.vocabulary, architecture), **more}
    parameters = sum(tensor.numel() for tensor in tensors.values())
    card = model_card(os.path.basename(os.path.normpath(out)), state, architecture, files.vocabulary, parameters)
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})  # without it, transformers refuses the file
    contents = {**files.files, "config.json": json_bytes(config), "README.md": card.encode(),
                "model.safetensors": weights}
    with atomic_path(out) as tmp:
        os.makedirs(tmp)
        for name, content in contents.items():
            write_bytes(os.path.join(tmp, name), content)
    return architecture
