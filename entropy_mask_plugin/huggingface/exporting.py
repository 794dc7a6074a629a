"""From a checkpoint of ours to a folder that stock `transformers` loads."""

import os

import safetensors.torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY

from ..checkpoints.reading import NO_HEAD, read_checkpoint
from ..checkpoints.vocabulary import symbols_of_checkpoint
from ..models.bert import BertModel
from ..models.hbert import HybridModel
from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError, require
from .config import write_config
from .model_card import model_card
from .tokenizer_files import find_tokenizer, read_tokenizer_files
from .vocabulary import as_json
from .weights import to_classifier, to_encoder, to_huggingface

FLAG = "--checkpoint"
MASKED_LM, CLASSIFIER, ENCODER = "BertForMaskedLM", "BertForSequenceClassification", "BertModel"


def export_bert(checkpoint, out, tokenizer=None, architecture=None):
    """Write a `BertForMaskedLM` folder, of a fine-tuned checkpoint a `BertForSequenceClassification` folder, of one
    with a mask decoder a `BertModel` folder.

    Args:
        checkpoint: path of one of our BERTs in post-LayerNorm layout.
        out: a new folder.
        tokenizer: path of its tokenizer; None = beside the checkpoint or its training data.
        architecture: another one of these classes, where the checkpoint has it.
    Returns:
        the name of the class in transformers.
    Raises:
        UsageError: another model, no vocabulary or tokenizer to be found, or `out` is there already.
    """
    if os.path.exists(out):
        raise UsageError(f"--out: {out} exists already, expected a new folder")
    state = read_checkpoint(checkpoint, FLAG)
    check_exportable(state, checkpoint)
    architecture = architecture_of(state, checkpoint, architecture)
    symbols = symbols_of_checkpoint(state, checkpoint)
    if symbols is None:
        raise UsageError(f"{FLAG}: {checkpoint} does not say its vocabulary, expected a dict.txt beside it")
    positions = state["cfg"]["model"]["max_positions"]
    files = read_tokenizer_files(find_tokenizer(tokenizer, checkpoint, state), symbols, positions)
    if architecture == CLASSIFIER:
        check_classifier(state, checkpoint)
        return write_folder(out, state, CLASSIFIER, *classifier(state, files))
    if architecture == ENCODER:
        return write_folder(out, state, ENCODER, files, to_encoder(tensors_of(state, files.vocabulary)), {})
    if NO_HEAD in (state.get("extra_state") or {}):
        raise UsageError(f"{FLAG}: {checkpoint} has no trained masked-LM head, expected one: its Hugging Face original "
                         "had none, and it was not trained since")
    return write_folder(out, state, MASKED_LM, files, tensors_of(state, files.vocabulary), {})


def check_exportable(state, checkpoint):
    """Refuse what stock BERT cannot compute."""
    model = (state.get("cfg") or {}).get("model")  # a Namespace in old checkpoints, which no model of ours has written
    name = model.get("_name") if isinstance(model, dict) else getattr(model or state.get("args"), "arch", None)
    if not isinstance(model, dict) or not issubclass(ARCH_MODEL_REGISTRY.get(name, object), BertModel):
        raise UsageError(f"{FLAG}: {checkpoint} is of arch {name}, expected bert_base, bertlet or another BERT of this "
                         "plug-in")
    if issubclass(ARCH_MODEL_REGISTRY[name], HybridModel):
        raise UsageError(f"{FLAG}: {checkpoint} is of arch {name}, expected a BERT: transformers has no model with "
                         "additive attention or sub-LayerNorm")
    if model["encoder_normalize_before"]:
        raise UsageError(f"{FLAG}: {checkpoint} was trained with --encoder-normalize-before, expected post-LayerNorm: "
                         "transformers' BERT has no other layout")


def architecture_of(state, checkpoint, asked):
    """The class in transformers that a checkpoint becomes: the one that is asked for, or else all that it has."""
    names = state["model"].keys()
    if any(name.startswith("classification_heads.") for name in names):
        possible = (CLASSIFIER, ENCODER)
    elif any(name.startswith("mask_decoder.") for name in names):
        possible = (ENCODER,)
        if asked == MASKED_LM:
            raise UsageError(f"--architecture: {MASKED_LM} found, expected {ENCODER}: the LM head of {checkpoint} "
                             "reads its mask decoder (--mask-decoder-layers), which transformers' BERT does not have")
    else:
        possible = (MASKED_LM, ENCODER)
    require("--architecture", asked, asked is None or asked in possible, " or ".join(possible))
    return asked or possible[0]


def check_classifier(state, checkpoint):
    """Refuse a fine-tuned model whose input transformers' tokenizers would not make."""
    task = state["cfg"]["task"]
    for name, fine, expected in (("_name", ("sentence_prediction",), "sentence_prediction"),
                                 ("init_token", (0,), "0, which is <s>"), ("separator_token", (None, 2), "2 or none")):
        if task.get(name) not in fine:
            flag = "--task" if name == "_name" else "--" + name.replace("_", "-")
            raise UsageError(f"{FLAG}: {checkpoint} was fine-tuned with {flag} {task.get(name)}, expected {expected}")


def tensors_of(state, vocabulary):
    return to_huggingface(state["model"], state["cfg"]["model"]["encoder_layers"], vocabulary.rows())


def classifier(state, files):
    """(tokenizer files, tensors, more of config.json) of a checkpoint that `sentence_prediction` has tuned."""
    task = state["cfg"]["task"]
    prefix = f"classification_heads.{state['cfg']['criterion']['classification_head_name']}."
    head = {name[len(prefix):]: tensor for name, tensor in state["model"].items() if name.startswith(prefix)}
    separators = 1 if task["separator_token"] is None else 2
    names = class_names(task, len(head["out_proj.bias"]))
    more = {"num_labels": len(head["out_proj.bias"]), "problem_type": "single_label_classification"}
    if state["cfg"]["criterion"]["regression_target"]:
        more["problem_type"] = "regression"
    elif names:
        more |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    tensors = to_classifier(tensors_of(state, files.vocabulary), head)
    return files.with_pairs(separators), tensors, more


def class_names(task, count):
    """The classes as the label dictionary of the fine-tuning data calls them; empty where it is gone or smaller."""
    file = os.path.join(task["data"], "label", "dict.txt")
    if not os.path.exists(file):
        return []
    labels = Dictionary.load(file)
    names = labels.symbols[labels.nspecial :][:count]  # fairseq pads a dictionary
    return names if len(names) == count and not any(name.startswith("madeupword") for name in names) else []


def write_folder(out, state, architecture, files, tensors, more):
    config = {**write_config(state["cfg"]["model"], files.vocabulary, architecture), **more}
    parameters = sum(tensor.numel() for tensor in tensors.values())
    card = model_card(os.path.basename(os.path.normpath(out)), state, architecture, files.vocabulary, parameters)
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})  # without it, transformers refuses the file
    contents = {**files.files, "config.json": as_json(config), "README.md": card.encode(), "model.safetensors": weights}
    with atomic_path(out) as tmp:
        os.makedirs(tmp)
        for name, content in contents.items():
            write_bytes(os.path.join(tmp, name), content)
    return architecture
