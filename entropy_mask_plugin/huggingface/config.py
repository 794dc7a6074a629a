"""config.json of a BERT <-> the fields of BertConfig."""

import os
from typing import Any, Dict, Union

from ..checkpoints.structure import shown
from ..models.bert import BertConfig
from ..system.errors import UsageError, require
from .source import read_model_json
from .vocabulary import TokenizerVocabulary

# Hugging Face's name, ours, and the default where config.json does not have it.
SIZES = (
    ("num_hidden_layers", "encoder_layers", 12),
    ("hidden_size", "encoder_embed_dim", 768),
    ("intermediate_size", "encoder_ffn_embed_dim", 3072),
    ("num_attention_heads", "encoder_attention_heads", 12),
    ("max_position_embeddings", "max_positions", 512),
    ("hidden_dropout_prob", "dropout", 0.1),
    ("attention_probs_dropout_prob", "attention_dropout", 0.1),
    ("initializer_range", "init_std", 0.02),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
)
# Hugging Face's name, the default where config.json does not have it, and the values that our BERT implements.
ASSUMED = (
    ("model_type", "bert", ("bert",)),
    ("hidden_act", "gelu", ("gelu", "gelu_python")),  # two names of the exact (erf) form
    ("position_embedding_type", "absolute", ("absolute",)),
    ("is_decoder", False, (False,)),
    ("add_cross_attention", False, (False,)),
    ("tie_word_embeddings", True, (True,)),
)
OPTIONAL = {"architectures": list, "vocab_size": int}  # types of further keys


def read_config(folder: str, flag: str) -> BertConfig:
    """The sizes of the BERT in a Hugging Face folder.

    Args:
        folder: with a config.json.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: no config.json, or one of a model that is not BERT (names the first such key).
    """
    config = read_model_json(folder, "config.json", flag)
    path = os.path.join(folder, "config.json")
    for name, kinds in OPTIONAL.items():
        value = config.get(name)
        require(f"{flag}: {path}", f"{name} {shown(value)}", value is None or isinstance(value, kinds), "a BERT's")
    for name in config.get("architectures") or ():  # absent, like model_type, in Google's own files
        if not str(name).startswith("Bert"):
            raise UsageError(f"{flag}: {path}: architecture {name} found, expected a BERT")
    for name, default, supported in ASSUMED:
        if config.get(name, default) not in supported:
            raise UsageError(f"{flag}: {path}: {name} {config[name]!r} found, expected {supported[0]!r}: "
                             "only BERT as published can be read")
    sizes: Dict[str, Any] = {ours: size(config, theirs, default, f"{flag}: {path}") for theirs, ours, default in SIZES}
    if sizes["encoder_embed_dim"] % sizes["encoder_attention_heads"]:
        raise UsageError(f"{flag}: {path}: {sizes['encoder_attention_heads']} num_attention_heads found, expected a "
                         f"divisor of hidden_size ({sizes['encoder_embed_dim']})")
    if config.get("classifier_dropout") is None:
        return BertConfig(**sizes, pooler_dropout=sizes["dropout"])
    return BertConfig(**sizes, pooler_dropout=float(size(config, "classifier_dropout", 0.1, f"{flag}: {path}")))


def size(config: Dict[str, Any], name: str, default: Union[int, float], origin: str) -> Union[int, float]:
    """A number of config.json with the type of its default; integers are 1 or more, others 0 or more, probabilities
    at most 1.

    Raises:
        UsageError: anything else; begins with `origin`.
    """
    value, highest = config.get(name, default), 1 if name.endswith(("_prob", "_dropout")) else (1 << 31) - 1
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= highest
    if not fine or isinstance(default, int) and (value != int(value) or value < 1):
        raise UsageError(f"{origin}: {name} {value!r} found, expected a number like {default}")
    return type(default)(value)


def write_config(model: Dict[str, Any], vocabulary: TokenizerVocabulary, architecture: str) -> Dict[str, Any]:
    """The content of config.json.

    Args:
        model: the fields of BertConfig, as stored in a checkpoint.
        vocabulary: of the model.
        architecture: transformers' name of the class.
    """
    return {
        "architectures": [architecture],
        "model_type": "bert",
        "vocab_size": len(vocabulary.tokens),
        **{theirs: model[ours] for theirs, ours, _ in SIZES},
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "classifier_dropout": model["pooler_dropout"],
        "pad_token_id": vocabulary.id_of("pad"),
        "tie_word_embeddings": True,
    }
