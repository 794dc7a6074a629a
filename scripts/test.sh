#!/usr/bin/env bash
# Installs the requirements and runs the tests:   bash scripts/test.sh [--fast | --gpu] [pytest arguments]
# --fast leaves out the slow tests.
# --gpu runs the tests that need a GPU, and the tests that train on the GPU instead of the CPU.
# Environment variable: VENV (default .venv next to scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-$root/.venv}
# Test files whose trainings are also run on a GPU: training steps, precision, policies, models.
trainings=(test_training test_training_step test_criterion test_teacher test_mask_decoder test_hbert test_fused_adamw
    test_entropy_cache test_trimmed_step)
which=all
case "${1:-}" in --fast | --gpu) which=${1#--}; shift ;; esac

bash "$root/scripts/install.sh" --venv "$venv"
# The GPU kernels are tested in Triton's interpreter, but CPU builds of torch come without Triton.
"$venv/bin/python" -c 'import triton' 2> /dev/null || "$venv/bin/pip" install -q "triton>=3.3" ||
    echo "Triton is not available for this machine: the GPU kernels are not tested"
cd "$root"
# A test uses one core. A module stays with one worker, which builds its models once; each worker needs gigabytes.
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
