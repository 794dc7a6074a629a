"""Several processes of one training."""

import gc
import os

import torch
import torch.distributed.nn.functional  # its default arguments would hold the groups, were it imported after them
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from torch.nn.parallel import DistributedDataParallel

from ..system.errors import UsageError


def detect_torchrun():
    """fairseq takes the number of GPUs for the number of ranks, and looks at torchrun's environment only where that is
    above 1: on a CPU, N processes would train N copies of the model, each overwriting the others' checkpoints."""
    infer = distributed_utils.infer_init_method

    def infer_init_method(cfg, force_distributed=False):
        alone = cfg.distributed_world_size == 1 and cfg.distributed_init_method is None and not cfg.tpu
        if started_by_torchrun() and alone:
            cfg.distributed_init_method = "env://"
            cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
            cfg.distributed_rank = int(os.environ["RANK"])
            cfg.device_id = int(os.environ["LOCAL_RANK"])
            cfg.distributed_no_spawn = True
        infer(cfg, force_distributed)

    distributed_utils.infer_init_method = infer_init_method


def started_by_torchrun():
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def refuse_unconnected_ranks():
    """Under fairseq-hydra-train, this module is imported after fairseq has looked for other ranks."""
    if started_by_torchrun() and not torch.distributed.is_initialized():
        raise UsageError(
            "torchrun: several processes found that do not know of each other, expected fairseq-train: each would "
            "train a model of its own and overwrite the others' checkpoints"
        )


def wrap_cpu_models_without_device_ids():
    """fairseq gives every model a device id, with which torch's DistributedDataParallel refuses a model on the CPU."""

    def wrap(module, device_ids, output_device, **kwargs):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return DistributedDataParallel(module, device_ids, output_device, **kwargs)

    distributed_fairseq_model.DistributedDataParallel = wrap


def send_objects_between_ranks():
    """On resume, fairseq's rank 0 sends what it read to the others through torch.save and torch.load, which since
    torch 2.6 refuses the configuration in it. It is rank 0's memory and no file, so torch's own broadcast may do it."""

    def broadcast(obj, src_rank, group, dist_device):
        objects = [obj]
        torch.distributed.broadcast_object_list(objects, src=src_rank, group=group, device=dist_device)
        return objects[0]

    distributed_utils._broadcast_object_slow = broadcast


def leave_process_groups_before_python_ends():
    """gloo's threads let go of a collective's tensors some time after it. Where Python ends before them, the process is
    aborted ("terminate called without an active exception") after a training that has succeeded. These threads end
    with the last reference to their group. (Ranks that fairseq starts itself are multiprocessing's, which end with
    os._exit.)"""
    fairseq_call_main = distributed_utils.call_main

    def call_main(cfg, main, **kwargs):
        try:
            fairseq_call_main(cfg, main, **kwargs)
        except SystemExit as end:
            if end.code:  # other ranks may wait in a collective for this one, and its threads with them
                raise
        if torch.distributed.is_initialized():
            vars(distributed_utils.get_global_group).clear()
            torch.distributed.destroy_process_group()
            gc.collect()  # the trainer's model, in a cycle

    distributed_utils.call_main = call_main
