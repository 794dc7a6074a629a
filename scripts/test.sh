#!/usr/bin/env bash
# Runs the tests, after installing what they need:   bash scripts/test.sh [pytest arguments]
# Settings: VENV (default .venv beside scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-$root/.venv}
bash "$root/scripts/install.sh" --venv "$venv"
# The GPU's kernel is tested in Triton's interpreter, but a torch for processors comes without Triton.
"$venv/bin/python" -c 'import triton' 2> /dev/null || "$venv/bin/pip" install -q "triton>=3.3" ||
    echo "no Triton for this machine: its kernel is not tested"
cd "$root"
# A test keeps to one core. A module stays with one worker, which makes its models once; each worker holds gigabytes.
exec "$venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
