"""BERT as published (Devlin et al. 2019), with the body and the output projection apart.

Entropies and losses are needed at selected positions and in chunks, so the steps can be called one by one:

    encode       tokens           -> features      B x T x C, or K x C at selected positions
    decode       tokens           -> features      the same, after the mask decoder if the model has one
    lm_hidden    tokens           -> hidden        B x T x C, the input of the output projection
    output_projection             -> weight V x C, bias V
    forward      tokens, positions -> logits       at those positions only

With selected positions, the last layer computes queries and its feed-forward block at these alone: the outputs at the
others would reach neither the loss nor a gradient.

Shapes: B sentences, T positions, C width, V vocabulary, K selected positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Dict, Optional, Tuple, Type, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqEncoder, FairseqEncoderModel, register_model
from torch import Tensor

from ..system.errors import require
from ..system.machine import memory_bytes
from .classification import ClassificationHeads
from .layers import bert_layer, layer_norm
from .linear import Linear, cast_together
from .mask_decoder import KINDS, MaskDecoder
from .positions import SelectedPositions
from .projection import project

RANGES = {"encoder_layers": (1, 1000), "encoder_embed_dim": (1, 65_536), "encoder_ffn_embed_dim": (1, 262_144),
          "encoder_attention_heads": (1, 65_536), "max_positions": (2, 1_048_576), "mask_decoder_layers": (0, 1000)}


@dataclass
class EncoderConfig(FairseqDataclass):
    """Flags that all archs share."""

    encoder_layers: int = field(default=12, metadata={"help": "number of layers"})
    encoder_embed_dim: int = field(default=768, metadata={"help": "width of embeddings and layers"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "width inside the feed-forward blocks"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "number of attention heads; divides the width"})
    dropout: float = field(default=0.1, metadata={"help": "dropout after embeddings and blocks, in [0, 1)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout of attention weights, in [0, 1)"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout after the FFN's activation, in [0, 1)"})
    pooler_dropout: float = field(default=0.1, metadata={"help": "dropout in classification heads, in [0, 1)"})
    max_positions: int = field(default=512, metadata={"help": "number of positions, the longest sequence"})
    layer_norm_eps: float = field(default=1e-12, metadata={"help": "added to the variance in LayerNorm, in (0, 1]"})
    init_std: float = field(default=0.02, metadata={"help": "standard deviation of the initial weights, in (0, 10]"})
    mask_decoder_layers: int = field(
        default=0, metadata={"help": "keep masks out of the encoder, add a decoder of this many layers (3ML); 0 = none"}
    )
    mask_decoder_kind: str = field(
        default="self", metadata={"help": "what a decoder layer attends to: self = all positions, cross = also the "
                                          "encoder's output"}
    )
    freeze_encoder: bool = field(
        default=False, metadata={"help": "train only the classification heads (paper, section 3.3)"}
    )
    load_checkpoint_heads: bool = field(
        default=False, metadata={"help": "register and load the classification heads found in a checkpoint"}
    )


@dataclass
class BertConfig(EncoderConfig):
    """Flags of the BERT archs."""

    encoder_normalize_before: bool = field(
        default=False, metadata={"help": "LayerNorm before each block instead of after it (pre-LayerNorm layout)"}
    )


def refuse_too_large(cfg: EncoderConfig, vocabulary_size: int) -> None:
    """Raise a UsageError where the weights of a model do not fit into the machine's memory; on torch's meta device,
    they need none."""
    width, layers = cfg.encoder_embed_dim, cfg.encoder_layers + cfg.mask_decoder_layers
    weights = width * (vocabulary_size + cfg.max_positions + layers * (4 * width + 2 * cfg.encoder_ffn_embed_dim))
    require(f"--encoder-layers {cfg.encoder_layers} of --encoder-embed-dim {width} and --encoder-ffn-embed-dim "
            f"{cfg.encoder_ffn_embed_dim}", f"{4 * weights / 2**30:,.0f} GiB of weights",
            torch.empty(0).is_meta or 4 * weights < memory_bytes(),
            f"less than the {memory_bytes() / 2**30:,.0f} GiB of this machine's memory")


class BertEncoder(FairseqEncoder):
    """Token and learned position embeddings, LayerNorm, layers. BERT's token type 0 is folded into the positions."""

    def __init__(self, cfg: EncoderConfig, dictionary: Dictionary, layers: Optional[Iterable[nn.Module]] = None):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = nn.Embedding(len(dictionary), cfg.encoder_embed_dim, self.padding_idx)
        self.embed_positions: Any = self.new_positions(cfg)
        self.layernorm_embedding = layer_norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout)
        self.layers: Any = nn.ModuleList(layers or (bert_layer(cfg) for _ in range(cfg.encoder_layers)))
        self.layer_norm = layer_norm(cfg) if self.layers[0].normalize_before else nn.Identity()

    @staticmethod
    def new_positions(cfg: EncoderConfig) -> nn.Module:
        """A module whose `weight` is max_positions x C."""
        return nn.Embedding(cfg.max_positions, cfg.encoder_embed_dim)

    def forward(
        self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, positions: Optional[SelectedPositions] = None,
        has_padding: Optional[bool] = None, **unused: Any,
    ) -> Tensor:
        """The last layer's features.

        Args:
            src_tokens: B x T int64.
            src_lengths: ignored; part of fairseq's interface, as is **unused.
            positions: where features are computed; None = at all positions.
            has_padding: whether the batch has padding; None = ask the device.
            **unused: ignored.
        Returns:
            B x T x C, or K x C at the positions.
        """
        padding = src_tokens.eq(self.padding_idx)
        is_padded = padding.any() if has_padding is None else has_padding
        attend = ~padding[:, None, None, :] if is_padded else None  # B x 1 x 1 x T; None: faster kernels
        return self.run_layers(self.embed(src_tokens), attend, positions)

    def embed(self, src_tokens: Tensor, at: Optional[Tensor] = None) -> Tensor:
        """B x T int64 -> B x T x C. at: the position of each token, B x T int64; None = 0 to T - 1."""
        table = self.embed_positions.weight
        positions = table[: src_tokens.size(1)] if at is None else F.embedding(at, table)  # T x C or B x T x C
        return self.dropout(self.layernorm_embedding(self.embed_words(src_tokens) + positions))

    def embed_words(self, src_tokens: Tensor) -> Tensor:
        """B x T int64 -> B x T x C, without positions."""
        return self.embed_tokens(src_tokens)

    def run_layers(
        self, x: Tensor, attend: Optional[Tensor], positions: Optional[SelectedPositions] = None
    ) -> Tensor:
        """B x T x C -> B x T x C, or K x C at the positions. attend: B x 1 x 1 x T bool; None = everywhere."""
        for layer in self.layers[:-1]:
            x = layer(x, attend)
        return self.layer_norm(self.layers[-1](x, attend, positions))

    def max_positions(self) -> int:
        """The longest sequence, in tokens."""
        return len(self.embed_positions.weight)


class LMHead(nn.Module):
    """BERT's transform before the output projection, and the bias after it. The matrix is the token embedding."""

    def __init__(self, cfg: EncoderConfig, vocabulary: int):
        super().__init__()
        self.dense = Linear(cfg.encoder_embed_dim, cfg.encoder_embed_dim)
        self.layer_norm = layer_norm(cfg)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, features: Tensor) -> Tensor:
        """... x C -> ... x C."""
        with cast_together([self.dense], features.device):
            return self.layer_norm(F.gelu(self.dense(features)))


class BertModel(ClassificationHeads, FairseqEncoderModel):
    """A masked language model that also works with fairseq's `masked_lm` and `sentence_prediction`."""

    encoder: BertEncoder
    mask_decoder: Optional[MaskDecoder]
    config: Type[EncoderConfig] = BertConfig
    new_layer = staticmethod(bert_layer)

    def __init__(self, cfg: EncoderConfig, encoder: BertEncoder):
        super().__init__(encoder)
        self.cfg = cfg
        self.mask_decoder = None
        if cfg.mask_decoder_layers:
            self.mask_decoder = MaskDecoder(cfg, encoder.dictionary, self.new_layer)
        self.lm_head = LMHead(cfg, encoder.embed_tokens.num_embeddings)
        self.classification_heads = nn.ModuleDict()
        self.apply(self.initialize)
        self.requires_grad_(not cfg.freeze_encoder)  # heads are added later

    @classmethod
    def build_model(cls, cfg: EncoderConfig, task: Any) -> "BertModel":
        """Build from the config of the arch.

        Raises:
            UsageError: the width is no multiple of the heads, or the task's sequences are longer than the positions.
        """
        for name, (least, most) in RANGES.items():
            size = getattr(cfg, name)
            require("--" + name.replace("_", "-"), size, least <= size <= most, f"{least} to {most:,}")
        for name in ("dropout", "attention_dropout", "activation_dropout", "pooler_dropout"):
            probability = getattr(cfg, name)
            require("--" + name.replace("_", "-"), probability, 0 <= probability < 1, "a probability in [0, 1)")
        require("--layer-norm-eps", cfg.layer_norm_eps, 0 < cfg.layer_norm_eps <= 1, "a number in (0, 1]")
        require("--init-std", cfg.init_std, 0 < cfg.init_std <= 10, "a number in (0, 10]")
        require("--encoder-attention-heads", cfg.encoder_attention_heads,
                cfg.encoder_embed_dim % cfg.encoder_attention_heads == 0,
                f"a divisor of --encoder-embed-dim ({cfg.encoder_embed_dim})")
        require("--tokens-per-sample", task.max_positions(), task.max_positions() <= cfg.max_positions,
                f"at most the model's {cfg.max_positions} positions (--max-positions)")
        require("--mask-decoder-kind", cfg.mask_decoder_kind, cfg.mask_decoder_kind in KINDS, " or ".join(KINDS))
        require("--mask-decoder-kind", f"{cfg.mask_decoder_kind} without a mask decoder",
                cfg.mask_decoder_layers or cfg.mask_decoder_kind == "self", "--mask-decoder-layers 1 or more")
        refuse_too_large(cfg, len(task.source_dictionary))
        return cls(cfg, cls.new_encoder(cfg, task.source_dictionary))

    @classmethod
    def new_encoder(cls, cfg: EncoderConfig, dictionary: Dictionary) -> BertEncoder:
        """An encoder with random weights, not yet those of `initialize`."""
        return BertEncoder(cfg, dictionary)

    def initialize(self, module: nn.Module) -> None:
        """Normal weights with std --init-std, zero biases and padding; LayerNorm keeps torch's ones and zeros."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=self.cfg.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()

    def train(self, mode: bool = True) -> "BertModel":
        """As nn.Module's, bypassing its slow __setattr__: fairseq calls it three times per update."""
        set_mode(self, mode)
        return self

    def set_num_updates(self, num_updates: int) -> None:
        """Does nothing: fairseq's walks through all modules in each update, and no module here uses the number."""

    def settings(self) -> Dict[str, Any]:
        """{field of the arch's config: value}."""
        return {field.name: getattr(self.cfg, field.name) for field in fields(self.config)}

    def compile_layers(self) -> None:
        """Compile all layers but the last, whose number of rows K differs from batch to batch, with torch.compile."""
        layers = [*self.encoder.layers, *(self.mask_decoder.layers if self.mask_decoder is not None else ())]
        for layer in layers[:-1]:
            layer.compile()

    def encode(self, src_tokens: Tensor, positions: Optional[SelectedPositions] = None,
               has_padding: Optional[bool] = None) -> Tensor:
        """Features B x T x C, or K x C at the positions; see `BertEncoder.forward`."""
        return self.encoder(src_tokens, positions=positions, has_padding=has_padding)

    def decode(self, src_tokens: Tensor, positions: Optional[SelectedPositions] = None,
               has_padding: Optional[bool] = None) -> Tensor:
        """The input of the LM head: as `encode`, then through the mask decoder if the model has one."""
        if self.mask_decoder is None:
            return self.encode(src_tokens, positions, has_padding)
        return self.mask_decoder(self.encoder, src_tokens, positions, has_padding)

    def lm_hidden(self, src_tokens: Tensor, has_padding: Optional[bool] = None) -> Tensor:
        """B x T int64 -> B x T x C, the input of the output projection."""
        return self.lm_head(self.decode(src_tokens, has_padding=has_padding))

    def output_projection(self) -> Tuple[Tensor, Tensor]:
        """weight V x C (the token embedding), bias V."""
        return self.encoder.embed_tokens.weight, self.lm_head.bias

    def forward(
        self, src_tokens: Tensor, masked_tokens: Optional[Union[Tensor, SelectedPositions]] = None,
        features_only: bool = False, classification_head_name: Optional[str] = None,
        has_padding: Optional[bool] = None, **unused: Any,
    ) -> Tuple[Tensor, dict]:
        """Logits, features or classes.

        Args:
            src_tokens: B x T int64.
            masked_tokens: B x T bool or `SelectedPositions`, the K positions whose logits are computed; None = all.
            features_only: return features instead of logits.
            classification_head_name: return the output of this head, for `sentence_prediction`.
            has_padding: whether the batch has padding; None = ask the device.
            **unused: ignored; part of fairseq's interface.
        Returns:
            (logits K x V or B x T x V, features B x T x C, or classes B x N), and a dict: with logits, it holds the
            "features" that they come from, K x C or B x T x C.
        """
        if classification_head_name is not None:
            features = self.encode(src_tokens, has_padding=has_padding)
            return self.classification_heads[classification_head_name](features), {}
        if features_only:
            return self.encode(src_tokens, has_padding=has_padding), {}
        positions = SelectedPositions(masked_tokens) if isinstance(masked_tokens, torch.Tensor) else masked_tokens
        features = self.decode(src_tokens, positions, has_padding)  # K x C or B x T x C
        return project(self.lm_head(features), *self.output_projection()), {"features": features}

    def get_normalized_probs(
        self, net_output: Tuple[Tensor, dict], log_probs: bool, sample: Optional[dict] = None
    ) -> Tensor:
        """(Log) probabilities in fp32, of the shape of the logits."""
        normalize = utils.log_softmax if log_probs else utils.softmax
        return normalize(net_output[0], dim=-1)


def set_mode(module: nn.Module, mode: bool) -> None:
    """Training (True) or evaluation mode, set past nn.Module's __setattr__."""
    vars(module)["training"] = mode
    for child in module._modules.values():
        if child is not None and type(child).train is nn.Module.train:
            set_mode(child, mode)
        elif child is not None:  # it overrides `train`
            child.train(mode)


def register_arch(name: str, model: Type[BertModel], attributes: Optional[dict] = None, **defaults: Any) -> None:
    """Register `model` as `--arch name`. defaults: replace those of its `config`; attributes: of its class.

    Each arch is a registered model with its own dataclass: fairseq-hydra-train never calls the functions of
    `register_model_architecture`, it only reads dataclasses.
    """
    config = model.config
    changed = [(f.name, f.type, field(default=defaults[f.name], metadata=f.metadata)) for f in fields(config)
               if f.name in defaults]
    dataclass_of_arch = make_dataclass(f"{config.__name__}_{name}", changed, bases=(config,))
    register_model(name, dataclass=dataclass_of_arch)(type(f"{model.__name__}_{name}", (model,), attributes or {}))


BERTLET: Dict[str, Any] = {"encoder_layers": 4, "encoder_embed_dim": 512, "encoder_ffn_embed_dim": 2048,
                           "encoder_attention_heads": 8}
register_arch("bert_base", BertModel)
register_arch("bertlet", BertModel, **BERTLET)
register_arch("bert_base_3ml", BertModel, mask_decoder_layers=2)
register_arch("bertlet_3ml", BertModel, mask_decoder_layers=2, **BERTLET)
