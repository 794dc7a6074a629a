#!/usr/bin/env bash
# Pretrain as in the paper:   bash examples/paper/pretrain.sh bertlet|bert_base DATA-BIN RUN ROW [TEACHER] [fairseq-train flags]
# ROW: random high low mid marginal alternating high-cold high-init kd-complete kd-after-init kd-only
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,3s/^# //p' "$0"; exit 1; }
arch=$1 data=$2 run=$3 row=$4
shift 4
teacher=()
if [ $# -gt 0 ] && [[ $1 != --* ]]; then teacher=(--teacher "$1"); shift; fi

blocks=${BLOCKS:-228639} # training blocks of the corpus: wikitext-103 in blocks of 512 WordPieces
epochs=25
case $arch in bertlet) batch=200 ;; bert_base) batch=96 ;; *) echo "error: $arch found, expected bertlet or bert_base" >&2; exit 1 ;; esac
updates=$(((blocks + batch - 1) / batch * epochs))

case $row in
    random | high | low | mid | marginal | alternating) masks=(--mask-strategy "$row") ;;
    high-cold) masks=(--mask-strategy high --self-mask-from-epoch 1) ;;
    high-init) masks=(--mask-strategy high --self-mask-from-epoch 2) ;;
    kd-complete) masks=(--mask-strategy high --self-mask-from-epoch 2 --kd-weight 0.5 --kd-start-epoch 1) ;;
    kd-after-init) masks=(--mask-strategy high --self-mask-from-epoch 2 --kd-weight 0.5 --kd-start-epoch 2) ;;
    kd-only) masks=(--mask-strategy random --kd-weight 0.5) ;;
    *) echo "error: row $row is not known; $(sed -n '3s/^# //p' "$0")" >&2; exit 1 ;;
esac

mkdir -p "$run"
fairseq-train "$data" --user-dir "$(cd "$(dirname "$0")/../.." && pwd)/entropy_mask_plugin" \
    --task entropy_masked_lm --criterion entropy_masked_lm --arch "$arch" \
    "${masks[@]}" "${teacher[@]}" --mask-prob 0.15 --tokens-per-sample 512 --precision bf16 \
    --optimizer fused_adamw --adam-betas "(0.9,0.999)" --adam-eps 1e-8 --weight-decay 0 --clip-norm 1 \
    --lr 1e-4 --lr-scheduler polynomial_decay --warmup-updates 10000 --total-num-update "$updates" \
    --batch-size "$batch" --max-epoch "$epochs" --num-workers 4 --seed 1 \
    --save-dir "$run" --no-epoch-checkpoints --save-interval-updates 1000 --keep-interval-updates 1 \
    --log-format simple --log-interval 100 "$@" | tee -a "$run/train.log"
