"""Hyper-parameters of a fine-tuning, and the fairseq-train command they make."""

import math
from dataclasses import fields
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY

from ..models.bert import BertModel
from ..system.errors import require
from .tasks import TASKS

MOST_JOBS = 1024
HEAD = "sentence_classification_head"  # fairseq's default name


class Protocol(NamedTuple):
    """More than one learning rate or batch size is a grid; the best point on the dev set counts."""

    learning_rates: Tuple[float, ...]
    batch_sizes: Tuple[int, ...]
    max_epochs: int
    patience: int  # epochs without improvement before the end; -1 = none
    warmup: float  # fraction of all updates
    weight_decay: float
    best: str  # "loss" or "metric": which epoch counts, and which point of the grid, on the dev set
    adam_betas: Tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    clip_norm: float = 1.0  # 0 = none


PROTOCOLS = {
    # The paper, section 3.1: the checkpoint with the lowest dev loss is reported. It names no Adam settings: BERT's.
    "paper": Protocol((5e-5,), (256,), 50, 5, 0.0, 0.0, "loss"),
    # RoBERTa's (Liu et al. 2019, table 10, and fairseq's commands for it).
    "standard": Protocol((1e-5, 2e-5, 3e-5), (16, 32), 10, -1, 0.06, 0.1, "metric", (0.9, 0.98), 1e-6, 0.0),
}


def check_protocol(protocol: Protocol) -> None:
    """Raise a UsageError that names the first flag out of its range."""
    for flag, values, least, most in (("--lr", protocol.learning_rates, 0, math.inf),
                                      ("--batch-size", protocol.batch_sizes, 0, 2**31)):
        for value in values:
            require(flag, value, least < value < most, "a finite number above 0")
    require("--max-epochs", protocol.max_epochs, protocol.max_epochs >= 1, "1 or more")
    require("--patience", protocol.patience, protocol.patience >= 1 or protocol.patience == -1,
            "1 or more, or -1 for none")
    require("--warmup", protocol.warmup, 0 <= protocol.warmup < 1, "a fraction of the updates in [0, 1)")
    require("--weight-decay", protocol.weight_decay, 0 <= protocol.weight_decay < math.inf, "0 or more")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise a UsageError unless they are different numbers that numpy can seed with."""
    require("--seeds", seeds, seeds and len(set(seeds)) == len(seeds), "different numbers")
    require("--seeds", seeds, all(0 <= seed < 2**32 for seed in seeds), "0 to 2^32 - 1")


class Point(NamedTuple):
    """A point of the grid."""

    learning_rate: float
    batch_size: int

    def folder(self) -> str:
        return f"lr{self.learning_rate:g}-batch{self.batch_size}"


def grid(protocol: Protocol) -> List[Point]:
    return [Point(rate, size) for rate in protocol.learning_rates for size in protocol.batch_sizes]


def trains_on_gpu(extra_args: Sequence[str]) -> bool:
    """extra_args: of the fairseq-train command."""
    return torch.cuda.is_available() and "--cpu" not in extra_args


def optimizer_for(extra_args: Sequence[str]) -> str:
    """fused_adamw on a GPU, where fairseq's adam loops over the parameters in Python; extra_args: of fairseq-train."""
    return "fused_adamw" if trains_on_gpu(extra_args) else "adam"


def glue_train_command(name: str, protocol: Protocol, point: Point, seed: int, n_train_examples: int,
                       model: Dict[str, Any], checkpoint: str, data: str, folder: str, user_dir: str,
                       extra_args: Sequence[str] = ()) -> List[str]:
    """Arguments of `fairseq-train`.

    Args:
        name: key of TASKS.
        protocol: what all points have in common.
        point: learning rate and batch size.
        seed: of fairseq-train.
        n_train_examples: the length of the learning rate's decay follows from it.
        model: the arch and its sizes, as the checkpoint holds them.
        checkpoint: file of the pretrained model.
        data: folder of the binarised task.
        folder: where fairseq-train saves.
        user_dir: path of the plug-in.
        extra_args: at the end, where they win.
    """
    task = TASKS[name]
    updates = -(-n_train_examples // point.batch_size) * protocol.max_epochs
    report, metric = task.fairseq_metric
    selection = ["--best-checkpoint-metric", "loss"]
    if protocol.best == "metric":
        selection = ["--best-checkpoint-metric", metric, "--maximize-best-checkpoint-metric"]
    return [
        data, "--user-dir", user_dir, "--finetune-from-model", checkpoint, "--save-dir", folder,
        "--task", "sentence_prediction", "--criterion", "sentence_prediction",
        "--num-classes", str(len(task.labels) or 1), *(["--regression-target"] if task.regression else []),
        *([report] if report else []), "--init-token", "0", "--separator-token", "2", *arch_args(model),
        "--optimizer", optimizer_for(extra_args), "--adam-betas", str(tuple(protocol.adam_betas)),
        "--adam-eps", str(protocol.adam_eps),
        "--clip-norm", str(protocol.clip_norm), "--distributed-world-size", "1",  # several GPUs: several jobs
        "--weight-decay", str(protocol.weight_decay), "--lr", str(point.learning_rate),
        "--lr-scheduler", "polynomial_decay", "--warmup-updates", str(int(protocol.warmup * updates)),
        "--total-num-update", str(updates), "--batch-size", str(point.batch_size), "--required-batch-size-multiple",
        "1", "--max-epoch", str(protocol.max_epochs), "--patience", str(protocol.patience), *selection,
        "--valid-subset", "valid", "--seed", str(seed), "--no-epoch-checkpoints",
        "--num-workers", "4" if trains_on_gpu(extra_args) else "0",  # one process would hold a GPU up
        "--log-format", "simple", "--log-interval", "50", *extra_args,
    ]


def model_settings(state: Dict[str, Any], path: str, flag: str) -> Dict[str, Any]:
    """Arch and sizes of the model in a checkpoint.

    Args:
        state: the checkpoint.
        path: of the checkpoint, for the error.
        flag: that named it, for the error.
    Raises:
        UsageError: it is none of this plug-in's archs.
    """
    model: Any = (state.get("cfg") or {}).get("model")
    name = model.get("_name") if isinstance(model, dict) else getattr(model, "arch", None)
    require(flag, f"{path} of arch {name}", isinstance(model, dict) and name in MODEL_DATACLASS_REGISTRY
            and issubclass(ARCH_MODEL_REGISTRY[name], BertModel),  # fairseq runs settings of its own archs as code
            "a checkpoint of one of this plug-in's archs")
    return model


def arch_args(model: Dict[str, Any]) -> List[str]:
    """--arch and every size of a checkpoint's model, as arguments of fairseq-train.

    Args:
        model: of `model_settings`.
    """
    args = ["--arch", model["_name"]]
    for field in fields(MODEL_DATACLASS_REGISTRY[model["_name"]]):
        if "help" not in field.metadata:  # fairseq's own field, the name of the arch
            continue
        value, flag = model.get(field.name, field.default), "--" + field.name.replace("_", "-")
        if value is True:
            args.append(flag)
        elif value is not False and value is not None:
            args += [flag, str(value)]
    return args
