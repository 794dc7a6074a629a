#!/usr/bin/env bash
# Creates the project's Python environment:   bash scripts/install.sh [--venv DIR]     (default: .venv next to scripts/)
# Running it again takes seconds. A torch that is already installed, in DIR or in $PYTHON, is kept.
# Environment variables: PYTHON (default python3), TORCH (default torch==2.13.0), EXTRAS (default: all in setup.py).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
while [ $# -gt 0 ]; do
    case $1 in
        --venv) [ $# -ge 2 ] || { echo "error: --venv: no folder given" >&2; exit 1; }; venv=$2; shift 2 ;;
        -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "error: unknown argument $1; usage: bash scripts/install.sh [--venv DIR]" >&2; exit 1 ;;
    esac
done
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-torch==2.13.0}
EXTRAS=${EXTRAS:-corpus,glue,report,tracking,atlas,dev}

say() { printf '\n== %s\n' "$*"; }
usable_torch='import torch, sys; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6))'

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: PYTHON: $PYTHON is missing or older than 3.11, expected Python 3.11 or newer" >&2
    exit 1
fi

say "1/4 environment: $venv"
if [ ! -x "$venv/bin/python" ]; then
    # On top of a python that has torch already (as in a GPU image), so that torch need not be downloaded again.
    if "$PYTHON" -c "$usable_torch" 2>/dev/null; then on_top=--system-site-packages; else on_top=; fi
    "$PYTHON" -m venv $on_top "$venv"
fi
venv=$(cd "$venv" && pwd)
python=$venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; } # without -q, for its progress bars

# Records what was installed once everything succeeded; the next call has nothing to do until this changes.
stamp=$venv/entropy-mask-plugin.installed
requirements=$(cat "$root/setup.py" "$root/scripts/install.sh"; grep __version__ "$root/entropy_mask_plugin/__init__.py"; echo "$root $EXTRAS")
if [ "$(cat "$stamp" 2>/dev/null)" = "$requirements" ] && "$python" -c "$usable_torch" 2>/dev/null; then
    say "already installed: nothing to do"
    exit 0
fi
rm -f "$stamp"

say "2/4 torch, and the build requirements of fairseq (setuptools, wheel, cython, numpy)"
"$python" -c "$usable_torch" 2>/dev/null || pip install "$TORCH"
pip install "setuptools>=69" wheel "cython>=3" "numpy>=1.26"
torch=$("$python" -c 'import torch; print(torch.__version__)')
echo "torch $torch"
printf 'torch==%s\n' "$torch" > "$venv/keep-torch.txt" # so that no later step replaces it

say "3/4 fairseq, compiled against them (two to three minutes; needs a C++ compiler)"
# Without --no-build-isolation, its build would download a second torch of several gigabytes.
command -v g++ > /dev/null || { echo "error: g++ not found, expected a C++ compiler (Debian: apt-get install g++)" >&2; exit 1; }
"$python" -c 'import fairseq' 2>/dev/null || pip install -c "$venv/keep-torch.txt" --no-build-isolation fairseq-fixed==0.12.3.1

say "4/4 the plug-in and its other requirements"
pip install -c "$venv/keep-torch.txt" --no-build-isolation -e "$root[$EXTRAS]"
# fairseq requires torchaudio, but does not import it here. transformers imports it wherever it is installed, and fails
# if its wheel was built for another torch (a CUDA build, on a machine without CUDA).
"$python" -c 'import torchaudio' 2>/dev/null || pip uninstall -y -q torchaudio
# fairseq looks for --user-dir only in the current folder and in site-packages, where an editable install puts nothing.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$root/entropy_mask_plugin" "$site/entropy_mask_plugin"
printf '%s\n' "$requirements" > "$stamp"

say "done: source $venv/bin/activate"
