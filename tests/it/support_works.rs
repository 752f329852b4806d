//! The test parts are what they say they are.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::support::{
    MAIN,
    git_server::{Fault, GitServer, Op},
    oracle::{
        Entry, assert_readable_by_others, assert_zip_equals, check_zip, expected_entries, read_zip,
    },
    process::{git, run_within},
    upstream::{Content, Repository, Upstream},
};

const LIMIT: Duration = Duration::from_mins(1);

/// Runs the real git as a client of the server.
fn client(server: &GitServer, folder: &Path, args: &[&str]) -> Output {
    let mut git = git();
    git.current_dir(folder)
        .arg("-c")
        .arg(format!("http.sslCAInfo={}", server.ca_file().display()))
        .args(args);
    run_within(&mut git, LIMIT).expect("git is installed")
}

/// Sends one request over a new connection, and returns what came until the server closed it.
fn raw(server: &GitServer, request: &str, body: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(server.ca_file()).unwrap();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let address = server.base().replace("https://", "");
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).map(drop);
    (answer, end)
}

fn one_file() -> (Upstream, Repository, String) {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let commit = repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    (upstream, repository, commit)
}

const HANDSHAKE: &str = "GET /git/APP/web.git/info/refs?service=git-upload-pack";

#[test]
fn answers_go_wrong_as_told_and_come_right_again() {
    let (upstream, ..) = one_file();
    let server = GitServer::start(upstream.root(), None);
    let answer = |fault| {
        server.fault_once(Op::Handshake, fault);
        let (answer, end) = raw(&server, HANDSHAKE, b"");
        (String::from_utf8_lossy(&answer).into_owned(), end.is_ok())
    };
    for status in [403, 404, 500] {
        let (text, _) = answer(Fault::Status(status));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }

    let (text, _) = answer(Fault::Redirect("https://elsewhere:1".into()));
    let location = "https://elsewhere:1/git/APP/web.git/info/refs?service=git-upload-pack";
    assert!(text.starts_with("HTTP/1.1 302 "), "{text}");
    assert!(text.contains(location), "{text}");

    let (text, _) = answer(Fault::response(|right| [&b"changed "[..], &right].concat()));
    assert!(
        text.contains("changed 001e# service=git-upload-pack"),
        "{text}"
    );

    let started = Instant::now();
    answer(Fault::Delay(Duration::from_millis(200)));
    assert!(started.elapsed() >= Duration::from_millis(200));

    let (text, whole) = answer(Fault::CutAfter(10));
    assert!(
        text.contains("001e# serv") && !text.contains("service"),
        "{text}"
    );
    assert!(!whole || !text.ends_with("0\r\n\r\n"), "{text}");

    let started = Instant::now();
    let (text, _) = answer(Fault::Drip(1, Duration::from_millis(2)));
    let bytes = server.requests().pop().unwrap().response_bytes;
    assert!(started.elapsed() >= Duration::from_millis(2) * u32::try_from(bytes).unwrap());
    assert!(
        text.contains("\r\n1\r\n#\r\n1\r\n \r\n1\r\ns\r\n"),
        "{text}"
    );

    server.fault(Op::Fetch, Fault::Status(500));
    let (right, _) = raw(&server, HANDSHAKE, b"");
    assert!(right.starts_with(b"HTTP/1.1 200 "), "one fault, one answer");
}

#[test]
fn a_fault_lasts_until_it_is_cleared() {
    let (upstream, ..) = one_file();
    let server = GitServer::start(upstream.root(), None);
    let url = server.url("APP/web");
    let works = || {
        let folder = tempfile::tempdir().unwrap();
        let output = client(&server, folder.path(), &["clone", "--bare", &url, "c"]);
        output.status.success()
    };
    server.fault(Op::Fetch, Fault::CutAfter(40));
    assert_eq!([works(), works()], [false, false]);
    server.clear_faults();
    assert!(works());
}

/// A commit with everything that a tree can hold.
#[test]
fn a_cached_pack_is_the_same_pack_again() {
    let (upstream, repository, commit) = one_file();
    let server = GitServer::start(upstream.root(), None);
    server.cache_packs(true);
    let body = format!(
        "0011command=fetch0001000fno-progress0032want {commit}\n000cdeepen 10009done\n0000"
    );
    let request = "POST /git/APP/web.git/git-upload-pack";
    let fetch = |protocol: &str| {
        let headers = format!(
            "{request} HTTP/1.1\r\nGit-Protocol: {protocol}\r\nContent-Type: application/x-git-upload-pack-request\r\nX-Rest:"
        );
        let (answer, _) = raw(&server, &headers, body.as_bytes());
        answer
    };
    let first = fetch("version=2");
    assert!(
        first.starts_with(b"HTTP/1.1 200 "),
        "{}",
        first.escape_ascii()
    );
    let chunk = first.windows(8).position(|w| w == b"packfile");
    assert!(chunk.is_some(), "{}", first.escape_ascii());
    // With the repository gone, only the server's memory can answer.
    fs::remove_dir_all(repository.path()).unwrap();
    let second = fetch("version=2");
    assert!(second.ends_with(&first[first.len() - 60..]));
    server.cache_packs(false);
    assert!(fetch("version=2").starts_with(b"HTTP/1.1 404 "));
}

fn one_of_each() -> (Upstream, Repository, String) {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let files: Vec<(&[u8], Content)> = vec![
        (b"a.txt", crate::support::generate::source(5000, 1).into()),
        (b"empty", "".into()),
        (b"latin-\xe9", "e".into()),
        (b"link", Content::Symlink("a.txt".into())),
        (b"lib", Content::Submodule("1".repeat(40))),
        (b"bin/run", Content::Executable("run".into())),
        ("日本/語 \"q\".txt".as_bytes(), "n".into()),
    ];
    let commit = repository.commit_on(MAIN, &files);
    (upstream, repository, commit)
}

#[test]
fn git_says_what_a_commit_holds() {
    let (_upstream, repository, commit) = one_of_each();
    let entries = expected_entries(&repository, &commit);
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (&e.path[..], e.mode, e.content.len()))
        .collect();
    let expected: [(&[u8], u32, usize); 7] = [
        (b"a.txt", 0o100_644, 5000),
        (b"bin/run", 0o100_755, 3),
        (b"empty", 0o100_644, 0),
        (b"latin-\xe9", 0o100_644, 1),
        (b"lib", 0o160_000, 0),
        (b"link", 0o120_000, 5),
        ("日本/語 \"q\".txt".as_bytes(), 0o100_644, 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!(entries[2].id, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

/// What a tiny zip writer writes; a test changes it before that.
#[derive(Clone)]
struct Draft {
    local: DraftHeader,
    central: DraftHeader,
    data: Vec<u8>,
    attributes: u32,
    made_by: u16,
}

#[derive(Clone)]
struct DraftHeader {
    flags: u16,
    method: u16,
    date: u16,
    unix_time: u32,
    crc: u32,
    compressed: usize,
    size: usize,
    name: Vec<u8>,
}

impl DraftHeader {
    fn write(&self, zip: &mut Vec<u8>) {
        for number in [20, self.flags, self.method, 0, self.date] {
            zip.extend(number.to_le_bytes());
        }
        zip.extend(self.crc.to_le_bytes());
        for number in [self.compressed, self.size] {
            zip.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        zip.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        zip.extend([9, 0]);
    }

    /// The name and the field that has the time.
    fn write_rest(&self, zip: &mut Vec<u8>) {
        zip.extend(&self.name);
        zip.extend(b"UT\x05\0\x01");
        zip.extend(self.unix_time.to_le_bytes());
    }
}

fn drafts(entries: &[Entry]) -> Vec<Draft> {
    let draft = |entry: &Entry| {
        let mut name = entry.path.clone();
        let mode = match entry.mode {
            0o160_000 => {
                name.push(b'/');
                0o040_755
            }
            0o120_000 => 0o120_777,
            mode => mode,
        };
        let utf8 = !name.is_ascii() && std::str::from_utf8(&name).is_ok();
        let mut data = entry.content.clone();
        let deflate = data.len() > 100;
        if deflate {
            let level = flate2::Compression::default();
            let mut stream = flate2::read::DeflateEncoder::new(&entry.content[..], level);
            data.clear();
            stream.read_to_end(&mut data).unwrap();
        }
        let header = DraftHeader {
            flags: if utf8 { 1 << 11 } else { 0 },
            method: if deflate { 8 } else { 0 },
            date: 0x22,
            unix_time: 315_619_200,
            crc: crc32fast::hash(&entry.content),
            compressed: data.len(),
            size: entry.content.len(),
            name,
        };
        Draft {
            local: header.clone(),
            central: header,
            data,
            attributes: mode << 16,
            made_by: 0x0314,
        }
    };
    entries.iter().map(draft).collect()
}

fn write_zip(drafts: &[Draft], comment: &str) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for draft in drafts {
        directory.extend(b"PK\x01\x02");
        directory.extend(draft.made_by.to_le_bytes());
        draft.central.write(&mut directory);
        directory.extend([0; 6]);
        directory.extend(draft.attributes.to_le_bytes());
        directory.extend(u32::try_from(zip.len()).unwrap().to_le_bytes());
        draft.central.write_rest(&mut directory);

        zip.extend(b"PK\x03\x04");
        draft.local.write(&mut zip);
        draft.local.write_rest(&mut zip);
        zip.extend(&draft.data);
    }
    let at = u32::try_from(zip.len()).unwrap();
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(drafts.len()).unwrap().to_le_bytes();
    zip.extend([count, count].concat());
    zip.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    zip.extend(at.to_le_bytes());
    zip.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
    zip.extend(comment.as_bytes());
    zip
}

#[test]
fn the_oracle_accepts_what_is_right_and_so_do_others() {
    let (_upstream, repository, commit) = one_of_each();
    let expected = expected_entries(&repository, &commit);
    let zip = write_zip(&drafts(&expected), &format!("{commit}\ndelivery-1"));
    assert_zip_equals(&zip, &expected, &commit);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("right.zip");
    fs::write(&file, zip).unwrap();
    println!(
        "read by {:?}",
        assert_readable_by_others(&file, expected.len())
    );
}

type Tamper = fn(&mut Vec<Draft>);

/// 0 is a.txt, 1 bin/run, 4 the submodule lib/, 5 the link, 6 the Japanese name.
const FAULTS: [(&str, Tamper, &str); 19] = [
    (
        "wrong CRC",
        |d| both_of(d, 0, |h| h.crc ^= 1),
        "a.txt: wrong CRC-32",
    ),
    ("missing", |d| drop(d.remove(1)), "bin/run is missing"),
    ("too much", |d| d.push(renamed(&d[1], "z")), "z is too much"),
    ("twice", |d| d.push(d[1].clone()), "bin/run is there twice"),
    (
        "wrong mode",
        |d| d[1].attributes = 0o100_644 << 16,
        "mode 100644, not 100755",
    ),
    (
        "a link as a file",
        |d| d[5].attributes = 0o100_777 << 16,
        "mode 100777",
    ),
    (
        "lost UTF-8 flag",
        |d| both_of(d, 6, |h| h.flags = 0),
        "wrong flags",
    ),
    (
        "UTF-8 flag on ASCII",
        |d| both_of(d, 0, |h| h.flags = 1 << 11),
        "wrong flags",
    ),
    (
        "data descriptor",
        |d| both_of(d, 0, |h| h.flags = 8),
        "wrong flags",
    ),
    (
        "other time",
        |d| both_of(d, 0, |h| h.date = 0x23),
        "wrong time",
    ),
    (
        "a time that another time zone does not have",
        |d| {
            both_of(d, 0, |h| {
                (h.date, h.unix_time) = (0x21, 315_619_200 - 86_400);
            });
        },
        "wrong time",
    ),
    (
        "an odd second",
        |d| both_of(d, 0, |h| h.unix_time += 1),
        "wrong time",
    ),
    (
        "local differs in its time",
        |d| d[0].local.unix_time += 2,
        "disagree",
    ),
    ("local differs", |d| d[0].local.crc ^= 1, "disagree"),
    (
        "other content",
        |d| d[2] = renamed(&d[1], "empty"),
        "mode 100755, not 100644",
    ),
    (
        "wrong size",
        |d| both_of(d, 0, |h| h.size -= 1),
        "5000 bytes, not 4999",
    ),
    ("a gap", |d| d[0].data.push(0), "bin/run: begins at"),
    (
        "bytes behind the stream",
        |d| {
            d[0].data.push(0);
            both_of(d, 0, |h| h.compressed += 1);
        },
        "behind the deflate stream",
    ),
    (
        "not made by Unix",
        |d| d[0].made_by = 20,
        "wrong version made by",
    ),
];

#[test]
fn the_oracle_refuses_every_fault() {
    let (_upstream, repository, commit) = one_of_each();
    let expected = expected_entries(&repository, &commit);
    let comment = format!("{commit}\ndelivery-1");
    for (case, tamper, reason) in FAULTS {
        let mut drafts = drafts(&expected);
        tamper(&mut drafts);
        let error = check_zip(&write_zip(&drafts, &comment), &expected, &commit).unwrap_err();
        assert!(error.contains(reason), "{case}: {error}");
    }

    let right = drafts(&expected);
    for (case, comment) in [("another commit", "0\n1"), ("no delivery", commit.as_str())] {
        let error = check_zip(&write_zip(&right, comment), &expected, &commit).unwrap_err();
        assert!(error.contains("comment"), "{case}: {error}");
    }
    let right = write_zip(&right, &comment);
    for (case, zip) in [
        ("bytes before", [b"x", &right[..]].concat()),
        ("bytes behind", [&right[..], b"x"].concat()),
        ("cut", right[..right.len() - 1].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert!(check_zip(&zip, &expected, &commit).is_err(), "{case}");
    }
}

fn both_of(drafts: &mut [Draft], index: usize, change: fn(&mut DraftHeader)) {
    change(&mut drafts[index].local);
    change(&mut drafts[index].central);
}

fn renamed(draft: &Draft, name: &str) -> Draft {
    let mut draft = draft.clone();
    draft.local.name = name.into();
    draft.central.name = name.into();
    draft
}

#[test]
fn the_oracle_reads_a_zip64_of_the_zip_crate() {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    for number in 0..70_000 {
        writer.start_file(number.to_string(), options).unwrap();
    }
    let zip = writer.finish().unwrap().into_inner();
    assert_eq!(read_zip(&zip).unwrap().members.len(), 70_000);
}
