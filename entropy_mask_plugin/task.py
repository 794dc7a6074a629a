"""The task: clean blocks of text, and the batch hook that turns each batch into a masked one.

    1. scores   entropy of the teacher's or the model's own predictions on the clean tokens, or none
    2. masked   the strategy's choice among the maskable positions, corrupted src_tokens and target
    3. step     criterion and backward on the masked sample

Shapes: B sentences, T positions, C width, V vocabulary, K positions.
"""

import contextlib
import functools
import logging
import os

import torch
from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.masked_lm import MaskedLMTask

from .checkpoints.vocabulary import RECORD, read_dictionary_of_shards
from .config import EntropyMaskedLMConfig, check_flags, check_policy, corruption_of, plain, warn_of_unused_flags
from .fairseq_fixes.ranks import refuse_unconnected_ranks
from .masking import corruption, noise, refinement, schedule
from .masking.entropy import bf16_pays, projected_entropy
from .masking.masker import Masker, Vocabulary, When
from .masking.scores import Scores
from .masking.statistics import SUMS, mask_statistics
from .masking.take import number_to_mask, take
from .models.positions import SelectedPositions, to_device_async
from .pretrained.initialization import initialize_from, log_copied_tensors, read_source
from .pretrained.restore import check_restored_shapes, read_restore_file
from .pretrained.teacher import load_teacher
from .scoring.cache import fingerprint
from .scoring.cache.building import build
from .scoring.cache.self_store import SelfEntropyStore
from .scoring.cache.store import EntropyStore
from .system.errors import UsageError, require
from .training import plateau
from .training.blocks import load_samples, special_symbols

logger = logging.getLogger(__name__)

VALID_MASK_PROB = 0.15  # whatever --mask-prob is, so that validation losses of all runs compare


@register_task("entropy_masked_lm", dataclass=EntropyMaskedLMConfig)
class EntropyMaskedLMTask(MaskedLMTask):
    """Masked language modelling with masks chosen by entropy."""

    def __init__(self, cfg, dictionary=None):
        check_flags(cfg)
        self.corruption = corruption_of(cfg)
        super().__init__(plain(cfg), dictionary)
        self.epoch = 1  # set by begin_epoch
        self.teacher = self.restored = None  # see setup_task
        self.trains = self.has_warned = False
        self.specials = special_symbols(self.dictionary)
        specials = set(self.specials.tolist())
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
        if not any(self.maskable(tokens).any() for tokens in first):
            raise UsageError(f"data: {split} in {self.cfg.data} begins with 1,000 sequences without anything to mask, "
                             "expected text in the symbols of dict.txt (is all of it <unk>?)")
        self.datasets[split] = samples
        if self.cfg.entropy_cache and split == self.cfg.train_subset:
            self.attach_entropies(samples.dataset, split, epoch)

    def attach_entropies(self, samples, split, epoch):
        """Let the entropies on disk that may be needed come with each batch."""
        by_teacher = self.source(epoch) == "teacher" and self.teacher is not None
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
        build(store, blocks, self.max_positions(), lambda clean: self.entropies_of(self.teacher_on(device), clean),
              device, self.dictionary.pad())
        return store

    def get_checkpoint_dict(self):
        return {RECORD: list(self.dictionary.symbols)}

    # ---- the batch hook

    @functools.cached_property
    def masker(self):
        """Made when it is asked for: a checkpoint loads without the strategy that it was trained with."""
        vocabulary = Vocabulary(self.mask_idx, self.dictionary.pad(), self.ordinary)
        return Masker(self.cfg.mask_strategy, vocabulary, self.cfg.seed, self.corruption.leave_unmasked_prob,
                      self.corruption.random_token_prob, self.cfg.static_masks)

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        self.epoch = epoch  # set, never counted: fairseq calls this again after a resume in mid-epoch

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        # A rank that has run out of batches repeats one, of training or of validation, and ignores the gradient.
        masked, statistics = self.mask_for_training(sample, model, update_num, is_dummy=ignore_grad)
        loss, sample_size, logging_output = super().train_step(
            masked, model, self.in_precision(criterion), optimizer, update_num, ignore_grad
        )
        return loss, sample_size, {**logging_output, **statistics}

    def valid_step(self, sample, model, criterion):
        return super().valid_step(self.mask_for_validation(sample), model, self.in_precision(criterion))

    def mask_for_training(self, sample, model, update_num, is_dummy=False):
        """A new sample with masks, and sums for the log. The old sample stays as it is: fairseq reuses it."""
        scores = None if is_dummy else self.scores(sample, model)
        tokens, maskable = sample["net_input"]["src_tokens"], sample["maskable"]
        k = number_to_mask(torch.tensor(sample["n_maskable"]), self.corruption.mask_prob, self.cfg.mask_count)
        masked = self.masker(tokens, sample["id"], maskable, to_device_async(k, tokens.device), scores,
                             When(self.epoch, update_num))
        new = with_masks(sample, masked.src_tokens, masked.target, SelectedPositions(masked.selected, k.numpy()))
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

    def maskable(self, tokens):
        """B x T bool: everything but <pad>, <s>, </s>, <mask>, <unk>."""
        self.specials = self.specials.to(tokens.device)  # moves once, at the first batch
        return ~torch.isin(tokens, self.specials)

    def scores(self, sample, model):
        """`Scores` of this epoch's source on the clean tokens: entropies, nats; None where the strategy needs none."""
        source = self.source(self.epoch)
        clean = sample["net_input"]
        if source == "teacher" and "entropy_bits" in sample:  # from the cache
            return Scores(sample["entropy_bits"].view(torch.float32))
        if source == "teacher":
            return self.scores_of(self.teacher_on(clean["src_tokens"].device), clean)
        return self.self_scores(sample, model) if source == "self" else None

    def source(self, epoch):
        return schedule.entropy_source(self.cfg.mask_strategy, epoch, self.cfg.self_mask_from_epoch)

    def self_scores(self, sample, model):
        """`Scores` of the model being trained: the weights before the update, dropout off."""
        epoch = schedule.epoch_of_self_entropies(self.epoch, self.cfg.self_mask_from_epoch, self.cfg.self_entropy_every,
                                                 len(utils.split_paths(self.cfg.data)))
        if epoch != self.epoch and set(sample["self_entropy_epochs"]) == {epoch}:
            return Scores(sample["self_entropy_bits"].view(torch.float32))
        if epoch != self.epoch and not self.has_warned:
            logger.warning(f"self entropies of epoch {epoch} are not all kept any more: some are computed in epoch "
                           f"{self.epoch}, unlike in a run that was not interrupted")
            self.has_warned = True
        keeps = self.cfg.self_entropy_every > 1
        model.eval()
        scores = (Scores(self.entropies_of(model, sample["net_input"])) if keeps
                  else self.scores_of(model, sample["net_input"]))
        model.train()
        if keeps:
            store = self.datasets[self.cfg.train_subset].dataset.self_entropies
            store.write(sample["id"].tolist(), scores.values.cpu().numpy(), epoch)
        return scores

    def scores_of(self, model, clean):
        """`Scores` by a model on the clean tokens: entropies, nats, of a bf16 product where that is cheaper and can be
        refined."""
        hidden, weight, bias = self.projection_of(model, clean)
        # Without syncs, refinement may miss a position where entropies hardly differ. Layers in bf16 do that anyway.
        is_unsafe = refinement.syncs_are_expensive(hidden.device) and self.layers_in() == "fp32"
        if self.cfg.entropy_precision == "bf16" or not bf16_pays(hidden.device) or is_unsafe:
            return Scores(self.projected(hidden, weight, bias))
        return Scores(projected_entropy(hidden, weight, bias, torch.bfloat16),
                      lambda at: projected_entropy(hidden[at], weight, bias))

    def entropies_of(self, model, clean):
        """B x T fp32, nats, of the model on the clean tokens: as exact as --entropy-precision says, everywhere."""
        return self.projected(*self.projection_of(model, clean))

    def projection_of(self, model, clean):
        """The hidden states B x T x C that are projected to the vocabulary, weight V x C and bias V."""
        tokens = clean["src_tokens"]
        with torch.no_grad(), self.autocast(tokens.device, self.layers_in()):
            hidden = model.lm_hidden(tokens, has_padding=clean["has_padding"])
        return hidden, *model.output_projection()

    def projected(self, hidden, weight, bias):
        product = torch.bfloat16 if self.cfg.entropy_precision == "bf16" else torch.float32
        return projected_entropy(hidden, weight, bias, product)

    def layers_in(self):
        """The precision of the layers in an entropy pass."""
        return self.cfg.entropy_precision or self.cfg.precision

    def teacher_logits(self, net_input, positions):
        """The teacher's logits, K x V, at chosen `SelectedPositions` of the masked sequences."""
        device = net_input["src_tokens"].device
        with torch.no_grad(), self.autocast(device, self.cfg.precision):
            return self.teacher_on(device)(**net_input, masked_tokens=positions)[0]

    def teacher_on(self, device):
        if next(self.teacher.parameters()).device != device:  # `to` walks through all of it, 0.3 ms in each update
            self.teacher.to(device)
        return self.teacher

    @staticmethod
    def autocast(device, precision):
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def in_precision(self, criterion):
        """The criterion under autocast. Around train_step it would have no effect: fairseq switches autocast off there
        unless --amp is given."""

        def compute(model, sample):
            with self.autocast(sample["target"].device, self.cfg.precision):
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
        log_ratio("entropy", total["entropy_sum"], total["n_scored"])
        log_ratio("entropy_masked", total["entropy_masked_sum"], total["n_scored_selected"])


def with_masks(sample, src_tokens, target, selected):
    """The sample with other tokens, a target and the `SelectedPositions` to be predicted."""
    return {**sample, "net_input": {**sample["net_input"], "src_tokens": src_tokens}, "target": target,
            "selected": selected}


def log_ratio(name, total, count):
    if count > 0:  # nothing counted, nothing known: a zero would mislead
        metrics.log_scalar(name, total / count, count, round=3)
