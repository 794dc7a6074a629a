#!/usr/bin/env bash
# Go on pretraining a Hugging Face BERT with entropy masks on one's own text, and give it back to transformers:
#   bash examples/domain_adaptation/adapt.sh FOLDER-OR-NAME TEXT OUT [fairseq-train flags]
# Interrupted and called again, it goes on where it was.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0"; exit 1; }
hf=$1 text=$2 out=$3
shift 3
root=$(cd "$(dirname "$0")/../.." && pwd)

# The original is the teacher of the first epoch; from the second on, the model masks what it is uncertain of itself.
# BERT's own corruption, so that its predictions at visible tokens stay good.
masking=(--task entropy_masked_lm --criterion entropy_masked_lm --mask-strategy high --teacher "$out/original/model.pt"
    --self-mask-from-epoch 2 --leave-unmasked-prob 0.1 --random-token-prob 0.1 --tokens-per-sample 128)
training=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --clip-norm 1.0
    --lr 5e-5 --lr-scheduler fixed --warmup-updates 100 --batch-size 32 --max-epoch 3 --seed 1)
# In bf16 on a GPU, with data workers enough that it need not wait for them.
python -c 'import torch; raise SystemExit(not torch.cuda.is_available())' && training+=(--precision bf16 --num-workers 4)

[ -e "$out/original" ] || python "$root/scripts/import_hf_bert.py" --hf "$hf" --out "$out/original"
found=$(PYTHONPATH=$root python -m entropy_mask_plugin.doctor --teacher "$out/original/model.pt") ||
    { grep ERROR <<< "$found" >&2; exit 1; } # without a masked-LM head, say: before the work, not after it
python "$root/scripts/prepare_corpus.py" --text "$text" --bert-vocab "$out/original" --out "$out/corpus"
fairseq-train "$out/corpus/bin" --user-dir "$root/entropy_mask_plugin" "${masking[@]}" "${training[@]}" \
    $(cat "$out/original/flags.txt") --finetune-from-model "$out/original/model.pt" \
    --save-dir "$out/run" --no-epoch-checkpoints --save-interval-updates 500 --keep-interval-updates 1 "$@"
if [ ! "$out/adapted" -nt "$out/run/checkpoint_best.pt" ]; then # not there, or of an earlier, shorter training
    rm -rf "$out/adapted"
    python "$root/scripts/export_hf_bert.py" --checkpoint "$out/run/checkpoint_best.pt" --out "$out/adapted"
fi
echo "AutoModelForMaskedLM.from_pretrained(\"$out/adapted\")"
