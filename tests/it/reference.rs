//! The reference and the code say the same, in both languages: what there is has a row, and what has a row is there.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use backlog_bridge::{
    config::{Config, DeliverConfig, ReceiveConfig, ResultsConfig},
    doctor::Check,
    limits::Limits,
    route::{Origin, RouteTable},
};

type Names = BTreeSet<String>;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// One of the two languages of the reference.
struct Reference {
    path: &'static str,
    text: String,
}

impl Reference {
    fn both() -> [Self; 2] {
        ["docs/reference.md", "docs/reference.ja.md"].map(|path| Self {
            path,
            text: read(path),
        })
    }

    /// The rows of the table whose head begins with one of these texts, cell by cell.
    fn rows(&self, heads: &[&str]) -> Vec<Vec<String>> {
        let mut lines = self.text.lines();
        let head = lines.find(|line| heads.iter().any(|head| line.starts_with(head)));
        assert!(head.is_some(), "{} has no table {heads:?}", self.path);
        let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|line| {
            let line = line.trim_matches(['|', ' ']);
            line.split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
    }

    /// What is set as code in the first cell of each row.
    fn names(&self, heads: &[&str]) -> Names {
        self.rows(heads)
            .iter()
            .flat_map(|row| code(&row[0]))
            .collect()
    }

    /// Compares a table with what is in the code.
    fn has(&self, heads: &[&str], there: &Names) {
        let rows = self.names(heads);
        let missing: Vec<_> = there.difference(&rows).collect();
        let too_much: Vec<_> = rows.difference(there).collect();
        assert!(
            missing.is_empty() && too_much.is_empty(),
            "{}, table {heads:?}: add a row for {missing:?}, remove {too_much:?}",
            self.path
        );
    }
}

/// What stands between backquotes.
fn code(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The part of a source between two texts.
fn part<'a>(source: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = source
        .split_once(from)
        .unwrap_or_else(|| panic!("no {from:?}"));
    rest.split_once(to).map_or(rest, |(part, _)| part)
}

/// The names that a program asks its environment for.
fn asked<T>(read: impl Fn(&dyn Fn(&str) -> Option<String>) -> T) -> Names {
    let names = RefCell::<Names>::default();
    read(&|name| {
        names.borrow_mut().insert(name.to_owned());
        None
    });
    names.into_inner()
}

#[test]
fn each_field_of_an_outcome_has_a_row() {
    let source = read("src/outcome.rs");
    let mut fields = Names::new();
    let mut attributes = String::new();
    for line in part(&source, "pub struct Report {\n", "\n}\n")
        .lines()
        .map(str::trim)
    {
        if let Some(field) = line.strip_prefix("pub ") {
            let name = field.split(':').next().unwrap();
            let renamed = attributes
                .split_once("rename = \"")
                .map(|(_, rest)| rest.split('"').next().unwrap());
            match name {
                _ if attributes.contains("serde(skip)") => {}
                "warnings" => fields.extend(["warnings", "further_warnings"].map(str::to_owned)),
                "error" => fields
                    .extend(["error.kind", "error.message", "error.transient"].map(str::to_owned)),
                _ => drop(fields.insert(renamed.unwrap_or(name).to_owned())),
            }
            attributes.clear();
        } else if !line.starts_with("///") {
            attributes.push_str(line);
        }
    }
    assert!(
        fields.contains("ref") && fields.contains("duration_ms"),
        "{fields:?}"
    );
    for reference in Reference::both() {
        reference.has(&["| field |", "| 項目 |"], &fields);
    }
}

#[test]
fn each_variable_has_a_row_that_says_who_reads_it() {
    let asked = [
        ('C', asked(|vars| drop(Config::from_vars(vars)))),
        ('R', asked(|vars| drop(ReceiveConfig::from_vars(vars)))),
        ('D', asked(|vars| drop(DeliverConfig::from_vars(vars)))),
        ('P', asked(|vars| drop(ResultsConfig::from_vars(vars)))),
    ];
    // What other code reads: a route's login, the temporary folder, the SDK.
    let others = [
        "PREFIX_USERNAME",
        "PREFIX_PASSWORD",
        "PREFIX_API_KEY",
        "TMPDIR",
        "AWS_*",
    ];
    let mut readers = BTreeMap::<String, String>::new();
    for (reader, names) in &asked {
        for name in names {
            readers.entry(name.clone()).or_default().push(*reader);
        }
    }
    let there = readers
        .keys()
        .cloned()
        .chain(others.map(str::to_owned))
        .collect();
    for reference in Reference::both() {
        let heads = ["| variable |", "| 変数 |"];
        reference.has(&heads, &there);
        for row in reference.rows(&heads) {
            let said: String = row[1].chars().filter(char::is_ascii_uppercase).collect();
            for name in code(&row[0]) {
                if let Some(readers) = readers.get(&name) {
                    let mut said: Vec<_> = said.chars().collect();
                    let mut readers: Vec<_> = readers.chars().collect();
                    said.sort_unstable();
                    readers.sort_unstable();
                    assert_eq!(said, readers, "{}: who reads {name}", reference.path);
                }
            }
        }
    }
}

#[test]
fn each_check_of_the_doctor_has_a_row_in_the_order_of_a_push() {
    let there: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
    for reference in Reference::both() {
        let rows = reference.rows(&["| check |", "| 検査 |"]);
        let rows = rows.iter().map(|row| code(&row[0]).remove(0));
        assert_eq!(rows.collect::<Vec<_>>(), there, "{}", reference.path);
    }
}

#[test]
fn each_metric_has_a_row() {
    let source = read("src/telemetry.rs");
    let variants = part(&source, "pub enum Counted {\n", "\n}\n");
    let variants = variants
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("///"));
    let there: Names = variants
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect();
    assert!(there.contains("SweepDrift"), "{there:?}");
    for reference in Reference::both() {
        reference.has(&["| metric (", "| メトリクス（"], &there);
    }
}

#[test]
fn each_kind_of_error_has_a_row_that_says_whether_it_passes() {
    let source = read("src/error.rs");
    // By variant, as the code has them: its kind, and whether it is transient.
    let variants = |text: &str| -> Names {
        let names = text.split("Self::").skip(1);
        names
            .map(|rest| rest.chars().take_while(char::is_ascii_alphabetic).collect())
            .collect()
    };
    let arms = |function: &str| {
        let body = part(&source, &format!("pub fn {function}(&self)"), "\n    }\n");
        let mut pairs = Vec::new();
        let mut rest = body;
        while let Some((pattern, after)) = rest.split_once("=>") {
            let (value, next) = after.split_once(['\n']).unwrap();
            pairs.push((
                variants(pattern),
                value.trim().trim_end_matches(',').to_owned(),
            ));
            rest = next;
        }
        pairs
    };
    let mut kinds = BTreeMap::new();
    for (variants, kind) in arms("kind") {
        for variant in variants {
            kinds.insert(variant, kind.trim_matches('"').to_owned());
        }
    }
    let mut transient = BTreeMap::<&str, BTreeSet<&str>>::new();
    let passes = arms("is_transient");
    for (variants, value) in &passes {
        let word = match value.as_str() {
            "true" => "yes",
            "false" => "no",
            _ => "depends",
        };
        for variant in variants {
            transient.entry(&kinds[variant]).or_default().insert(word);
        }
    }
    let there: Names = kinds.values().cloned().collect();
    assert!(there.contains("bucket") && there.len() > 15, "{there:?}");
    for reference in Reference::both() {
        let heads = ["| `error.kind` |"];
        reference.has(&heads, &there);
        for row in reference.rows(&heads) {
            let kind = &code(&row[0])[0];
            let words = &transient[kind.as_str()];
            let expected = if words.len() == 1 {
                words.first().unwrap()
            } else {
                "depends"
            };
            let said = match row[1].as_str() {
                "はい" => "yes",
                "いいえ" => "no",
                "場合による" => "depends",
                said => said,
            };
            assert_eq!(
                said, expected,
                "{}: whether {kind} is transient",
                reference.path
            );
        }
    }
}

#[test]
fn each_field_of_the_table_has_a_row() {
    for entry in ["space", "route"] {
        // Whoever mistypes a field is told of those that there are.
        let typo = format!("[[{entry}]]\nno_such_field = 1\n");
        let err = RouteTable::parse("routes.toml", &typo, None, Origin::Deployed);
        let err = err.unwrap_err().to_string();
        let there = part(&err, "expected one of ", "\n");
        let there = code(there).into_iter().collect();
        for reference in Reference::both() {
            reference.has(&[&format!("| `[[{entry}]]` |")], &there);
        }
    }
}

#[test]
fn each_command_has_a_row() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
            .args(arguments)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let commands = |text: &str| -> Vec<String> {
        let lines = part(text, "Commands:\n", "\n\n").lines();
        let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
        names.filter(|name| name != "help").collect()
    };
    let mut there = Names::new();
    for command in commands(&help(&["--help"])) {
        if ["routes", "webhook"].contains(&&*command) {
            let below = commands(&help(&[&command, "--help"]));
            there.extend(below.iter().map(|name| format!("{command} {name}")));
        } else {
            there.insert(command);
        }
    }
    for reference in Reference::both() {
        let rows = reference.rows(&["| command |", "| コマンド |"]);
        let name = |row: &Vec<String>| -> String {
            let words = code(&row[0])[0].clone();
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            words
                .split(' ')
                .take_while(is_word)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let rows: Names = rows.iter().map(name).collect();
        assert_eq!(rows, there, "{}", reference.path);
    }
}

#[test]
fn each_limit_has_a_row_with_its_default() {
    let Limits {
        entries,
        tree_bytes,
        blob_bytes,
        pack_bytes,
        ..
    } = Limits::default();
    let expected = BTreeMap::from([
        (
            "MAX_ENTRIES",
            format!("{},{:03}", entries / 1000, entries % 1000),
        ),
        ("MAX_TREE_BYTES", format!("{} GiB", tree_bytes >> 30)),
        ("MAX_BLOB_BYTES", format!("{} MiB", blob_bytes >> 20)),
        ("MAX_PACK_BYTES", format!("{} GiB", pack_bytes >> 30)),
    ]);
    for reference in Reference::both() {
        let rows = reference.rows(&["| limit |", "| 上限 |"]);
        let rows: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (code(&row[0])[0].clone(), row[1].clone()))
            .collect();
        let expected = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        assert_eq!(rows, expected.collect(), "{}", reference.path);
    }
}

/// What stands in one language and not in the other: tables and headings, by their number.
/// All documents, by their paths from the root.
fn documents() -> impl Iterator<Item = String> {
    let folders = [".", "docs", "docs/decisions", "release"];
    folders.into_iter().flat_map(|folder| {
        let listed = fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR")));
        let paths = listed.unwrap().map(|entry| entry.unwrap().path());
        let documents = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
        documents.map(move |path| {
            let name = path.file_name().expect("a file").to_string_lossy();
            format!("{folder}/{name}")
        })
    })
}

#[test]
fn each_table_of_a_document_is_shown_as_one() {
    let mut tables = 0;
    for path in documents() {
        let text = read(&path);
        let outside_of_code = text.split("```").step_by(2);
        for part in outside_of_code {
            let lines: Vec<_> = part.lines().map(str::trim).collect();
            for (n, head) in lines.iter().enumerate() {
                let is_head = head.starts_with('|') && (n == 0 || !lines[n - 1].starts_with('|'));
                if !is_head {
                    continue;
                }
                tables += 1;
                let below = lines.get(n + 1).copied().unwrap_or_default();
                let is_line = below.starts_with("| -") && below.chars().all(|c| "|-: ".contains(c));
                assert!(is_line, "{path}: no line below {head}");
            }
        }
    }
    assert!(tables > 50, "{tables}");
}

#[test]
fn both_languages_have_the_same_parts() {
    for (english, japanese) in [
        ("README.md", "README.ja.md"),
        ("docs/reference.md", "docs/reference.ja.md"),
    ] {
        let count = |path: &str| {
            let text = read(path);
            let headings: Vec<_> = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(|line| line.split(' ').next().unwrap().len())
                .collect();
            let rows: Vec<_> = text
                .split("\n## ")
                .map(|section| section.lines().filter(|line| line.starts_with('|')).count())
                .collect();
            let blocks = text.matches("```").count();
            (headings, rows, blocks)
        };
        assert_eq!(
            count(english),
            count(japanese),
            "{english} and {japanese}: headings, rows by section, blocks"
        );
        assert!(read(english).lines().count() <= 640);
    }
    for path in ["README.md", "README.ja.md"] {
        assert!(
            read(path).lines().count() <= 200,
            "{path} is a front page; the rest is in docs/"
        );
    }
}
