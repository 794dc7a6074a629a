"""The table of the command `flops`."""

import contextlib
import io
from types import SimpleNamespace

import torch
from fairseq import models, options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from tabulate import tabulate

from ..config import PAPERS, check_corruption, corruption_of
from ..models.bert import BertModel
from ..models.flops import ENTROPY_PASS, TRAINING_STEP, fractions_of, macs, macs_of_step, terms
from ..system.errors import UsageError, require

# Layers and width of the models of the paper, whose cost at 50 % it gives as a share of theirs at 15 %.
PUBLISHED = (("RoBERTa-base", 12, 768, 0.78), ("RoBERTa-large", 24, 1024, 0.68))
PUBLISHED_LENGTH = 128


def report(args):
    """Markdown. `args`: the flags of that command."""
    require("--arch", args.arch, issubclass(models.ARCH_MODEL_REGISTRY.get(args.arch, object), BertModel),
            "one of this plug-in's archs")
    require("--length", args.length, args.length >= 2, "2 or more")
    require("--vocabulary", args.vocabulary, args.vocabulary >= 6, "6 or more: five symbols are special")
    corruption = corruption_of(args)
    check_corruption(corruption)
    model = model_of(args.arch, args.vocabulary, args.length, args.flags)
    shares = fractions_of(corruption)
    step, entropies = terms(model, args.length, shares), terms(model, args.length, ENTROPY_PASS)
    ratio = lambda **more: macs_of_step(model, args.length, corruption, model, **more) / totals[0]  # noqa: E731
    rows = [[part, name, million(TRAINING_STEP * step[part, name]), million(entropies[part, name])]
            for part, name in step]
    totals = TRAINING_STEP * sum(step.values()), sum(entropies.values())
    rows.append(["all", "", *map(million, totals)])
    header = ["part", "term", "training step", "entropy pass"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    masks = (f"{100 * corruption.mask_prob:g} % predicted, {100 * (1 - shares.visible):g} % <mask>")
    lines = [f"--arch {args.arch}: {parameters:,} parameters; T = {args.length}, V = {args.vocabulary:,}; {masks}",
             "Million multiply-accumulates (MACs) per token.",
             tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=2 * ("left",) + 2 * ("right",)),
             f"A step with random masks: 1; with entropies on the fly, its own or those of a teacher of its kind: "
             f"{ratio(entropies='self'):.2f}; with them and distillation from such a teacher: "
             f"{ratio(entropies='self', distils=True):.2f}."]
    if model.mask_decoder is not None:
        lines += in_words_of_the_paper(model, args, shares, totals[0])
    return "\n\n".join(lines)


def model_of(arch, vocabulary, length, flags=()):
    """The model, without memory for its weights."""
    dictionary = Dictionary()
    for i in range(vocabulary - len(dictionary) - 1):
        dictionary.add_symbol(f"w{i}")
    dictionary.add_symbol("<mask>")
    words = ["none", "--task", "masked_lm", "--arch", arch, "--max-positions", str(max(length, 512)), *flags]
    cfg = convert_namespace_to_omegaconf(understood(words))
    task = SimpleNamespace(source_dictionary=dictionary, max_positions=lambda: length)
    with torch.device("meta"):
        return models.build_model(cfg.model, task)


def understood(words):
    """What fairseq's parser makes of a command line; its own complaint is a hundred lines long."""
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            return options.parse_args_and_arch(options.get_training_parser(), words)
    except SystemExit:
        raise UsageError(f"-- …: {said.getvalue().strip().splitlines()[-1]}, expected flags of the arch") from None


def in_words_of_the_paper(model, args, shares, step):
    """Beside the same encoder without a mask decoder, and the settings that the paper of 3ML gives a budget for."""
    plain = model_of(args.arch, args.vocabulary, args.length, [*args.flags, "--mask-decoder-layers", "0"])
    early = [TRAINING_STEP * macs(plain, args.length, masks) for masks in (fractions_of(PAPERS), shares)]
    rows = [[name, f"{layers} x {width}", f"{100 * published:.0f} %", f"{100 * share_of_layers(layers, width):.0f} %"]
            for name, layers, width, published in PUBLISHED]
    beside = [f"{million(cost)} (this is {100 * step / cost:.0f} % of it)" for cost in early]
    cfg = model.cfg
    own = share_of_layers(cfg.encoder_layers, cfg.encoder_embed_dim, cfg.mask_decoder_layers, shares.visible,
                          args.length)
    rows.append([f"--arch {args.arch}", f"{cfg.encoder_layers} x {cfg.encoder_embed_dim}", "", f"{100 * own:.0f} %"])
    return [f"The same encoder without mask decoder, heads included: {beside[0]} where 15 % are predicted, {beside[1]} "
            "where as many are as here.",
            "Published budgets, and what the formula L x (24 d^2 + 4 x T d) + N (24 d^2 + 4 T d) of layers with "
            "self-attention gives, heads not counted: for the paper's models two decoder layers, 50 % and 80/10/10, "
            f"T = {PUBLISHED_LENGTH}:",
            tabulate(rows, ["model", "layers", "published", "formula"], tablefmt="github", disable_numparse=True)]


def share_of_layers(layers, width, decoder_layers=2, visible=0.6, length=PUBLISHED_LENGTH):
    """Cost of the layers with masks late over that with masks early, heads not counted."""
    layer = lambda share: share * (24 * width**2 + 4 * share * length * width)  # noqa: E731
    return (layers * layer(visible) + decoder_layers * layer(1.0)) / (layers * layer(1.0))


def million(macs):
    return f"{macs / 1e6:,.2f}"
