//! What the bridge is made of: one TLS stack, no way to send a password in plain, nothing but the default registry. And what
//! is said about its security is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs the tests, so it is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the packages of this system are and how they depend on each other. Of other systems cargo knows only the lock file:
/// their packages need not have been downloaded.
struct Graph {
    root: String,
    /// By id.
    nodes: BTreeMap<String, Node>,
}

struct Node {
    name: String,
    version: String,
    features: Vec<String>,
    /// The ids of what it is made of; what only its build scripts and tests use does not count.
    normal: Vec<String>,
}

impl Graph {
    fn new() -> Self {
        let about = cargo(&["--version", "--verbose"]);
        let mut lines = about.lines();
        let host = lines.find_map(|line| line.strip_prefix("host: ")).unwrap();
        let metadata = cargo(&[
            "metadata",
            "--locked",
            "--offline",
            "--format-version=1",
            "--filter-platform",
            host,
        ]);
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let packages = list(&metadata["packages"]);
        let packages: BTreeMap<_, _> = packages.iter().map(|of| (text(&of["id"]), of)).collect();
        let node = |node: &Value| {
            let id = text(&node["id"]);
            let package = packages[&id];
            let features: Vec<_> = list(&node["features"]).iter().map(text).collect();
            let dependencies = list(&node["deps"]).into_iter();
            let ids = dependencies.map(|dependency| text(&dependency["pkg"]));
            let normal = ids.filter(|id| is_used(package, &features, &packages[id]["name"]));
            let found = Node {
                name: text(&package["name"]),
                version: text(&package["version"]),
                normal: normal.collect(),
                features,
            };
            (id, found)
        };
        let resolve = &metadata["resolve"];
        Self {
            root: text(&resolve["root"]),
            nodes: list(&resolve["nodes"]).iter().map(node).collect(),
        }
    }

    /// All that the programs are made of.
    fn product(&self) -> Vec<&Node> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![&self.root]);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(&self.nodes[id].normal);
            }
        }
        seen.iter().map(|&id| &self.nodes[id]).collect()
    }
}

/// Whether a package with these features is made of another one. Cargo lists an optional one here as soon as a feature
/// mentions it, in `ring?/alloc` too, which is for those who have it anyway.
fn is_used(package: &Value, features: &[String], other: &Value) -> bool {
    let requests = package["dependencies"].as_array().unwrap().iter();
    let mut normal = requests.filter(|of| of["kind"].is_null() && of["name"] == *other);
    normal.any(|request| {
        let name = request["rename"].as_str().or(request["name"].as_str());
        let name = name.unwrap();
        let (dependency, feature_of) = (format!("dep:{name}"), format!("{name}/"));
        let turned_on = || {
            let meanings = features.iter().filter_map(|name| {
                let meanings = package["features"][name].as_array();
                Some(meanings?.iter().filter_map(Value::as_str))
            });
            let mut meanings = meanings.flatten();
            meanings.any(|meaning| meaning == dependency || meaning.starts_with(&feature_of))
        };
        request["optional"] == false || turned_on()
    })
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
    ] {
        assert!(!names.contains(banned), "{banned}");
    }
    let graph = Graph::new();
    let product = graph.product();
    // `ring` may be locked for the tests' certificates; the product must not have it.
    assert!(product.iter().all(|node| node.name != "ring"));
    let versions: BTreeSet<_> = product
        .iter()
        .filter(|node| node.name == "rustls")
        .map(|node| &node.version)
        .collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
}

#[test]
fn no_feature_lets_a_password_go_out_in_plain() {
    let graph = Graph::new();
    let product = graph.product();
    let transport = product.iter().find(|node| node.name == "gix-transport");
    let features = &transport.expect("gix fetches").features;
    assert!(features.iter().any(|name| name == "http-client-reqwest"));
    let insecure = features.iter().find(|name| name.contains("insecure"));
    assert_eq!(insecure, None);
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

/// All Rust that is written in a folder and in those below it.
fn sources_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap();
    let texts = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path)
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            fs::read_to_string(path).unwrap()
        } else {
            String::new()
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

/// The fuzz targets have a lock file of their own. What they try is what is shipped.
#[test]
fn the_fuzz_targets_are_made_of_the_same_versions() {
    let versions = |path: &str| -> BTreeSet<(String, String)> {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let packages = text.split("[[package]]").skip(1);
        let packages = packages.map(|package| {
            let field = |name: &str| {
                let mut lines = package.lines();
                let line = lines.find_map(|line| line.strip_prefix(&format!("{name} = \"")));
                line.unwrap().trim_end_matches('"').to_owned()
            };
            (field("name"), field("version"))
        });
        packages.collect()
    };
    let (product, fuzz) = (versions("Cargo.lock"), versions("fuzz/Cargo.lock"));
    let names: BTreeSet<_> = product.iter().map(|(name, _)| name).collect();
    let others = fuzz.difference(&product);
    let drifted: Vec<_> = others.filter(|(name, _)| names.contains(name)).collect();
    assert!(
        drifted.is_empty(),
        "cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml: {drifted:?}"
    );
}
