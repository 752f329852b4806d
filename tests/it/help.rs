//! What the help says, all of it: one text that is read as a whole when it changes.

use std::process::Command;

/// The widest line, in columns.
const COLUMNS: usize = 100;

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
        .args(words)
        .arg("--help")
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The commands that a help names.
fn commands(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_whole_help_is_reviewed_and_fits_a_terminal() {
    let mut all = String::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let text = help(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let below = commands(&text).into_iter().rev();
        open.extend(below.map(|name| [words.as_slice(), &[name]].concat()));
        all.extend([
            "$ backlog-bridge ",
            &words.join(" "),
            " --help\n",
            &text,
            "\n",
        ]);
    }
    for line in all.lines() {
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }
    assert!(all.contains("backlog-bridge routes push --help"), "{all}");
    insta::assert_snapshot!(all);
}
