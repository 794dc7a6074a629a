#!/usr/bin/env bash
# Six small models on real text, each for the same time on one core of a CPU, two beside each other:
#   bash examples/hybridbert/compare.sh CORPUS OUT [HOURS] [SEED]
# CORPUS: made by scripts/prepare_corpus.py with --vocab-size 1000. HOURS: for each (default 0.1). Interrupted and started
# again, it goes on where it was.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 1; }
corpus=$1 out=$2 hours=${3:-0.1} seed=${4:-1}
root=$(cd "$(dirname "$0")/../.." && pwd)

sizes=(--encoder-layers 4 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4
    --max-positions 32 --init-std 0.08 --dropout 0 --attention-dropout 0)
task=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 32 --mask-strategy random
    --mask-prob 0.3 --leave-unmasked-prob 0.1 --random-token-prob 0.1)
optimisation=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 3e-3 --lr-scheduler budget_linear
    --stop-time-hours "$hours" --warmup-share 0.05 --batch-size 64 --max-epoch 1000 --cpu --num-workers 0 --seed "$seed")
saving=(--no-epoch-checkpoints --save-interval-updates 200 --keep-interval-updates 1 --log-interval 50
    --max-valid-steps 25)

train() { # name, then the flags that are its own
    local run=$out/$1
    mkdir -p "$run"
    shift
    OMP_NUM_THREADS=1 fairseq-train "$corpus/bin" --user-dir "$root/entropy_mask_plugin" "${task[@]}" "${sizes[@]}" \
        "${optimisation[@]}" "${saving[@]}" --save-dir "$run" "$@" >> "$run/train.log" 2> "$run/errors.log" &
    trap "kill $! 2> /dev/null" TERM
    wait $! || { echo "error: $run: $(tail -n 1 "$run/errors.log")" >&2; exit 1; }
}

both() { # wait for the two that run
    local job
    for job in $(jobs -p); do wait "$job" || exit 1; done
}
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

# The second and third are the controls: BERT with LayerNorm before its blocks, and HybridBERT's layers with
# self-attention alone.
train bert --arch bertlet &
train bert-pre-norm --arch bertlet --encoder-normalize-before &
both
train all-self --arch hbertlet --mixer-pattern self,self,self,self &
train hbert-v1 --arch hbert_v1 &
both
train hbert-outer --arch hbertlet &
train addbert --arch addbert &
both
python "$root/scripts/compare_runs.py" "$out"/{bert,bert-pre-norm,all-self,hbert-v1,hbert-outer,addbert} \
    --dict "$corpus/dict.txt" --against hours --out "$out"
