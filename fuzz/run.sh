#!/bin/sh
# Runs every fuzz target for so many seconds: fuzz/run.sh SECONDS [TARGET…]
#
# Works with a stable compiler, and instruments the bridge alone: what is built for it anyway need not be built again. With a
# nightly one, `cargo fuzz run TARGET` instruments everything. Inputs that crash are kept in fuzz/artifacts.
set -eu
seconds=${1:?how many seconds for each target}
shift
cd "$(dirname "$0")"
targets=${*:-webhook routes pack tree previous s3_request}
: "${CARGO_TARGET_DIR:=$PWD/../target}"
export CARGO_TARGET_DIR
RUSTC_WRAPPER=$PWD/instrument.sh cargo build --quiet --locked --bins
failed=0
for target in $targets; do
    mkdir -p "corpus/$target" "artifacts/$target"
    set -- "corpus/$target"
    [ -d "seeds/$target" ] && set -- "$@" "seeds/$target"
    [ "$target" = webhook ] && set -- "$@" ../events
    "$CARGO_TARGET_DIR/debug/$target" "$@" -max_total_time="$seconds" -max_len=4096 -len_control=0 -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 >"artifacts/$target.log" 2>&1 || failed=1
    awk -v target="$target" '/number_of_executed_units/ { n = $2 } /peak_rss_mb/ { rss = $2 } /^held:/ { held = $2 }
        /^ratio:/ { ratio = $2 }
        END { printf "%-10s  %9d executions  %4d MiB  at most %d bytes held in a run, %d a byte\n", target, n, rss, held, ratio }' \
        "artifacts/$target.log"
    for crash in "artifacts/$target"/*; do
        [ -e "$crash" ] && echo "$target: $crash"
    done
done
exit $failed
