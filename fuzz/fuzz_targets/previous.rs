//! The archive of an earlier delivery, as somebody else may have left it in the bucket: any bytes, or the right ones edited.
#![no_main]

use std::{
    io::{Read, Write},
    sync::LazyLock,
};

use backlog_bridge::{
    archive::{Archive, Dates, Delivered},
    pack::Objects,
    progress::Progress,
    snapshot::Snapshot,
};
use backlog_bridge_fuzz::{Feed, Pack, held, limits};
use gix::objs::Kind;
use libfuzzer_sys::fuzz_target;

static RIGHT: LazyLock<(Delivered, Vec<u8>)> = LazyLock::new(|| {
    let mut pack = Pack::default();
    let text = pack.add(Kind::Blob, &b"some text, ".repeat(20));
    let empty = pack.add(Kind::Blob, b"");
    let tree = |entries: &[(&str, &str, gix::ObjectId)]| {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(id.as_bytes());
        }
        tree
    };
    let folder = pack.add(
        Kind::Tree,
        &tree(&[("100755", "run", text), ("120000", "link", empty)][..1]),
    );
    let root = tree(&[
        ("100644", "a.txt", text),
        ("100644", "empty", empty),
        ("40000", "folder", folder),
        ("160000", "module", text),
    ]);
    let root = pack.add(Kind::Tree, &root);
    let commit = pack.commit(root);
    let progress = Progress::default();
    let pack = pack.finish();
    let objects = Objects::receive(&mut &pack[..], &limits(), &progress).expect("a right pack");
    let snapshot = Snapshot::of(commit.into(), &objects, &limits()).expect("a right tree");
    let delivery_id = "0123456789abcdef0123456789abcdef".to_owned();
    let mut archive = Archive::write(
        snapshot.commit,
        snapshot.entries,
        objects,
        &Dates::default(),
        &progress,
    )
    .expect("a temporary file");
    archive
        .stamp(commit.into(), &delivery_id)
        .expect("a temporary file");
    let mut zip = Vec::new();
    archive
        .reader()
        .read_to_end(&mut zip)
        .expect("a temporary file");
    let delivered = Delivered {
        commit: commit.into(),
        tree: root,
        delivery_id,
    };
    (delivered, zip)
});

fuzz_target!(|data: &[u8]| {
    let (delivered, right) = &*RIGHT;
    let mut zip = right.clone();
    let mut feed = Feed(data);
    if feed.byte() == 0xff {
        zip = feed.0.to_vec();
    } else {
        while !feed.is_empty() {
            let (what, at) = (feed.byte(), u16::from_le_bytes([feed.byte(), feed.byte()]));
            let at = usize::from(at) % (zip.len() + 1);
            match what % 4 {
                0 if at < zip.len() => zip[at] = feed.byte(),
                1 if at < zip.len() => zip[at] ^= 1 << (feed.byte() % 8),
                2 => zip.truncate(at),
                _ => drop(zip.splice(at..at, feed.bytes(64).iter().copied())),
            }
        }
    }
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&zip).expect("a temporary file");
    let taken = held(zip.len(), || {
        delivered.stock(&file, &limits(), &Progress::default())
    });
    // One byte too many or another one, and nothing of it is used. Only bits that mean nothing to a deflater may differ.
    if taken.is_ok() {
        assert_eq!(zip.len(), right.len());
    } else {
        assert_ne!(&zip, right);
    }
});
