# What one does here. Each line can be typed without `just`, too.

# The whole way of a push, on this machine, without an account.
demo *arguments:
    cargo run -- demo {{arguments}}

# All tests. With a name, those whose names have it: `just test times`.
test *name:
    cargo test --locked {{name}}

# What decides whether a change lands: half an hour on a clean machine.
ci:
    bash .ci/run

# The comparison with git, gix, dulwich and the floor. `just bench --quick` says what got slower.
bench *arguments:
    cargo bench --locked --bench deliveries -- {{arguments}}

# So many seconds for each fuzz target.
fuzz seconds="30":
    bash fuzz/run.sh {{seconds}}

# What a release holds, into target/release-files: release/README.md.
release *systems:
    bash release/make.sh {{systems}}
