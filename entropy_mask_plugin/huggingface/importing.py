"""From a Hugging Face folder to a model of ours, and to a checkpoint that fairseq reads."""

import os
import warnings
from dataclasses import fields
from typing import Dict, List, NamedTuple

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import MODEL_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from ..checkpoints.reading import NO_HEAD
from ..checkpoints.vocabulary import RECORD
from ..models.bert import BertConfig, BertEncoder, BertModel
from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError
from .config import read_config
from .source import folder_of, read_json, read_tensors
from .tokenizer_files import bert_files
from .vocabulary import Vocabulary, read_vocabulary
from .weights import WORDS, check_shapes, from_huggingface, separated, to_huggingface


class ImportedBert(NamedTuple):
    config: BertConfig
    state: Dict[str, torch.Tensor]  # ours, see weights.py; without lm_head.* where the folder has no such head
    vocabulary: Vocabulary
    left_out: List[str]

    @property
    def has_head(self):
        return "lm_head.bias" in self.state

    def model(self):
        """A BertModel in eval mode. A missing masked-LM head has fresh weights, the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = new_model(self.config, self.vocabulary.symbols())
        model.load_state_dict({**model.state_dict(), **self.state})
        return model.eval()


def read_bert(folder, flag):
    """Read a Hugging Face folder.

    Raises:
        UsageError: a file missing or damaged; not BERT; tensors that do not fit config.json or the vocabulary.
    """
    config = read_config(folder, flag)
    vocabulary = read_vocabulary(folder, flag)
    origin = f"{flag}: {folder}"
    theirs, left_out = separated(read_tensors(folder, flag), origin)
    check_sizes(folder, flag, theirs, vocabulary)
    rows = vocabulary.rows()
    with torch.device("meta"):  # shapes, no weights
        blank = new_model(config, vocabulary.symbols()).state_dict()
    check_shapes(theirs, to_huggingface(blank, config.encoder_layers, rows), origin)
    return ImportedBert(config, from_huggingface(theirs, config.encoder_layers, rows), vocabulary, left_out)


def check_sizes(folder, flag, tensors, vocabulary):
    """config.json, the embedding and the tokenizer must speak of the same number of tokens."""
    config = read_json(folder, "config.json", flag)
    sizes = {"the tokenizer": len(vocabulary.tokens), "config.json": config.get("vocab_size"),
             "the embedding": len(tensors[WORDS]) if WORDS in tensors else None}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        found = ", ".join(f"{name} has {size}" for name, size in known.items())
        raise UsageError(f"{flag}: {folder}: different numbers of tokens found ({found}), expected the same in each")


def new_model(config, symbols):
    return BertModel(config, BertEncoder(config, dictionary_of(symbols)))


def dictionary_of(symbols):
    dictionary = Dictionary()
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    return dictionary


def import_bert(name, out):
    """Leave model.pt, dict.txt, flags.txt and the tokenizer's files in the new folder `out`, and return what was read.

    Args:
        name: a Hugging Face folder, or a name on the hub.
    Raises:
        UsageError: see `read_bert`; `out` is there already.
    """
    if os.path.exists(out):
        raise UsageError(f"--out: {out} exists already, expected a new folder")
    folder = folder_of(name, "--hf")
    bert = read_bert(folder, "--hf")
    with atomic_path(out) as tmp:
        os.makedirs(tmp)
        torch.save(checkpoint_of(bert), os.path.join(tmp, "model.pt"))
        write_bytes(os.path.join(tmp, "dict.txt"), bert.vocabulary.dictionary().encode())
        write_bytes(os.path.join(tmp, "flags.txt"), (" ".join(model_flags(bert.config)) + "\n").encode())
        for file, content in bert_files(folder, "--hf").files.items():
            write_bytes(os.path.join(tmp, file), content)
    return bert


def checkpoint_of(bert):
    extra = {} if bert.has_head else {NO_HEAD: "missing in the Hugging Face model, fresh weights"}
    return fresh_checkpoint(configuration(bert.config), bert.model(), bert.vocabulary.symbols(), extra)


def fresh_checkpoint(cfg, model, symbols, extra=None):
    """What fairseq-train would have saved after no update at all: --restore-file begins with epoch 1."""
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


def configuration(config):
    """The flags of a run with these sizes, as fairseq keeps them in a checkpoint."""
    command = ["", "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--mask-strategy", "random",
               "--tokens-per-sample", str(config.max_positions)]
    args = options.parse_args_and_arch(options.get_training_parser(), command + model_flags(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fairseq calls hydra in ways that today's hydra warns of
        return OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True)


def model_flags(config):
    """The arch, and every size in which `config` differs from it, as words of a command line."""
    sizes = config.encoder_layers, config.encoder_embed_dim, config.encoder_ffn_embed_dim
    arch = "bertlet" if sizes == (4, 512, 2048) else "bert_base"
    defaults = MODEL_DATACLASS_REGISTRY[arch]()
    words = ["--arch", arch]
    for field in fields(BertConfig):
        if getattr(config, field.name) != getattr(defaults, field.name):
            words += ["--" + field.name.replace("_", "-"), str(getattr(config, field.name))]
    return words
