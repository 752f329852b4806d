//! A server that lies: whatever it sends ends in a clear error, soon, in little memory, and never in another archive.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use backlog_bridge::{config::Limits, error::chain, pack::PackError, snapshot::SnapshotError};
use gix::{ObjectId, objs::Kind};
use support::{
    fault::repair_checksum,
    generate::{noise, source},
    oracle::{Entry, assert_zip_equals, check_zip, expected_entries},
    pack_builder::{
        BLOB, FILE, FOLDER, PackBuilder, REF_DELTA, Step, delta, file, id_of, tree, zlib,
    },
    product::{Built, Refusal, build_pack, on_disk, try_build},
    upstream::{Content, Repository, Upstream},
};

const MAIN: &str = "refs/heads/main";
/// An id that no object has.
const NOBODY: [u8; 20] = [0x11; 20];

fn limits() -> Limits {
    Limits::default()
}

fn refusal(case: &str, pack: &[u8], commit: ObjectId) -> Refusal {
    match build_pack(pack, commit, &limits()) {
        Ok(_) => panic!("{case}: an archive was made"),
        Err(refusal) => refusal,
    }
}

/// Refused by the pack reader, as what the words say.
fn assert_damaged(case: &str, pack: &[u8], words: &str) {
    let refusal = refusal(case, pack, NOBODY.into());
    let text = refusal.text();
    assert!(matches!(refusal, Refusal::Pack(_)), "{case}: {text}");
    assert!(text.contains(words), "{case}: {text}");
}

/// A commit of `a`, which holds `a`.
fn small() -> (PackBuilder, ObjectId) {
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"a");
    let tree = pack.tree(&[(FILE, "a", blob)]);
    let commit = pack.commit(tree);
    (pack, commit)
}

/// A commit with everything that a pack can hold, as git packs it.
fn real() -> (Upstream, Repository, String, Vec<Entry>) {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let mut files: Vec<(String, Content)> = (0..12)
        .map(|n| {
            let text = [&source(1_500, 1)[..], format!("{n}").as_bytes()].concat();
            (format!("src/{n}.rs"), text.into())
        })
        .collect();
    files.push(("noise".into(), noise(400, 2).into()));
    files.push(("empty".into(), "".into()));
    files.push(("link".into(), Content::Symlink(b"noise".into())));
    let commit = repository.commit_on(MAIN, &files);
    repository.repack();
    let expected = expected_entries(&repository, &commit);
    (upstream, repository, commit, expected)
}

fn pack_of(repository: &Repository) -> Vec<u8> {
    let args = [
        "pack-objects",
        "--revs",
        "--stdout",
        "--delta-base-offset",
        "-q",
    ];
    let pack = repository.git_with_input(&args, b"refs/heads/main\n");
    assert!(pack.starts_with(b"PACK"));
    pack
}

#[test]
fn a_pack_with_any_byte_changed_is_refused() {
    let (_upstream, repository, commit, expected) = real();
    let pack = pack_of(&repository);
    let commit_id = commit.parse().unwrap();
    let built = build_pack(&pack, commit_id, &limits()).unwrap();
    assert_zip_equals(&built.zip, &expected, &commit);
    for at in 0..pack.len() {
        let mut changed = pack.clone();
        changed[at] ^= 1 << (at % 8);
        refusal(&format!("byte {at}"), &changed, commit_id);
    }
}

#[test]
fn a_changed_pack_whose_checksum_was_made_right_never_gives_another_archive() {
    let (_upstream, repository, commit, expected) = real();
    let pack = pack_of(&repository);
    let commit_id = commit.parse().unwrap();
    let (mut refused, mut same) = (0, 0);
    for seed in 0..4_000 {
        let random = noise(16, seed);
        let number = |at: usize| usize::from(u16::from_le_bytes([random[at], random[at + 1]]));
        let mut changed = pack.clone();
        for change in 0..=seed % 3 {
            let at = number(usize::try_from(change).unwrap() * 2) % (pack.len() - 20);
            match random[10] % 4 {
                0 => changed[at] = random[11],
                1 => changed[at] ^= 1 << (random[11] % 8),
                2 => drop(changed.remove(at)),
                _ => changed.insert(at, random[11]),
            }
        }
        repair_checksum(&mut changed);
        match build_pack(&changed, commit_id, &limits()) {
            Ok(built) => {
                same += 1;
                let checked = check_zip(&built.zip, &expected, &commit);
                assert_eq!(checked, Ok(()), "seed {seed}");
            }
            Err(_) => refused += 1,
        }
    }
    println!("{refused} refused, {same} the same archive");
    assert!(refused > 3_000);
}

#[test]
fn a_pack_that_ends_anywhere_is_refused() {
    let (_upstream, repository, commit, _) = real();
    let pack = pack_of(&repository);
    let commit = commit.parse().unwrap();
    for end in 0..pack.len() {
        let refusal = refusal(&format!("{end} bytes"), &pack[..end], commit);
        let truncated = matches!(refusal, Refusal::Pack(PackError::Truncated));
        assert!(truncated, "{end} bytes: {}", refusal.text());
    }
}

#[test]
fn a_pack_with_something_behind_its_end_is_refused() {
    let (pack, _) = small();
    let pack = pack.finish();
    for (case, tail) in [
        ("one byte", &b"\0"[..]),
        ("a second pack", &pack),
        ("much", &noise(100_000, 1)),
    ] {
        assert_damaged(
            case,
            &[&pack[..], tail].concat(),
            "more objects than announced",
        );
    }
}

#[test]
fn a_pack_whose_header_is_wrong_is_refused() {
    let (pack, _) = small();
    let right = pack.finish();
    let with = |at: usize, bytes: &[u8]| {
        let mut pack = right.clone();
        pack[at..at + bytes.len()].copy_from_slice(bytes);
        repair_checksum(&mut pack);
        pack
    };
    for (case, pack, words) in [
        ("nothing", Vec::new(), "ends early"),
        (
            "no pack",
            b"<!DOCTYPE html><html></html>".to_vec(),
            "not recognized",
        ),
        ("version 3", with(4, &[0, 0, 0, 3]), "not version 2"),
        ("version 4", with(4, &[0, 0, 0, 4]), "version"),
        (
            "no objects",
            pack.finish_as(0),
            "more objects than announced",
        ),
        (
            "an object too few",
            pack.finish_as(2),
            "more objects than announced",
        ),
        ("an object too many", pack.finish_as(4), "the pack"),
        ("401,025 objects", pack.finish_as(401_025), "MAX_ENTRIES"),
        (
            "4,294,967,295 objects",
            pack.finish_as(u32::MAX),
            "MAX_ENTRIES",
        ),
        (
            "a wrong checksum",
            [&right[..right.len() - 1], b"\0"].concat(),
            "checksum",
        ),
    ] {
        assert_damaged(case, &pack, words);
    }
}

#[test]
fn an_entry_that_lies_about_itself_is_refused() {
    let stream = zlib(&[b'a'; 100]);
    let long = zlib(&noise(100, 1));
    let bomb = zlib(&vec![0; 50_000_000]);
    let mut wrong_adler = stream.clone();
    *wrong_adler.last_mut().unwrap() ^= 1;
    let with_dictionary = [&[0x78, 0xbb, 0, 0, 0, 1][..], &stream[2..]].concat();
    let entry = |type_id, size, stream: &[u8]| {
        let (mut pack, _) = small();
        pack.entry(type_id, size, b"", stream);
        pack.finish()
    };
    // Nine digits more than a size can have.
    let endless = |digit: u8| {
        let mut pack = PackBuilder::new();
        pack.entry(BLOB, 0, b"", b"");
        let mut bytes = pack.finish();
        bytes.splice(12..13, std::iter::repeat_n(digit, 60));
        repair_checksum(&mut bytes);
        bytes
    };
    for (case, pack, words) in [
        (
            "smaller than it is",
            entry(BLOB, 99, &stream),
            "longer than announced",
        ),
        (
            "nothing, and it is something",
            entry(BLOB, 0, &stream),
            "longer than announced",
        ),
        (
            "larger than it is",
            entry(BLOB, 101, &stream),
            "shorter than announced",
        ),
        (
            "a tree larger than it is",
            entry(2, 101, &stream),
            "shorter than announced",
        ),
        (
            "a bomb of one byte",
            entry(BLOB, 1, &bomb),
            "longer than announced",
        ),
        (
            "a tree that is a bomb",
            entry(2, 1, &bomb),
            "longer than announced",
        ),
        (
            "larger than a file may be",
            entry(BLOB, 1 << 27 | 1, &stream),
            "MAX_BLOB_BYTES",
        ),
        (
            "2^60 bytes",
            entry(BLOB, 1 << 60, &stream),
            "MAX_BLOB_BYTES",
        ),
        (
            "a commit of 2^60 bytes",
            entry(1, 1 << 60, &stream),
            "MAX_BLOB_BYTES",
        ),
        (
            "a tree of 100 MB",
            entry(2, 100_000_000, &stream),
            "MAX_ENTRIES",
        ),
        ("type 0", entry(0, 100, &long), "type 0"),
        ("type 5", entry(5, 100, &long), "type 5"),
        ("no zlib stream", entry(BLOB, 100, &[b'a'; 200]), "damaged"),
        ("no stream at all", entry(BLOB, 100, b""), "the pack"),
        (
            "a wrong Adler-32",
            entry(BLOB, 100, &wrong_adler),
            "damaged",
        ),
        (
            "a zlib dictionary",
            entry(BLOB, 100, &with_dictionary),
            "damaged",
        ),
        ("a size without an end", endless(0xff), "damaged"),
        ("a size of zeros without an end", endless(0xb0), "damaged"),
    ] {
        assert_damaged(case, &pack, words);
    }
}

#[test]
fn a_delta_that_does_not_fit_is_refused() {
    let base = b"0123456789";
    let copy = Step::Copy(0, 10);
    let endless = [&[0xff; 30][..], &[1]].concat();
    for (case, delta, words) in [
        ("right but for nothing", Vec::new(), "without sizes"),
        ("half a size", vec![10, 0x80], "without sizes"),
        ("a base's size without an end", endless.clone(), "over 2^63"),
        (
            "a result's size without an end",
            [&[10], &endless[..]].concat(),
            "over 2^63",
        ),
        (
            "for a smaller base",
            delta(9, 9, &[Step::Copy(0, 9)]),
            "another base",
        ),
        ("for a larger base", delta(11, 10, &[copy]), "another base"),
        (
            "copies behind the base's end",
            delta(10, 10, &[Step::Copy(1, 10)]),
            "does not fit",
        ),
        (
            "copies from far behind it",
            delta(10, 10, &[Step::Copy(1 << 31, 10)]),
            "does not fit",
        ),
        (
            "copies 64 KiB by saying nothing",
            delta(10, 10, &[Step::Raw(&[0x80])]),
            "does not fit",
        ),
        (
            "makes too much by copying",
            delta(10, 19, &[copy, copy]),
            "does not fit",
        ),
        (
            "makes too much by inserting",
            delta(10, 10, &[copy, Step::Insert(b"x")]),
            "does not fit",
        ),
        ("makes too little", delta(10, 11, &[copy]), "does not fit"),
        (
            "makes nothing of nothing",
            delta(10, 1, &[]),
            "does not fit",
        ),
        (
            "the reserved instruction",
            delta(10, 10, &[Step::Raw(&[0]), copy]),
            "does not fit",
        ),
        (
            "inserts more than there is",
            delta(10, 20, &[copy, Step::Raw(&[10, 1])]),
            "does not fit",
        ),
        (
            "a copy without its numbers",
            delta(10, 10, &[Step::Raw(&[0xff, 0])]),
            "does not fit",
        ),
        (
            "a result over the limit",
            delta(10, 1 << 27 | 1, &[copy]),
            "MAX_BLOB_BYTES",
        ),
        (
            "a result of 2^62",
            delta(10, 1 << 62, &[copy]),
            "MAX_BLOB_BYTES",
        ),
    ] {
        let (mut by_offset, _) = small();
        let (offset, id) = by_offset.blob(base);
        let mut by_id = by_offset.clone();
        by_offset.ofs_delta(offset, &delta);
        by_id.ref_delta(id, &delta);
        assert_damaged(case, &by_offset.finish(), words);
        assert_damaged(case, &by_id.finish(), words);
    }
}

#[test]
fn a_delta_without_its_base_is_refused() {
    let nothing = delta(1, 1, &[Step::Copy(0, 1)]);
    let with = |add: &dyn Fn(&mut PackBuilder) -> u64| {
        let (mut pack, _) = small();
        let _ = add(&mut pack);
        pack.finish()
    };
    let missing = "the bases of 1 deltas are not in it";
    for (case, pack, words) in [
        (
            "no such object",
            with(&|p| p.ref_delta(NOBODY.into(), &nothing)),
            missing,
        ),
        (
            "its own base",
            with(&|p| p.distant_delta(0, &nothing)),
            "before the pack's start",
        ),
        (
            "before the pack",
            with(&|p| p.distant_delta(1 << 20, &nothing)),
            "before the pack's start",
        ),
        (
            "2^62 before the pack",
            with(&|p| p.distant_delta(1 << 62, &nothing)),
            "before the pack's start",
        ),
        (
            "the pack's own header",
            with(&|p| p.ofs_delta(1, &nothing)),
            missing,
        ),
        (
            "the middle of an object",
            with(&|p| p.ofs_delta(13, &nothing)),
            missing,
        ),
        (
            "on another that has none",
            with(&|p| {
                let first = p.ref_delta(NOBODY.into(), &nothing);
                p.ofs_delta(first, &nothing)
            }),
            "the bases of 2 deltas are not in it",
        ),
        (
            // Each says that it makes the other one's base; ids tell no lies, so nobody begins.
            "two that stand on each other",
            with(&|p| {
                p.ref_delta(id_of(Kind::Blob, b"x"), &delta(1, 1, &[Step::Insert(b"y")]));
                p.ref_delta(id_of(Kind::Blob, b"y"), &delta(1, 1, &[Step::Insert(b"x")]))
            }),
            "the bases of 2 deltas are not in it",
        ),
    ] {
        assert_damaged(case, &pack, words);
    }
    let mut pack = PackBuilder::new();
    let short = [REF_DELTA << 4 | 4, 1, 2, 3];
    pack.entry(BLOB, 0, b"", b"");
    let mut bytes = pack.finish();
    bytes.splice(12..13, short);
    repair_checksum(&mut bytes);
    assert_damaged("half an id", &bytes, "the pack");
}

#[test]
fn a_delta_that_makes_its_own_base_is_taken_once() {
    let (mut pack, commit) = small();
    let (offset, id) = pack.blob(b"x");
    let same = delta(1, 1, &[Step::Copy(0, 1)]);
    let made = pack.ofs_delta(offset, &same);
    pack.ofs_delta(made, &same);
    pack.ref_delta(id, &same);
    let built = build_pack(&pack.finish(), commit, &limits()).unwrap();
    assert_zip_equals(&built.zip, &[file("a", b"a".to_vec())], &built.commit);
}

#[test]
fn a_bomb_of_a_dozen_objects_is_refused_at_once() {
    for (case, leaf) in [("files", true), ("empty folders", false)] {
        let mut pack = PackBuilder::new();
        let mut id = if leaf {
            pack.blob(b"boom").1
        } else {
            pack.tree::<&str>(&[])
        };
        for level in 0..10 {
            let names: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
            let mode = if leaf && level == 0 { FILE } else { FOLDER };
            let entries: Vec<_> = names.iter().map(|name| (mode, name, id)).collect();
            id = pack.tree(&entries);
        }
        let commit = pack.commit(id);
        assert_eq!(pack.objects(), 12, "{case}");
        let started = Instant::now();
        let refusal = refusal(case, &pack.finish(), commit);
        assert!(
            refusal.text().contains("MAX_ENTRIES"),
            "{case}: {}",
            refusal.text()
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{case}");
        if let Some(bytes) = peak_memory() {
            assert!(bytes < 200 << 20, "{case}: {bytes} bytes of memory");
        }
    }
}

/// The most memory that this process ever had, in bytes; `None` if other tests may run in it, or the system does not say.
fn peak_memory() -> Option<u64> {
    std::env::var_os("NEXTEST")?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
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
fn names_that_are_not_safe_to_extract_are_refused() {
    let long = "n".repeat(4_097);
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
        ("a path on Windows", b"a\\b"),
        ("a path upwards on Windows", b"..\\a"),
        ("4,097 bytes", long.as_bytes()),
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
        let folder = "f".repeat(255);
        let name = "n".repeat(length - 15 * 256);
        let mut tree = pack.tree(&[(FILE, &name, blob)]);
        for _ in 0..15 {
            tree = pack.tree(&[(FOLDER, &folder, tree)]);
        }
        let commit = pack.commit(tree);
        let built = build_pack(&pack.finish(), commit, &limits());
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
    let default = limits();
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
        let built = try_build(&on_disk(&repository), "refs/tags/odd", &limits());
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
