//! What runs in a process of its own: parts of the product, and peers that are libraries.

use std::{
    convert::Infallible,
    env, fs,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use aws_sdk_s3::primitives::ByteStream;
use backlog_bridge::{
    archive::{Archive, Dates, Delivered},
    bucket::{Address, Condition, Label, Put, S3},
    limits::Limits,
    pack::Objects,
    progress::Progress,
    remote::{Connection, Remote, Tip},
    snapshot::Snapshot,
};
use flate2::{Decompress, FlushDecompress, Status};
use gix::{
    object::tree::EntryKind,
    odb::pack::data::{self, entry::Header},
};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    BUCKET, KEY, REF,
    support::s3::{ACCESS_KEY, SECRET_KEY, client},
};

/// Bytes that the uploader reads at a time, as many as the product.
const UPLOAD_CHUNK: usize = 128 * 1024;

/// Runs the part that the arguments name; `false` if they name none.
pub(crate) fn run(arguments: &[&str]) -> bool {
    match arguments {
        ["fetch-and-archive", url] => fetch_and_archive(url),
        ["save-pack", url, file] => save_pack(url, file),
        ["floor", pack, copy] => floor(pack, copy),
        ["gix", url, folder] => gix_and_zip(url, Path::new(folder)),
        ["upload", endpoint, file] => upload(endpoint, file),
        ["stages", url, endpoint] => stages(url, endpoint, None),
        ["stages", url, endpoint, git, commit] => stages(url, endpoint, Some((git, commit))),
        ["put", endpoint, way, bytes] => put(endpoint, way, bytes.parse().unwrap()),
        _ => return false,
    }
    true
}

fn connect(url: &str) -> (Connection, Tip) {
    let remote = Remote {
        url: url.into(),
        repository: "BENCH/tree".parse().unwrap(),
        login: None,
        deadline: None,
        heard: backlog_bridge::remote::Heard::default(),
        connections: backlog_bridge::remote::Connections::default(),
    };
    let mut connection = remote.connect().unwrap();
    let tip = connection.tip(&REF.parse().unwrap()).unwrap();
    (connection, tip.expect("a branch"))
}

/// What this program does between the handshake and the upload.
fn fetch_and_archive(url: &str) {
    let (mut connection, tip) = connect(url);
    let (limits, progress) = (Limits::default(), Progress::default());
    let receive = |wire: &mut dyn Read| Objects::receive(wire, &limits, &progress);
    let objects = connection
        .fetch(&tip, None, &std::sync::Arc::default(), receive)
        .unwrap()
        .unwrap();
    let snapshot = Snapshot::of(tip.commit, &objects, &limits).unwrap();
    let dates = Dates::default();
    let archive = Archive::write(
        snapshot.commit,
        snapshot.entries,
        objects,
        &dates,
        &progress,
    )
    .unwrap();
    assert!(archive.entries > 0);
}

fn save_pack(url: &str, file: &str) {
    let (mut connection, tip) = connect(url);
    let mut file = File::create(file).unwrap();
    let save = |wire: &mut dyn Read| io::copy(wire, &mut file);
    connection
        .fetch(&tip, None, &std::sync::Arc::default(), save)
        .unwrap()
        .unwrap();
}

/// What nobody can leave out who verifies a pack and keeps it: inflate, SHA-1 (the one that detects collisions, as git's
/// does), CRC-32, and a copy. Deltas are inflated and not applied, so it is a little less than that.
fn floor(pack: &str, copy: &str) {
    let pack = fs::read(pack).unwrap();
    let mut copy = File::create(copy).unwrap();
    let (_, objects) = data::header::decode(pack[..12].try_into().unwrap()).unwrap();
    let (mut offset, mut copied) = (12, 0);
    let mut out = vec![0; 64 * 1024];
    let mut zlib = Decompress::new(true);
    let mut sum = 0;
    for _ in 0..objects {
        let start = offset as u64;
        let entry = data::Entry::from_bytes(&pack[offset..], start, gix::hash::Kind::Sha1).unwrap();
        offset += entry.header_size();
        let is_delta = matches!(
            entry.header,
            Header::OfsDelta { .. } | Header::RefDelta { .. }
        );
        let mut id = gix::hash::hasher(gix::hash::Kind::Sha1);
        let mut crc32 = crc32fast::Hasher::new();
        zlib.reset(true);
        loop {
            let (read, made) = (zlib.total_in(), zlib.total_out());
            let status = zlib.decompress(&pack[offset..], &mut out, FlushDecompress::None);
            offset += usize::try_from(zlib.total_in() - read).unwrap();
            let bytes = &out[..usize::try_from(zlib.total_out() - made).unwrap()];
            if !is_delta {
                id.update(bytes);
                crc32.update(bytes);
            }
            if status.unwrap() == Status::StreamEnd {
                break;
            }
        }
        sum ^= crc32.finalize() ^ u32::from(id.try_finalize().unwrap().first_byte());
        if offset - copied > 128 * 1024 {
            copy.write_all(&pack[copied..offset]).unwrap();
            copied = offset;
        }
    }
    copy.write_all(&pack[copied..]).unwrap();
    std::hint::black_box(sum);
}

/// The way of a Rust program that uses what there is: gix clones, the `zip` crate writes.
fn gix_and_zip(url: &str, folder: &Path) {
    let depth = gix::remote::fetch::Shallow::DepthAtRemote(1.try_into().unwrap());
    let mut clone = gix::prepare_clone_bare(url, folder.join("tree.git"))
        .unwrap()
        .with_shallow(depth);
    let never = AtomicBool::new(false);
    let (repository, _) = clone.fetch_only(gix::progress::Discard, &never).unwrap();
    let tree = repository.head_commit().unwrap().tree().unwrap();
    let mut zip = ZipWriter::new(io::BufWriter::new(
        File::create(folder.join("tree.zip")).unwrap(),
    ));
    for entry in tree.traverse().breadthfirst.files().unwrap() {
        let mode = match entry.mode.kind() {
            EntryKind::BlobExecutable => 0o755,
            EntryKind::Commit => continue,
            _ => 0o644,
        };
        let options = SimpleFileOptions::default().unix_permissions(mode);
        zip.start_file(entry.filepath.to_string(), options).unwrap();
        let blob = repository.find_object(entry.oid).unwrap();
        zip.write_all(&blob.data).unwrap();
    }
    zip.finish().unwrap().flush().unwrap();
}

/// The cheapest upload there is: one request by the SDK, from a small program.
fn upload(endpoint: &str, file: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // With the default, 4 KiB, it takes four times as long.
        let body = ByteStream::read_from().path(file).buffer_size(UPLOAD_CHUNK);
        let body = body.build().await.unwrap();
        let put = client(endpoint, ACCESS_KEY, SECRET_KEY)
            .put_object()
            .bucket(BUCKET)
            .key(KEY)
            .body(body);
        put.send().await.unwrap();
    });
}

/// A first delivery, and, if there is a commit to move the branch to, a second one: a line of milliseconds for each.
fn stages(url: &str, endpoint: &str, next: Option<(&str, &str)>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = S3::at(endpoint, ACCESS_KEY, SECRET_KEY);
    deliver(&runtime, &s3, url);
    if let Some((git, commit)) = next {
        let folder = format!("--git-dir={git}");
        let moved = crate::support::process::git()
            .args([&folder, "update-ref", REF, commit])
            .status();
        assert!(moved.unwrap().success());
        deliver(&runtime, &s3, url);
    }
}

fn deliver(runtime: &tokio::runtime::Runtime, s3: &S3, url: &str) {
    let (limits, progress) = (Limits::default(), Progress::default());
    let at = Address {
        bucket: BUCKET,
        key: KEY,
    };
    let mut watch = Watch::default();
    let head = runtime.block_on(s3.head(at)).unwrap();
    let current = head.current;
    watch.lap("head");
    let (mut connection, tip) = connect(url);
    watch.lap("connect, tip");
    let mut times = None;
    let stock = current.as_ref().map(|current| {
        let holds = current.holds.clone().unwrap();
        let file = tempfile::tempfile().unwrap();
        let got = s3.get_found(at, current, file.try_clone().unwrap());
        runtime.block_on(got).unwrap();
        watch.lap("get");
        let delivered = Delivered {
            commit: holds.commit,
            tree: holds.tree.unwrap(),
            delivery_id: holds.delivery_id,
        };
        let (stock, before) = delivered.stock(&file, &limits, &progress).unwrap();
        times = Some(before);
        watch.lap("verify it");
        (holds.commit, stock)
    });
    let asked = Instant::now();
    let mut first_byte = None;
    let base = stock.as_ref().map(|(commit, _)| *commit);
    let receive = |wire: &mut dyn Read| {
        let mut wire = First {
            wire,
            asked,
            after: &mut first_byte,
        };
        match stock {
            Some((_, stock)) => {
                let objects = Objects::receive_onto(|| Ok(stock), &mut wire, &limits, &progress);
                objects.map(|objects| {
                    let Ok::<_, Infallible>(objects) = objects;
                    objects
                })
            }
            None => Objects::receive(&mut wire, &limits, &progress),
        }
    };
    let objects = connection
        .fetch(&tip, base, &std::sync::Arc::default(), receive)
        .unwrap()
        .unwrap();
    let wait = first_byte.unwrap_or_default();
    watch.split("wait for the pack", wait, "receive, verify");
    let snapshot = Snapshot::of(tip.commit, &objects, &limits).unwrap();
    watch.lap("walk the tree");
    let (now, before) = (head.time, times);
    let dates = Dates { now, before };
    let mut archive = Archive::write(
        snapshot.commit,
        snapshot.entries,
        objects,
        &dates,
        &progress,
    )
    .unwrap();
    let delivery_id = uuid::Uuid::new_v4().simple().to_string();
    archive.stamp(tip.commit, &delivery_id).unwrap();
    watch.lap("write the zip");
    let label = Label {
        space: "https://example.backlog.com/git",
        repository: &connection.remote().repository.clone(),
        ref_name: &REF.parse().unwrap(),
        commit: tip.commit,
        tree: snapshot.tree,
        about: &snapshot.about,
        url: None,
        delivery_id: &delivery_id,
        previous: None,
    };
    let condition = current.map_or(Condition::Absent, |current| {
        Condition::Unchanged(current.etag)
    });
    let put =
        runtime.block_on(s3.put(at, &archive, &label, &condition, &std::sync::Arc::default()));
    assert!(matches!(put, Ok(Put::Stored { .. })), "{put:?}");
    watch.lap("put");
    connection.tip(&REF.parse().unwrap()).unwrap();
    watch.lap("tip again");
    watch.print();
}

/// Stores an archive of zeros, on a connection that is open already as it is in a delivery: after the head.
fn put(endpoint: &str, way: &str, bytes: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = S3::at(endpoint, ACCESS_KEY, SECRET_KEY);
    let at = Address {
        bucket: BUCKET,
        key: KEY,
    };
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    let archive = Archive::of_file(file, 1).unwrap();
    let id = "1".repeat(40);
    let label = Label {
        space: "https://example.backlog.com/git",
        repository: &"BENCH/tree".parse().unwrap(),
        ref_name: &REF.parse().unwrap(),
        commit: id.parse().unwrap(),
        tree: id.parse().unwrap(),
        about: &backlog_bridge::snapshot::About::default(),
        url: None,
        delivery_id: "",
        previous: None,
    };
    let mut watch = Watch::default();
    assert!(runtime.block_on(s3.head(at)).unwrap().current.is_none());
    watch.lap("head");
    let put = runtime.block_on(async {
        match way {
            "whole" => {
                s3.put_whole(
                    at,
                    &archive,
                    &label,
                    &Condition::Absent,
                    &std::sync::Arc::default(),
                )
                .await
            }
            _ => {
                s3.put_in_parts(
                    at,
                    &archive,
                    &label,
                    &Condition::Absent,
                    &std::sync::Arc::default(),
                )
                .await
            }
        }
    });
    assert!(matches!(put, Ok(Put::Stored { .. })), "{put:?}");
    watch.lap("put");
    watch.print();
}

/// Takes the time until the first bytes come.
struct First<'a> {
    wire: &'a mut dyn Read,
    asked: Instant,
    after: &'a mut Option<Duration>,
}

impl Read for First<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.wire.read(buffer)?;
        self.after.get_or_insert_with(|| self.asked.elapsed());
        Ok(n)
    }
}

struct Watch {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            laps: Vec::new(),
        }
    }
}

impl Watch {
    fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.last.elapsed()));
        self.last = Instant::now();
    }

    fn split(&mut self, name: &'static str, first: Duration, rest: &'static str) {
        self.laps.push((name, first));
        self.laps
            .push((rest, self.last.elapsed().saturating_sub(first)));
        self.last = Instant::now();
    }

    /// To the file that `BENCH_STAGES` names, if it does: the first output is nobody's.
    fn print(&self) {
        let Some(path) = env::var_os("BENCH_STAGES") else {
            return;
        };
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for (name, time) in &self.laps {
            writeln!(file, "{name}\t{}", time.as_micros()).unwrap();
        }
        writeln!(file).unwrap();
    }
}
