"""README.md of an exported model: what it is, how to use it, the flags that it was trained with."""

from typing import Any, Dict

import yaml

from ..config import recorded_corruption
from ..masking.rates import Ramp
from .vocabulary import TokenizerVocabulary

SECTIONS = ("task", "criterion", "model", "optimization", "optimizer", "lr_scheduler", "dataset", "common", "ema")
RELEVANT = {  # of fairseq's many settings in these sections, those that matter for the model
    "optimization": ("max_epoch", "max_update", "clip_norm", "update_freq", "lr"),
    "dataset": ("batch_size", "max_tokens"),
    "common": ("seed",),
    "ema": ("store_ema", "ema_decay", "ema_start_update", "ema_update_freq"),
}
OF_THE_MACHINE = ("save_dir", "restore_file", "finetune_from_model")
CLASS_AND_TASK = {
    "BertForMaskedLM": ("fill-mask", "a masked language model"),
    "BertModel": ("feature-extraction", "an encoder of texts"),
    "BertForSequenceClassification": ("text-classification", "a classifier of texts"),
}
CARD = """---
library_name: transformers
pipeline_tag: {task}
tags: [bert, entropy-masking]
---

# {name}

{kind}, a `{architecture}` of {layers} layers x {width}, {heads} heads, with {parameters:,} parameters and
{vocabulary:,} tokens.
{training}

    from transformers import pipeline
    pipeline("{task}", "{name}")({example!r})

Token types are ignored.{pooler}
"""
NO_POOLER = " The model has no pooler and no masked-LM head: load it with `AutoModel` and `add_pooling_layer=False`."
TRAINING = """Trained with fairseq and the plug-in entropy_mask_plugin (Srinivasagan, Hartung, Georges, \\*SEM 2026):
{updates:,} updates, the last of them in epoch {epoch}, with the flags below."""
FLAGS = """
## Training flags

```yaml
{flags}```
"""


def model_card(name: str, state: dict, architecture: str, vocabulary: TokenizerVocabulary, parameters: int) -> str:
    """The card in Markdown.

    Args:
        name: of the folder.
        state: the fairseq checkpoint.
        architecture: a key of CLASS_AND_TASK.
        vocabulary: of the model.
        parameters: their number.
    """
    task, kind = CLASS_AND_TASK[architecture]
    model, updates = state["cfg"]["model"], (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)
    training = "Imported from another model and not trained since."
    at = (state.get("extra_state") or {}).get("train_iterator")
    if updates and at:  # after an epoch's last update: the next epoch, 0
        training = TRAINING.format(updates=updates, epoch=at["epoch"] - (at["iterations_in_epoch"] == 0))
    mask = vocabulary.specials["mask"]
    card = CARD.format(
        task=task, name=name, kind=kind[0].upper() + kind[1:], architecture=architecture,
        layers=model["encoder_layers"], width=model["encoder_embed_dim"], heads=model["encoder_attention_heads"],
        parameters=parameters, vocabulary=len(vocabulary.tokens), training=training,
        pooler=NO_POOLER if architecture == "BertModel" else "",
        example=f"The capital of France is {mask}." if task == "fill-mask" else "A text.",
    )
    return card + (FLAGS.format(flags=flags(state["cfg"])) if updates else "")


def flags(cfg: Dict[str, Any]) -> str:
    """The settings of a run as YAML, in fairseq's sections, without those that are not set."""
    sections = {}
    for section in SECTIONS:
        settings = cfg.get(section) or {}
        if section == "ema" and not settings.get("store_ema"):
            continue
        if section == "task" and "mask_strategy" in settings:
            corruption = recorded_corruption(settings)  # with defaults of the arch
            rate = corruption.mask_prob
            settings = {**settings, **corruption._asdict(), "mask_prob": str(rate) if isinstance(rate, Ramp) else rate}
        names = RELEVANT.get(section, settings)
        chosen = [name for name in names if is_set(settings.get(name)) and name not in OF_THE_MACHINE]
        sections[section] = {name: settings[name] for name in chosen}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def is_set(value: Any) -> bool:
    """Whether a setting has a value other than None, False and ""."""
    return value is not None and value is not False and value != ""
