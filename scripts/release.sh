#!/usr/bin/env bash
# Builds the source distribution, and the wheel from it, of the last commit:   bash scripts/release.sh [DIR]   (default: dist)
# The same commit gives the same bytes. Needs the extra [dev].
set -euo pipefail
umask 022 # wheels keep the modes of files
case "${1:-}" in -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;; esac

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/dist}
[ -d "$out" ] || [ ! -e "$out" ] || { echo "error: $out is no folder, expected one, or a name for a new one" >&2; exit 1; }
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT

git clone -q --no-hardlinks "$root" "$clone" # a checkout may hold other files, and an egg-info with old names
SOURCE_DATE_EPOCH=$(git -C "$clone" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
python -m build --no-isolation --outdir "$out" "$clone"
(cd "$out" && sha256sum ./*)
