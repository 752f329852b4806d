//! What the bridge is made of: one TLS stack, no way to send a password in plain, nothing but the default registry. And what
//! is said about its security is so.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn cargo_tree(arguments: &[&str]) -> String {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--offline",
            "--target",
            "all",
            "--prefix",
            "none",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs the tests, so it is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Each `name = "…"` of the lock file; what is behind a feature that is off counts too.
fn locked() -> Vec<(String, String)> {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let field = |name: &str| {
                package
                    .get(name)
                    .and_then(toml::Value::as_str)
                    .unwrap_or_default()
            };
            (field("name").to_owned(), field("source").to_owned())
        })
        .collect()
}

#[test]
fn there_is_one_tls_stack() {
    let names: BTreeSet<_> = locked().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains("rustls") && names.contains("aws-lc-rs"));
    for banned in [
        "openssl",
        "openssl-sys",
        "native-tls",
        "tokio-native-tls",
        "hyper-tls",
        "boring",
        "curl",
        "curl-sys",
        "ring",
    ] {
        let used = names.contains(banned);
        // `ring` may be locked for the tests' certificates; the product must not have it.
        let in_product = used
            && cargo_tree(&["-e", "normal"])
                .lines()
                .any(|line| line.split(' ').next() == Some(banned));
        assert!(!in_product, "{banned}");
        assert!(!used || banned == "ring", "{banned}");
    }
    let versions: BTreeSet<_> = cargo_tree(&["-e", "normal"])
        .lines()
        .filter(|line| line.starts_with("rustls v"))
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
}

#[test]
fn no_feature_lets_a_password_go_out_in_plain() {
    let features = cargo_tree(&["-e", "features", "-i", "gix-transport"]);
    assert!(features.contains("http-client-reqwest"), "{features}");
    assert!(!features.contains("insecure"), "{features}");
}

#[test]
fn everything_comes_from_the_default_registry() {
    for (name, source) in locked() {
        let ours = name == "backlog-bridge" && source.is_empty();
        let registry = source == "registry+https://github.com/rust-lang/crates.io-index";
        assert!(ours || registry, "{name} comes from {source:?}");
    }
}

#[test]
fn nothing_is_unsafe_and_the_rules_for_dependencies_are_written_down() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |name: &str| fs::read_to_string(format!("{root}/{name}")).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    assert_eq!(
        manifest["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let banned = deny["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<_> = banned
        .iter()
        .filter_map(|ban| ban["crate"].as_str())
        .collect();
    for name in ["openssl-sys", "native-tls", "ring", "curl-sys"] {
        assert!(banned.contains(name), "{name}");
    }
    assert_eq!(deny["sources"]["unknown-git"].as_str(), Some("deny"));
}

fn extension(name: &str) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

/// All that is written in a folder and in those below it.
fn sources_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap();
    let texts = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path)
        } else {
            fs::read_to_string(path).unwrap()
        }
    });
    texts.collect()
}

#[test]
fn every_test_and_file_that_the_threat_model_names_is_there() {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = fs::read_to_string(format!("{root}/SECURITY.md")).unwrap();
    let sources = sources_below(format!("{root}/tests").as_ref());
    let (mut tests, mut files) = (0, 0);
    for name in text.split('`').skip(1).step_by(2) {
        if name.matches('_').count() > 2 {
            assert!(sources.contains(&format!("fn {name}()")), "{name}");
            tests += 1;
        } else if [Some("rs"), Some("toml"), Some("md")].contains(&extension(name)) {
            let there = ["", "tests/it/"].map(|folder| format!("{root}/{folder}{name}"));
            assert!(there.iter().any(|path| fs::exists(path).unwrap()), "{name}");
            files += 1;
        }
    }
    println!("{tests} tests, {files} files");
    assert!(tests > 15 && files > 15);
}
