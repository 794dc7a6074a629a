"""The masks of a training, batch by batch: as a function for a training in this process, as a program for others."""

import json
import os
import sys

from fairseq.trainer import Trainer


def record_masks(file, setattr=setattr):
    """From now on, trainings append the masks of each batch to a file; `read_masks` reads it.

    Args:
        file: of JSON lines.
        setattr: monkeypatch's, to end it with a test.
    """
    init = Trainer.__init__

    def recording_init(self, cfg, task, *arguments, **named):
        init(self, cfg, task, *arguments, **named)
        step, mask, is_ignored = task.train_step, task.mask, []

        def train_step(*arguments, ignore_grad=False, **named):
            is_ignored[:] = [ignore_grad]  # a batch that a rank repeats because it has run out of others
            return step(*arguments, ignore_grad=ignore_grad, **named)

        def recording_mask(sample, scores, when):
            masked, statistics = mask(sample, scores, when)
            if not is_ignored[0]:
                positions = [row.nonzero().flatten().tolist() for row in masked["selected"].mask]
                with open(file, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"update": when.update, "is_scored": scores is not None,
                                            "masks": dict(zip(map(int, sample["ids"]), positions))}) + "\n")
            return masked, statistics

        task.train_step, task.mask = train_step, recording_mask

    setattr(Trainer, "__init__", recording_init)


def read_batches(file):
    """[{"update": number, "is_scored": whether scores were computed, "masks": {id: positions}}], one for each batch."""
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_masks(*files):
    """{(update, sentence): positions} of a training, from the files of all its ranks."""
    return {(batch["update"], i): positions for file in files for batch in read_batches(file)
            for i, positions in batch["masks"].items()}


if __name__ == "__main__":
    from fairseq_cli.train import cli_main

    record_masks(f"{sys.argv[sys.argv.index('--save-dir') + 1]}.rank{os.environ.get('RANK', 0)}")
    cli_main()
