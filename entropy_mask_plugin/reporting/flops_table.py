"""The tables of `entropy-mask flops`."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any, List, Sequence

import torch
from fairseq import models, options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from ..config import PAPERS, corruption_of, lengths_of
from ..flag_checks import check_corruption
from ..masking.rates import mean_over, rate_at
from ..models.bert import RANGES, BertModel
from ..models.flops import ENTROPY_PASS, TRAINING_STEP, fractions_of, macs, macs_of_step, terms
from ..system.errors import UsageError, require
from .table import Table

# Layers and width of the paper's models, and their cost at 50 % as a fraction of that at 15 %, as it gives them.
PUBLISHED = (("RoBERTa-base", 12, 768, 0.78), ("RoBERTa-large", 24, 1024, 0.68))
PUBLISHED_LENGTH = 128
MOST_SYMBOLS = 1_000_000


def flops_report(args: Any) -> str:
    """Markdown.

    Args:
        args: flags of `entropy-mask flops`.
    Raises:
        UsageError: names the first flag out of its range.
    """
    require("--arch", args.arch, issubclass(models.ARCH_MODEL_REGISTRY.get(args.arch, object), BertModel),
            "one of this plug-in's archs")
    lengths = lengths_of(args.length, "--length")
    args = SimpleNamespace(**{**vars(args), "length": lengths[-1]})
    require("--length", args.length, args.length <= RANGES["max_positions"][1],
            f"at most {RANGES['max_positions'][1]:,}")
    require("--vocabulary", args.vocabulary, 6 <= args.vocabulary <= MOST_SYMBOLS,
            f"6 to {MOST_SYMBOLS:,}: five symbols are special")
    corruption = corruption_of(args)
    check_corruption(corruption)
    corruption = corruption._replace(mask_prob=mean_over(lambda progress: rate_at(corruption.mask_prob, progress)))
    model = build_meta_model(args.arch, args.vocabulary, args.length, args.flags)
    shares = fractions_of(corruption)
    step, entropies = terms(model, args.length, shares), terms(model, args.length, ENTROPY_PASS)
    step_macs = TRAINING_STEP * sum(step.values())
    with_entropies, with_distillation = (
        macs_of_step(model, args.length, corruption, model, entropies="self", distils=distils) / step_macs
        for distils in (False, True))
    rows = [[part, name, million(TRAINING_STEP * step[part, name]), million(entropies[part, name])]
            for part, name in step]
    rows.append(["all", "", million(step_macs), million(sum(entropies.values()))])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    masks = (f"{100 * corruption.mask_prob:g} % predicted, {100 * (1 - shares.visible):g} % <mask>")
    table = Table("", ["part", "term", "training step", "entropy pass"], rows,
                  f"A step with random masks: 1; with entropies on the fly, its own or those of a teacher of its kind: "
                  f"{with_entropies:.2f}; with them and distillation from such a teacher: {with_distillation:.2f}.")
    lines = [f"--arch {args.arch}: {parameters:,} parameters; T = {args.length}, V = {args.vocabulary:,}; {masks}",
             "Million multiply-accumulates (MACs) per token.",
             table.markdown(align=("left", "left", "right", "right"))]
    if len(lengths) > 1:
        costs = ", ".join(f"{million(TRAINING_STEP * macs(model, T, shares))} at T = {T}" for T in lengths)
        lines.append(f"A training step per token, without entropies: {costs}.")
    if model.mask_decoder is not None:
        lines += comparison_with_published(model, args, shares, step_macs)
    return "\n\n".join(lines)


def build_meta_model(arch: str, vocabulary: int, length: int, flags: Sequence[str] = ()) -> BertModel:
    """The model of an arch on torch's meta device: without memory for its weights.

    Args:
        arch: name of one of this plug-in's archs.
        vocabulary: number of symbols, five special ones included.
        length: tokens of a block.
        flags: of the arch.
    Raises:
        UsageError: unknown flags.
    """
    dictionary = Dictionary()
    for i in range(vocabulary - len(dictionary) - 1):
        dictionary.add_symbol(f"w{i}")
    dictionary.add_symbol("<mask>")
    args = ["none", "--task", "masked_lm", "--arch", arch, "--max-positions", str(max(length, 512)), *flags]
    cfg = convert_namespace_to_omegaconf(parse_training_args(args))
    task = SimpleNamespace(source_dictionary=dictionary, max_positions=lambda: length)
    with torch.device("meta"):
        return models.build_model(cfg.model, task)


def parse_training_args(args):
    """By fairseq's parser, whose own complaint is a hundred lines long."""
    try:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            return options.parse_args_and_arch(options.get_training_parser(), args)
    except SystemExit:
        last_line = errors.getvalue().strip().splitlines()[-1].removeprefix("error: ")
        raise UsageError(f"-- …: {last_line}, expected flags of the arch") from None


def comparison_with_published(model, args, shares, step_macs) -> List[str]:
    """With the same encoder without a mask decoder, and with the settings for which the paper of 3ML gives a budget."""
    plain = build_meta_model(args.arch, args.vocabulary, args.length, [*args.flags, "--mask-decoder-layers", "0"])
    early = [TRAINING_STEP * macs(plain, args.length, masks) for masks in (fractions_of(PAPERS), shares)]
    rows = [[name, f"{layers} x {width}", f"{100 * published:.0f} %", f"{100 * relative_cost(layers, width):.0f} %"]
            for name, layers, width, published in PUBLISHED]
    costs = [f"{million(cost)} (this is {100 * step_macs / cost:.0f} % of it)" for cost in early]
    cfg = model.cfg
    ours = relative_cost(cfg.encoder_layers, cfg.encoder_embed_dim, cfg.mask_decoder_layers, shares.visible,
                         args.length)
    rows.append([f"--arch {args.arch}", f"{cfg.encoder_layers} x {cfg.encoder_embed_dim}", "", f"{100 * ours:.0f} %"])
    return [f"The same encoder without mask decoder, heads included: {costs[0]} where 15 % are predicted, {costs[1]} "
            "where as many are as here.",
            "Published budgets, and those of the formula L x (24 d^2 + 4 x T d) + N (24 d^2 + 4 T d) for layers with "
            "self-attention, heads not counted: for the paper's models two decoder layers, 50 % and 80/10/10, "
            f"T = {PUBLISHED_LENGTH}:",
            Table("", ["model", "layers", "published", "formula"], rows).markdown()]


def relative_cost(layers: int, width: int, decoder_layers: int = 2, visible: float = 0.6,
                  length: int = PUBLISHED_LENGTH) -> float:
    """Cost of the layers with masks late over that with masks early, heads not counted.

    Args:
        layers: of the encoder.
        width: of the layers.
        decoder_layers: of the mask decoder, which sees all positions.
        visible: fraction of the positions that the encoder sees.
        length: tokens of a block.
    """
    def layer_flops(fraction):
        return fraction * (24 * width**2 + 4 * fraction * length * width)

    return (layers * layer_flops(visible) + decoder_layers * layer_flops(1.0)) / (layers * layer_flops(1.0))


def million(macs: float) -> str:
    return f"{macs / 1e6:,.2f}"
