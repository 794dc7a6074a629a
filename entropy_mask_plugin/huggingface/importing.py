"""A Hugging Face folder -> a model of ours, and a checkpoint that fairseq reads."""

import os
import warnings
from dataclasses import fields
from typing import Any, Dict, List, NamedTuple, Optional

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import MODEL_DATACLASS_REGISTRY
from omegaconf import OmegaConf
from torch import Tensor, nn

from ..checkpoints.reading import NO_HEAD
from ..checkpoints.vocabulary import RECORD
from ..checkpoints.writing import write_checkpoint
from ..models.bert import BertConfig, BertEncoder, BertModel
from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError, require
from .config import read_config
from .source import folder_of, read_model_json, read_tensors
from .tokenizer_files import bert_files
from .vocabulary import TokenizerVocabulary, read_vocabulary
from .weights import WORDS, check_imported_tensors, from_huggingface, separated, to_huggingface


class ImportedBert(NamedTuple):
    """The content of a Hugging Face folder in our terms."""

    config: BertConfig
    state: Dict[str, Tensor]  # our names, see weights.py; without lm_head.* where the folder has no such head
    vocabulary: TokenizerVocabulary
    left_out: List[str]  # parts of the model that were not imported, such as "pooler"

    @property
    def has_head(self) -> bool:
        """Whether the folder has a masked-LM head."""
        return "lm_head.bias" in self.state

    def model(self) -> BertModel:
        """A model in eval mode. A missing masked-LM head gets random weights, the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = new_model(self.config, self.vocabulary.symbols())
        model.load_state_dict({**model.state_dict(), **self.state})
        return model.eval()


def read_bert(folder: str, flag: str) -> ImportedBert:
    """Read a Hugging Face folder.

    Args:
        folder: with config.json, weights and tokenizer files.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: a file is missing or damaged; not BERT; tensors that do not fit config.json or the vocabulary.
    """
    config = read_config(folder, flag)
    vocabulary = read_vocabulary(folder, flag)
    origin = f"{flag}: {folder}"
    theirs, left_out = separated(read_tensors(folder, flag), origin)
    check_sizes(folder, flag, theirs, vocabulary)
    require(f"{origin}/config.json", f"num_hidden_layers {config.encoder_layers}", config.encoder_layers <= len(theirs),
            f"at most one for each of the {len(theirs)} tensors")
    rows = vocabulary.rows()
    with torch.device("meta"):  # shapes, no weights
        blank = new_model(config, vocabulary.symbols()).state_dict()
    check_imported_tensors(theirs, to_huggingface(blank, config.encoder_layers, rows), origin)
    return ImportedBert(config, from_huggingface(theirs, config.encoder_layers, rows), vocabulary, left_out)


def check_sizes(folder: str, flag: str, tensors: Dict[str, Tensor], vocabulary: TokenizerVocabulary) -> None:
    """Raise a UsageError unless config.json, the embedding and the tokenizer have the same number of tokens."""
    config = read_model_json(folder, "config.json", flag)
    sizes = {"the tokenizer": len(vocabulary.tokens), "config.json": config.get("vocab_size"),
             "the embedding": len(tensors[WORDS]) if WORDS in tensors else None}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise UsageError(f"{flag}: {folder}: different numbers of tokens found ({listed}), expected the same in each")


def new_model(config: BertConfig, symbols: List[str]) -> BertModel:
    """A model with random weights. symbols: all of its dictionary, fairseq's special ones first."""
    return BertModel(config, BertEncoder(config, dictionary_of(symbols)))


def dictionary_of(symbols: List[str]) -> Dictionary:
    """fairseq's dictionary with these symbols, its own special ones first."""
    dictionary = Dictionary()
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    return dictionary


def import_bert(name: str, out: str) -> ImportedBert:
    """Write model.pt, dict.txt, flags.txt and the tokenizer's files to a new folder.

    Args:
        name: a Hugging Face folder, or a name on the hub.
        out: the new folder.
    Returns:
        the imported model.
    Raises:
        UsageError: see `read_bert`; `out` exists.
    """
    if os.path.exists(out):
        raise UsageError(f"--out: {out} exists already, expected a new folder")
    folder = folder_of(name, "--hf")
    bert = read_bert(folder, "--hf")
    with atomic_path(out) as tmp:
        os.makedirs(tmp)
        write_checkpoint(os.path.join(tmp, "model.pt"), checkpoint_of(bert))
        write_bytes(os.path.join(tmp, "dict.txt"), bert.vocabulary.dictionary().encode())
        write_bytes(os.path.join(tmp, "flags.txt"), (" ".join(architecture_flags(bert.config)) + "\n").encode())
        for file, content in bert_files(folder, "--hf").files.items():
            write_bytes(os.path.join(tmp, file), content)
    return bert


def checkpoint_of(bert: ImportedBert) -> Dict[str, Any]:
    """The content of model.pt; a missing masked-LM head is noted in extra_state."""
    extra = {} if bert.has_head else {NO_HEAD: "missing in the Hugging Face model, fresh weights"}
    return fresh_checkpoint(recorded_settings(bert.config), bert.model(), bert.vocabulary.symbols(), extra)


def fresh_checkpoint(cfg: Dict[str, Any], model: nn.Module, symbols: List[str],
                     extra: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """What fairseq-train would save before the first update: with --restore-file, training starts in epoch 1.

    Args:
        cfg: fairseq's settings as plain values, see `recorded_settings`.
        model: whose weights it gets.
        symbols: of its dictionary, recorded for `check_vocabulary`.
        extra: more keys of extra_state.
    """
    return {
        "args": None,
        "cfg": cfg,
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [{"criterion_name": "EntropyMaskedLMCriterion", "optimizer_name": "none",
                               "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": {},
        "extra_state": {
            "train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True},
            RECORD: symbols,
            **(extra or {}),
        },
        "last_optimizer_state": None,
    }


def recorded_settings(config: BertConfig) -> Dict[str, Any]:
    """The settings of a run with these sizes, as fairseq stores them in a checkpoint."""
    command = ["", "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--mask-strategy", "random",
               "--tokens-per-sample", str(config.max_positions)]
    args: Any = options.parse_args_and_arch(options.get_training_parser(), command + architecture_flags(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fairseq's deprecated calls of hydra
        settings: Any = OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True)
    return settings


def architecture_flags(config: BertConfig) -> List[str]:
    """--arch, and a flag for every field in which `config` differs from that arch, as command-line arguments."""
    sizes = config.encoder_layers, config.encoder_embed_dim, config.encoder_ffn_embed_dim
    arch = "bertlet" if sizes == (4, 512, 2048) else "bert_base"
    defaults = MODEL_DATACLASS_REGISTRY[arch]()
    arguments = ["--arch", arch]
    for field in fields(BertConfig):
        if getattr(config, field.name) != getattr(defaults, field.name):
            arguments += ["--" + field.name.replace("_", "-"), str(getattr(config, field.name))]
    return arguments
