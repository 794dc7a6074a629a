#!/usr/bin/env bash
# Pretrain with Mask More and Mask Later, two decoder layers, 50 % masks, 80/10/10:
#   bash examples/mask_later/pretrain.sh ARCH DATA-BIN RUN [further flags of fairseq-train]
# ARCH: bert_base_3ml or bertlet_3ml. Interrupted and started again with the same words, it goes on where it was.
# Masks by entropy: append --mask-strategy high --teacher TEACHER.pt --entropy-cache DIR, or --mask-strategy high
# --self-mask-from-epoch 1.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 1; }
arch=$1 data=$2 run=$3
shift 3
root=$(cd "$(dirname "$0")/../.." && pwd)

task=(--task entropy_masked_lm --criterion entropy_masked_lm --tokens-per-sample 128 --mask-strategy random
    --precision bf16)
optimisation=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --lr 1e-4 --lr-scheduler polynomial_decay
    --warmup-updates 10000 --total-num-update 100000 --max-update 100000 --batch-size 256 --clip-norm 1.0)
saving=(--no-epoch-checkpoints --save-interval-updates 1000 --keep-interval-updates 1 --log-interval 100)

mkdir -p "$run"
fairseq-train "$data" --user-dir "$root/entropy_mask_plugin" --arch "$arch" "${task[@]}" "${optimisation[@]}" \
    "${saving[@]}" --save-dir "$run" "$@" | tee -a "$run/train.log"
