"""How large a study is, as data. Flags in which {updates} stands get the number of all updates of a pretraining."""

from typing import Dict, NamedTuple, Optional, Tuple


class Scale(NamedTuple):
    """
    archs: {arch: its flags}.
    batch: {arch: blocks of an update}.
    length: tokens of a block.
    epochs, max_updates: of a pretraining; None = no other end than the epochs'.
    pretraining: flags of fairseq-train.
    tuning: flags of the command `glue`.
    tuning_training: flags of the fairseq-train in it.
    tasks: of GLUE.
    """

    archs: Dict[str, str]
    batch: Dict[str, int]
    length: int
    epochs: int
    max_updates: Optional[int]
    pretraining: str
    tuning: str
    tuning_training: str
    tasks: Tuple[str, ...]


PAPERS_TASKS = ("cola", "mrpc", "qnli", "qqp", "rte", "sst-2", "mnli")
TINY_ARCH = "--encoder-attention-heads 4 --max-positions 64 --dropout 0 --attention-dropout 0 "
DECAY = "--lr-scheduler polynomial_decay --total-num-update {updates} --clip-norm 1 "
QUICK = DECAY + "--encoder-normalize-before --init-std 0.08 --optimizer fused_adamw --adam-betas (0.9,0.98) --lr 3e-3 "

SCALES = {
    # Does it work? Minutes, with 100,000 tokens or less of text. The figures mean nothing.
    "smoke": Scale(
        archs={"bertlet": TINY_ARCH + "--encoder-layers 1 --encoder-embed-dim 32 --encoder-ffn-embed-dim 64",
               "bert_base": TINY_ARCH + "--encoder-layers 2 --encoder-embed-dim 64 --encoder-ffn-embed-dim 128"},
        batch={"bertlet": 32, "bert_base": 32}, length=32, epochs=2, max_updates=400,
        pretraining=QUICK + "--warmup-updates 10 --save-interval-updates 20 --log-interval 10",
        tuning="--lr 1e-3 --batch-size 16 --max-epochs 1 --limit 64", tuning_training="--optimizer fused_adamw",
        tasks=("cola", "rte"),
    ),
    # Two cores and hours: models and blocks so small that random masks leave the unigram plateau. Made for a vocabulary
    # of 1,000 subword tokens and about a million tokens of text, which are 3,000 updates: examples/paper/RESULTS.md.
    "small": Scale(
        archs={"bertlet": TINY_ARCH + "--encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512",
               "bert_base": TINY_ARCH + "--encoder-layers 4 --encoder-embed-dim 192 --encoder-ffn-embed-dim 768"},
        batch={"bertlet": 64, "bert_base": 64}, length=32, epochs=6, max_updates=None,
        pretraining=QUICK + "--warmup-updates 100 --save-interval-updates 250 --log-interval 50",
        tuning="--lr 1e-3 --batch-size 32 --max-epochs 3 --warmup 0.06 --limit 5000",
        tuning_training="--optimizer fused_adamw",
        tasks=("cola", "mrpc", "qnli", "rte", "sst-2"),
    ),
    # One GPU and days: the paper's recipe. examples/paper says where each number is from.
    "paper": Scale(
        archs={"bertlet": "", "bert_base": ""}, batch={"bertlet": 200, "bert_base": 96}, length=512, epochs=25,
        max_updates=None,
        pretraining=DECAY + "--precision bf16 --optimizer fused_adamw --adam-betas (0.9,0.999) --adam-eps 1e-8 "
                            "--lr 1e-4 --warmup-updates 10000 --save-interval-updates 1000 --log-interval 100",
        tuning="--protocol paper", tuning_training="", tasks=PAPERS_TASKS,
    ),
}
