//! A pack that lies: whatever it holds ends in a clear error, and never in another archive.

use backlog_bridge::{limits::Limits, pack::PackError};
use gix::{ObjectId, objs::Kind};

use crate::support::{
    MAIN,
    fault::repair_checksum,
    generate::{noise, source},
    oracle::{Entry, assert_zip_equals, check_zip, expected_entries},
    pack_builder::{BLOB, FILE, PackBuilder, REF_DELTA, Step, delta, file, id_of, zlib},
    product::{Refusal, build_pack, refusal},
    upstream::{Content, Repository, Upstream},
};

/// An id that no object has.
const NOBODY: [u8; 20] = [0x11; 20];

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
    let built = build_pack(&pack, commit_id, &Limits::default()).unwrap();
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
        match build_pack(&changed, commit_id, &Limits::default()) {
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
    let built = build_pack(&pack.finish(), commit, &Limits::default()).unwrap();
    assert_zip_equals(&built.zip, &[file("a", b"a".to_vec())], &built.commit);
}
