//! A ref name is valid exactly where Git's own checker says so.

use std::process::{Command, Stdio};

use backlog_bridge::push::RefName;
use proptest::prelude::*;

/// Longer names are refused without asking, as no server has them.
const MAX_NAME_BYTES: usize = 1024;

fn git_accepts(name: &str) -> bool {
    Command::new("git")
        .args(["check-ref-format", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("git is installed")
        .success()
}

fn expected(name: &str) -> bool {
    name.starts_with("refs/") && name.len() <= MAX_NAME_BYTES && git_accepts(name)
}

#[test]
fn a_ref_name_is_valid_where_git_says_so() {
    let long = format!("refs/heads/{}", "n".repeat(250));
    let japanese = format!("refs/heads/{}", "画".repeat(83));
    let longest = format!(
        "refs/heads/{}",
        "n".repeat(MAX_NAME_BYTES - "refs/heads/".len())
    );
    for (case, name, valid) in [
        ("a branch", "refs/heads/main", true),
        ("slashes", "refs/heads/release/2024/10", true),
        ("a tag", "refs/tags/v1.0", true),
        ("Japanese", "refs/heads/機能/画面-一覧", true),
        ("an escape stays as it is", "refs/heads/a%2Fb", true),
        ("250 bytes", &long, true),
        ("249 bytes of Japanese", &japanese, true),
        ("as long as it may be", &longest, true),
        ("an at sign", "refs/heads/@", true),
        ("a hyphen first", "refs/heads/-x", true),
        ("a plus sign", "refs/heads/c++", true),
        ("a quote", "refs/heads/it's", true),
        ("an exclamation mark", "refs/heads/fix!", true),
        ("one level", "refs/stash", true),
        ("HEAD of a remote", "refs/remotes/origin/HEAD", true),
        ("a no-break space", "refs/heads/a\u{a0}b", true),
        ("an at sign and a brace", "refs/heads/a@{1}", false),
        ("two dots", "refs/heads/a..b", false),
        ("a dot first", "refs/heads/.a", false),
        ("a dot last", "refs/heads/a.", false),
        ("a dot last in the middle", "refs/heads/a./b", true),
        (".lock", "refs/heads/a.lock", false),
        (".lock in the middle", "refs/heads/a.lock/b", false),
        (".LOCK", "refs/heads/a.LOCK", true),
        ("a space", "refs/heads/a b", false),
        ("a tab", "refs/heads/a\tb", false),
        ("a line break", "refs/heads/a\n", false),
        ("delete", "refs/heads/a\u{7f}", false),
        ("a star", "refs/heads/*", false),
        ("a question mark", "refs/heads/a?", false),
        ("a bracket", "refs/heads/[a", false),
        ("a closing bracket", "refs/heads/a]", true),
        ("a tilde", "refs/heads/a~1", false),
        ("a caret", "refs/heads/a^", false),
        ("a colon", "refs/heads/a:b", false),
        ("a backslash", "refs/heads/a\\b", false),
        ("two slashes", "refs/heads//a", false),
        ("a slash at the end", "refs/heads/a/", false),
        ("a slash at the start", "/refs/heads/a", false),
        ("nothing after refs", "refs/", false),
        ("nothing", "", false),
    ] {
        assert_eq!(git_accepts(name), valid, "git, {case}: {name:?}");
        assert_eq!(name.parse::<RefName>().is_ok(), valid, "{case}: {name:?}");
    }
}

#[test]
fn a_ref_name_is_a_full_one_without_nul() {
    for (case, name) in [
        ("a short name", "main"),
        ("a branch without refs", "heads/main"),
        ("HEAD", "HEAD"),
        ("upper case", "REFS/heads/main"),
        ("NUL", "refs/heads/a\0b"),
        (
            "too long",
            &format!("refs/heads/{}", "n".repeat(MAX_NAME_BYTES)),
        ),
    ] {
        assert!(name.parse::<RefName>().is_err(), "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ref_name_agrees_with_git(
        parts in prop::collection::vec(
            prop_oneof![
                3 => "[a-z]{1,3}",
                3 => Just("/".to_owned()),
                1 => prop::sample::select(vec![
                    ".", "..", ".lock", "@", "@{", "{", "-", "%2F", " ", "~", "^", ":", "?", "*", "[", "\\", "\t", "\u{7f}",
                    "\u{80}", "画", "é", "e\u{301}", "\u{202e}", "HEAD", "'", "\"", "$", ";", "!",
                ]).prop_map(str::to_owned),
            ],
            0..8,
        ),
        prefix in prop::sample::select(vec!["refs/heads/", "refs/tags/", "refs/", ""]),
    ) {
        let name = prefix.to_owned() + &parts.concat();
        prop_assert_eq!(name.parse::<RefName>().is_ok(), expected(&name), "{:?}", name);
    }
}
