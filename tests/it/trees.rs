//! A tree that lies: no path that could escape or harm where it is extracted, no object that is not there, nothing beyond the
//! limits.

use backlog_bridge::{error::chain, limits::Limits, snapshot::SnapshotError};
use gix::{ObjectId, objs::Kind};

use crate::support::{
    MAIN,
    generate::noise,
    pack_builder::{FILE, FOLDER, PackBuilder, bomb, id_of, tree},
    product::{Built, Refusal, build_pack, on_disk, refusal, try_build},
    upstream::{Content, Upstream},
};

/// An id that no object has.
const NOBODY: [u8; 20] = [0x11; 20];

#[test]
fn a_bomb_of_a_dozen_objects_is_refused_at_once() {
    for (case, leaf) in [("files", true), ("empty folders", false)] {
        let (pack, commit) = bomb(leaf);
        assert_eq!(pack.objects(), 12, "{case}");
        let text = refusal(case, &pack.finish(), commit).text();
        assert!(text.contains("MAX_ENTRIES"), "{case}: {text}");
    }
}

#[test]
fn a_bomb_of_one_large_file_at_many_paths_is_refused() {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(&vec![0; 100_000_000]);
    let names: Vec<_> = (0..22).map(|n| format!("{n:02}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name, blob)).collect();
    let tree = pack.tree(&entries);
    let commit = pack.commit(tree);
    let text = refusal("2.2 GB", &pack.finish(), commit).text();
    assert!(
        text.contains("MAX_TREE_BYTES allows (2147483648)"),
        "{text}"
    );
}

#[test]
fn names_that_a_common_reader_takes_for_one_are_refused() {
    for (case, one, other, is_refused) in [
        (
            "letters of an old PC",
            &b"\x82.txt"[..],
            "é.txt".as_bytes(),
            true,
        ),
        (
            "the same in capitals",
            b"\x90.txt",
            "É.txt".as_bytes(),
            true,
        ),
        ("other letters", b"\x82.txt", "è.txt".as_bytes(), false),
        ("no UTF-8, both", b"\x82.txt", b"\x83.txt", false),
        ("a backslash", b"a\\b", b"a/b", true),
        ("a backslash, elsewhere", b"a\\b", b"a/c", false),
        // Told, and not refused: these are two names, but on some disks.
        ("capitals", b"readme", b"README", false),
    ] {
        let mut pack = PackBuilder::new();
        let (_, blob) = pack.blob(b"content");
        let mut entries = vec![(FILE, one.to_vec(), blob)];
        match other.iter().position(|byte| *byte == b'/') {
            Some(end) => {
                let folder = pack.tree(&[(FILE, &other[end + 1..], blob)]);
                entries.push((FOLDER, other[..end].to_vec(), folder));
            }
            None => entries.push((FILE, other.to_vec(), blob)),
        }
        entries.sort_by(|a, b| a.1.cmp(&b.1));
        let tree = pack.tree(&entries);
        let commit = pack.commit(tree);
        let built = build_pack(&pack.finish(), commit, &Limits::default());
        match built {
            Ok(_) => assert!(!is_refused, "{case}: an archive was made"),
            Err(refusal) => {
                assert!(is_refused, "{case}: {}", refusal.text());
                assert!(refusal.text().contains("reads another path"), "{case}");
            }
        }
    }
}

#[test]
fn names_that_are_not_safe_to_extract_are_refused() {
    let long = "n".repeat(256);
    let longer = "n".repeat(4_097);
    for (case, name) in [
        ("the folder above", "..".as_bytes()),
        ("the folder itself", b"."),
        ("git's own folder", b".git"),
        ("git's own folder on macOS and Windows", b".GIT"),
        ("git's own folder with mixed letters", b".gIt"),
        ("git's own folder in 8.3 letters", b"git~1"),
        ("the same in capitals", b"GIT~1"),
        ("git's own folder with a dot on Windows", b".git."),
        ("git's own folder with a space on Windows", b".git "),
        (
            "a stream of git's own folder on Windows",
            b".git::$INDEX_ALLOCATION",
        ),
        ("git's own folder on macOS", ".g\u{200c}it".as_bytes()),
        ("a path", b"a/b"),
        ("an absolute path", b"/etc/passwd"),
        ("a path upwards", b"../a"),
        ("only a slash", b"/"),
        ("no name", b""),
        ("a path upwards on Windows", b"..\\a"),
        ("a path upwards on Windows, later", b"a\\..\\..\\b"),
        ("an absolute path on Windows", b"\\Windows\\a"),
        ("a drive's path on Windows", b"C:\\a"),
        ("git's own folder on Windows", b".git\\config"),
        ("the same in disguise", b"a\\GIT~1\\config"),
        ("the same in another disguise", b"a\\.git \\config"),
        ("256 bytes", long.as_bytes()),
        ("4,097 bytes", longer.as_bytes()),
    ] {
        for mode in [FILE, "100755", "120000", "160000", FOLDER] {
            let mut pack = PackBuilder::new();
            let id = match mode {
                FOLDER => pack.tree::<&str>(&[]),
                _ => pack.blob(b"content").1,
            };
            let tree = pack.tree(&[(mode, name, id)]);
            let top = pack.tree(&[(FOLDER, "top", tree)]);
            for (depth, tree) in [("at the root", tree), ("below", top)] {
                let mut pack = pack.clone();
                let commit = pack.commit(tree);
                let case = format!("{case} as {mode} {depth}");
                let refusal = refusal(&case, &pack.finish(), commit);
                let is_snapshot = matches!(
                    refusal,
                    Refusal::Snapshot(SnapshotError::Path { .. } | SnapshotError::Malformed { .. })
                );
                assert!(is_snapshot, "{case}: {}", refusal.text());
            }
        }
    }
}

#[test]
fn a_symlink_that_git_would_read_its_submodules_from_is_refused() {
    for name in [".gitmodules", ".GITMODULES", "gitmod~1"] {
        let mut pack = PackBuilder::new();
        let (_, blob) = pack.blob(b"elsewhere");
        let tree = pack.tree(&[("120000", name, blob)]);
        let commit = pack.commit(tree);
        let text = refusal(name, &pack.finish(), commit).text();
        assert!(text.contains(".gitmodules"), "{name}: {text}");
    }
}

#[test]
fn a_name_that_a_tree_holds_twice_is_refused() {
    for (case, modes) in [
        ("two files", [FILE, FILE]),
        ("a file and a folder", [FILE, FOLDER]),
        ("a folder and a link", [FOLDER, "120000"]),
        ("a submodule and a folder", ["160000", FOLDER]),
    ] {
        for between in [&[][..], &["a-", "a."]] {
            let mut pack = PackBuilder::new();
            let (_, blob) = pack.blob(b"content");
            let folder = pack.tree(&[(FILE, "b", blob)]);
            let id = |mode| if mode == FOLDER { folder } else { blob };
            let mut entries = vec![(modes[0], "a", id(modes[0]))];
            entries.extend(between.iter().map(|name| (FILE, *name, blob)));
            entries.push((modes[1], "a", id(modes[1])));
            let tree = pack.tree(&entries);
            let commit = pack.commit(tree);
            let text = refusal(case, &pack.finish(), commit).text();
            assert!(
                text.contains("\"a\" is refused: the tree holds it twice"),
                "{case}: {text}"
            );
        }
    }
}

#[test]
fn a_path_over_4096_bytes_is_refused_and_one_of_4096_is_not() {
    for (length, fits) in [(4_096, true), (4_097, false)] {
        let mut pack = PackBuilder::new();
        let (_, blob) = pack.blob(b"deep");
        let folder = "f".repeat(254);
        let name = "n".repeat(length - 16 * 255);
        let mut tree = pack.tree(&[(FILE, &name, blob)]);
        for _ in 0..16 {
            tree = pack.tree(&[(FOLDER, &folder, tree)]);
        }
        let commit = pack.commit(tree);
        let built = build_pack(&pack.finish(), commit, &Limits::default());
        match built {
            Ok(built) => {
                assert!(fits);
                assert_eq!(built.snapshot.entries[0].path.len(), length);
            }
            Err(refusal) => {
                assert!(!fits && refusal.text().contains("longer than 4096 bytes"));
            }
        }
    }
}

#[test]
fn modes_that_git_does_not_have_are_refused() {
    for mode in [
        "0",
        "7",
        "100",
        "20000",
        "60000",
        "120777",
        "170000",
        "777777",
        "9",
        "x",
        "",
        "1006440000",
    ] {
        let mut pack = PackBuilder::new();
        let (_, blob) = pack.blob(b"content");
        let tree = pack.tree(&[(mode, "a", blob)]);
        let commit = pack.commit(tree);
        let refusal = refusal(mode, &pack.finish(), commit);
        assert!(
            matches!(refusal, Refusal::Snapshot(_)),
            "{mode}: {}",
            refusal.text()
        );
    }
}

#[test]
fn trees_and_commits_that_are_no_such_thing_are_refused() {
    let cases: [(&str, Kind, &[u8]); 7] = [
        ("a tree of noise", Kind::Tree, b"noise"),
        ("a tree without an id", Kind::Tree, b"100644 a\0"),
        (
            "a tree with half an id",
            Kind::Tree,
            b"100644 a\0half an id",
        ),
        ("a tree with a mode only", Kind::Tree, b"100644"),
        ("an empty commit", Kind::Commit, b""),
        ("a commit of noise", Kind::Commit, b"noise"),
        ("a commit with a short tree", Kind::Commit, b"tree 1234\n\n"),
    ];
    for (case, kind, bytes) in cases {
        let mut pack = PackBuilder::new();
        let id = pack.whole(kind, bytes);
        let commit = if kind == Kind::Tree {
            pack.commit(id)
        } else {
            id
        };
        let refusal = refusal(case, &pack.finish(), commit);
        let text = refusal.text();
        let malformed = matches!(refusal, Refusal::Snapshot(SnapshotError::Malformed { .. }));
        assert!(
            malformed && text.contains(&id.to_string()),
            "{case}: {text}"
        );
    }
}

#[test]
fn an_object_that_is_missing_or_of_another_kind_is_named() {
    let nobody = ObjectId::from(NOBODY);
    let blob = id_of(Kind::Blob, b"a");
    let empty = id_of(Kind::Tree, b"");
    let build = |make: &dyn Fn(&mut PackBuilder) -> ObjectId| {
        let mut pack = PackBuilder::new();
        pack.blob(b"a");
        pack.tree::<&str>(&[]);
        let commit = make(&mut pack);
        refusal("", &pack.finish(), commit).text()
    };
    let in_tree = |mode, id: ObjectId| {
        build(&|pack| {
            let tree = pack.tree(&[(mode, "x", id)]);
            pack.commit(tree)
        })
    };
    for (case, text, expected) in [
        (
            "no commit",
            build(&|_| nobody),
            format!("commit {nobody} is missing"),
        ),
        (
            "a blob",
            build(&|_| blob),
            format!("commit {blob} is missing"),
        ),
        (
            "no tree",
            build(&|pack| pack.commit(nobody)),
            format!("tree {nobody} is missing"),
        ),
        (
            "the tree is a blob",
            build(&|pack| pack.commit(blob)),
            format!("tree {blob} is missing"),
        ),
        (
            "no folder",
            in_tree(FOLDER, nobody),
            format!("tree {nobody} is missing"),
        ),
        (
            "the folder is a blob",
            in_tree(FOLDER, blob),
            format!("tree {blob} is missing"),
        ),
        (
            "no file",
            in_tree(FILE, nobody),
            format!("blob {nobody} is missing"),
        ),
        (
            "no link",
            in_tree("120000", nobody),
            format!("blob {nobody} is missing"),
        ),
        (
            "the file is a tree",
            in_tree(FILE, empty),
            format!("blob {empty} is missing"),
        ),
    ] {
        assert!(text.contains(&expected), "{case}: {text}");
    }
}

#[test]
fn an_object_under_another_ones_id_is_missing() {
    // What a server sends is known by what it is, never by what the server says that it is.
    let wanted = tree(&[(FILE, "a", id_of(Kind::Blob, b"right"))]);
    let mut pack = PackBuilder::new();
    pack.blob(b"wrong");
    let tree = pack.whole(Kind::Tree, &wanted);
    let commit = pack.commit(tree);
    let text = refusal("another blob", &pack.finish(), commit).text();
    assert!(text.contains("is missing from the pack"), "{text}");
}

#[test]
fn each_limit_is_named_by_the_error() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let tree: Vec<(String, Content)> = (0..20)
        .map(|n| (format!("folder/{n:02}"), noise(10_000, n).into()))
        .collect();
    repository.commit_on(MAIN, &tree);
    let default = Limits::default();
    let build = |limits: Limits| try_build(&on_disk(&repository), MAIN, &limits);
    for (case, limits, expected) in [
        (
            "as many files as allowed",
            Limits {
                entries: 20,
                ..default
            },
            None,
        ),
        (
            "a file too many",
            Limits {
                entries: 19,
                ..default
            },
            Some("MAX_ENTRIES allows (19)"),
        ),
        (
            "as much as allowed",
            Limits {
                tree_bytes: 200_000,
                ..default
            },
            None,
        ),
        (
            "a byte too much",
            Limits {
                tree_bytes: 199_999,
                ..default
            },
            Some("MAX_TREE_BYTES allows (199999)"),
        ),
        (
            "as large as allowed",
            Limits {
                blob_bytes: 10_000,
                ..default
            },
            None,
        ),
        (
            "a byte too large",
            Limits {
                blob_bytes: 9_999,
                ..default
            },
            Some("MAX_BLOB_BYTES allows (9999)"),
        ),
        (
            "a pack too large",
            Limits {
                pack_bytes: 150_000,
                ..default
            },
            Some("MAX_PACK_BYTES allows (150000)"),
        ),
    ] {
        match (build(limits), expected) {
            (Ok(Built { zip, .. }), None) => assert!(!zip.is_empty(), "{case}"),
            (Err(refusal), Some(words)) => {
                let text = refusal.text();
                assert!(text.contains(words), "{case}: {text}");
            }
            (Ok(_), Some(_)) => panic!("{case}: an archive was made"),
            (Err(refusal), None) => panic!("{case}: {}", refusal.text()),
        }
    }
    let exact = build(default).unwrap().pack_bytes;
    for (pack_bytes, fits) in [(exact, true), (exact - 1, false)] {
        let result = build(Limits {
            pack_bytes,
            ..default
        });
        assert_eq!(result.is_ok(), fits, "{pack_bytes} bytes");
    }
}

#[test]
fn a_tag_of_something_else_than_a_commit_is_an_error() {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    let blob = repository.write_object("blob", b"no commit");
    let tree = repository.write_object("tree", b"");
    for (case, target, tagged) in [
        ("a tag of a blob", &blob, true),
        ("a blob", &blob, false),
        ("a tag of a tree", &tree, true),
        ("a tree", &tree, false),
    ] {
        if tagged {
            repository.annotated_tag("refs/tags/odd", target);
        } else {
            repository.set_ref("refs/tags/odd", target);
        }
        let built = try_build(&on_disk(&repository), "refs/tags/odd", &Limits::default());
        let text = built.map(drop).unwrap_err().text();
        assert!(
            text.contains(&format!("commit {target} is missing")),
            "{case}: {text}"
        );
    }
}

#[test]
fn a_repository_with_sha256_ids_is_an_error() {
    let upstream = Upstream::new();
    let repository = upstream.sha256_repository("APP/web");
    repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    let tip = on_disk(&repository)
        .connect()
        .and_then(|mut connection| connection.tip(&MAIN.parse().unwrap()));
    let error = tip.unwrap_err();
    assert!(!error.is_transient());
    assert!(chain(&error).contains("sha256"), "{}", chain(&error));
}

/// A commit of one tree with these entries, all of the same blob.
fn commit_of<N: AsRef<[u8]>>(entries: &[(&str, N)]) -> (PackBuilder, ObjectId) {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"content");
    let folder = pack.tree(&[(FILE, "b", blob)]);
    let id = |mode: &str| if mode == FOLDER { folder } else { blob };
    let entries: Vec<_> = entries
        .iter()
        .map(|(mode, name)| (*mode, name, id(mode)))
        .collect();
    let tree = pack.tree(&entries);
    let commit = pack.commit(tree);
    (pack, commit)
}

#[test]
fn a_tree_that_is_not_in_gits_order_is_refused() {
    for (case, entries, named) in [
        ("files", &[(FILE, "b"), (FILE, "a")][..], Some("\"a\"")),
        (
            "a folder before what its slash comes after",
            &[(FOLDER, "a"), (FILE, "a-b")],
            Some("\"a-b\""),
        ),
        (
            "a file after what its end comes before",
            &[(FILE, "a-b"), (FILE, "a")],
            Some("\"a\""),
        ),
        ("in order", &[(FILE, "a"), (FILE, "a-b"), (FILE, "b")], None),
        ("a folder in order", &[(FILE, "a-b"), (FOLDER, "a")], None),
    ] {
        let (pack, commit) = commit_of(entries);
        let built = build_pack(&pack.finish(), commit, &Limits::default());
        let text = built.err().map(|refusal| refusal.text());
        assert_eq!(text.is_some(), named.is_some(), "{case}: {text:?}");
        if let (Some(text), Some(named)) = (text, named) {
            let words = format!("{named} is refused: it is not where Git's order has it");
            assert!(text.contains(&words), "{case}: {text}");
        }
    }
}

#[test]
fn a_name_that_holds_a_nul_is_no_name() {
    let (pack, commit) = commit_of(&[(FILE, "a\0b")]);
    let refusal = refusal("NUL", &pack.finish(), commit);
    assert!(matches!(
        refusal,
        Refusal::Snapshot(SnapshotError::Malformed { .. })
    ));
}

#[test]
fn a_path_over_256_folders_deep_is_refused_and_one_of_256_is_not() {
    for (depth, fits) in [(256, true), (257, false), (1_000, false)] {
        let mut pack = PackBuilder::new();
        let (_, blob) = pack.blob(b"deep");
        let mut tree = pack.tree(&[(FILE, "a", blob)]);
        for _ in 0..depth {
            tree = pack.tree(&[(FOLDER, "d", tree)]);
        }
        let commit = pack.commit(tree);
        match build_pack(&pack.finish(), commit, &Limits::default()) {
            Ok(built) => assert_eq!(
                (fits, built.snapshot.entries[0].path.len()),
                (true, 2 * depth + 1)
            ),
            Err(refusal) => {
                let text = refusal.text();
                assert!(
                    !fits && text.contains("more than 256 folders deep"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn a_refused_path_is_shown_in_plain_characters_and_not_at_length() {
    for (case, name, shown) in [
        ("a line", "a\n[ERROR] b\\..", r#""a\n[ERROR] b\\..""#),
        (
            "a terminal's colours",
            "\u{1b}[31m\\..",
            r#""\x1b[31m\\..""#,
        ),
        (
            "text that runs backwards",
            "\u{202e}gpj.\\..",
            r#""\u{202e}gpj.\\..""#,
        ),
        ("Japanese", "日本\\..", r#""日本\\..""#),
    ] {
        let (pack, commit) = commit_of(&[(FILE, name)]);
        let text = refusal(case, &pack.finish(), commit).text();
        assert!(text.contains(shown), "{case}: {text}");
        assert!(!text.contains(|c: char| c.is_control()), "{case}: {text:?}");
    }
    let (pack, commit) = commit_of(&[(FILE, vec![b'\x01'; 3_000_000])]);
    let text = refusal("3 MB", &pack.finish(), commit).text();
    assert!(
        text.contains("the beginning of its 3000000 bytes"),
        "{text}"
    );
    assert!(text.len() < 4_000, "{} bytes of words", text.len());
}

#[test]
fn paths_that_would_fill_the_memory_are_refused() {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"a");
    let names: Vec<_> = (0..100_000).map(|n| format!("{n:06}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name, blob)).collect();
    let mut tree = pack.tree(&entries);
    let folder = "f".repeat(250);
    for _ in 0..16 {
        tree = pack.tree(&[(FOLDER, &folder, tree)]);
    }
    let commit = pack.commit(tree);
    let text = refusal("400 MB of paths", &pack.finish(), commit).text();
    for said in ["the length of all paths in bytes (", "MAX_ENTRIES allows"] {
        assert!(text.contains(said), "{text}");
    }
}
