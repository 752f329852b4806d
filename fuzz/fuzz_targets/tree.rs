//! The trees of a commit: bytes as they are, or entries with any modes and names. What is taken is safe to extract.
#![no_main]

use std::collections::HashSet;

use backlog_bridge::{
    archive::{self, Archive, Dates},
    pack::Objects,
    progress::Progress,
    snapshot::Snapshot,
};
use backlog_bridge_fuzz::{Feed, Pack, held, limits};
use gix::{ObjectId, objs::Kind};
use libfuzzer_sys::fuzz_target;

const MODES: [&str; 8] = [
    "100644", "100755", "120000", "160000", "40000", "100664", "040000", "0",
];

fuzz_target!(|data: &[u8]| {
    let Some((&shape, rest)) = data.split_first() else {
        return;
    };
    let mut pack = Pack::default();
    let blob = pack.add(Kind::Blob, b"content");
    let root = if shape % 2 == 0 {
        pack.add(Kind::Tree, rest)
    } else {
        trees(rest, &mut pack, blob)
    };
    let commit = pack.commit(root);
    let pack = pack.finish();
    held(pack.len(), || read(&pack, commit, root));
});

fn read(pack: &[u8], commit: ObjectId, root: ObjectId) {
    let progress = Progress::default();
    let Ok(objects) = Objects::receive(&mut &*pack, &limits(), &progress) else {
        return;
    };
    let Ok(snapshot) = Snapshot::of(commit.into(), &objects, &limits()) else {
        return;
    };
    assert_eq!(snapshot.tree, root);
    let mut paths = HashSet::new();
    for entry in &snapshot.entries {
        assert!(entry.path.len() <= 4096);
        assert!(!entry.path.contains(&0));
        for name in entry.path.split(|&byte| byte == b'/') {
            assert!(!name.is_empty() && name != b".");
        }
        // A backslash separates names on Windows.
        for name in entry.path.split(|byte| b"/\\".contains(byte)) {
            assert!(name != b"..");
            assert!(!name.eq_ignore_ascii_case(b".git"));
            assert!(!name.eq_ignore_ascii_case(b"git~1"));
        }
        assert!(paths.insert(&entry.path), "{:?} twice", entry.path);
    }
    for path in &paths {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let folder = gix::bstr::BString::from(&path[..at]);
            assert!(
                !paths.contains(&folder),
                "{folder:?} is a file and a folder"
            );
        }
    }
    let mut archive = Archive::write(
        snapshot.commit,
        snapshot.entries.clone(),
        objects,
        &Dates::default(),
        &progress,
    )
    .expect("a temporary file");
    archive
        .stamp(commit.into(), &"0".repeat(32))
        .expect("a temporary file");
    let listed = archive::list(archive.reader(), usize::MAX).expect("a zip that can be read");
    assert_eq!(listed.len(), snapshot.entries.len());
}

/// Each tree may hold the ones before it; the last one is the root.
fn trees(data: &[u8], pack: &mut Pack, blob: ObjectId) -> ObjectId {
    let mut feed = Feed(data);
    let mut ids = vec![blob];
    let mut tree = Vec::new();
    while !feed.is_empty() {
        let what = feed.byte();
        if what == 0xff {
            ids.push(pack.add(Kind::Tree, &tree));
            tree.clear();
            continue;
        }
        tree.extend_from_slice(MODES[usize::from(what & 7)].as_bytes());
        tree.push(b' ');
        tree.extend_from_slice(feed.bytes(255));
        tree.push(0);
        tree.extend_from_slice(ids[usize::from(what >> 3) % ids.len()].as_bytes());
    }
    pack.add(Kind::Tree, &tree)
}
