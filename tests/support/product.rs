//! The product's way from a Git server, or from the bytes of a pack, to a zip: the library's calls in their order.

use std::io::Read;

use backlog_bridge::{
    archive::{Archive, Dates},
    error::chain,
    limits::Limits,
    pack::{Objects, PackError},
    progress::Progress,
    push::CommitId,
    remote::Remote,
    secrets::Login,
    snapshot::{Snapshot, SnapshotError},
};

use super::upstream::Repository;

/// What every archive made here is stamped with.
pub const DELIVERY_ID: &str = "0123456789abcdef0123456789abcdef";

/// An archive and what it was made of.
pub struct Built {
    pub zip: Vec<u8>,
    pub commit: String,
    pub snapshot: Snapshot,
    pub pack_bytes: u64,
}

/// Why there is no archive.
#[derive(Debug)]
pub enum Refusal {
    Pack(PackError),
    Snapshot(SnapshotError),
}

impl Refusal {
    /// What people read.
    pub fn text(&self) -> String {
        match self {
            Self::Pack(error) => chain(error),
            Self::Snapshot(error) => chain(error),
        }
    }
}

/// A repository at a URL.
pub fn remote(url: &str, login: Option<(&str, &str)>) -> Remote {
    Remote {
        url: url.to_owned(),
        repository: "APP/web".parse().unwrap(),
        login: login.map(|(username, password)| Login {
            username: username.to_owned(),
            password: password.to_owned().into(),
        }),
        deadline: None,
        heard: backlog_bridge::remote::Heard::default(),
        connections: backlog_bridge::remote::Connections::default(),
    }
}

/// A repository on disk, which the real `git upload-pack` reads.
pub fn on_disk(repository: &Repository) -> Remote {
    remote(&format!("file://{}", repository.path().display()), None)
}

/// Connects, asks for the tip, fetches, and archives.
///
/// # Errors
///
/// [`Refusal`] if the pack or the tree is refused.
///
/// # Panics
///
/// If the server cannot be talked to, or has no such ref.
pub fn try_build(remote: &Remote, ref_name: &str, limits: &Limits) -> Result<Built, Refusal> {
    let mut connection = remote.connect().unwrap();
    let tip = connection.tip(&ref_name.parse().unwrap()).unwrap();
    let tip = tip.unwrap_or_else(|| panic!("{ref_name} is not there"));
    let receive = |wire: &mut dyn Read| Objects::receive(wire, limits, &Progress::default());
    let objects = connection
        .fetch(&tip, None, &std::sync::Arc::default(), receive)
        .unwrap();
    archive(tip.commit, objects.map_err(Refusal::Pack)?, limits)
}

/// [`try_build`] within the limits that a user has by default.
///
/// # Panics
///
/// If there is no archive.
pub fn build(remote: &Remote, ref_name: &str) -> Built {
    match try_build(remote, ref_name, &Limits::default()) {
        Ok(built) => built,
        Err(refusal) => panic!("{}", refusal.text()),
    }
}

/// Archives a commit of a pack.
///
/// # Errors
///
/// [`Refusal`] if the pack or the tree is refused.
pub fn build_pack(
    mut pack: &[u8],
    commit: gix::ObjectId,
    limits: &Limits,
) -> Result<Built, Refusal> {
    let objects = Objects::receive(&mut pack, limits, &Progress::default());
    archive(commit.into(), objects.map_err(Refusal::Pack)?, limits)
}

/// Why a pack is refused, within the limits that a user has by default.
///
/// # Panics
///
/// If it is not.
pub fn refusal(case: &str, pack: &[u8], commit: gix::ObjectId) -> Refusal {
    match build_pack(pack, commit, &Limits::default()) {
        Ok(_) => panic!("{case}: an archive was made"),
        Err(refusal) => refusal,
    }
}

fn archive(commit: CommitId, objects: Objects, limits: &Limits) -> Result<Built, Refusal> {
    let snapshot = Snapshot::of(commit, &objects, limits).map_err(Refusal::Snapshot)?;
    let pack_bytes = objects.pack_bytes();
    let entries = snapshot.entries.clone();
    let mut archive = Archive::write(
        commit,
        entries,
        objects,
        &Dates::default(),
        &Progress::default(),
    )
    .unwrap();
    archive.stamp(commit, DELIVERY_ID).unwrap();
    let mut zip = Vec::new();
    archive.reader().read_to_end(&mut zip).unwrap();
    assert_eq!(archive.bytes(), zip.len() as u64);
    assert_eq!(archive.entries, snapshot.entries.len());
    Ok(Built {
        zip,
        commit: commit.to_string(),
        snapshot,
        pack_bytes,
    })
}
