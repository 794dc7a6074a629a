"""What fairseq's trainer does in Python in each update: less of it."""

import contextlib
from types import SimpleNamespace

import torch
from fairseq import utils
from fairseq.trainer import Trainer
from omegaconf import OmegaConf


def apply():
    clip_cpu_gradients_on_the_cpu()
    seed_each_update_directly()
    read_settings_as_plain_attributes()


def clip_cpu_gradients_on_the_cpu():
    """With --cpu on a machine that has a GPU, fairseq moves the norms of the gradients to the GPU, and fails where it
    multiplies the gradients by what comes of them."""
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


def seed_each_update_directly():
    """fairseq saves the states of all generators, which nobody restores, before it seeds them, and torch.manual_seed
    walks through every kind of device: a millisecond."""
    fairseq_seed = Trainer._set_seed

    def _set_seed(self):
        if self.tpu:
            return fairseq_seed(self)
        seed = self.cfg.common.seed + self.get_num_updates()
        torch.default_generator.manual_seed(seed)
        if self.cuda:
            torch.cuda.manual_seed(seed)

    Trainer._set_seed = _set_seed


def read_settings_as_plain_attributes():
    """An update reads 35 settings of the trainer's, each of which takes OmegaConf ten microseconds. Checkpoints hold
    OmegaConf's as ever."""
    fairseq_step, fairseq_state = Trainer.train_step, Trainer.state_dict

    def train_step(self, samples, raise_oom=False):
        self.optimizer, self.lr_scheduler  # built on first use, with OmegaConf's
        with settings(self, plain_settings(self)):
            return fairseq_step(self, samples, raise_oom)

    def state_dict(self):
        with settings(self, getattr(self, "original_cfg", self.cfg)):  # also where an update fails, for crash.pt
            return fairseq_state(self)

    Trainer.train_step, Trainer.state_dict = train_step, state_dict


def plain_settings(trainer):
    """The trainer's settings as nested namespaces, made once."""
    if OmegaConf.is_config(trainer.cfg) and trainer.cfg is not getattr(trainer, "original_cfg", None):
        trainer.original_cfg = trainer.cfg
        trainer.plain_cfg = as_namespace(OmegaConf.to_container(trainer.cfg, resolve=True))
    return trainer.plain_cfg


def as_namespace(x):
    return SimpleNamespace(**{key: as_namespace(value) for key, value in x.items()}) if isinstance(x, dict) else x


@contextlib.contextmanager
def settings(trainer, cfg):
    """Within, the trainer's settings are these."""
    before, trainer.cfg = trainer.cfg, cfg
    try:
        yield
    finally:
        trainer.cfg = before
