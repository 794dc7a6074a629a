#!/usr/bin/env bash
# From nothing to a comparison of masking policies on real English text, on two CPU cores in under 15 minutes:
#   bash scripts/quickstart.sh [--out DIR]     (default: runs/quickstart beside scripts/)
# Interrupted and called again, it goes on where it was. Setting: VENV (default .venv beside scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/runs/quickstart
while [ $# -gt 0 ]; do
    case $1 in
        --out) [ $# -ge 2 ] || { echo "error: --out: no folder given" >&2; exit 1; }; out=$2; shift 2 ;;
        -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "error: $1 is not known; usage: bash scripts/quickstart.sh [--out DIR]" >&2; exit 1 ;;
    esac
done
venv=${VENV:-$root/.venv}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# A model that leaves the unigram plateau within two minutes: small vocabulary, short blocks, small batches (so that
# there are many updates), pre-LayerNorm, large initial weights. An epoch is a shard, here a fifth of the text; three
# epochs see three fifths of it once.
corpus=(--docstrings --vocab-size 1000 --valid-fraction 0.02 --shards 5)
model=(--arch bertlet --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --encoder-attention-heads 4 --max-positions 32 --encoder-normalize-before --init-std 0.08
    --dropout 0 --attention-dropout 0)
# The corruption is the same for all four, BERT's 80/10/10, so that they differ in the choice of tokens alone. 30 % are
# masked: with the paper's 15 % so few updates teach the entropy-masked models nothing but the hardest tokens.
masking=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 32 --mask-prob 0.3
    --leave-unmasked-prob 0.1 --random-token-prob 0.1)
training=(--optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 3e-3 --lr-scheduler polynomial_decay
    --warmup-updates 100 --total-num-update 1620 --batch-size 64 --max-epoch 3 --cpu --num-workers 0 --seed 1)
saving=(--no-epoch-checkpoints --save-interval-updates 160 --keep-interval-updates 1 --log-interval 50)

say() { printf '\n==== %s\n' "$*"; }

train() { # name, then the flags that are its own
    local run=$out/$1
    shift
    if [ -e "$run/finished" ]; then
        echo "already there: $run"
        return
    fi
    mkdir -p "$run"
    # Through tee, so that the numbers are kept and fairseq's progress bar (on stderr) stays on the terminal.
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

say "3/8 random masks (this model is also the teacher of the next three)"
train random --mask-strategy random

say "4/8 high-entropy masks, chosen by the teacher"
train high --mask-strategy high --teacher "$teacher"

say "5/8 high-entropy masks, init: the teacher's in epoch 1, then the model's own"
train high-init --mask-strategy high --teacher "$teacher" --self-mask-from-epoch 2

say "6/8 the same, and distillation from epoch 2"
train high-init-kd --mask-strategy high --teacher "$teacher" --self-mask-from-epoch 2 --kd-weight 0.5 --kd-start-epoch 2

say "7/8 fine-tuning on two small tasks made from docstrings: which library, and are the words in order?"
[ -e "$out/tasks" ] || python "$root/scripts/make_docstring_tasks.py" --out "$out/tasks" --train 300
for run in random high high-init high-init-kd; do
    python "$root/scripts/finetune_glue.py" --checkpoint "$out/$run/checkpoint_last.pt" --glue "$out/tasks" \
        --tasks library,order --seeds 1 --lr 1e-3 --batch-size 32 --max-epochs 4 --data "$out/binarised" \
        --out "$out/fine-tuned/$run" -- --cpu > /dev/null # its table: the scores are in the one below
done

say "8/8 what came out"
python "$root/scripts/compare_runs.py" "$out"/{random,high,high-init,high-init-kd} \
    --dict "$out/corpus/dict.txt" --fine-tuned "$out/fine-tuned" --out "$out"
