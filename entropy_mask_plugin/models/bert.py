"""BERT as published (Devlin et al. 2019), with the body and the output projection apart.

Entropies and losses are needed at chosen positions and in chunks, so the steps can be called one by one:

    encode       tokens           -> features      B x T x C, or K x C at chosen positions
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

from ..errors import require
from .attention import SelfAttention
from .classification import ClassificationHeads
from .positions import Positions


@dataclass
class BertConfig(FairseqDataclass):
    encoder_layers: int = field(default=12, metadata={"help": "number of layers"})
    encoder_embed_dim: int = field(default=768, metadata={"help": "width of embeddings and layers"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "width inside the feed-forward blocks"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "number of attention heads; divides the width"})
    encoder_normalize_before: bool = field(
        default=False, metadata={"help": "LayerNorm before each block instead of after it (pre-LayerNorm layout)"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout after embeddings and blocks, in [0, 1)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout of attention weights, in [0, 1)"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout after the FFN's activation, in [0, 1)"})
    pooler_dropout: float = field(default=0.1, metadata={"help": "dropout in classification heads, in [0, 1)"})
    max_positions: int = field(default=512, metadata={"help": "number of learned positions, the longest sequence"})
    layer_norm_eps: float = field(default=1e-12, metadata={"help": "added to the variance in LayerNorm"})
    init_std: float = field(default=0.02, metadata={"help": "standard deviation of the initial weights"})
    freeze_encoder: bool = field(
        default=False, metadata={"help": "train the classification heads alone (paper, section 3.3)"}
    )
    load_checkpoint_heads: bool = field(
        default=False, metadata={"help": "register and load the classification heads found in a checkpoint"}
    )


def layer_norm(cfg):
    return nn.LayerNorm(cfg.encoder_embed_dim, eps=cfg.layer_norm_eps)


class FeedForward(nn.Module):
    """C -> F -> C with GELU in its exact (erf) form."""

    def __init__(self, cfg):
        super().__init__()
        self.fc1 = nn.Linear(cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(cfg.encoder_ffn_embed_dim, cfg.encoder_embed_dim)
        self.activation_dropout = nn.Dropout(cfg.activation_dropout)

    def forward(self, x):
        return self.fc2(self.activation_dropout(F.gelu(self.fc1(x))))


class BertLayer(nn.Module):
    """Attention, then feed-forward, each with dropout, a residual connection and LayerNorm after (or before) it."""

    def __init__(self, cfg):
        super().__init__()
        self.normalize_before = cfg.encoder_normalize_before
        self.self_attn = SelfAttention(cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout)
        self.self_attn_layer_norm = layer_norm(cfg)
        self.ffn = FeedForward(cfg)
        self.final_layer_norm = layer_norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, x, attend, positions=None):
        """B x T x C -> B x T x C, or K x C at the `Positions` that are wanted."""
        residual = x if positions is None else positions.of(x)
        if self.normalize_before:
            x = residual + self.dropout(self.self_attn(self.self_attn_layer_norm(x), attend, positions))
            return x + self.dropout(self.ffn(self.final_layer_norm(x)))
        x = self.self_attn_layer_norm(residual + self.dropout(self.self_attn(x, attend, positions)))
        return self.final_layer_norm(x + self.dropout(self.ffn(x)))


class BertEncoder(FairseqEncoder):
    """Token and learned position embeddings, LayerNorm, layers. BERT's token type 0 is folded into the positions."""

    def __init__(self, cfg, dictionary):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = nn.Embedding(len(dictionary), cfg.encoder_embed_dim, self.padding_idx)
        self.embed_positions = nn.Embedding(cfg.max_positions, cfg.encoder_embed_dim)
        self.layernorm_embedding = layer_norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout)
        self.layers = nn.ModuleList(BertLayer(cfg) for _ in range(cfg.encoder_layers))
        self.layer_norm = layer_norm(cfg) if cfg.encoder_normalize_before else nn.Identity()

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
        x = self.embed_tokens(src_tokens) + self.embed_positions.weight[: src_tokens.size(1)]
        x = self.dropout(self.layernorm_embedding(x))
        for layer in self.layers[:-1]:
            x = layer(x, attend)
        return self.layer_norm(self.layers[-1](x, attend, positions))

    def max_positions(self):
        return self.embed_positions.num_embeddings


class LMHead(nn.Module):
    """BERT's transform before the output projection, and the bias after it. The matrix is the token embedding."""

    def __init__(self, cfg, vocabulary):
        super().__init__()
        self.dense = nn.Linear(cfg.encoder_embed_dim, cfg.encoder_embed_dim)
        self.layer_norm = layer_norm(cfg)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, features):
        """... x C -> ... x C."""
        return self.layer_norm(F.gelu(self.dense(features)))


class BertModel(ClassificationHeads, FairseqEncoderModel):
    """A masked language model that also works with fairseq's `masked_lm` and `sentence_prediction`."""

    def __init__(self, cfg, encoder):
        super().__init__(encoder)
        self.cfg = cfg
        self.lm_head = LMHead(cfg, encoder.embed_tokens.num_embeddings)
        self.classification_heads = nn.ModuleDict()
        self.apply(self.initialize)
        self.requires_grad_(not cfg.freeze_encoder)  # heads are added later

    @classmethod
    def build_model(cls, cfg, task):
        """Build from a `BertConfig`.

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
        return cls(cfg, BertEncoder(cfg, task.source_dictionary))

    def initialize(self, module):
        """Normal weights with deviation --init-std, zero biases and padding; LayerNorm keeps torch's ones and zeros."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=self.cfg.init_std)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()

    def settings(self):
        """{field of BertConfig: value}."""
        return {field.name: getattr(self.cfg, field.name) for field in fields(BertConfig)}

    def compile_layers(self):
        """Run all layers but the last, whose number of rows differs from batch to batch, through torch.compile."""
        for layer in self.encoder.layers[:-1]:
            layer.compile()

    def encode(self, src_tokens, positions=None, has_padding=None):
        """Features B x T x C, or K x C at the positions; see `BertEncoder.forward`."""
        return self.encoder(src_tokens, positions=positions, has_padding=has_padding)

    def lm_hidden(self, src_tokens, has_padding=None):
        """B x T int64 -> B x T x C, what the output projection turns into logits."""
        return self.lm_head(self.encode(src_tokens, has_padding=has_padding))

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
        features = self.encode(src_tokens, positions, has_padding)
        return F.linear(self.lm_head(features), *self.output_projection()), {}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        """(Log) probabilities in fp32."""
        normalize = utils.log_softmax if log_probs else utils.softmax
        return normalize(net_output[0], dim=-1)


def register_arch(name, model, config, **defaults):
    """Offer `model` as `--arch name`, with other defaults than its config's.

    Each arch is a registered model with a dataclass of its own: fairseq-hydra-train never calls the functions of
    `register_model_architecture`, it only reads dataclasses.
    """
    changed = [(f.name, f.type, field(default=defaults[f.name], metadata=f.metadata)) for f in fields(config)
               if f.name in defaults]
    dataclass_of_arch = make_dataclass(f"{config.__name__}_{name}", changed, bases=(config,))
    register_model(name, dataclass=dataclass_of_arch)(type(f"{model.__name__}_{name}", (model,), {}))


register_arch("bert_base", BertModel, BertConfig)
register_arch(
    "bertlet", BertModel, BertConfig,
    encoder_layers=4, encoder_embed_dim=512, encoder_ffn_embed_dim=2048, encoder_attention_heads=8,
)
