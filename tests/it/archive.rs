//! From a Git server to a zip: the zip holds exactly what git says, whatever the tree is and however the server packs it.

use std::{
    env, fs,
    io::Write,
    time::{Duration, Instant},
};

use backlog_bridge::{
    archive::{Archive, Dates},
    limits::Limits,
    pack::Objects,
    progress::Progress,
    snapshot::Snapshot,
};
use gix::objs::Kind;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{
    MAIN,
    generate::{noise, random_push, random_tree, source},
    git_server::GitServer,
    oracle::{
        Entry, assert_readable_by_others, assert_zip_equals, assert_zip_file_equals, check_zip,
        expected_entries, read_zip,
    },
    pack_builder::{FILE, FOLDER, PackBuilder, Step, delta, file, id_of},
    product::{Built, build, build_pack, on_disk, remote},
    tls::trusting,
    upstream::{Content, Repository, Upstream, write_change},
};

const LOGIN: (&str, &str) = ("robot@example.com", "p:a@s/s");

/// The same random cases every time; with `PROPTEST_CASES` new ones: as many at 100, twice as many at 200.
fn runner(cases: u32) -> TestRunner {
    let asked = env::var("PROPTEST_CASES").ok();
    let asked = asked.and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: asked.map_or(cases, |asked: u32| (asked * cases / 100).max(1)),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    if asked.is_some() {
        return TestRunner::new(config);
    }
    let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
    let rng = proptest::test_runner::TestRng::deterministic_rng(algorithm);
    TestRunner::new_with_rng(config, rng)
}

fn check(built: &Built, repository: &Repository, commit: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(&built.commit, commit);
    check_zip(&built.zip, &expected_entries(repository, commit), commit)
        .map_err(TestCaseError::fail)
}

/// Delivers one commit and compares it with what git says.
fn deliver(repository: &Repository, commit: &str) -> Built {
    let built = build(&on_disk(repository), MAIN);
    assert_eq!(built.commit, commit);
    assert_zip_equals(&built.zip, &expected_entries(repository, commit), commit);
    built
}

fn files(paths: &[(&str, Content)]) -> Vec<(Vec<u8>, Content)> {
    let owned = |(path, content): &(&str, Content)| (path.as_bytes().to_owned(), content.clone());
    paths.iter().map(owned).collect()
}

#[test]
fn every_tree_is_archived_as_git_has_it() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let deliver = |files: Vec<_>| {
        let commit = repository.commit_orphan_on(MAIN, &files);
        check(&build(&on_disk(&repository), MAIN), &repository, &commit)
    };
    runner(30).run(&random_tree(), deliver).unwrap();
}

#[test]
fn every_push_is_archived_as_git_has_it_however_it_is_packed() {
    let deliver = |(before, after): (Vec<_>, Vec<_>)| {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        for files in [before, after] {
            let commit = repository.commit_exactly_on(MAIN, &files);
            repository.repack();
            check(&build(&on_disk(&repository), MAIN), &repository, &commit)?;
        }
        Ok(())
    };
    runner(30).run(&random_push(), deliver).unwrap();
}

#[test]
fn every_push_is_archived_as_git_has_it_over_tls() {
    trusting(|| {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let server = GitServer::start(upstream.root(), Some(LOGIN));
        let from = remote(&server.url("APP/web"), Some(LOGIN));
        let deliver = |(before, after): (Vec<_>, Vec<_>)| {
            for files in [before, after] {
                let commit = repository.commit_exactly_on(MAIN, &files);
                repository.repack();
                check(&build(&from, MAIN), &repository, &commit)?;
            }
            Ok(())
        };
        runner(8).run(&random_push(), deliver).unwrap();
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn everything_that_a_tree_can_hold_is_archived() {
    let deep = format!("{}deep.txt", "folder/".repeat(100));
    let long = format!("{}/{}", "n".repeat(255), "あ".repeat(85));
    let trees: &[(&str, &[(&str, Content)])] = &[
        ("no files", &[]),
        ("an empty file", &[("empty", "".into())]),
        (
            "an executable",
            &[("run.sh", Content::Executable(b"#!/bin/sh\n".into()))],
        ),
        (
            "an empty executable",
            &[("run.sh", Content::Executable(Vec::new()))],
        ),
        (
            "symlinks",
            &[
                ("a", "a".into()),
                ("bin/to-a", Content::Symlink(b"../a".into())),
                ("dangling", Content::Symlink("無い".into())),
                ("absolute", Content::Symlink(b"/etc/passwd".into())),
            ],
        ),
        (
            "submodules",
            &[
                (".gitmodules", "[submodule \"lib\"]".into()),
                ("lib", Content::Submodule("1".repeat(40))),
                ("vendor/x/y", Content::Submodule("2".repeat(40))),
            ],
        ),
        ("a hundred folders", &[(&deep, "deep".into())]),
        ("names of 255 bytes", &[(&long, "long".into())]),
        (
            "Japanese names",
            &[
                ("設計/日本語 の ファイル.txt", "日本語".into()),
                ("カ\u{3099}.txt", "two code points".into()),
                ("ガ.txt", "one".into()),
            ],
        ),
        (
            "names that sort otherwise as folders",
            &[
                ("a", "1".into()),
                ("a-b", "2".into()),
                ("a.d/b", "3".into()),
                ("a0", "4".into()),
            ],
        ),
        (
            "names that only Windows refuses",
            &[
                ("aux.c", "1".into()),
                ("a:b.png", "2".into()),
                ("dot.", "3".into()),
            ],
        ),
        (
            "names that only differ in case",
            &[
                ("README", "1".into()),
                ("Readme", "2".into()),
                ("a/b", "3".into()),
                ("A/b", "4".into()),
            ],
        ),
        (
            "attributes that a checkout or an export would follow",
            &[
                (
                    ".gitattributes",
                    "* text eol=crlf ident\n*.csv working-tree-encoding=Shift_JIS\n*.bin filter=run-me\n\
                     left-out export-ignore\nversion export-subst\n"
                        .into(),
                ),
                ("a.csv", "表\n".into()),
                ("a.txt", "one\ntwo\r\n$Id$\n".into()),
                ("b.bin", "as it is".into()),
                ("left-out", "not left out".into()),
                ("version", "$Format:%H$".into()),
            ],
        ),
        (
            "one blob at many paths",
            &[
                ("a", "same".into()),
                ("b", Content::Executable(b"same".into())),
                ("c/d", Content::Symlink(b"same".into())),
                ("c/e", "same".into()),
            ],
        ),
    ];
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    for (case, tree) in trees {
        let commit = repository.commit_orphan_on(MAIN, &files(tree));
        let built = build(&on_disk(&repository), MAIN);
        let expected = expected_entries(&repository, &commit);
        let checked = check_zip(&built.zip, &expected, &commit);
        assert_eq!(checked, Ok(()), "{case}");
        assert_eq!(built.snapshot.entries.len(), tree.len(), "{case}");
    }
}

#[test]
fn names_that_are_not_utf8_keep_their_bytes() {
    let names: [&[u8]; 4] = [b"\x93\xfa\x96{.txt", b"caf\xe9", b"a\xc0\xafb", b"\xff"];
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let tree = names.map(|name| (name, Content::from("x")));
    let commit = repository.commit_orphan_on(MAIN, &tree);
    let built = deliver(&repository, &commit);
    let zip = read_zip(&built.zip).unwrap();
    let mut found: Vec<_> = zip.members.iter().map(|m| &m.name[..]).collect();
    found.sort_unstable();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_file_of_the_old_mode_100664_is_a_plain_file() {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"group may write");
    let tree = pack.tree(&[("100664", "a", blob), ("100775", "b", blob)]);
    let commit = pack.commit(tree);
    let built = build_pack(&pack.finish(), commit, &Limits::default()).unwrap();
    let plain = file("a", b"group may write".to_vec());
    let executable = Entry {
        path: b"b".to_vec(),
        mode: 0o100_755,
        ..plain.clone()
    };
    assert_zip_equals(&built.zip, &[plain, executable], &built.commit);
}

#[test]
fn a_tag_delivers_the_commit_that_it_leads_to() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let commit = repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    repository.set_ref("refs/tags/light", &commit);
    let tag = repository.annotated_tag("refs/tags/v1", &commit);
    let tag_of_tag = repository.annotated_tag("refs/tags/v1-signed", &tag);
    repository.annotated_tag("refs/tags/v1-again", &tag_of_tag);
    repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let expected = expected_entries(&repository, &commit);
    for name in ["light", "v1", "v1-signed", "v1-again"] {
        let built = build(&on_disk(&repository), &format!("refs/tags/{name}"));
        assert_eq!(built.commit, commit, "{name}");
        assert_zip_equals(&built.zip, &expected, &commit);
    }
}

#[test]
fn a_pointer_of_git_lfs_is_delivered_as_it_is_with_a_warning() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let mention = format!("{pointer}{}", "a text about LFS\n".repeat(100));
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    for (case, content, warnings) in [
        ("a pointer", pointer, 1),
        ("a text that begins like one", &mention, 0),
        ("another text", "version 1", 0),
    ] {
        let attributes = (
            ".gitattributes",
            "*.psd filter=lfs diff=lfs merge=lfs -text\n".into(),
        );
        let tree = [attributes, ("large.psd", content.into()), ("b", "b".into())];
        let commit = repository.commit_orphan_on(MAIN, &tree);
        let built = deliver(&repository, &commit);
        assert_eq!(built.snapshot.warnings.len(), warnings, "{case}");
        let names_lfs =
            |text: &String| text.starts_with("\"large.psd\": this file is kept by Git LFS");
        assert!(built.snapshot.warnings.iter().all(names_lfs), "{case}");
    }
}

#[test]
fn names_that_are_one_on_another_disk_are_delivered_with_a_warning() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    for (case, paths, twins) in [
        ("none", &["a", "b.txt", "B/a", "c/a", "é"][..], 0),
        ("upper and lower case", &["README", "d/x", "readme"], 1),
        ("three of them", &["README", "Readme", "readme"], 2),
        ("a folder and a file", &["Docs", "docs/a"], 1),
        ("in a folder", &["d/A", "d/a", "a"], 1),
        ("in two folders", &["a", "d/A", "e/a"], 0),
        ("letters of another alphabet", &["Ж", "ж"], 1),
        ("two forms of a letter", &["\u{e9}.txt", "e\u{301}.txt"], 1),
        ("two forms, and case", &["\u{c9}.txt", "e\u{301}.txt"], 1),
        (
            "two forms in Japanese",
            &["\u{30ac}", "\u{30ab}\u{3099}"],
            1,
        ),
        ("two letters in Japanese", &["\u{30ac}", "\u{30ab}"], 0),
        ("full and half width", &["\u{ff21}", "A"], 0),
        ("a sharp s", &["Straße", "STRASSE"], 1),
        ("an s at the end of a word", &["ς", "σ"], 1),
    ] {
        let tree: Vec<_> = paths.iter().map(|path| (*path, (*path).into())).collect();
        let commit = repository.commit_orphan_on(MAIN, &tree);
        let warnings = deliver(&repository, &commit).snapshot.warnings;
        let expected = match twins {
            1 => "this name differs from another one of its folder".to_owned(),
            _ => format!("{twins} names differ from another one of their folder"),
        };
        let told = warnings.iter().filter(|text| text.contains(&expected));
        assert_eq!(told.count(), usize::from(twins > 0), "{case}: {warnings:?}");
        assert_eq!(
            warnings.len(),
            usize::from(twins > 0),
            "{case}: {warnings:?}"
        );
    }
    // A dot at the end is told with those that Windows refuses, too.
    let commit = repository.commit_orphan_on(MAIN, &[("z", "1".into()), ("z.", "2".into())]);
    let warnings = deliver(&repository, &commit).snapshot.warnings;
    assert!(
        warnings[1].starts_with(r#""z.": this name differs"#),
        "{warnings:?}"
    );
}

#[test]
fn submodules_that_are_left_empty_are_named() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let empty = |n: u8| Content::Submodule(n.to_string().repeat(40));
    let long = "n".repeat(200);
    let deep = [long.as_str(); 5].join("/");
    for (paths, expected) in [
        (
            &["ライブラリ"][..],
            r#""ライブラリ": this submodule is an empty folder in the archive;"#,
        ),
        (
            &["lib", "vendor/a/b"],
            "2 submodules are empty folders in the archive; fetch them in the build, or commit what is needed, such as \
             \"lib\", \"vendor/a/b\"",
        ),
        (
            &["1", "2", "3", "4", "5", "6"],
            r#"6 submodules are empty folders in the archive; fetch them in the build, or commit what is needed, such as "1", "2", "3", "4", "5""#,
        ),
        (&[&deep], "…\": this submodule is an empty folder"),
    ] {
        let tree: Vec<_> = paths.iter().map(|path| (*path, empty(1))).collect();
        let commit = repository.commit_orphan_on(MAIN, &tree);
        let built = deliver(&repository, &commit);
        let [warning] = &*built.snapshot.warnings else {
            panic!("{:?}", built.snapshot.warnings);
        };
        assert!(warning.contains(expected), "{warning}");
        assert!(warning.len() < 1_000);
    }
}

#[test]
fn names_that_windows_refuses_are_delivered_with_a_warning() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let tree = [
        ("docs/a:b.png", "1".into()),
        ("ok", "2".into()),
        ("z.", "3".into()),
    ];
    let commit = repository.commit_orphan_on(MAIN, &tree);
    let built = deliver(&repository, &commit);
    assert_eq!(
        built.snapshot.warnings,
        ["2 names cannot be extracted on Windows, such as \"docs/a:b.png\", \"z.\""]
    );
}

#[test]
fn a_backslash_is_a_letter_unless_it_leads_out() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let names = ["a\\b.txt", "docs\\", "x\\.\\y", "x\\\\z"];
    let commit = repository.commit_orphan_on(MAIN, &names.map(|name| (name, "1".into())));
    let built = deliver(&repository, &commit);
    assert_eq!(built.snapshot.entries.len(), names.len());
    let warning = &built.snapshot.warnings[0];
    assert!(
        warning.starts_with("4 names cannot be extracted on Windows"),
        "{warning}"
    );
    let zip = read_zip(&built.zip).unwrap();
    let mut found: Vec<_> = zip.members.iter().map(|m| m.name.clone()).collect();
    found.sort_unstable();
    let mut expected = names.map(|name| name.as_bytes().to_vec());
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn large_files_are_archived_whether_they_compress_or_not() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let tree = [
        ("noise.bin", noise(20_000_000, 1).into()),
        ("zeros.bin", vec![0; 100_000_000].into()),
        ("source.rs", source(3_000_000, 2).into()),
    ];
    let commit = repository.commit_orphan_on(MAIN, &tree);
    let built = deliver(&repository, &commit);
    // The floor: noise as it is, zeros at 1 to 1,000, source at 1 to 3.
    assert!(built.zip.len() < 21_500_000, "{}", built.zip.len());
}

#[test]
fn seventy_thousand_entries_are_archived() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let commit = repository.commit(MAIN, None, |out| {
        for n in 0..70_000 {
            let path = format!("folder_{:03}/file_{n}", n % 701);
            write_change(out, path.as_bytes(), &format!("{}", n % 1000)[..].into())?;
        }
        Ok(())
    });
    let built = deliver(&repository, &commit);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &built.zip).unwrap();
    assert_readable_by_others(file.path(), 70_000);
}

#[test]
fn other_programs_read_a_rich_archive() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let mut tree = files(&[
        ("README.md", "read me\n".into()),
        ("empty", "".into()),
        ("bin/run", Content::Executable(b"#!/bin/sh\n".into())),
        ("bin/link", Content::Symlink(b"run".into())),
        ("lib", Content::Submodule("3".repeat(40))),
        ("設計/日本語 の ファイル.txt", "日本語".into()),
        ("noise", noise(200_000, 3).into()),
        ("zeros", vec![0; 2_000_000].into()),
    ]);
    tree.push((b"caf\xe9".to_vec(), "Latin-1".into()));
    for n in 0..40 {
        let text = [&source(30_000, 4)[..], format!("{n}").as_bytes()].concat();
        tree.push((format!("src/{n}.rs").into_bytes(), text.into()));
    }
    let commit = repository.commit_orphan_on(MAIN, &tree);
    repository.repack();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&build(&on_disk(&repository), MAIN).zip)
        .unwrap();
    let expected = expected_entries(&repository, &commit);
    assert_zip_file_equals(file.path(), &expected, &commit);
    let readers = assert_readable_by_others(file.path(), tree.len());
    println!("read by {readers:?}");
}

/// One file's versions as a pack holds them: each but the first is a delta.
struct Family {
    pack: PackBuilder,
    entries: Vec<Entry>,
    /// Where each version stands.
    offsets: Vec<u64>,
}

impl Family {
    fn of(root: Vec<u8>) -> Self {
        let mut pack = PackBuilder::new();
        let (offset, _) = pack.blob(&root);
        Self {
            pack,
            entries: vec![file("0000", root)],
            offsets: vec![offset],
        }
    }

    /// Adds a version that replaces ten bytes in the middle of another version and adds ten at its end. Every third one
    /// names its base by its id.
    fn derive(&mut self, base: usize) -> usize {
        let n = self.entries.len();
        let from = &self.entries[base].content;
        let (size, middle) = (from.len() as u64, from.len() / 2);
        let new = format!("{n:010}");
        let (head, tail) = (&from[..middle], &from[middle + 10..]);
        let content = [head, new.as_bytes(), tail, new.as_bytes()].concat();
        // A copy takes at most 16 MiB.
        let mut steps = Vec::new();
        for (start, end) in [(0, middle as u64), (middle as u64 + 10, size)] {
            for at in (start..end).step_by(0xff_ffff) {
                steps.push(Step::Copy(at, (end - at).min(0xff_ffff)));
            }
            steps.push(Step::Insert(new.as_bytes()));
        }
        let delta = delta(size, content.len() as u64, &steps);
        let offset = if n.is_multiple_of(3) {
            let id = self.entries[base].id.parse().unwrap();
            self.pack.ref_delta(id, &delta)
        } else {
            self.pack.ofs_delta(self.offsets[base], &delta)
        };
        self.offsets.push(offset);
        self.entries.push(file(&format!("{n:04}"), content));
        n
    }

    /// Adds a tree of all versions and a commit, and compares the archive.
    fn assert_archived(mut self) {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (FILE, entry.path.clone(), entry.id.parse().unwrap()))
            .collect();
        let tree = self.pack.tree(&entries);
        let commit = self.pack.commit(tree);
        let limits = Limits::default();
        let built = build_pack(&self.pack.finish(), commit, &limits).unwrap();
        assert_zip_equals(&built.zip, &self.entries, &built.commit);
    }
}

#[test]
fn chains_of_fifty_deltas_are_applied_whatever_their_size() {
    for (case, root) in [
        ("small", source(2_000, 1)),
        (
            "above the size at which families take turns",
            source(4_300_000, 2),
        ),
    ] {
        let started = Instant::now();
        let mut family = Family::of(root);
        for n in 0..50 {
            family.derive(n);
        }
        family.assert_archived();
        println!("{case}: {:?}", started.elapsed());
    }
}

#[test]
fn families_that_branch_are_resolved_when_bases_do_not_fit_in_memory() {
    for (case, size, ways, levels) in [
        ("wide and small", 1_000, 200, 1),
        ("two ways at five levels", 3_000_000, 2, 4),
        ("three ways at three levels", 5_000_000, 3, 2),
    ] {
        let started = Instant::now();
        let mut family = Family::of(source(size, 1));
        let mut last = vec![0];
        for _ in 0..levels {
            let bases = last.iter().flat_map(|&base| vec![base; ways]);
            last = bases
                .collect::<Vec<_>>()
                .into_iter()
                .map(|base| family.derive(base))
                .collect();
        }
        family.assert_archived();
        println!("{case}: {:?}", started.elapsed());
    }
}

#[test]
fn a_comb_of_deltas_is_resolved_when_bases_do_not_fit_in_memory() {
    // Every version of a long chain has a second delta, so that all of them wait for their turn.
    let mut family = Family::of(source(500_000, 1));
    let mut spine = 0;
    for _ in 0..40 {
        let tooth = family.derive(spine);
        spine = family.derive(spine);
        family.derive(tooth);
    }
    family.assert_archived();
}

#[test]
fn a_delta_may_come_before_its_base() {
    let (old, new) = (noise(1_000, 1), b"new".to_vec());
    let content = [&old[..], &new].concat();
    let mut pack = PackBuilder::new();
    let made = delta(1_000, 1_003, &[Step::Copy(0, 1_000), Step::Insert(&new)]);
    pack.ref_delta(file("", old.clone()).id.parse().unwrap(), &made);
    pack.blob(&old);
    let files = [file("new", content), file("old", old)];
    let entry = |n: usize| (FILE, files[n].path.clone(), files[n].id.parse().unwrap());
    let tree = pack.tree(&[entry(0), entry(1)]);
    let commit = pack.commit(tree);
    let built = build_pack(&pack.finish(), commit, &Limits::default()).unwrap();
    assert_zip_equals(&built.zip, &files, &built.commit);
}

#[test]
fn trees_and_commits_may_be_deltas_too() {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"a");
    let names: Vec<_> = (0..60).map(|n| format!("{n:03}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name, blob)).collect();
    let (short, long) = entries.split_at(59);
    let root = crate::support::pack_builder::tree(short);
    let more = crate::support::pack_builder::tree(long);
    let base = pack.whole(Kind::Tree, &root);
    let sizes = (root.len() as u64, (root.len() + more.len()) as u64);
    let steps = [Step::Copy(0, sizes.0), Step::Insert(&more)];
    pack.ref_delta(base, &delta(sizes.0, sizes.1, &steps));
    let tree = crate::support::pack_builder::id_of(Kind::Tree, &[root, more].concat());
    let other = pack.commit(base);
    let bytes = crate::support::pack_builder::commit(tree);
    let tail = &bytes[45..];
    let steps = [
        Step::Insert(&bytes[..45]),
        Step::Copy(45, tail.len() as u64),
    ];
    let size = bytes.len() as u64;
    pack.ref_delta(other, &delta(size, size, &steps));
    let commit = crate::support::pack_builder::id_of(Kind::Commit, &bytes);
    let built = build_pack(&pack.finish(), commit, &Limits::default()).unwrap();
    let expected: Vec<_> = names.iter().map(|name| file(name, b"a".to_vec())).collect();
    assert_zip_equals(&built.zip, &expected, &built.commit);
}

#[test]
fn an_object_may_be_in_a_pack_twice() {
    let mut pack = PackBuilder::new();
    let (first, blob) = pack.blob(b"twice");
    let (second, _) = pack.blob(b"twice");
    let longer = delta(5, 8, &[Step::Copy(0, 5), Step::Insert(b"abc")]);
    pack.ofs_delta(first, &longer);
    pack.ofs_delta(second, &longer);
    pack.ref_delta(blob, &longer);
    let entries = [
        file("a", b"twice".to_vec()),
        file("b", b"twiceabc".to_vec()),
    ];
    let folder = pack.tree(&[(FILE, "b", entries[1].id.parse().unwrap())]);
    let tree = pack.tree(&[(FILE, "a", blob), (FOLDER, "f", folder)]);
    pack.tree(&[(FILE, "a", blob), (FOLDER, "f", folder)]);
    let commit = pack.commit(tree);
    let built = build_pack(&pack.finish(), commit, &Limits::default()).unwrap();
    let [a, mut b] = entries;
    b.path = b"f/b".to_vec();
    assert_zip_equals(&built.zip, &[a, b], &built.commit);
}

#[test]
fn the_same_commit_gives_the_same_bytes() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    repository.commit_on(
        MAIN,
        &[("a", source(10_000, 1).into()), ("b/c", "c".into())],
    );
    let first = build(&on_disk(&repository), MAIN).zip;
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(first, build(&on_disk(&repository), MAIN).zip);
}

#[test]
fn a_deep_comb_of_deltas_is_resolved_in_seconds() {
    let mut family = Family::of(source(4_000, 1));
    let mut spine = 0;
    for _ in 0..4_000 {
        family.derive(spine);
        spine = family.derive(spine);
    }
    let started = Instant::now();
    family.assert_archived();
    // Two seconds, if nothing else runs.
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
#[ignore = "takes minutes, and nine gigabytes of disk"]
fn sizes_and_offsets_over_4_gib_are_archived() {
    const SIZE: usize = 110_000_000;
    let limits = Limits {
        tree_bytes: u64::MAX / 2,
        blob_bytes: 1 << 33,
        ..Limits::default()
    };
    let large = vec![0; (1 << 32) + 1];
    let mut pack = PackBuilder::new();
    let (_, zeros) = pack.blob(&large);
    drop(large);
    let (_, noise) = pack.blob(&noise(SIZE, 1));
    let names: Vec<_> = (0..41).map(|n| format!("{n:02}")).collect();
    let mut entries = vec![(FILE, "-", zeros)];
    entries.extend(names.iter().map(|name| (FILE, &name[..], noise)));
    entries.push((FILE, "zeros again", zeros));
    let tree = pack.tree(&entries);
    let commit = pack.commit(tree);
    let objects = Objects::receive(&mut &pack.finish()[..], &limits, &Progress::default());
    let objects = objects.unwrap();
    let snapshot = Snapshot::of(commit.into(), &objects, &limits).unwrap();
    let archive = Archive::write(
        snapshot.commit,
        snapshot.entries,
        objects,
        &Dates::default(),
        &Progress::default(),
    )
    .unwrap();
    assert!(archive.bytes() > 1 << 32);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::copy(&mut archive.reader(), &mut file).unwrap();
    assert_readable_by_others(file.path(), entries.len());
}

/// A zlib stream of stored blocks: `empty` ones without anything in them, and then the bytes.
fn stored(bytes: &[u8], empty: usize) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    stream.extend([0, 0, 0, 0xff, 0xff].repeat(empty));
    let length = u16::try_from(bytes.len()).unwrap();
    stream.push(1);
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend_from_slice(bytes);
    let (mut low, mut high) = (1u32, 0u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    stream.extend((high << 16 | low).to_be_bytes());
    stream
}

#[test]
fn streams_that_a_server_made_too_long_are_made_anew() {
    const BLOB: u8 = 3;
    let text = source(60_000, 8);
    let noise = noise(60_000, 9);
    let mut pack = PackBuilder::new();
    let mut entries = Vec::new();
    for (name, bytes, stream) in [
        ("noise", noise.clone(), stored(&noise, 0)),
        ("padded", b"padded".to_vec(), stored(b"padded", 400_000)),
        ("stored", text.clone(), stored(&text, 0)),
    ] {
        pack.entry(BLOB, bytes.len() as u64, &[], &stream);
        entries.push((name, bytes));
    }
    let listed: Vec<_> = entries
        .iter()
        .map(|(name, bytes)| ("100644", *name, id_of(Kind::Blob, bytes)))
        .collect();
    let tree = pack.tree(&listed);
    let commit = pack.commit(tree);
    let Ok(built) = build_pack(&pack.finish(), commit, &Limits::default()) else {
        panic!("the pack is right, only long")
    };
    let expected: Vec<_> = entries
        .iter()
        .map(|(name, bytes)| file(name, bytes.clone()))
        .collect();
    assert_zip_equals(&built.zip, &expected, &commit.to_string());
    // The noise as it was, the text a fraction, and next to nothing of the padding.
    assert!(
        (60_000..90_000).contains(&built.zip.len()),
        "{} bytes",
        built.zip.len()
    );
}
