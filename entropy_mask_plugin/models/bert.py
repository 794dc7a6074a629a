"""BERT as published (Devlin et al. 2019), with the body and the output projection apart.

Entropies and losses are needed at chosen positions and in chunks, so the steps can be called one by one:

    encode       tokens           -> features      B x T x C, or K x C at chosen positions
    decode       tokens           -> features      the same, behind the mask decoder where there is one
    lm_hidden    tokens           -> hidden        B x T x C, the input of the output projection
    output_projection             -> weight V x C, bias V
    forward      tokens, positions -> logits       at those positions only

Where only some positions are wanted, the last layer asks queries there only and runs its feed-forward block there only:
what it computes for the others would reach neither the loss nor a gradient.

Shapes: B sentences, T positions, C width, V vocabulary, K selected positions.
"""

from dataclasses import dataclass, field, fields, make_dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from fairseq import utils
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqEncoder, FairseqEncoderModel, register_model

from ..system.errors import require
from .classification import ClassificationHeads
from .layers import bert_layer, layer_norm
from .linear import Linear, cast_together
from .mask_decoder import KINDS, MaskDecoder
from .positions import Positions
from .projection import project


@dataclass
class EncoderConfig(FairseqDataclass):
    """What all archs have."""

    encoder_layers: int = field(default=12, metadata={"help": "number of layers"})
    encoder_embed_dim: int = field(default=768, metadata={"help": "width of embeddings and layers"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "width inside the feed-forward blocks"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "number of attention heads; divides the width"})
    dropout: float = field(default=0.1, metadata={"help": "dropout after embeddings and blocks, in [0, 1)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout of attention weights, in [0, 1)"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout after the FFN's activation, in [0, 1)"})
    pooler_dropout: float = field(default=0.1, metadata={"help": "dropout in classification heads, in [0, 1)"})
    max_positions: int = field(default=512, metadata={"help": "number of positions, the longest sequence"})
    layer_norm_eps: float = field(default=1e-12, metadata={"help": "added to the variance in LayerNorm"})
    init_std: float = field(default=0.02, metadata={"help": "standard deviation of the initial weights"})
    mask_decoder_layers: int = field(
        default=0, metadata={"help": "keep masks out of the encoder and have a decoder of so many layers (3ML); 0 = no"}
    )
    mask_decoder_kind: str = field(
        default="self", metadata={"help": "what a decoder layer attends to: self = all positions, cross = and the "
                                          "encoder's output"}
    )
    freeze_encoder: bool = field(
        default=False, metadata={"help": "train the classification heads alone (paper, section 3.3)"}
    )
    load_checkpoint_heads: bool = field(
        default=False, metadata={"help": "register and load the classification heads found in a checkpoint"}
    )


@dataclass
class BertConfig(EncoderConfig):
    encoder_normalize_before: bool = field(
        default=False, metadata={"help": "LayerNorm before each block instead of after it (pre-LayerNorm layout)"}
    )


class BertEncoder(FairseqEncoder):
    """Token and learned position embeddings, LayerNorm, layers. BERT's token type 0 is folded into the positions."""

    def __init__(self, cfg, dictionary, layers=None):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = nn.Embedding(len(dictionary), cfg.encoder_embed_dim, self.padding_idx)
        self.embed_positions = self.new_positions(cfg)
        self.layernorm_embedding = layer_norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout)
        self.layers = nn.ModuleList(layers or (bert_layer(cfg) for _ in range(cfg.encoder_layers)))
        self.layer_norm = layer_norm(cfg) if self.layers[0].normalize_before else nn.Identity()

    @staticmethod
    def new_positions(cfg):
        """A module with `weight`, P x C."""
        return nn.Embedding(cfg.max_positions, cfg.encoder_embed_dim)

    def forward(self, src_tokens, src_lengths=None, positions=None, has_padding=None, **unused):
        """
        Args:
            src_tokens: B x T int64.
            positions: the `Positions` whose features are wanted; None = all.
            has_padding: whether there is any; None = ask the device.
        Returns:
            B x T x C, or K x C at the positions.
        """
        padding = src_tokens.eq(self.padding_idx)
        attend = ~padding[:, None, None, :] if (padding.any() if has_padding is None else has_padding) else None
        return self.run_layers(self.embed(src_tokens), attend, positions)

    def embed(self, src_tokens, at=None):
        """B x T int64 -> B x T x C. at: the positions of the tokens, B x T; None = one after the other."""
        table = self.embed_positions.weight
        positions = table[: src_tokens.size(1)] if at is None else F.embedding(at, table)
        return self.dropout(self.layernorm_embedding(self.embed_words(src_tokens) + positions))

    def embed_words(self, src_tokens):
        return self.embed_tokens(src_tokens)

    def run_layers(self, x, attend, positions=None):
        """B x T x C -> B x T x C, or K x C at the positions. attend: B x 1 x 1 x T bool; None = everywhere."""
        for layer in self.layers[:-1]:
            x = layer(x, attend)
        return self.layer_norm(self.layers[-1](x, attend, positions))

    def max_positions(self):
        return len(self.embed_positions.weight)


class LMHead(nn.Module):
    """BERT's transform before the output projection, and the bias after it. The matrix is the token embedding."""

    def __init__(self, cfg, vocabulary):
        super().__init__()
        self.dense = Linear(cfg.encoder_embed_dim, cfg.encoder_embed_dim)
        self.layer_norm = layer_norm(cfg)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, features):
        """... x C -> ... x C."""
        with cast_together([self.dense], features.device):
            return self.layer_norm(F.gelu(self.dense(features)))


class BertModel(ClassificationHeads, FairseqEncoderModel):
    """A masked language model that also works with fairseq's `masked_lm` and `sentence_prediction`."""

    config, new_layer = BertConfig, staticmethod(bert_layer)

    def __init__(self, cfg, encoder):
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
    def build_model(cls, cfg, task):
        """Build from the config of the arch.

        Raises:
            UsageError: the width is no multiple of the heads, or the task's sequences are longer than the positions.
        """
        for name in ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"):
            require("--" + name.replace("_", "-"), getattr(cfg, name), getattr(cfg, name) >= 1, "1 or more")
        for name in ("dropout", "attention_dropout", "activation_dropout", "pooler_dropout"):
            require("--" + name.replace("_", "-"), getattr(cfg, name), 0 <= getattr(cfg, name) < 1, "a share in [0, 1)")
        require("--layer-norm-eps", cfg.layer_norm_eps, cfg.layer_norm_eps > 0, "a number above 0")
        require("--init-std", cfg.init_std, cfg.init_std > 0, "a number above 0")
        require("--encoder-attention-heads", cfg.encoder_attention_heads,
                cfg.encoder_embed_dim % cfg.encoder_attention_heads == 0,
                f"a divisor of --encoder-embed-dim ({cfg.encoder_embed_dim})")
        require("--tokens-per-sample", task.max_positions(), task.max_positions() <= cfg.max_positions,
                f"at most the model's {cfg.max_positions} positions (--max-positions)")
        require("--mask-decoder-layers", cfg.mask_decoder_layers, cfg.mask_decoder_layers >= 0, "0 (none) or more")
        require("--mask-decoder-kind", cfg.mask_decoder_kind, cfg.mask_decoder_kind in KINDS, " or ".join(KINDS))
        require("--mask-decoder-kind", f"{cfg.mask_decoder_kind} without a mask decoder",
                cfg.mask_decoder_layers or cfg.mask_decoder_kind == "self", "--mask-decoder-layers 1 or more")
        return cls(cfg, cls.new_encoder(cfg, task.source_dictionary))

    @classmethod
    def new_encoder(cls, cfg, dictionary):
        return BertEncoder(cfg, dictionary)

    def initialize(self, module):
        """Normal weights with deviation --init-std, zero biases and padding; LayerNorm keeps torch's ones and zeros."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=self.cfg.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()

    def train(self, mode=True):
        """As nn.Module's, without its slow way of setting attributes: fairseq calls it three times an update."""
        set_mode(self, mode)
        return self

    def set_num_updates(self, num_updates):
        """fairseq's walks through all modules in each update; none of these wants to know."""

    def settings(self):
        """{field of the config: value}."""
        return {field.name: getattr(self.cfg, field.name) for field in fields(self.config)}

    def compile_layers(self):
        """Run all layers but the last, whose number of rows differs from batch to batch, through torch.compile."""
        layers = [*self.encoder.layers, *(self.mask_decoder.layers if self.mask_decoder is not None else ())]
        for layer in layers[:-1]:
            layer.compile()

    def encode(self, src_tokens, positions=None, has_padding=None):
        """Features B x T x C, or K x C at the positions; see `BertEncoder.forward`."""
        return self.encoder(src_tokens, positions=positions, has_padding=has_padding)

    def decode(self, src_tokens, positions=None, has_padding=None):
        """As `encode`, through the mask decoder where there is one: what the LM head reads."""
        if self.mask_decoder is None:
            return self.encode(src_tokens, positions, has_padding)
        return self.mask_decoder(self.encoder, src_tokens, positions, has_padding)

    def lm_hidden(self, src_tokens, has_padding=None):
        """B x T int64 -> B x T x C, what the output projection turns into logits."""
        return self.lm_head(self.decode(src_tokens, has_padding=has_padding))

    def output_projection(self):
        """weight V x C, bias V."""
        return self.encoder.embed_tokens.weight, self.lm_head.bias

    def forward(self, src_tokens, masked_tokens=None, features_only=False, classification_head_name=None,
                has_padding=None, **unused):
        """
        Args:
            src_tokens: B x T int64.
            masked_tokens: B x T bool or `Positions`, the K positions whose logits are wanted; None = all.
            features_only: return features instead of logits.
            classification_head_name: return the output of this head, as `sentence_prediction` wants it.
            has_padding: whether there is any; None = ask the device.
        Returns:
            (logits K x V or B x T x V, features B x T x C, or classes B x N), and an empty dict for fairseq's sake.
        """
        if classification_head_name is not None:
            features = self.encode(src_tokens, has_padding=has_padding)
            return self.classification_heads[classification_head_name](features), {}
        if features_only:
            return self.encode(src_tokens, has_padding=has_padding), {}
        positions = Positions(masked_tokens) if isinstance(masked_tokens, torch.Tensor) else masked_tokens
        features = self.decode(src_tokens, positions, has_padding)
        return project(self.lm_head(features), *self.output_projection()), {}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        """(Log) probabilities in fp32."""
        normalize = utils.log_softmax if log_probs else utils.softmax
        return normalize(net_output[0], dim=-1)


def set_mode(module, mode):
    vars(module)["training"] = mode
    for child in module._modules.values():
        if child is not None and type(child).train is nn.Module.train:
            set_mode(child, mode)
        elif child is not None:  # it has a `train` of its own
            child.train(mode)


def register_arch(name, model, attributes=None, **defaults):
    """Offer `model` as `--arch name`, with other defaults than those of its `config`.

    Each arch is a registered model with a dataclass of its own: fairseq-hydra-train never calls the functions of
    `register_model_architecture`, it only reads dataclasses.
    """
    config = model.config
    changed = [(f.name, f.type, field(default=defaults[f.name], metadata=f.metadata)) for f in fields(config)
               if f.name in defaults]
    dataclass_of_arch = make_dataclass(f"{config.__name__}_{name}", changed, bases=(config,))
    register_model(name, dataclass=dataclass_of_arch)(type(f"{model.__name__}_{name}", (model,), attributes or {}))


BERTLET = {"encoder_layers": 4, "encoder_embed_dim": 512, "encoder_ffn_embed_dim": 2048, "encoder_attention_heads": 8}
register_arch("bert_base", BertModel)
register_arch("bertlet", BertModel, **BERTLET)
register_arch("bert_base_3ml", BertModel, mask_decoder_layers=2)
register_arch("bertlet_3ml", BertModel, mask_decoder_layers=2, **BERTLET)
