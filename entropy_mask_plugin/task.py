"""The task: clean blocks of text, and the batch hook that turns each batch into a masked one.

    1. scores   of the teacher's or the model's own predictions on the clean tokens, or none
    2. masked   the policy's choice among the maskable positions, corrupted src_tokens and target
    3. step     criterion and backward on the masked sample

Shapes: B sentences, T positions, C width, V vocabulary, K positions.
"""

import functools
import logging
import os

import torch
from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import TASK_DATACLASS_REGISTRY, register_task
from fairseq.tasks.masked_lm import MaskedLMTask
from hydra.core.config_store import ConfigStore

from .checkpoints.vocabulary import RECORD, read_dictionary_of_shards
from .config import (
    EntropyMaskedLMConfig,
    check_flags,
    check_policy,
    plain,
    policy_of,
    warn_of_unused_flags,
    with_options,
)
from .fairseq_fixes.ranks import refuse_unconnected_ranks
from .masking import corruption, noise
from .masking.devices import to_device_async
from .masking.masker import Masker, Vocabulary
from .masking.statistics import SUMS, mask_statistics
from .masking.take import number_to_mask, take
from .masking.when import When
from .models.positions import SelectedPositions
from .pretrained.initialization import initialize_from, log_copied_tensors, read_source
from .pretrained.restore import check_restored_shapes, read_restore_file
from .pretrained.teacher import load_teacher
from .scoring import schedule
from .scoring.cache import fingerprint
from .scoring.cache.building import build
from .scoring.cache.self_store import SelfEntropyStore
from .scoring.cache.store import EntropyStore
from .scoring.precision import autocast
from .scoring.scorer import Scorer
from .scoring.sources import SOURCES
from .system.errors import UsageError, require
from .training import plateau
from .training.blocks import load_samples, special_symbols

logger = logging.getLogger(__name__)

TASK = "entropy_masked_lm"
VALID_MASK_PROB = 0.15  # whatever --mask-prob is, so that validation losses of all runs compare


@register_task(TASK, dataclass=with_options(EntropyMaskedLMConfig))
class EntropyMaskedLMTask(MaskedLMTask):
    """Masked language modelling with masks chosen by entropy."""

    def __init__(self, cfg, dictionary=None):
        check_flags(cfg)
        super().__init__(plain(cfg), dictionary)
        self.epoch = 1  # set by begin_epoch
        self.teacher = self.restored = None  # see setup_task
        self.trains, self.sources = False, {}
        specials = set(special_symbols(self.dictionary).tolist())
        self.ordinary = torch.tensor([i for i in range(len(self.dictionary)) if i not in specials])

    @classmethod
    def setup_task(cls, cfg, from_checkpoint=False, **kwargs):
        """Build the task; for training (not when a checkpoint is loaded for something else) with its teacher."""
        task = super().setup_task(cfg, **kwargs)
        if not from_checkpoint:
            check_policy(cfg)
            refuse_unconnected_ranks()
            warn_of_unused_flags(cfg)
            task.trains, task.restored = True, read_restore_file(task)
            task.teacher = load_teacher(cfg.teacher, task) if cfg.teacher else None
            logger.info(plateau.unigram_message(task.unigram_entropy()))
        return task

    @classmethod
    def load_dict(cls, cfg):
        return read_dictionary_of_shards(utils.split_paths(cfg.data))

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.compile and not from_checkpoint:
            require("--compile", f"--arch {cfg._name}", hasattr(model, "compile_layers"), "one of this plug-in's archs")
            model.compile_layers()
        if self.cfg.init_from and self.trains and not from_checkpoint:
            self.initialize(model)
        if self.restored is not None and not from_checkpoint:
            check_restored_shapes(self.restored, model)
        return model

    def initialize(self, model):
        """Copy what --init-from has for the model, at the beginning of a run."""
        if self.restored is not None:
            logger.info("--init-from: not read again, the run goes on from a checkpoint")
            return
        require("--init-from", type(model).__name__, hasattr(model, "lm_hidden"), "an --arch of this plug-in")
        layers = self.cfg.init_layers and [int(layer) for layer in self.cfg.init_layers.split(",")]
        source = read_source(self.cfg.init_from, self)
        log_copied_tensors(source, initialize_from(source, model, layers))

    def build_criterion(self, cfg, from_checkpoint=False):
        name = cfg._name  # fairseq's default would average over all tokens, the masked and the others
        require("--criterion", name, name in ("entropy_masked_lm", "masked_lm"), "entropy_masked_lm (or masked_lm)")
        return super().build_criterion(cfg, from_checkpoint)

    # ---- data

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        samples = load_samples(self.cfg, self.dictionary, split, epoch, combine)
        first = (samples[i]["src_tokens"] for i in range(min(len(samples), 1000)))
        if not any(samples.dataset.maskable(tokens).any() for tokens in first):
            raise UsageError(f"data: {split} in {self.cfg.data} begins with 1,000 sequences without anything to mask, "
                             "expected text in the symbols of dict.txt (is all of it <unk>?)")
        self.datasets[split] = samples
        if self.cfg.entropy_cache and split == self.cfg.train_subset:
            self.attach_entropies(samples.dataset, split, epoch)

    def attach_entropies(self, samples, split, epoch):
        """Let the entropies on disk that may be needed come with each batch."""
        by_teacher = self.source_of(epoch) == "teacher" and self.teacher is not None
        keeps_own = self.cfg.self_entropy_every > 1 and self.trains
        if not (by_teacher or keeps_own):
            return  # the data need not be read for its digest
        facts = fingerprint.facts_of_data(self.cfg, self.dictionary, split, epoch, samples.sizes)
        if by_teacher:
            samples.entropies = self.filled_cache(samples.blocks, facts)
        if keeps_own:
            begin = [self.cfg.seed, self.cfg.restore_file, self.cfg.finetune_from_model]
            facts = {**facts, "run": os.path.abspath(self.cfg.save_dir), "begin": begin}
            folder = os.path.join(self.cfg.entropy_cache, "self-" + fingerprint.name_of(facts))
            samples.self_entropies = SelfEntropyStore(folder, facts, samples.blocks.sizes)

    def filled_cache(self, blocks, facts):
        """The `EntropyStore` of the teacher's entropies on these blocks, complete."""
        facts = {**facts, **fingerprint.facts_of_teacher(self.teacher)}
        store = EntropyStore(os.path.join(self.cfg.entropy_cache, fingerprint.name_of(facts)), facts, blocks.sizes)
        on_gpu = torch.cuda.is_available() and not self.cfg.cpu
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        build(store, blocks, self.max_positions(), lambda clean: self.scorer.exact(self.teacher_on(device), clean),
              device, self.dictionary.pad())
        return store

    def get_checkpoint_dict(self):
        return {RECORD: list(self.dictionary.symbols)}

    # ---- the batch hook

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        self.epoch = epoch  # set, never counted: fairseq calls this again after a resume in mid-epoch

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Fairseq's step on a masked sample; the sums of `mask_statistics` join its logging output."""
        when = When(self.epoch, update_num)
        # A rank that has run out of batches repeats one, of training or of validation, and ignores the gradient.
        scores = None if ignore_grad else self.score(sample, model, when)
        masked, statistics = self.mask(sample, scores, when)
        loss, sample_size, logging_output = super().train_step(
            masked, model, self.in_precision(criterion), optimizer, update_num, ignore_grad
        )
        return loss, sample_size, {**logging_output, **statistics}

    def valid_step(self, sample, model, criterion):
        """Fairseq's step on random masks, the same for every policy, epoch and run."""
        return super().valid_step(self.mask_for_validation(sample), model, self.in_precision(criterion))

    def score(self, sample, model, when):
        """`Scores` of this epoch's source on the clean tokens, B x T; None where the strategy needs none."""
        name = self.source_of(when.epoch)
        if name is None:
            return None
        if name not in self.sources:
            self.sources[name] = SOURCES[name].fn(self)
        return self.sources[name](sample, model, when)

    def source_of(self, epoch):
        """Who scores the tokens in this epoch: a name in SOURCES, or None."""
        return schedule.source_of(self.cfg.mask_strategy, epoch, self.cfg.self_mask_from_epoch, self.cfg.mask_source)

    @functools.cached_property
    def scorer(self):
        """What any model says of clean tokens, as --mask-score and the precisions have it."""
        return Scorer(self.cfg.mask_score, self.cfg.precision, self.cfg.entropy_precision, vars(self.cfg))

    @functools.cached_property
    def masker(self):
        """Made when it is asked for: a checkpoint loads without the parts that it was trained with."""
        vocabulary = Vocabulary(self.mask_idx, self.dictionary.pad(), self.ordinary, self.dictionary.symbols)
        return Masker(policy_of(self.cfg), vocabulary, self.cfg.seed)

    def mask(self, sample, scores, when):
        """A new sample with masks, and sums for the log. The old sample stays as it is: fairseq reuses it."""
        tokens, maskable = sample["net_input"]["src_tokens"], sample["maskable"]
        masked = self.masker(tokens, sample["id"], maskable, scores, when, sample["n_maskable"])
        counts = None if masked.counts is None else masked.counts.numpy()
        new = with_masks(sample, masked.src_tokens, masked.target, SelectedPositions(masked.selected, counts))
        statistics = mask_statistics(sum(sample["n_maskable"]), new["selected"].number, maskable, masked.selected,
                                     masked.scores)
        return new, statistics

    def mask_for_validation(self, sample):
        """A new sample with random masks that depend on the sample id alone."""
        tokens = sample["net_input"]["src_tokens"]
        priority = noise.uniform(0, 0, sample["id"], tokens.size(1), noise.VALIDATION)
        k = number_to_mask(torch.tensor(sample["n_maskable"]), VALID_MASK_PROB)
        selected = take(priority, sample["maskable"], to_device_async(k, tokens.device))
        src_tokens, target = corruption.corrupt(tokens, selected, self.mask_idx, self.dictionary.pad())
        return with_masks(sample, src_tokens, target, SelectedPositions(selected, k.numpy()))

    def teacher_on(self, device):
        """The teacher, moved to the device at its first use there."""
        if next(self.teacher.parameters()).device != device:  # `to` walks through all of it, 0.3 ms in each update
            self.teacher.to(device)
        return self.teacher

    def teacher_logits(self, net_input, positions):
        """The teacher's logits, K x V, at chosen `SelectedPositions` of the masked sequences."""
        device = net_input["src_tokens"].device
        with torch.no_grad(), autocast(device, self.cfg.precision):
            return self.teacher_on(device)(**net_input, masked_tokens=positions)[0]

    def in_precision(self, criterion):
        """The criterion under autocast. Around train_step it would have no effect: fairseq switches autocast off there
        unless --amp is given."""

        def compute(model, sample):
            with autocast(sample["target"].device, self.cfg.precision):
                return criterion(model, sample)

        return compute

    # ---- log

    def unigram_entropy(self):
        """Of the training data, in bits, by the counts in dict.txt; None where it has none."""
        return plateau.unigram_entropy([self.dictionary.count[i] for i in self.ordinary.tolist()])

    def post_validate(self, model, stats, agg):
        loss, unigram = float(stats["loss"]), self.unigram_entropy()
        if plateau.is_on_plateau(loss, unigram):
            logger.warning(plateau.plateau_warning(loss, unigram))

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in SUMS}
        log_ratio("mask_rate", total["n_selected"], total["n_maskable"])
        source = self.source_of(self.epoch)
        is_entropy = self.cfg.mask_score == "entropy" and source is not None and SOURCES[source].traits["reads"]
        name = "entropy" if is_entropy else "score"
        log_ratio(name, total["entropy_sum"], total["n_scored"])
        log_ratio(f"{name}_masked", total["entropy_masked_sum"], total["n_scored_selected"])


def add_flags_of_parts():
    """Let fairseq know of the options of parts that were registered after the task."""
    known = TASK_DATACLASS_REGISTRY[TASK]
    config = with_options(known)
    if config is known:
        return
    TASK_DATACLASS_REGISTRY[TASK] = config
    setattr(EntropyMaskedLMTask, "__dataclass", config)  # as `register_task` does: the parser asks there
    node = config()
    node._name = TASK
    ConfigStore.instance().store(name=TASK, group="task", node=node, provider="fairseq")


def with_masks(sample, src_tokens, target, selected):
    """The sample with other tokens, a target and the `SelectedPositions` to be predicted."""
    return {**sample, "net_input": {**sample["net_input"], "src_tokens": src_tokens}, "target": target,
            "selected": selected}


def log_ratio(name, total, count):
    if count > 0:  # nothing counted, nothing known: a zero would mislead
        metrics.log_scalar(name, total / count, count, round=3)
