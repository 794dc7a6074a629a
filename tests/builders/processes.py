"""Trainings that are killed, and trainings of several processes."""

import os
import subprocess
import sys

from builders.training import OURS, PLUGIN, TINY, TRAINING


def torchrun(ranks, data_bin, save_dir, *flags, cwd, model=TINY, program=("-m", "fairseq_cli.train")):
    """fairseq-train on several CPU processes; from a folder where the plug-in's path is relative."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--master_port=0",
               "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", *map(str, program), data_bin, *TRAINING,
               *OURS, *model, "--save-dir", str(save_dir), "--distributed-backend", "gloo", *flags]
    command[command.index(PLUGIN)] = os.path.relpath(PLUGIN, cwd)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nexit status {done.returncode}"
    return f"{save_dir}/checkpoint_last.pt"


class Killed(BaseException):
    """Ends a run where it stands, like a kill: fairseq catches Exception and RuntimeError only."""


def kill_before_update(monkeypatch, update):
    from entropy_mask_plugin.task import EntropyMaskedLMTask

    step = EntropyMaskedLMTask.train_step

    def dying_step(self, sample, model, criterion, optimizer, update_num, *args, **kwargs):
        if update_num == update:
            raise Killed
        return step(self, sample, model, criterion, optimizer, update_num, *args, **kwargs)

    monkeypatch.setattr(EntropyMaskedLMTask, "train_step", dying_step)
