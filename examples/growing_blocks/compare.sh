#!/usr/bin/env bash
# Blocks of 128 positions from the start, and blocks that grow from 32 to 128, with equal tokens, both at once on a CPU:
#   bash examples/growing_blocks/compare.sh CORPUS OUT [SEED]
# CORPUS: made by scripts/prepare_corpus.py with --vocab-size 1000 --shards 5, as the quick start's, runs/quickstart/corpus.
# Rerun the same command to resume. Environment variable: UPDATES (default 2640, the text of five shards once).
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 1; }
corpus=$1 out=$2 seed=${3:-1} updates=${UPDATES:-2640}
root=$(cd "$(dirname "$0")/../.." && pwd)
[ -d "$corpus/bin/shard0" ] || { echo "error: CORPUS: no $corpus/bin/shard0, expected a corpus in shards" >&2; exit 1; }
data=$(printf '%s:' "$corpus"/bin/shard*) # an epoch is a shard, so that blocks can grow five times
data=${data%:}

# The quick start's model, masks and optimization; 2,048 tokens an update whatever the length.
model=(--arch bertlet --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --encoder-attention-heads 4 --max-positions 128 --encoder-normalize-before --init-std 0.08
    --dropout 0 --attention-dropout 0)
task=(--task entropy_masked_lm --criterion entropy_masked_lm --mask-strategy random --mask-prob 0.3
    --leave-unmasked-prob 0.1 --random-token-prob 0.1 --batch-size 16)
training=(--optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 3e-3 --lr-scheduler polynomial_decay
    --warmup-updates 100 --total-num-update "$updates" --max-update "$updates" --cpu --num-workers 0 --seed "$seed")
saving=(--no-epoch-checkpoints --save-interval-updates 80 --keep-interval-updates 1 --log-interval 50)

train() { # name, then the flags that are its own
    local run=$out/$1
    mkdir -p "$run"
    shift
    OMP_NUM_THREADS=1 fairseq-train "$data" --user-dir "$root/entropy_mask_plugin" "${task[@]}" "${model[@]}" \
        "${training[@]}" "${saving[@]}" --save-dir "$run" "$@" >> "$run/train.log" 2> "$run/errors.log" &
    trap "kill $! 2> /dev/null" TERM
    wait $! || { echo "error: $run: $(tail -n 1 "$run/errors.log")" >&2; exit 1; }
}
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

train always-128 --tokens-per-sample 128 &
train from-32-to-128 --tokens-per-sample 32:128 &
for job in $(jobs -p); do wait "$job" || exit 1; done
python "$root/scripts/compare_runs.py" "$out"/{always-128,from-32-to-128} --dict "$corpus/dict.txt" --against tokens \
    --out "$out"
