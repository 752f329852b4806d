//! The house: imports point down the list of modules in `src/lib.rs`, and what is pure reaches no AWS.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The modules, from the top of the house to the ground.
fn modules() -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    modules.map(str::to_owned).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

/// The first names behind each `crate::` of a text: one, or one for each part of a group.
fn named(text: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
        text.chars().take_while(is_part).collect()
    };
    let mut names = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let (mut depth, mut part) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(name(&part));
                    part.clear();
                    continue;
                }
                _ => {}
            }
            part.push(c);
        }
        names.insert(name(&part));
    }
    names.remove("");
    names
}

/// What each module imports of the others. Tests beside the code may import what they like.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(ROOT).join("src");
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(&src) {
        let place = file.strip_prefix(&src).unwrap();
        let top = place.components().next().unwrap().as_os_str();
        let module = top.to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main", "bin", "cli"].contains(&&*module) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = product
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let names = named(&lines.collect::<Vec<_>>().join("\n"));
        let others = names.into_iter().filter(|name| *name != module);
        imports.entry(module.clone()).or_default().extend(others);
    }
    imports
}

#[test]
fn imports_point_down_the_list_of_modules() {
    let modules = modules();
    let place = |name: &str| modules.iter().position(|module| module == name);
    let imports = imports();
    assert_eq!(imports.len(), modules.len(), "{imports:?}");
    let mut arrows = 0;
    for (module, names) in &imports {
        let own = place(module).unwrap_or_else(|| panic!("{module} is not in lib.rs"));
        for name in names {
            let other = place(name).unwrap_or_else(|| panic!("{module} imports crate::{name}"));
            assert!(
                own < other,
                "{module} imports {name}, which stands above it"
            );
            arrows += 1;
        }
    }
    assert!(arrows > modules.len(), "{arrows} imports were read");
}

#[test]
fn from_pack_to_zip_nothing_reaches_aws() {
    let imports = imports();
    for pure in ["pack", "snapshot", "archive"] {
        let (mut reached, mut open) = (BTreeSet::new(), vec![pure]);
        while let Some(module) = open.pop() {
            if reached.insert(module) {
                open.extend(imports[module].iter().map(String::as_str));
            }
        }
        for aws in ["aws", "bucket", "queue", "secrets"] {
            assert!(!reached.contains(aws), "{pure} reaches {aws}: {reached:?}");
        }
        println!("{pure}: {reached:?}");
    }
}

#[test]
fn a_group_of_imports_is_read_to_its_end() {
    let text =
        "use crate::{\n    a::{self, B, c::{D, E}},\n    f,\n};\nuse crate::g::H;\ncrate::i::j();";
    let expected = ["a", "f", "g", "i"].map(str::to_owned);
    assert_eq!(named(text), expected.into());
}
