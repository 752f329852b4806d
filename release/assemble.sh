#!/usr/bin/env bash
# Makes what a release holds from programs that are built:
#
#     bash release/assemble.sh PROGRAMS OUT
#
# PROGRAMS has a folder for each system, as release/programs.sh fills it. One of them must be for this machine: it prints its
# own completions and manual pages.
set -euo pipefail
programs=$1 out=$2
cd "$(dirname "$0")/.."

case $(uname -sm) in
Linux\ x86_64) here=linux-x86_64 ;;
Linux\ aarch64) here=linux-arm64 ;;
Darwin\ x86_64) here=macos-x86_64 ;;
Darwin\ arm64) here=macos-arm64 ;;
*) here=$(uname -sm) ;;
esac
program=$programs/$here/backlog-bridge
if [[ ! -e $program ]]; then
    echo "there is no $program: build for this machine, too" >&2
    exit 1
fi
# What hands files from machine to machine may lose it.
chmod +x "$program"

shared=$programs/shared
rm -rf "$shared" "$out"
mkdir -p "$shared"/{completions,man/man1} "$out"
"$program" completions bash >"$shared/completions/backlog-bridge.bash"
"$program" completions fish >"$shared/completions/backlog-bridge.fish"
"$program" completions zsh >"$shared/completions/_backlog-bridge"
"$program" man "$shared/man/man1"
python3 release/inventory.py "$shared"
python3 release/pack.py "$programs" "$out"
