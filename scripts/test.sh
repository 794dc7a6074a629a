#!/usr/bin/env bash
# Runs the tests, after installing what they need:   bash scripts/test.sh [--fast | --gpu] [pytest arguments]
# --fast leaves out the slow ones: some minutes instead of a quarter of an hour.
# --gpu runs those that need a GPU, and the suite's trainings on it instead of the CPU.
# Settings: VENV (default .venv beside scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-$root/.venv}
# Files whose trainings are worth running on a GPU: a step, its precision, its policies, its models.
trainings=(test_training test_training_step test_criterion test_teacher test_mask_decoder test_hbert test_fused_adamw
    test_entropy_cache test_trimmed_step)
which=all
case "${1:-}" in --fast | --gpu) which=${1#--}; shift ;; esac

bash "$root/scripts/install.sh" --venv "$venv"
# The GPU's kernels are tested in Triton's interpreter, but a torch for CPUs comes without Triton.
"$venv/bin/python" -c 'import triton' 2> /dev/null || "$venv/bin/pip" install -q "triton>=3.3" ||
    echo "no Triton for this machine: its kernels are not tested"
cd "$root"
# A test keeps to one core. A module stays with one worker, which makes its models once; each worker holds gigabytes.
pytest=("$venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
case $which in
    all) exec "${pytest[@]}" "$@" ;;
    fast) exec "${pytest[@]}" -m "not slow" "$@" ;;
esac

"$venv/bin/python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' ||
    { echo "error: --gpu: torch finds no GPU, expected one" >&2; exit 1; }
files=("${trainings[@]/#/tests/}")
files=("${files[@]/%/.py}")
status=0
"${pytest[@]}" -m gpu "$@" || status=$?
TRAIN_ON_GPU=1 "${pytest[@]}" -m "not gpu" "${files[@]}" "$@" || status=$?
exit $status
