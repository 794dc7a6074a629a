#!/usr/bin/env bash
# Creates the project's Python environment:
#   bash scripts/install.sh [--venv DIR] [--python PROGRAM]     (default: .venv next to scripts/, python3)
# Running it again takes seconds. A torch that is already installed, in DIR or in PROGRAM, is kept.
# Environment variables: PYTHON (as --python), TORCH (default torch==2.13.0), EXTRAS (default: all in setup.py).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
PYTHON=${PYTHON:-}
while [ $# -gt 0 ]; do
    case $1 in
        --venv) [ $# -ge 2 ] || { echo "error: --venv: no folder given" >&2; exit 1; }; venv=$2; shift 2 ;;
        --python) [ $# -ge 2 ] || { echo "error: --python: no program given" >&2; exit 1; }; PYTHON=$2; shift 2 ;;
        -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
        *) echo "error: unknown argument $1; usage: bash scripts/install.sh [--venv DIR] [--python PROGRAM]" >&2; exit 1 ;;
    esac
done
TORCH=${TORCH:-torch==2.13.0}
EXTRAS=${EXTRAS:-corpus,glue,report,tracking,atlas,dev}

say() { printf '\n== %s\n' "$*"; }
supported=$root/entropy_mask_plugin/system/supported.py
# has_usable_torch PYTHON: whether it has a torch, and one that is recent enough
has_usable_torch() {
    "$1" -c 'import runpy, sys, torch
oldest = runpy.run_path(sys.argv[1])["OLDEST"]["torch"]
sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < oldest)' "$supported" 2> /dev/null
}

chosen=${PYTHON:-python3}
command -v "$chosen" > /dev/null || { echo "error: --python: $chosen not found, expected a Python program" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("Python {}.{}".format(*sys.version_info))'; }
if [ -x "$venv/bin/python" ]; then # an environment keeps its Python
    existing=$(version_of "$venv/bin/python" 2> /dev/null) || existing="a Python that does not run"
    given=$(version_of "${PYTHON:-$venv/bin/python}" 2> /dev/null) || given="a program that does not run"
    if [ -n "$PYTHON" ] && [ "$given" != "$existing" ]; then
        echo "error: --python: $PYTHON is $given, but the environment $venv has $existing: delete it, or choose another folder with --venv" >&2
        exit 1
    fi
    chosen=$venv/bin/python
fi
PYTHON=$chosen
# Refuses a Python that is not supported, in one line.
fairseq=$("$PYTHON" "$supported")
read -r fairseq form <<< "$fairseq"
# Distributions split off what an environment is made with, and what fairseq is compiled with.
missing=()
[ -x "$venv/bin/python" ] || "$PYTHON" -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
if [ "$form" = source ]; then
    command -v g++ > /dev/null || missing+=(g++)
    include=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$include/Python.h" ] || missing+=(python3-dev)
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "error: --python: $PYTHON without ${missing[*]} found, expected what makes an environment and compiles fairseq (Debian: apt-get install ${missing[*]})" >&2
    exit 1
fi

say "1/3 environment: $venv"
if [ ! -x "$venv/bin/python" ]; then
    if ! mkdir -p "$venv" 2> /dev/null || [ ! -w "$venv" ]; then
        echo "error: --venv: cannot write to $venv, expected a folder in which an environment can be created" >&2
        exit 1
    fi
    # On top of a python that has torch already (as in a GPU image), so that torch need not be downloaded again.
    if has_usable_torch "$PYTHON"; then on_top=--system-site-packages; else on_top=; fi
    "$PYTHON" -m venv $on_top "$venv"
fi
venv=$(cd "$venv" && pwd)
python=$venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; } # without -q, for its progress bars

# Records what was installed once everything succeeded; the next call has nothing to do until this changes.
stamp=$venv/entropy-mask-plugin.installed
requirements=$(cat "$root/setup.py" "$root/scripts/install.sh" "$supported"
    grep __version__ "$root/entropy_mask_plugin/__init__.py"; echo "$root $EXTRAS")
if [ "$(cat "$stamp" 2>/dev/null)" = "$requirements" ] && has_usable_torch "$python"; then
    say "already installed: nothing to do"
    exit 0
fi
rm -f "$stamp"

say "2/3 torch, and what building needs (setuptools, wheel, cython, numpy)"
has_usable_torch "$python" || pip install "$TORCH"
pip install "setuptools>=69" wheel "cython>=3" "numpy>=1.26"
# Not torch.__version__: of a CUDA build that is 2.13.0+cu130, say, where the distribution is 2.13.0.
torch=$("$python" -c 'import importlib.metadata; print(importlib.metadata.version("torch"))')
echo "torch $torch"
printf 'torch==%s\n' "$torch" > "$venv/keep-torch.txt" # so that no later step replaces it

say "3/3 the plug-in and its requirements; fairseq comes as a $form$([ "$form" = wheel ] || echo ', compiled in two to three minutes')"
# Both distributions of fairseq own the same files: the other one has to go first.
for other in fairseq-fixed ve-fairseq; do
    [ "$other" = "$fairseq" ] || ! pip show -q "$other" 2> /dev/null || pip uninstall -y "$other"
done
# Without --no-build-isolation, fairseq's build would download a second torch of several gigabytes.
pip install -c "$venv/keep-torch.txt" --no-build-isolation -e "$root[$EXTRAS]"
# fairseq requires torchaudio, but does not import it here. transformers imports it wherever it is installed, and fails
# if its wheel was built for another torch (a CUDA build, on a machine without CUDA).
"$python" -c 'import torchaudio' 2>/dev/null || pip uninstall -y -q torchaudio
# fairseq looks for --user-dir only in the current folder and in site-packages, where an editable install puts nothing.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$root/entropy_mask_plugin" "$site/entropy_mask_plugin"
printf '%s\n' "$requirements" > "$stamp"

say "done: source $venv/bin/activate"
