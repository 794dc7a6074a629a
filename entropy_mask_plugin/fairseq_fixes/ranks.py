"""Distributed training: several processes (ranks) of one run."""

import gc
import os

import torch
import torch.distributed.nn.functional  # imported later, its default arguments would keep process groups alive
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from torch.nn.parallel import DistributedDataParallel

from ..system.errors import UsageError


def detect_torchrun() -> None:
    """fairseq uses the number of GPUs as the number of ranks, and reads torchrun's environment only if that is above 1:
    on a CPU, N processes would train N separate models, each overwriting the others' checkpoints."""
    infer = distributed_utils.infer_init_method

    def infer_init_method(cfg, force_distributed=False):
        is_single = cfg.distributed_world_size == 1 and cfg.distributed_init_method is None and not cfg.tpu
        if started_by_torchrun() and is_single:
            cfg.distributed_init_method = "env://"
            cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
            cfg.distributed_rank = int(os.environ["RANK"])
            cfg.device_id = int(os.environ["LOCAL_RANK"])
            cfg.distributed_no_spawn = True
        infer(cfg, force_distributed)

    distributed_utils.infer_init_method = infer_init_method


def started_by_torchrun() -> bool:
    """Whether torchrun started this process and at least one other."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def refuse_unconnected_ranks() -> None:
    """fairseq-hydra-train imports this module too late for `detect_torchrun`.

    Raises:
        UsageError: torchrun started several processes, which are not connected.
    """
    if started_by_torchrun() and not torch.distributed.is_initialized():
        raise UsageError(
            "torchrun: several unconnected processes found, expected fairseq-train: each would train a separate model "
            "and overwrite the others' checkpoints"
        )


def wrap_cpu_models_without_device_ids() -> None:
    """fairseq always passes a device id, with which torch's DistributedDataParallel refuses a model on the CPU."""

    def wrap(module, device_ids, output_device, **kwargs):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return DistributedDataParallel(module, device_ids, output_device, **kwargs)

    distributed_fairseq_model.DistributedDataParallel = wrap


def broadcast_objects_with_torch() -> None:
    """On resume, fairseq's rank 0 sends the checkpoint to the others through torch.save and torch.load, which since
    torch 2.6 refuses the configuration in it. As the data come from rank 0's memory and not from a file, torch's own
    broadcast, which unpickles, is safe."""

    def broadcast(obj, src_rank, group, dist_device):
        objects = [obj]
        torch.distributed.broadcast_object_list(objects, src=src_rank, group=group, device=dist_device)
        return objects[0]

    distributed_utils._broadcast_object_slow = broadcast


def destroy_process_groups_at_exit() -> None:
    """gloo's threads release a collective's tensors some time after it. If Python exits before that, the process aborts
    ("terminate called without an active exception") after a successful training. The threads end with the last
    reference to their group. (Ranks that fairseq itself spawns end with os._exit and need no help.)"""
    fairseq_call_main = distributed_utils.call_main

    def call_main(cfg, main, **kwargs):
        try:
            fairseq_call_main(cfg, main, **kwargs)
        except SystemExit as end:
            if end.code:  # after an error, other ranks may be stuck in a collective, and this one's threads too
                raise
        if torch.distributed.is_initialized():
            vars(distributed_utils.get_global_group).clear()
            torch.distributed.destroy_process_group()
            gc.collect()  # the trainer's model is in a reference cycle

    distributed_utils.call_main = call_main
