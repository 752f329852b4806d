//! What a checkout makes of files by `.gitattributes`, and an archive does not: it is told, and what git really does is asked.

use std::{collections::BTreeSet, fs, time::Instant};

use backlog_bridge::limits::Limits;

use crate::support::{
    MAIN,
    process::{git, stdout_of},
    product::{build, on_disk, try_build},
    upstream::{Content, Repository, Upstream},
};

/// The files that a checkout of a commit changes.
fn changed_in_checkout(
    repository: &Repository,
    commit: &str,
    files: &[(&str, &[u8])],
) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    // The repository's own index would keep the attributes of another commit.
    let index = tempfile::tempdir().unwrap();
    let mut checkout = git();
    checkout
        .env("GIT_INDEX_FILE", index.path().join("index"))
        .arg(format!("--git-dir={}", repository.path().display()))
        .arg(format!("--work-tree={}", folder.path().display()))
        .args([
            "-c",
            "core.bare=false",
            "checkout",
            "--quiet",
            "--force",
            commit,
            "--",
            ".",
        ]);
    stdout_of(&mut checkout, b"");
    let changed = files.iter().filter(|(path, content)| {
        let found = fs::read(folder.path().join(path)).unwrap();
        found != *content
    });
    changed.map(|(path, _)| (*path).to_owned()).collect()
}

/// The files that warnings name whose texts hold `words`.
fn named(warnings: &[String], words: &str) -> BTreeSet<String> {
    let told = warnings.iter().filter(|warning| warning.contains(words));
    told.flat_map(|warning| warning.split('"').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

const ENDS: &str = "eol=crlf in .gitattributes";
const ENCODING: &str = "working-tree-encoding in .gitattributes";
const IDENT: &str = "ident in .gitattributes";

/// What it is, its files, and words of the warning.
type Case<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a str);

#[test]
fn what_a_checkout_changes_is_named_and_nothing_else() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let lf = &b"a\nb\n"[..];
    let crlf = &b"a\r\nb\r\n"[..];
    let binary = &b"a\n\0\n"[..];
    let mixed = &b"a\r\nb\n"[..];
    let id = &b"v $Id$ x\n"[..];
    let japanese = "日本\n".as_bytes();
    let cases: &[Case<'_>] = &[
        ("nothing", &[("a.bat", lf)], ""),
        ("text=auto alone", &[(".gitattributes", b"* text=auto\n"), ("a.bat", lf), ("b", crlf)], ""),
        ("CRLF", &[(".gitattributes", b"*.bat text eol=crlf\n"), ("a.bat", lf), ("b.sh", lf), ("c.bat", crlf), ("d.bat", b""), ("e.bat", b"x")], ENDS),
        ("CRLF alone", &[(".gitattributes", b"*.bat eol=crlf\n"), ("a.bat", lf), ("m.bat", mixed), ("n.bat", binary)], ENDS),
        ("CRLF of what looks like a text", &[(".gitattributes", b"* text=auto eol=crlf\n.gitattributes !text !eol\n"), ("a.bat", lf), ("m.bat", mixed), ("n.bat", binary)], ENDS),
        ("no text", &[(".gitattributes", b"*.bat eol=crlf\nb.bat -text\nc.bat binary\nd.bat !eol\ne.bat eol=lf\n"), ("a.bat", lf), ("b.bat", lf), ("c.bat", lf), ("d.bat", lf), ("e.bat", lf)], ENDS),
        ("the last line counts", &[(".gitattributes", b"*.bat -text\n*.bat eol=crlf text\n*.cmd eol=crlf\n*.cmd -text\n"), ("a.bat", lf), ("a.cmd", lf)], ENDS),
        ("the nearest file counts", &[(".gitattributes", b"*.bat eol=crlf\n"), ("-x.bat", lf), ("d/-x.bat", lf), ("d/.gitattributes", b"*.bat !eol\n"), ("d/a.bat", lf), ("d/e/.gitattributes", b"b.bat eol=crlf\n"), ("d/e/a.bat", lf), ("d/e/b.bat", lf), ("d/z.bat", lf), ("e.bat", lf)], ENDS),
        ("folders and anchors", &[(".gitattributes", b"/a.bat eol=crlf\nd/*.bat eol=crlf\n**/deep/*.bat eol=crlf\nw/ eol=crlf\n"), ("a.bat", lf), ("d/a.bat", lf), ("d/e/a.bat", lf), ("x/deep/a.bat", lf), ("w/a.bat", lf)], ENDS),
        ("quoted, Japanese, classes", &[(".gitattributes", "\"with space.bat\" eol=crlf\n資料/*.txt eol=crlf\n[ab]?.bat eol=crlf\n".as_bytes()), ("with space.bat", lf), ("資料/a.txt", lf), ("b1.bat", lf), ("c1.bat", lf)], ENDS),
        ("old words", &[(".gitattributes", b"*.bat crlf eol=crlf\n*.cmd -crlf eol=crlf\n"), ("a.bat", lf), ("a.cmd", lf)], ENDS),
        ("macros", &[(".gitattributes", b"*.bat windows\n*.cmd windows -text\n[attr]windows text eol=crlf\n*.dll windows binary\n"), ("a.bat", lf), ("a.cmd", lf), ("a.dll", lf), ("d/.gitattributes", b"[attr]other eol=crlf\n*.txt other\n*.bat -windows\n"), ("d/a.txt", lf), ("d/b.bat", lf)], ENDS),
        ("a mark of UTF-8, spaces, comments", &[(".gitattributes", b"\xef\xbb\xbf# a\r\n\r\n  *.bat   eol=crlf  \r\n#*.cmd eol=crlf\n"), ("a.bat", lf), ("a.cmd", lf)], ENDS),
        ("Shift_JIS", &[(".gitattributes", b"*.csv text working-tree-encoding=SHIFT-JIS\n"), ("a.csv", japanese), ("b.csv", lf), ("c.txt", japanese)], ENCODING),
        ("UTF-16", &[(".gitattributes", b"*.ps1 working-tree-encoding=UTF-16LE-BOM\n*.u8 working-tree-encoding=utf-8\n"), ("a.ps1", lf), ("b.ps1", b""), ("a.u8", japanese)], ENCODING),
        ("ids", &[(".gitattributes", b"*.c ident\n"), ("a.c", id), ("b.c", lf), ("c.h", id), ("d.c", b"$Id: abc $\n"), ("e.c", b"$Id\n$"), ("f.c", b"$Id: \n")], IDENT),
    ];
    for (case, files, words) in cases {
        let tree: Vec<(&str, Content)> = files
            .iter()
            .map(|(path, content)| (*path, content.to_vec().into()))
            .collect();
        let commit = repository.commit_orphan_on(MAIN, &tree);
        let built = build(&on_disk(&repository), MAIN);
        assert_eq!(built.commit, commit, "{case}");
        let warnings = &built.snapshot.warnings;
        println!("{case}: {warnings:?}");
        let expected = changed_in_checkout(&repository, &commit, files);
        assert_eq!(named(warnings, words), expected, "{case}: {warnings:?}");
        assert_eq!(
            warnings.len(),
            usize::from(!expected.is_empty()),
            "{case}: {warnings:?}"
        );
    }
}

#[test]
fn a_pointer_is_one_where_attributes_say_so_and_other_filters_are_told() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let tree = [
        (".gitattributes", "*.psd filter=lfs diff=lfs merge=lfs -text\nsecret* filter=git-crypt\nfixtures/** !filter\n".into()),
        ("a.psd", pointer.into()),
        ("b.psd", "content".into()),
        ("c.txt", pointer.into()),
        ("fixtures/d.psd", pointer.into()),
        ("fixtures/.gitattributes", "e.psd filter=lfs\n".into()),
        ("fixtures/e.psd", pointer.into()),
        ("link.psd", Content::Symlink(b"a.psd".into())),
        ("secret.key", "x".into()),
    ];
    repository.commit_orphan_on(MAIN, &tree);
    let built = build(&on_disk(&repository), MAIN);
    assert_eq!(
        built.snapshot.warnings,
        [
            "2 files are kept by Git LFS; the archive holds their pointers, not their content, such as \"a.psd\", \"fixtures/e.psd\"",
            "\"secret.key\": this file goes through a filter in a checkout (filter in .gitattributes); the archive holds it as it is committed",
        ]
    );
    // A link is no such file.
    let tree = [
        (".gitattributes", Content::Symlink(b"other".into())),
        ("other", "* filter=lfs\n".into()),
        ("a.psd", pointer.into()),
    ];
    repository.commit_orphan_on(MAIN, &tree);
    let built = build(&on_disk(&repository), MAIN);
    assert!(
        built.snapshot.warnings.is_empty(),
        "{:?}",
        built.snapshot.warnings
    );
    // Five are named, and all are counted.
    let mut tree: Vec<(String, Content)> = (0..20)
        .map(|n| (format!("{n:02}.bat"), "a\n".into()))
        .collect();
    tree.push((".gitattributes".into(), "*.bat eol=crlf\n".into()));
    repository.commit_orphan_on(MAIN, &tree);
    let built = build(&on_disk(&repository), MAIN);
    let [warning] = &built.snapshot.warnings[..] else {
        panic!("{:?}", built.snapshot.warnings)
    };
    assert!(
        warning.starts_with("20 files")
            && warning.contains("\"04.bat\"")
            && !warning.contains("05.bat"),
        "{warning}"
    );
}

#[test]
fn attributes_without_end_have_an_end() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let repeat = |count: usize, line: &dyn Fn(usize) -> String| -> String {
        let lines: Vec<_> = (0..count).map(line).collect();
        lines.concat()
    };
    let many = repeat(10_000, &|n| format!("a*b{n}*c*d eol=crlf\n"));
    let macros = repeat(200, &|n| format!("[attr]m{n} eol=crlf\n"));
    let loops = "[attr]a b\n[attr]b a\n[attr]c c text eol=crlf\n* a c\n";
    let stars = format!("{}b eol=crlf\n", "*a".repeat(15));
    let hostile = format!("{}b eol=crlf\n", "**/a*".repeat(5));
    let mut cases = Vec::new();
    let files = |count: usize, name: &str| -> Vec<(String, Content)> {
        (0..count)
            .map(|n| (format!("d{}/{name}{n}", n % 50), "x".into()))
            .collect()
    };
    let with = |attributes: String, mut tree: Vec<(String, Content)>| {
        tree.push((".gitattributes".into(), attributes.into_bytes().into()));
        tree
    };
    cases.push(("many patterns", with(many, files(20_000, "abc")), true));
    cases.push((
        "a large file",
        with("x eol=crlf\n".repeat(50_000), files(10, "a")),
        true,
    ));
    cases.push((
        "a long line",
        with(format!("{} eol=crlf\n", "x".repeat(5_000)), files(10, "a")),
        false,
    ));
    cases.push((
        "too many stars",
        with(format!("{} eol=crlf\n", "*a".repeat(40)), files(10, "a")),
        true,
    ));
    cases.push(("stars", with(stars, files(2_000, &"a".repeat(200))), false));
    cases.push((
        "double stars",
        with(hostile, files(2_000, &"a/".repeat(100))),
        false,
    ));
    cases.push((
        "macros of macros",
        with(loops.into(), files(100, "a")),
        false,
    ));
    cases.push(("many macros", with(macros, files(10, "a")), true));
    let everywhere = (0..15_000).flat_map(|n| {
        [
            (format!("f{n}/.gitattributes"), "a eol=crlf\n".into()),
            (format!("f{n}/b"), "x".into()),
        ]
    });
    cases.push(("a file in each folder", everywhere.collect(), true));
    for (case, tree, is_cut) in cases {
        repository.commit_orphan_on(MAIN, &tree);
        let began = Instant::now();
        let limits = Limits::default();
        let built = try_build(&on_disk(&repository), MAIN, &limits).unwrap();
        let (took, warnings) = (began.elapsed(), &built.snapshot.warnings);
        println!("{case}: {} ms, {warnings:?}", took.as_millis());
        let told = warnings
            .iter()
            .any(|warning| warning.contains("too many or too large"));
        assert_eq!(told, is_cut, "{case}: {warnings:?}");
        assert!(took.as_secs() < 30, "{case}: {took:?}");
    }
}
