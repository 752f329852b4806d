#!/usr/bin/env bash
# Makes what a release holds, from this folder:
#
#     bash release/make.sh [SYSTEM...]
#
# Default: all that can be built here. On Linux that is linux-x86_64 and linux-arm64, on macOS macos-x86_64 and macos-arm64. It
# comes to target/release-files. See release/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then
    case $(uname -s) in
    Linux) set -- linux-x86_64 linux-arm64 ;;
    Darwin) set -- macos-x86_64 macos-arm64 ;;
    esac
fi
if changes=$(git status --short 2>/dev/null) && [[ -n $changes ]]; then
    printf 'what is not committed goes into the release, too:\n%s\n' "$changes" >&2
fi
rm -rf target/release-programs
for system; do
    bash release/programs.sh "$system" "target/release-programs/$system"
done
bash release/assemble.sh target/release-programs target/release-files
