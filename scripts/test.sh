#!/usr/bin/env bash
# Runs the tests, after installing what they need:   bash scripts/test.sh [pytest arguments]
# Settings: VENV (default .venv beside scripts/).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-$root/.venv}
bash "$root/scripts/install.sh" --venv "$venv"
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
