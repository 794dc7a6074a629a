#!/usr/bin/env bash
# Pretrain a HybridBERT, or BERT beside it, for so many hours on one GPU:
#   bash examples/hybridbert/pretrain.sh ARCH DATA-BIN RUN HOURS [further flags of fairseq-train]
# ARCH: hbert_v1, hbert_v2, addbert, hbertlet, bert_base, bertlet. Interrupted and started again with the same words, it
# goes on where it was; only the time of training counts.
set -euo pipefail

[ $# -ge 4 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 1; }
arch=$1 data=$2 run=$3 hours=$4
shift 4
root=$(cd "$(dirname "$0")/../.." && pwd)

task=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 512 --mask-strategy random
    --leave-unmasked-prob 0.1 --random-token-prob 0.1 --precision bf16)
# The card's: lr 1e-5, linear, batch 48. Its 10,000 warm-up updates were a fixed number; here they are a share of the time.
optimisation=(--optimizer fused_adamw --lr 1e-5 --lr-scheduler budget_linear --stop-time-hours "$hours" --warmup-share 0.1
    --batch-size 48 --clip-norm 1.0)
saving=(--no-epoch-checkpoints --save-interval-updates 1000 --keep-interval-updates 1 --log-interval 100)

mkdir -p "$run"
fairseq-train "$data" --user-dir "$root/entropy_mask_plugin" --arch "$arch" "${task[@]}" "${optimisation[@]}" \
    "${saving[@]}" --save-dir "$run" "$@" | tee -a "$run/train.log"
