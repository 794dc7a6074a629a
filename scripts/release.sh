#!/usr/bin/env bash
# Builds the source distribution, and the wheel from it, of the last commit:   bash scripts/release.sh [DIR]   (default: dist)
# The same commit gives the same bytes. Needs the extra [dev].
set -euo pipefail
umask 022 # wheels keep the modes of files
case "${1:-}" in
    -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
    -*) echo "error: unknown argument $1; usage: bash scripts/release.sh [DIR]" >&2; exit 1 ;;
esac

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/dist}
[ -d "$out" ] || [ ! -e "$out" ] || { echo "error: $out is no folder, expected one, or a name for a new one" >&2; exit 1; }
if ! python -c 'import build.__main__' 2> /dev/null; then
    echo "error: the package build was not found, expected the environment with the extra [dev]: source .venv/bin/activate" >&2
    exit 1
fi
[ -z "$(git -C "$root" status --porcelain)" ] || echo "warning: changes that are not committed are not part of the release" >&2
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT

git clone -q --no-hardlinks "$root" "$clone" # a checkout may hold other files, and an egg-info with old names
SOURCE_DATE_EPOCH=$(git -C "$clone" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
python -m build --no-isolation --outdir "$clone/dist" "$clone"
mkdir -p "$out"
cp "$clone"/dist/* "$out"
(cd "$clone/dist" && sha256sum ./*) # not those of older releases in DIR
