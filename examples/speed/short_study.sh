#!/usr/bin/env bash
# How do the masking policies differ? BERTlet in five minutes on one GPU:
#   BUDGET=280 bash examples/speed/short_study.sh CORPUS GLUE OUT
# Pretrains with random masks; then, with that model as the teacher and for at most as many updates, with the teacher's
# high-entropy masks (high), the teacher's in epoch 1 and the model's own afterwards (high-init), and distillation on top
# (high-init-kd). Fine-tunes each, and compares them.
# CORPUS  a folder written by scripts/prepare_corpus.py; an epoch is one pass over it, or over one of its --shards
# GLUE    a folder with GLUE's own folders (SST-2, QNLI), or none: no fine-tuning
# OUT     a new folder: comparison.md and .png, runs/, tuned/
# The runs after the first share the GPU: ignore their tokens/s. SIZE=tiny is a dry run on a CPU (BUDGET=600).
# Settings, from the environment: BUDGET RUNS MASKING LR FIRST TASKS LIMIT SIZE (see the top of the script).
set -euo pipefail

BUDGET=${BUDGET:-280}                                                # seconds for everything
RUNS=${RUNS-high high-init high-init-kd}                             # after random; also: high-cold low mid marginal alternating
MASKING=${MASKING---leave-unmasked-prob 0.1 --random-token-prob 0.1} # flags of the corruption; "": all <mask>
FIRST=${FIRST:-3}                                                    # random masks get one FIRST-th of the training time
TASKS=${TASKS:-sst-2,qnli} LIMIT=${LIMIT:-5000}                      # GLUE tasks, and rows of each
SIZE=${SIZE:-bertlet}                                                # or tiny
LR=${LR:-$([ "$SIZE" = tiny ] && echo 3e-3 || echo 7e-4)}

fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in -h | --help) sed -n '2,11s/^# //p' "$0"; exit 0 ;; esac
[ $# = 3 ] || fail "$# arguments given, expected three: CORPUS GLUE OUT (see --help)"
corpus=$1 glue=$2 out=$3 bins=("$1/bin")
[ ! -e "$corpus/bin/shard0" ] || bins=("$corpus"/bin/shard*)
[ -e "${bins[0]}/train.idx" ] || fail "CORPUS: $corpus has no bin/train.idx, expected a folder written by scripts/prepare_corpus.py"
[ -z "$(ls -A "$out" 2> /dev/null)" ] || fail "OUT: $out is not empty, expected a new folder"
for name in BUDGET FIRST LIMIT; do [[ ${!name} =~ ^[1-9][0-9]*$ ]] || fail "$name: ${!name} given, expected a whole number"; done
[ "$BUDGET" -ge 120 ] || fail "BUDGET: $BUDGET given, expected 120 seconds or more"
[[ $SIZE =~ ^(bertlet|tiny)$ ]] || fail "SIZE: $SIZE given, expected bertlet or tiny"
policies="high high-init high-init-kd high-cold low mid marginal alternating"
for run in $RUNS; do [[ " $policies " = *" $run "* ]] || fail "RUNS: $run given, expected some of $policies"; done
[ "$glue" = none ] || for task in ${TASKS//,/ }; do
    [ -n "$(find -L "$glue" -maxdepth 1 -iname "$task" 2> /dev/null)" ] || fail "GLUE: $glue has no $task, expected a folder for each of $TASKS, or none"
done
command -v fairseq-train > /dev/null || fail "no fairseq-train on the PATH, expected one (source .venv/bin/activate)"
[ "$SIZE" = tiny ] || python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" ||
    fail "SIZE: $SIZE given and torch sees no GPU, expected one (SIZE=tiny is a dry run on a CPU)"
mkdir -p "$out/runs" "$out/tuned" && out=$(cd "$out" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

model=(--arch bertlet --tokens-per-sample 128 --batch-size 256 --num-workers 4 --precision bf16 --entropy-precision bf16
    --validate-interval-updates 250 --log-interval 100 --warmup-updates 500)
tuning=(--lr 2e-4 --batch-size 32 --max-epochs 2 --warmup 0.06 --jobs 2)
if [ "$SIZE" = tiny ]; then # trained on a copy of the validation text, so that the dry run gets to epoch 2
    mkdir "$out/bin" && cp "${bins[0]}"/{dict.txt,valid.bin,valid.idx} "$out/bin/"
    for end in bin idx; do cp "$out/bin/valid.$end" "$out/bin/train.$end"; done
    model=(--arch bertlet --encoder-layers 1 --encoder-embed-dim 64 --encoder-ffn-embed-dim 128 --encoder-attention-heads 2
        --tokens-per-sample 32 --batch-size 32 --num-workers 0 --cpu
        --validate-interval-updates 50 --log-interval 10 --warmup-updates 50)
    tuning=(--lr 1e-3 --batch-size 32 --max-epochs 1 -- --cpu)
    export OMP_NUM_THREADS=1 LIMIT=64
    bins=("$out/bin")
fi
training=(--optimizer fused_adamw --adam-betas "(0.9, 0.98)" --adam-eps 1e-6 --weight-decay 0.01 --clip-norm 1 --lr "$LR" --lr-scheduler inverse_sqrt
    --seed 1 --max-valid-steps 20 --no-epoch-checkpoints --save-interval 1000 --validate-interval 1000 --log-format simple)

left() { echo $((BUDGET - SECONDS)); }
say() { printf '\n==== %s (%ss of %ss)\n' "$*" "$SECONDS" "$BUDGET"; }
number() { grep -o "$2 *[0-9]*" "$out/runs/$1/train.log" | tail -n 1 | grep -o '[0-9]*$' || echo 0; } # run, the words before it

limited() { # log, command: leaves 20 s of BUDGET for the comparison; ends with this script
    timeout -k 5 $(($(left) > 21 ? $(left) - 20 : 1)) "${@:2}" > "$1" 2>&1 &
    trap 'kill $! 2> /dev/null; exit 1' TERM
    wait $! || { echo "error: exit status $? (124: out of time), $1 ends with: $(tail -n 1 "$1" | cut -c1-200)" >&2; return 1; }
}

pretrain() { # run, seconds, updates at most: ends by itself, with a validation and a checkpoint
    local run=$out/runs/$1 flags=(--mask-strategy "${1%%-*}")
    case $1 in random | high-cold) ;; *) flags+=(--teacher "$out/runs/random/checkpoint_last.pt" --entropy-cache "$out/cache") ;; esac
    case $1 in high-cold) flags+=(--self-mask-from-epoch 1) ;; high-init*) flags+=(--self-mask-from-epoch 2) ;; esac
    case $1 in *-kd) flags+=(--kd-weight 0.5 --kd-start-epoch 2) ;; esac
    mkdir "$run"
    # shellcheck disable=SC2086 # MASKING is several words
    limited "$run/train.log" fairseq-train "$(IFS=:; echo "${bins[*]}")" --user-dir "$root/entropy_mask_plugin" --task entropy_masked_lm \
        --criterion entropy_masked_lm "${model[@]}" $MASKING "${training[@]}" "${flags[@]}" --max-update "$3" --save-dir "$run" \
        --stop-time-hours "$(awk -v s="$2" 'BEGIN { printf "%.6f", s / 3600 }')" || return 0
    echo "$1: $(grep '| train_inner |' "$run/train.log" | tail -n 1 | sed 's/.*| //' | cut -c1-150)"
}

tune() { # run
    limited "$out/tuned/$1.log" python "$root/scripts/finetune_glue.py" --checkpoint "$out/runs/$1/checkpoint_last.pt" --glue "$glue" \
        --tokenizer "$corpus" --tasks "$TASKS" --limit "$LIMIT" --seeds 1 --data "$out/binarised" --out "$out/tuned/$1" "${tuning[@]}" || true
}

tuning_seconds=$([ "$glue" = none ] && echo 0 || echo $((BUDGET / 4)))
seconds=$(((BUDGET - tuning_seconds - 60) / FIRST)) # 60: two starts, the teacher's entropies, the comparison
say "random masks, ${seconds}s of training"
pretrain random "$seconds" 1000000 & wait
[ -e "$out/runs/random/checkpoint_last.pt" ] || fail "no model with random masks, and so no teacher"
updates=$(number random '| num_updates') epoch=$(number random 'epoch 001: *[0-9]* /')
[ "$updates" -ge $((2 * epoch)) ] || echo "note: $updates updates are less than two epochs of $epoch, and high-init masks by itself from" \
    "epoch 2 on: a CORPUS made with more --shards has shorter epochs"
seconds=$(($(left) - tuning_seconds - 40)) seconds=$((seconds > 10 ? seconds : 10))
say "$RUNS, ${seconds}s of training, at most $updates updates"
for run in $RUNS; do pretrain "$run" "$seconds" "$updates" & done
wait
runs=()
for run in random $RUNS; do [ ! -e "$out/runs/$run/checkpoint_last.pt" ] || runs+=("$run"); done
compare() { python "$root/scripts/compare_runs.py" "${runs[@]/#/$out/runs/}" --dict "${bins[0]}/dict.txt" --out "$out" "$@"; }
[ "$glue" = none ] || { say "fine-tuning: $TASKS"; for run in "${runs[@]}"; do tune "$run" & done; }
wait
say "comparison"
{ [ "$glue" != none ] && compare --fine-tuned "$out/tuned"; } || compare
for run in "${runs[@]}"; do
    [ $(($(number "$run" '| num_updates') * 20)) -ge $((updates * 19)) ] || echo "note: $run made fewer updates than random: compare the curves," \
        "not the table, or give random masks less of the time (FIRST=$((FIRST + 2)))"
done
