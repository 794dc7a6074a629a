#!/usr/bin/env bash
# How do the policies differ? BERTlet in five minutes on one GPU:   BUDGET=280 bash examples/speed/short_study.sh CORPUS GLUE OUT
# Pretrains with random masks; then, with that model as teacher and for as many updates, with high-entropy masks of the teacher
# (high), of the teacher and then the model itself (high-init), and with distillation too (high-init-kd); fine-tunes each.
# CORPUS  a folder that scripts/prepare_corpus.py has written
# GLUE    a folder with GLUE's own folders (SST-2, QNLI), or none: no fine-tuning
# OUT     must not exist: runs/, comparison.md and .png, tuned/
# The runs after the first share the GPU, so their tokens/s mean nothing. SIZE=tiny is a dry run on a CPU.
set -euo pipefail

BUDGET=${BUDGET:-280}                                            # seconds, of all
RUNS=${RUNS:-high high-init high-init-kd}                        # beside random
MASKING=${MASKING---leave-unmasked-prob 0.1 --random-token-prob 0.1} # "" = all <mask>
LR=${LR:-7e-4}
TASKS=${TASKS:-sst-2,qnli} LIMIT=${LIMIT:-5000}                  # rows of a task
SIZE=${SIZE:-bertlet}

fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in -h | --help) sed -n '2,9s/^# //p' "$0"; exit 0 ;; esac
[ $# = 3 ] || fail "three folders expected, $# given: CORPUS GLUE OUT (see --help)"
corpus=$1 glue=$2 out=$3
[ -e "$corpus/bin/train.idx" ] || fail "CORPUS: $corpus has no bin/train.idx, expected a folder of scripts/prepare_corpus.py without shards"
[ "$glue" = none ] || [ -d "$glue" ] || fail "GLUE: $glue not found, expected a folder, or none"
[ ! -e "$out" ] || fail "OUT: $out exists, expected a new folder"
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
begin=$SECONDS
left() { echo $((BUDGET - (SECONDS - begin))); }
say() { printf '\n==== %s (%ss of %ss)\n' "$*" "$((SECONDS - begin))" "$BUDGET"; }

model=(--arch bertlet --tokens-per-sample 128 --batch-size 256 --num-workers 4 --precision bf16 --entropy-precision bf16)
intervals=(--validate-interval-updates 500 --log-interval 100 --warmup-updates 500)
tuning=(--lr 2e-4 --batch-size 32 --max-epochs 2 --warmup 0.06) cpu=()
if [ "$SIZE" = tiny ]; then
    cpu=(--cpu)
    export OMP_NUM_THREADS=1 # several runs of several threads each get in each other's way
    model=(--arch bertlet --encoder-layers 1 --encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --encoder-attention-heads 2
        --tokens-per-sample 32 --batch-size 16 --num-workers 0)
    intervals=(--validate-interval-updates 50 --log-interval 20 --warmup-updates 10)
    tuning=(--lr 1e-3 --batch-size 32 --max-epochs 1) LIMIT=64
fi
training=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --adam-eps 1e-6 --weight-decay 0.01 --clip-norm 1 --lr "$LR"
    --lr-scheduler inverse_sqrt --seed 1 --no-epoch-checkpoints --save-interval 1000 --validate-interval 1000 --log-format simple)
teacher=$out/runs/random/checkpoint_last.pt
by_teacher=(--mask-strategy high --teacher "$teacher" --entropy-cache "$out/cache")

policy() { # name -> $flags
    case $1 in
        random) flags=(--mask-strategy random) ;;
        high) flags=("${by_teacher[@]}") ;;
        high-init) flags=("${by_teacher[@]}" --self-mask-from-epoch 2) ;;
        high-init-kd) flags=("${by_teacher[@]}" --self-mask-from-epoch 2 --kd-weight 0.5 --kd-start-epoch 2) ;;
        high-cold) flags=(--mask-strategy high --self-mask-from-epoch 1) ;;
        low | mid | marginal | alternating) flags=(--mask-strategy "$1" "${by_teacher[@]:2}") ;;
        *) fail "RUNS: $1 is not known, expected some of high high-init high-init-kd high-cold low mid marginal alternating" ;;
    esac
}

pretrain() { # name, seconds, updates at most: it ends by itself, with a validation and a checkpoint
    local run=$out/runs/$1 status=0
    policy "$1"
    mkdir -p "$run"
    # shellcheck disable=SC2086  # MASKING is several words
    timeout -k 5 $(($2 + 90)) python -m fairseq_cli.train "$corpus/bin" --user-dir "$root/entropy_mask_plugin" --task entropy_masked_lm \
        --criterion entropy_masked_lm "${model[@]}" $MASKING "${training[@]}" "${intervals[@]}" "${flags[@]}" "${cpu[@]}" --max-update "$3" \
        --stop-time-hours "$(awk -v s="$2" 'BEGIN { printf "%.6f", s / 3600 }')" --save-dir "$run" > "$run/train.log" 2>&1 || status=$?
    echo "$1: exit status $status; $(grep '| train_inner |' "$run/train.log" | tail -1 | sed 's/.*| //' | cut -c1-200)"
}

tune() { # name
    [ -e "$out/runs/$1/checkpoint_last.pt" ] || return 0
    timeout -k 5 "$(left)" python "$root/scripts/finetune_glue.py" --checkpoint "$out/runs/$1/checkpoint_last.pt" --glue "$glue" --tokenizer "$corpus" \
        --tasks "$TASKS" --limit "$LIMIT" --seeds 1 --jobs 2 --data "$out/binarised-$1" --out "$out/tuned/$1" "${tuning[@]}" \
        -- --optimizer fused_adamw "${cpu[@]}" > "$out/tuned-$1.log" 2>&1 || echo "$1: not fine-tuned: $(tail -1 "$out/tuned-$1.log" | cut -c1-200)"
}

for run in $RUNS; do policy "$run"; done # a name that is not known is a mistake now, not in a minute
seconds=$((BUDGET - 110)) # the rest: start-up, the teacher's entropies, fine-tuning
[ "$seconds" -ge 30 ] || seconds=30
say "random masks, $((seconds / 3))s"
pretrain random $((seconds / 3)) 1000000
[ -e "$teacher" ] || fail "no checkpoint of random masks: see $out/runs/random/train.log"
updates=$(python -c "import sys, torch; print(torch.load(sys.argv[1], weights_only=True, mmap=True)['optimizer_history'][-1]['num_updates'])" "$teacher")
say "$RUNS, at most $((seconds * 2 / 3))s and $updates updates"
for run in $RUNS; do pretrain "$run" $((seconds * 2 / 3)) "$updates" & done
wait
say "comparison"
folders=("$out/runs/random")
for run in $RUNS; do [ ! -e "$out/runs/$run/checkpoint_last.pt" ] || folders+=("$out/runs/$run"); done
python "$root/scripts/compare_runs.py" "${folders[@]}" --dict "$corpus/bin/dict.txt" --out "$out"
if [ "$glue" != none ] && [ "$(left)" -ge 30 ]; then
    say "fine-tuning"
    for run in random $RUNS; do tune "$run" & done
    wait
    for run in random $RUNS; do [ ! -e "$out/tuned/$run/table.md" ] || { echo "$run"; grep '^|' "$out/tuned/$run/table.md"; }; done
fi
say "done: $out"
