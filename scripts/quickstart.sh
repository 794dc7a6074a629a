#!/usr/bin/env bash
# From a fresh clone to a comparison of masking policies on real English text, in under 15 minutes on two CPU cores:
#   bash scripts/quickstart.sh [--out DIR]     (default: runs/quickstart next to scripts/)
# Rerun the same command to resume. Environment variable: VENV (default .venv next to scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/runs/quickstart
while [ $# -gt 0 ]; do
    case $1 in
        --out) [ $# -ge 2 ] || { echo "error: --out: no folder given" >&2; exit 1; }; out=$2; shift 2 ;;
        -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "error: unknown argument $1; usage: bash scripts/quickstart.sh [--out DIR]" >&2; exit 1 ;;
    esac
done
venv=${VENV:-$root/.venv}
if ! mkdir -p "$out" 2> /dev/null || [ ! -w "$out" ]; then
    echo "error: --out: cannot write to $out, expected a folder for the corpus and the runs" >&2
    exit 1
fi
out=$(cd "$out" && pwd)

# A model that leaves the unigram plateau within two minutes: small vocabulary, short blocks, small batches (for many
# updates), pre-LayerNorm, large init std. An epoch is a shard, here a fifth of the text; three epochs read three fifths
# of it once.
corpus=(--docstrings --vocab-size 1000 --valid-fraction 0.02 --shards 5)
model=(--arch bertlet --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --encoder-attention-heads 4 --max-positions 32 --encoder-normalize-before --init-std 0.08
    --dropout 0 --attention-dropout 0)
# All four use the same corruption, BERT's 80/10/10, so that they differ only in which tokens are masked. 30 % are
# masked: with the paper's 15 %, the entropy-masked models learn only the hardest tokens in so few updates.
masking=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 32 --mask-prob 0.3
    --leave-unmasked-prob 0.1 --random-token-prob 0.1)
training=(--optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 3e-3 --lr-scheduler polynomial_decay
    --warmup-updates 100 --total-num-update 1620 --batch-size 64 --max-epoch 3 --cpu --num-workers 0 --seed 1)
saving=(--no-epoch-checkpoints --save-interval-updates 160 --keep-interval-updates 1 --log-interval 50)

say() { printf '\n==== %s\n' "$*"; }

train() { # name of the run, then its own flags
    local run=$out/$1
    shift
    if [ -e "$run/finished" ]; then
        echo "already finished: $run"
        return
    fi
    mkdir -p "$run"
    # Through tee, so that the log is kept and fairseq's progress bar (on stderr) stays on the terminal.
    fairseq-train "$data" --user-dir "$root/entropy_mask_plugin" "${masking[@]}" "${model[@]}" "${training[@]}" \
        "${saving[@]}" --save-dir "$run" "$@" | tee -a "$run/train.log"
    touch "$run/finished"
}

say "1/8 installation"
bash "$root/scripts/install.sh" --venv "$venv"
export PATH=$venv/bin:$PATH PYTHONWARNINGS=ignore

say "2/8 corpus: the docstrings of the installed Python packages"
python "$root/scripts/prepare_corpus.py" --out "$out/corpus" "${corpus[@]}"
data=$out/corpus/bin/shard0:$out/corpus/bin/shard1:$out/corpus/bin/shard2
teacher=$out/random/checkpoint_last.pt

say "3/8 random masks (this model is also the teacher of the other three)"
train random --mask-strategy random

say "4/8 high-entropy masks, chosen by the teacher"
train high --mask-strategy high --teacher "$teacher"

say "5/8 high-entropy masks, init: by the teacher's entropies in epoch 1, then by the model's own"
train high-init --mask-strategy high --teacher "$teacher" --self-mask-from-epoch 2

say "6/8 the same, with distillation from epoch 2"
train high-init-kd --mask-strategy high --teacher "$teacher" --self-mask-from-epoch 2 --kd-weight 0.5 --kd-start-epoch 2

say "7/8 fine-tuning on two small tasks made from docstrings: which library is it, and are the words in order?"
[ -e "$out/tasks" ] || python "$root/scripts/make_docstring_tasks.py" --out "$out/tasks" --train 300
for run in random high high-init high-init-kd; do
    python "$root/scripts/finetune_glue.py" --checkpoint "$out/$run/checkpoint_last.pt" --glue "$out/tasks" \
        --tasks library,order --seeds 1 --lr 1e-3 --batch-size 32 --max-epochs 4 --data "$out/binarised" \
        --out "$out/fine-tuned/$run" -- --cpu > /dev/null # prints a table; its scores are in the last table, too
done

say "8/8 results"
python "$root/scripts/compare_runs.py" "$out"/{random,high,high-init,high-init-kd} \
    --dict "$out/corpus/dict.txt" --fine-tuned "$out/fine-tuned" --out "$out"
