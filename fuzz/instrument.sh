#!/bin/sh
# Calls the compiler, and lets it count the edges of the bridge's own crate.
set -eu
for argument; do
    if [ "$argument" = backlog_bridge ]; then
        set -- "$@" -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
        break
    fi
done
exec "$@"
