#!/usr/bin/env bash
# Masks early and late on real text, each model with the same number of FLOPs, two beside each other on a CPU:
#   bash examples/mask_later/compare.sh CORPUS OUT [SEED]
# CORPUS: made by scripts/prepare_corpus.py with --vocab-size 1000. Interrupted and started again, it goes on where it was.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 1; }
corpus=$1 out=$2 seed=${3:-1}
root=$(cd "$(dirname "$0")/../.." && pwd)

sizes=(--arch bertlet --encoder-layers 6 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --encoder-attention-heads 4 --max-positions 32 --encoder-normalize-before --init-std 0.08 --dropout 0
    --attention-dropout 0)
task=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 32 --leave-unmasked-prob 0.1
    --random-token-prob 0.1)
optimisation=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 3e-3
    --lr-scheduler polynomial_decay --warmup-updates 100 --batch-size 64 --cpu --num-workers 0 --seed "$seed")
saving=(--no-epoch-checkpoints --save-interval-updates 200 --keep-interval-updates 1 --log-interval 50
    --max-valid-steps 25)

train() { # name, updates, then the flags that are its own
    local run=$out/$1 updates=$2
    mkdir -p "$run"
    shift 2
    OMP_NUM_THREADS=1 fairseq-train "$corpus/bin" --user-dir "$root/entropy_mask_plugin" "${task[@]}" "${sizes[@]}" \
        "${optimisation[@]}" --total-num-update "$updates" --max-update "$updates" "${saving[@]}" --save-dir "$run" \
        "$@" >> "$run/train.log" 2> "$run/errors.log" &
    trap "kill $! 2> /dev/null" TERM
    wait $! || { echo "error: $run: $(tail -n 1 "$run/errors.log")" >&2; exit 1; }
}

both() { # wait for the two that run
    local job
    for job in $(jobs -p); do wait "$job" || exit 1; done
}
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

# Updates with as many FLOPs as 1,500 of the first, the teacher's entropy passes included. Millions of multiplications for
# a token and step, by scripts/flops.py with the sizes above: 3.46; 3.65; 2.75; 3.36; 2.75 + 1.37; 3.65 + 1.37.
teacher=$out/random-50/checkpoint_last.pt
train random-30 1500 --mask-strategy random --mask-prob 0.3 &
train random-50 1422 --mask-strategy random --mask-prob 0.5 &
both
train later-1-layer 1885 --mask-strategy random --mask-prob 0.5 --mask-decoder-layers 1 &
train later-2-layers 1541 --mask-strategy random --mask-prob 0.5 --mask-decoder-layers 2 &
both
train later-high 1257 --mask-strategy high --teacher "$teacher" --mask-prob 0.5 --mask-decoder-layers 1 &
train early-high 1033 --mask-strategy high --teacher "$teacher" --mask-prob 0.5 &
both
python "$root/scripts/compare_runs.py" "$out"/{random-30,random-50,later-1-layer,later-2-layers,later-high,early-high} \
    --dict "$corpus/dict.txt" --out "$out"
