#!/usr/bin/env bash
# Fine-tune as in the paper:   bash examples/paper/finetune.sh ARCH TASK-BIN CHECKPOINT RUN CLASSES [fairseq-train flags]
# TASK-BIN holds input0/ (input1/) and label/, each from fairseq-preprocess with the dict.txt of the pretraining data.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,3s/^# //p' "$0"; exit 1; }
arch=$1 data=$2 checkpoint=$3 run=$4 classes=$5
shift 5

for file in "$data/label/train.idx" "$checkpoint"; do
    [ -e "$file" ] || { echo "error: $file does not exist" >&2; exit 1; }
done
rows=$(python -c "from fairseq.data import MMapIndexedDataset as D; import sys; print(len(D(sys.argv[1])))" "$data/label/train")
updates=$(((rows + 255) / 256 * 50))

fairseq-train "$data" --user-dir "$(cd "$(dirname "$0")/../.." && pwd)/entropy_mask_plugin" \
    --task sentence_prediction --criterion sentence_prediction --arch "$arch" --num-classes "$classes" \
    --init-token 0 --separator-token 2 --shorten-method truncate --finetune-from-model "$checkpoint" \
    --optimizer fused_adamw --adam-betas "(0.9,0.999)" --adam-eps 1e-8 --clip-norm 1 \
    --lr 5e-5 --lr-scheduler polynomial_decay --total-num-update "$updates" \
    --batch-size 256 --max-epoch 50 --patience 5 --best-checkpoint-metric loss --seed 1 \
    --save-dir "$run" --num-workers 4 --no-epoch-checkpoints --log-format simple --log-interval 100 "$@"
