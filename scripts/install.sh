#!/usr/bin/env bash
# Makes the Python environment of this project:   bash scripts/install.sh [--venv DIR]     (default: .venv beside scripts/)
# A second call takes seconds. A torch that is already there, in DIR or in the python that runs this, is kept.
# Settings: PYTHON (default python3), TORCH (default torch==2.13.0), EXTRAS (default: all of setup.py).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
while [ $# -gt 0 ]; do
    case $1 in
        --venv) [ $# -ge 2 ] || { echo "error: --venv: no folder given" >&2; exit 1; }; venv=$2; shift 2 ;;
        -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "error: $1 is not known; usage: bash scripts/install.sh [--venv DIR]" >&2; exit 1 ;;
    esac
done
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-torch==2.13.0}
EXTRAS=${EXTRAS:-corpus,glue,report,dev}

say() { printf '\n== %s\n' "$*"; }
usable_torch='import torch, sys; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6))'

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: PYTHON: $PYTHON is missing or older than 3.11, expected Python 3.11 or newer" >&2
    exit 1
fi

say "1/4 environment: $venv"
if [ ! -x "$venv/bin/python" ]; then
    # On top of a python that has torch already (a GPU image, say), so that it need not be fetched again.
    if "$PYTHON" -c "$usable_torch" 2>/dev/null; then on_top=--system-site-packages; else on_top=; fi
    "$PYTHON" -m venv $on_top "$venv"
fi
venv=$(cd "$venv" && pwd)
python=$venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; } # not -q: its progress bars are the progress

# What is installed is written down when all of it is there: the next call has nothing to do until this changes.
stamp=$venv/entropy-mask-plugin.installed
wanted=$(cat "$root/setup.py" "$root/scripts/install.sh"; grep __version__ "$root/entropy_mask_plugin/__init__.py"; echo "$root $EXTRAS")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$python" -c "$usable_torch" 2>/dev/null; then
    say "already installed: nothing to do"
    exit 0
fi
rm -f "$stamp"

say "2/4 torch, and what fairseq's build needs (setuptools, wheel, cython, numpy)"
"$python" -c "$usable_torch" 2>/dev/null || pip install "$TORCH"
pip install "setuptools>=69" wheel "cython>=3" "numpy>=1.26"
torch=$("$python" -c 'import torch; print(torch.__version__)')
echo "torch $torch"
printf 'torch==%s\n' "$torch" > "$venv/keep-torch.txt" # no later stage may exchange it

say "3/4 fairseq, compiled against them (two to three minutes; needs a C++ compiler)"
# Without --no-build-isolation its build would fetch a second torch of several gigabytes.
command -v g++ > /dev/null || { echo "error: g++ not found, expected a C++ compiler (Debian: apt-get install g++)" >&2; exit 1; }
"$python" -c 'import fairseq' 2>/dev/null || pip install -c "$venv/keep-torch.txt" --no-build-isolation fairseq-fixed==0.12.3.1

say "4/4 the plug-in and the rest of its requirements"
pip install -c "$venv/keep-torch.txt" --no-build-isolation -e "$root[$EXTRAS]"
# fairseq declares torchaudio and never imports it here; transformers imports it wherever it is installed, and fails
# where its wheel was built for another torch (CUDA's, on a machine without).
"$python" -c 'import torchaudio' 2>/dev/null || pip uninstall -y -q torchaudio
# fairseq looks for --user-dir in the current folder and in site-packages only, which an editable install leaves empty.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$root/entropy_mask_plugin" "$site/entropy_mask_plugin"
printf '%s\n' "$wanted" > "$stamp"

say "done: source $venv/bin/activate"
