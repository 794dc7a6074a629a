"""What is compared. Each variant has `step()`: fetch a batch, mask it, forward, backward, clip, update.

Shapes: B sentences, T positions.
"""

import os
from dataclasses import dataclass
from typing import List, Optional, Sequence

import torch
from fairseq import tasks
from fairseq.data import iterators
from fairseq.trainer import Trainer
from torch.utils.data import DataLoader

from ..policies import COSTS
from ..system.extras import require_extras
from .data import SPECIALS_BEFORE, VOCABULARY, parse_fairseq_args, sharpened

ARCH_SIZES = {"bertlet": (4, 512, 2048, 8), "bert_base": (12, 768, 3072, 12)}  # layers, width, FFN, heads
TRANSFORMERS, FAIRSEQ, RANDOM = "transformers", "fairseq roberta", "random"
OURS = {
    RANDOM: ["--mask-strategy", "random"],
    **{name: COSTS[name].flags.split() for name in ("teacher on the fly", "teacher cached", "self")},
    "self, bf16 entropies": f"{COSTS['self'].flags} --entropy-precision bf16".split(),
    "self + KD": f"{COSTS['self'].flags} --teacher TEACHER --kd-weight 0.5".split(),
}
DEFAULT_VARIANTS = (TRANSFORMERS, FAIRSEQ, *OURS)  # measured unless --variants names others
HALF = ["--mask-prob", "0.5", "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"]
OURS |= {
    "random, 50 %": [*OURS[RANDOM], *HALF],
    "3ML": [*OURS[RANDOM], *HALF, "--mask-decoder-layers", "2"],
    "3ML, teacher cached": [*OURS["teacher cached"], *HALF, "--mask-decoder-layers", "2"],
    "3ML, self": [*OURS["self"], *HALF, "--mask-decoder-layers", "2"],
}
OURS |= {name: cost.flags.split() for name, cost in COSTS.items()}
ALL_VARIANTS = (TRANSFORMERS, FAIRSEQ, *OURS)


@dataclass
class Setting:
    """What a variant trains: arch, T, B and precision, and the folder of data, teacher and cache.

    length: T; sentences: B; sizes: flags that override the arch's sizes; workers: data workers, None = 4 for a GPU, 0
    for a CPU.
    """

    folder: str
    arch: str
    length: int
    sentences: int
    precision: str
    cpu: bool
    sizes: Sequence[str] = ()
    workers: Optional[int] = None

    def __post_init__(self):
        if self.workers is None:
            self.workers = 0 if self.cpu else 4

    @property
    def tokens(self) -> int:
        return self.length * self.sentences

    @property
    def title(self) -> str:
        return f"{self.arch}, T = {self.length}, B = {self.sentences}, {self.precision}"

    def args(self, *flags: str) -> List[str]:
        """Arguments of fairseq-train."""
        cache = "cache-cpu" if self.cpu else "cache-gpu"  # a teacher's entropies differ slightly between them
        places = {"TEACHER": os.path.join(self.folder, f"{self.arch}.pt"), "CACHE": os.path.join(self.folder, cache)}
        return [os.path.join(self.folder, "bin"), "--tokens-per-sample", str(self.length), "--batch-size",
                str(self.sentences), "--lr", "1e-5", "--lr-scheduler", "fixed", "--clip-norm", "1.0", "--seed", "1",
                "--required-batch-size-multiple", "1", "--no-save", "--save-dir", os.path.join(self.folder, "none"),
                "--num-workers", str(self.workers), *(["--cpu"] if self.cpu else []),
                *(places.get(flag, flag) for flag in flags)]

    def ours(self, *flags: str) -> List[str]:
        """Arguments of a training with this plug-in."""
        return self.args("--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--arch", self.arch,
                          "--optimizer", "fused_adamw", "--precision", self.precision, *self.sizes, *flags)

    def fairseq(self) -> List[str]:
        """Arguments of a training with fairseq's own task and model."""
        layers, width, ffn, heads = ARCH_SIZES[self.arch]
        fp16 = ["--amp"] if self.precision == "bf16" and not self.cpu else []
        return self.args("--task", "masked_lm", "--criterion", "masked_lm", "--arch", "roberta_base",
                          "--encoder-layers", str(layers), "--encoder-embed-dim", str(width), "--encoder-ffn-embed-dim",
                          str(ffn), "--encoder-attention-heads", str(heads), "--optimizer", "adam", *fp16, *self.sizes)


def build_variant(name: str, setting: Setting) -> "WithFairseq | WithTransformers":
    """Build a variant. name: one of ALL_VARIANTS."""
    if name == TRANSFORMERS:
        return WithTransformers(setting)
    return WithFairseq(setting.fairseq() if name == FAIRSEQ else setting.ours(*OURS[name]))


class WithFairseq:
    """fairseq's own trainer, by arguments of fairseq-train."""

    def __init__(self, args: Sequence[str]):
        cfg = parse_fairseq_args(args)
        task = tasks.setup_task(cfg.task)
        torch.manual_seed(1)
        model = task.build_model(cfg.model)
        if hasattr(model, "lm_head"):
            sharpened(model)
        self.trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
        self.epoch = self.trainer.get_train_iterator(epoch=1)
        self.trainer.begin_epoch(1)
        self.batches = self.forever()

    def forever(self):
        while True:
            yield from iterators.GroupedIterator(self.epoch.next_epoch_itr(shuffle=False), 1)

    def step(self):
        self.trainer.train_step(next(self.batches))


class WithTransformers:
    """`BertForMaskedLM` and the masks of `DataCollatorForLanguageModeling`, as in its run_mlm example."""

    def __init__(self, setting):
        require_extras("dev")
        from transformers import BertConfig, BertForMaskedLM

        layers, width, ffn, heads = ARCH_SIZES[setting.arch]
        self.device = torch.device("cpu" if setting.cpu else "cuda")
        self.precision = setting.precision
        torch.manual_seed(1)
        self.model = BertForMaskedLM(BertConfig(
            vocab_size=VOCABULARY, num_hidden_layers=layers, hidden_size=width, intermediate_size=ffn,
            num_attention_heads=heads)).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.batches = self.forever(setting)

    def forever(self, setting):
        """The blocks that fairseq reads, through transformers' collator."""
        from transformers import DataCollatorForLanguageModeling

        task = tasks.setup_task(parse_fairseq_args(setting.ours("--mask-strategy", "random")).task)
        task.load_dataset("train")
        blocks = [task.datasets["train"][i]["src_tokens"] for i in range(len(task.datasets["train"]))]
        examples = [{"input_ids": block.tolist(), "special_tokens_mask": (block < SPECIALS_BEFORE).int().tolist()}
                    for block in blocks if len(block) == setting.length]
        collate = DataCollatorForLanguageModeling(collator_tokenizer(task.source_dictionary), mlm_probability=0.15)
        batches = DataLoader(examples, setting.sentences, collate_fn=collate, num_workers=setting.workers,
                             drop_last=True, pin_memory=not setting.cpu)
        while True:
            yield from batches

    def step(self):
        batch = {name: tensor.to(self.device) for name, tensor in next(self.batches).items()}
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def collator_tokenizer(dictionary):
    """A tokenizer with what the collator needs: the special tokens and the size of the vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = Tokenizer(models.WordLevel(dictionary.indices, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=vocabulary, mask_token="<mask>", pad_token="<pad>",
                                   unk_token="<unk>", cls_token="<s>", sep_token="</s>")
