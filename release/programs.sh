#!/usr/bin/env bash
# Builds the programs of a release for one system:
#
#     bash release/programs.sh SYSTEM FOLDER
#
# SYSTEM is linux-x86_64, linux-arm64, macos-x86_64 or macos-arm64. The programs are put into FOLDER: backlog-bridge, and for
# Linux the functions receive, deliver and results. Linux is built for on any Linux, by zig's linker, against glibc 2.17: what runs
# there runs on every Linux with a newer one. macOS is built for on macOS.
set -euo pipefail
system=$1 folder=$2
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

glibc=2.17
case $system in
linux-x86_64) target=x86_64-unknown-linux-gnu ;;
linux-arm64) target=aarch64-unknown-linux-gnu ;;
macos-x86_64) target=x86_64-apple-darwin ;;
macos-arm64) target=aarch64-apple-darwin ;;
*)
    echo "expected linux-x86_64, linux-arm64, macos-x86_64 or macos-arm64, not $system" >&2
    exit 2
    ;;
esac

if ! rustc --print target-libdir --target "$target" | xargs test -d; then
    rustup target add "$target"
fi

# Where this was built is nobody's business, and must not change a byte.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
RUSTFLAGS="--remap-path-prefix=$root=/source --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"
export RUSTFLAGS
export CFLAGS="-ffile-prefix-map=$root=/source -ffile-prefix-map=$cargo_home=/cargo"

built=target/$target/release
mkdir -p "$folder"
if [[ $system == linux-* ]]; then
    tools=target/release-tools
    if [[ ! -e $tools/ready ]]; then
        python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement release/requirements.txt
        touch "$tools/ready"
    fi
    PATH="$PWD/$tools/bin:$PATH"
    cargo zigbuild --locked --release --target "$target.$glibc" --bin backlog-bridge --bin receive --bin deliver --bin results
    cp "$built"/{backlog-bridge,receive,deliver,results} "$folder"
else
    # Both kinds of Mac can run it from here on.
    MACOSX_DEPLOYMENT_TARGET=11.0 cargo build --locked --release --target "$target" --bin backlog-bridge
    cp "$built/backlog-bridge" "$folder"
fi
