"""Less Python overhead in each update of fairseq's trainer."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import utils
from fairseq.trainer import Trainer
from omegaconf import OmegaConf


def trim_training_step() -> None:
    """Apply the patches of this file."""
    clip_cpu_gradients_on_the_cpu()
    seed_each_update_directly()
    read_settings_as_plain_attributes()


def clip_cpu_gradients_on_the_cpu() -> None:
    """With --cpu on a machine with a GPU, fairseq moves the gradient norms to the GPU, and then fails to multiply the
    gradients on the CPU by the clipping coefficient."""
    fairseq_clip = utils.clip_grad_norm_

    def clip_grad_norm_(params, *arguments):
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        if not torch.cuda.is_available() or any(parameter.is_cuda for parameter in params):
            return fairseq_clip(params, *arguments)
        is_available, torch.cuda.is_available = torch.cuda.is_available, lambda: False
        try:
            return fairseq_clip(params, *arguments)
        finally:
            torch.cuda.is_available = is_available

    utils.clip_grad_norm_ = clip_grad_norm_


def seed_each_update_directly() -> None:
    """Before seeding, fairseq saves the states of all generators, which are never restored, and torch.manual_seed
    visits every kind of device: a millisecond per update."""
    fairseq_seed = Trainer._set_seed

    def _set_seed(self):
        if self.tpu:
            return fairseq_seed(self)
        seed = self.cfg.common.seed + self.get_num_updates()
        torch.default_generator.manual_seed(seed)
        if self.cuda:
            torch.cuda.manual_seed(seed)

    Trainer._set_seed = _set_seed


def read_settings_as_plain_attributes() -> None:
    """An update reads 35 of the trainer's settings, each of which takes OmegaConf ten microseconds. Checkpoints still
    contain the OmegaConf objects."""
    fairseq_step, fairseq_state = Trainer.train_step, Trainer.state_dict

    def train_step(self, samples, raise_oom=False):
        _ = self.optimizer, self.lr_scheduler  # built on first use, from OmegaConf settings
        with settings(self, plain_settings(self)):
            return fairseq_step(self, samples, raise_oom)

    def state_dict(self):
        with settings(self, getattr(self, "original_cfg", self.cfg)):  # also for the crash.pt of a failed update
            return fairseq_state(self)

    Trainer.train_step, Trainer.state_dict = train_step, state_dict


def plain_settings(trainer: Any) -> SimpleNamespace:
    """The trainer's settings as nested namespaces, converted once."""
    if OmegaConf.is_config(trainer.cfg) and trainer.cfg is not getattr(trainer, "original_cfg", None):
        trainer.original_cfg = trainer.cfg
        trainer.plain_cfg = as_namespace(OmegaConf.to_container(trainer.cfg, resolve=True))
    return trainer.plain_cfg


def as_namespace(x: Any) -> Any:
    """Nested dicts -> nested namespaces; other values stay."""
    return SimpleNamespace(**{key: as_namespace(value) for key, value in x.items()}) if isinstance(x, dict) else x


@contextlib.contextmanager
def settings(trainer: Any, cfg: Any) -> Iterator[None]:
    """A context in which the trainer's settings are `cfg`."""
    before, trainer.cfg = trainer.cfg, cfg
    try:
        yield
    finally:
        trainer.cfg = before
