"""How far fine-tuning moved each component (paper, section 3.7).

Two measures of W -> W': the relative Frobenius change |W' - W| / |W|, and the mean of |W' - W| / |W| over the single
weights in per cent. The paper gives percentages such as 7077 and no formula; the second is our reading of it. It is
dominated by weights that were nearly zero.
"""

import os
from typing import Dict, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.reading import read_checkpoint
from ..models.mixers import MIXERS, mixer_of
from ..system.atomic_files import write_text
from ..system.errors import UsageError
from .figures import pyplot, save
from .table import Table

FROBENIUS, ELEMENTWISE = "relative_frobenius_change", "elementwise_change_pct"  # keys of records and of the CSV
LABELS = {FROBENIUS: "relative Frobenius change",
          ELEMENTWISE: "mean element-wise change, % (the paper's unexplained formula)"}
Drift = Dict[Tuple[str, str], Dict[str, float]]  # (part, component) -> measure -> value
OF_LAYER = {  # component of a layer, beside those of its mixer: our modules
    "FFN in": ("ffn.fc1",),
    "FFN out": ("ffn.fc2",),
    "norms": ("self_attn_layer_norm", "final_layer_norm", "self_attn.norm", "ffn.norm"),
}
OF_MODEL = {  # the LM head moves where pretraining goes on; fine-tuning on GLUE does not touch it
    "embeddings": ("encoder.embed_tokens", "encoder.embed_positions", "encoder.layernorm_embedding"),
    "final norm": ("encoder.layer_norm",),  # of the pre-LayerNorm layout
    "LM head": ("lm_head",),
}


def components(state: Dict[str, Tensor]) -> Dict[Tuple[str, str], Tensor]:
    """{(part, component): tensor, flat} of a BERT of ours. part: "layer N" or "model"."""
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))
    parts = {("model", name): flat(state, prefixes) for name, prefixes in OF_MODEL.items()
             if f"{prefixes[0]}.weight" in state or name == "LM head"}
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}."
        for name, tensors in of_mixer(state, f"{prefix}self_attn.").items():
            parts[f"layer {layer}", name] = torch.cat([tensor.flatten().float() for tensor in tensors])
        for name, modules in OF_LAYER.items():
            parts[f"layer {layer}", name] = flat(state, [prefix + module for module in modules])
    return parts


def of_mixer(state, prefix):
    """{component: tensors} of a layer's mixer.

    Raises:
        UsageError: none of MIXERS has such weights.
    """
    inside = {name[len(prefix):]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    name = mixer_of(state, prefix)
    if name is None:
        raise UsageError(f"{prefix}: weights of an unknown mixer found, expected those of " + " or ".join(MIXERS))
    return MIXERS[name].fn.components(inside)


def flat(state, prefixes):
    chosen = [tensor.flatten().float() for name, tensor in sorted(state.items())
              if any(name.startswith(prefix + ".") for prefix in prefixes)]
    return torch.cat(chosen)


def drift(before: Dict[str, Tensor], after: Dict[str, Tensor]) -> Drift:
    """Of two state dicts of one model."""
    before, after = components(before), components(after)
    changes = {}
    for key, old in before.items():
        change = after[key] - old
        nonzero = old != 0  # a weight that was exactly zero has no percentage
        changes[key] = {FROBENIUS: float(change.norm() / old.norm()),
                        ELEMENTWISE: 100 * float((change[nonzero] / old[nonzero]).abs().mean())}
    return changes


def drift_of_files(pretrained: str, finetuned: Sequence[str]) -> Dict[str, Drift]:
    """{path: drift} of several fine-tuned checkpoints.

    Raises:
        UsageError: not a checkpoint of our BERTs, or of another size.
    """
    before = bert_weights(pretrained, "--pretrained")
    drifts = {}
    for path in finetuned:
        after = bert_weights(path, "--finetuned")
        for name, tensor in before.items():
            if name in after and after[name].shape != tensor.shape or name not in after and "heads" not in name:
                raise UsageError(f"--finetuned: {path} is of another model than {pretrained}: {name} differs")
        drifts[path] = drift(before, after)
    return drifts


def bert_weights(path: str, flag: str) -> Dict[str, Tensor]:
    """State dict of a checkpoint.

    Raises:
        UsageError: it is not of one of this plug-in's archs.
    """
    state = read_checkpoint(path, flag)["model"]
    if "encoder.layers.0.self_attn_layer_norm.weight" not in state or "encoder.embed_tokens.weight" not in state:
        raise UsageError(f"{flag}: {path} is no BERT of this plug-in, expected one of its archs")
    return state


def drift_records(drifts: Dict[str, Drift]) -> Table:
    """A row for each checkpoint, part and component, as values."""
    rows = [[path, part, component, values[FROBENIUS], values[ELEMENTWISE]]
            for path, changes in drifts.items() for (part, component), values in changes.items()]
    return Table("", ["checkpoint", "part", "component", FROBENIUS, ELEMENTWISE], rows)


def draw_drift(drifts: Dict[str, Drift], file: str, measure: str = FROBENIUS) -> None:
    """A heat map for each: layers by components; in its title, the components outside the layers.

    Args:
        drifts: {title: drift}.
        file: PNG.
        measure: key of LABELS.
    """
    figure, axes = pyplot.subplots(1, len(drifts), figsize=(1.5 + 4.0 * len(drifts), 4.5), layout="constrained",
                                   squeeze=False)
    highest = max(values[measure] for changes in drifts.values() for values in changes.values())
    for axis, (title, changes) in zip(axes[0], drifts.items()):
        columns = list(dict.fromkeys(component for part, component in changes if part != "model"))
        layers = list(dict.fromkeys(part for part, _ in changes if part != "model"))
        grid = np.array([[changes.get((layer, column), {}).get(measure, np.nan) for column in columns]
                         for layer in layers])  # additive attention has no values
        shown = axis.imshow(grid, vmin=0, vmax=highest, aspect="auto", origin="lower", cmap="viridis")
        axis.set(xticks=range(len(columns)), yticks=range(len(layers)), yticklabels=layers)
        axis.set_xticklabels(columns, rotation=60, ha="right")
        rest = ", ".join(f"{name} {values[measure]:.3g}" for (part, name), values in changes.items() if part == "model")
        axis.set_title(f"{title}\n{rest}", fontsize=8)
    figure.colorbar(shown, ax=axes, label=LABELS[measure])
    save(figure, file)


def short_name(path, paths):
    """The folder of a checkpoint, without what all the folders have in common."""
    folder = os.path.dirname(os.path.abspath(path))
    common = os.path.commonpath([os.path.dirname(os.path.abspath(each)) for each in paths])
    return os.path.relpath(folder, common) if folder != common else os.path.basename(folder)


def write_drift(drifts: Dict[str, Drift], out: str) -> None:
    """Write OUT.csv, OUT.png (Frobenius) and OUT-elementwise.png."""
    write_text(out + ".csv", drift_records(drifts).csv())
    named = {short_name(path, drifts): changes for path, changes in drifts.items()}
    draw_drift(named, out + ".png")
    draw_drift(named, out + "-elementwise.png", ELEMENTWISE)
