"""Predictions of a checkpoint on the dev sets of a task: predictions.tsv (of MNLI also predictions-mismatched.tsv).

Columns: index, gold, predicted, and the probability of each class; of a regression the scores alone.
"""

import os
from typing import Any, Iterator, Tuple

import torch
from torch import Tensor

from ..system.atomic_files import write_text
from .protocols import HEAD
from .reading import valid_names
from .tasks import TASKS, Task


def predictions_file(name: str, dev: str) -> str:
    """predictions.tsv of the first dev set of a task, predictions-NAME.tsv of a further one."""
    return "predictions.tsv" if dev == next(iter(TASKS[name].dev)) else f"predictions-{dev}.tsv"


def predict(name: str, checkpoint: str, data: str, out: str) -> None:
    """Write the predictions of all dev sets of a task, each file when it is complete.

    Args:
        name: key of TASKS.
        checkpoint: file of the fine-tuned model.
        data: folder of the binarised task.
        out: an existing folder.
    """
    from fairseq import checkpoint_utils

    (model,), _, fairseq_task = checkpoint_utils.load_model_ensemble_and_task([checkpoint], {"data": data})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    for dev, split in zip(TASKS[name].dev, valid_names()):
        rows = prediction_rows(TASKS[name], *outputs(model, fairseq_task, split, device))
        write_text(os.path.join(out, predictions_file(name, dev)), "".join("\t".join(row) + "\n" for row in rows))


def outputs(model: Any, task: Any, split: str, device: torch.device) -> Tuple[Tensor, Tensor]:
    """Logits N x classes and targets N of a split, in the order of its file."""
    from fairseq import utils

    dataset = task.load_dataset(split)
    batches = task.get_batch_iterator(dataset, max_sentences=64, required_batch_size_multiple=1).next_epoch_itr(
        shuffle=False
    )
    ids, logits, targets = [], [], []
    with torch.no_grad():
        for batch in batches:
            sample: Any = utils.move_to_cuda(batch) if device.type == "cuda" else batch
            output, _ = model(**sample["net_input"], features_only=True, classification_head_name=HEAD)
            ids.append(batch["id"])
            logits.append(output.float().cpu())
            targets.append(batch["target"].view(-1))
    order = torch.cat(ids).argsort()
    return torch.cat(logits)[order], torch.cat(targets)[order]


def prediction_rows(task: Task, logits: Tensor, targets: Tensor) -> Iterator[Tuple[str, ...]]:
    """The lines of predictions.tsv, from logits N x classes and targets N."""
    if task.regression:
        yield "index", "gold", "predicted"
        highest = task.highest_score
        for i, (gold, predicted) in enumerate(zip(targets.tolist(), logits[:, 0].tolist())):
            yield str(i), f"{gold * highest:.6g}", f"{predicted * highest:.6g}"
        return
    yield "index", "gold", "predicted", *(f"p({label})" for label in task.labels)
    probabilities = logits.softmax(-1)
    for i, (gold, row) in enumerate(zip(targets.tolist(), probabilities)):
        yield (str(i), task.labels[gold], task.labels[int(row.argmax())], *(f"{p:.6f}" for p in row.tolist()))
