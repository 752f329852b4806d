//! The versioned objects on disk. Nothing but files: no index that could disagree with them, no HTTP, no S3 types.
//!
//! ```text
//! DIR/sources/web/main.zip/@00000002-0b5c…/main.zip         the bytes
//! DIR/sources/web/main.zip/@00000002-0b5c…/version.json     what is known about them
//! DIR/.backlog-bridge/lock, tmp/
//! ```
//!
//! A version is prepared in `tmp/` and appears by one rename: whenever the process is killed, it is wholly there or not at all.
//! The number in front of its name is what makes it the newest. A delete marker is a version without bytes.

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use tempfile::{NamedTempFile, TempDir};
use uuid::Uuid;

use super::{
    error::StoreError,
    key_path,
    version::{Content, Numbered, Version, folders_in, newest, numbered},
};

/// What a person finds who opens the folder.
const README: &str = "\
This folder is the S3 of backlog-bridge on this machine.

BUCKET/KEY/@NUMBER-VERSION/ is one version of an object: its bytes and version.json, which describes them.
The highest number is the newest version. A version without bytes marks that the object was deleted.
The folder may be deleted as a whole while backlog-bridge is not running.
";

/// How long a lock is waited for that somebody may be giving up.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// How much that is damaged is told of.
const MOST_TOLD: usize = 1_000;

/// Versioned objects in a folder. Calls block; any number of threads may make them.
///
/// Every bucket is versioned and needs no creation: one that nothing was written to is empty.
pub struct Store {
    dir: PathBuf,
    /// Who changes what the tree of folders holds has it alone.
    tree: RwLock<()>,
    /// What was said to be damaged.
    told: Mutex<HashSet<String>>,
    /// Held as long as the store is open. The system lets go of it when the process dies.
    lock: File,
}

/// What must be true of the newest version for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Write in any case.
    None,
    /// There is no object (`If-None-Match: *`).
    Absent,
    /// The object has this `ETag` (`If-Match`), without quotes.
    Matches(String),
}

impl Store {
    /// Opens the store in `dir`, which is created if it does not exist. What a killed process left unfinished is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if `dir` is not a directory, not writable, or in use. Its text says what a person can do.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let refused = |source: io::Error| {
            let dir = dir.to_owned();
            match source.kind() {
                ErrorKind::AlreadyExists if dir.is_symlink() && !dir.exists() => {
                    StoreError::DeadLink { dir }
                }
                ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                    StoreError::NotADirectory { dir }
                }
                ErrorKind::InvalidFilename => StoreError::PathTooLong { dir },
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    StoreError::NotWritable { dir, source }
                }
                _ => StoreError::io("open the store", &dir, source),
            }
        };
        let own = dir.join(".backlog-bridge");
        fs::create_dir_all(&own).map_err(refused)?;
        let lock = lock(&own.join("lock")).map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse {
                dir: dir.to_owned(),
            },
            TryLockError::Error(source) => refused(source),
        })?;
        let store = Self {
            dir: dir.to_owned(),
            tree: RwLock::default(),
            told: Mutex::default(),
            lock,
        };
        match fs::remove_dir_all(store.tmp()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error)),
            _ => fs::create_dir(store.tmp()).map_err(refused)?,
        }
        fs::write(dir.join("README.txt"), README).map_err(refused)?;
        Ok(store)
    }

    /// Whether the store is still the one that was opened. Who finds another one in its place must not write to it: another
    /// process may.
    ///
    /// # Errors
    ///
    /// [`StoreError::Gone`] if not; [`StoreError::Io`] if nobody can say.
    pub fn is_ours(&self) -> Result<(), StoreError> {
        let path = self.dir.join(".backlog-bridge").join("lock");
        let dir = self.dir.clone();
        let held = self.lock.metadata();
        let held = held.map_err(|error| StoreError::io("read", &path, error))?;
        match fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(StoreError::Gone { dir }),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Err(StoreError::Gone { dir }),
                _ => Err(StoreError::io("read", &path, error)),
            },
        }
    }

    /// A file to write an object's bytes to before they become a version. It vanishes when it is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::DiskFull`], [`StoreError::Gone`], [`StoreError::Io`].
    pub fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        self.is_ours()?;
        // Somebody may have tidied up.
        if !self.tmp().exists() {
            create_folders(&self.tmp())?;
        }
        NamedTempFile::new_in(self.tmp())
            .map_err(|error| StoreError::io("write to", &self.tmp(), error))
    }

    /// Makes `bytes` the newest version of an object. `content` describes them.
    ///
    /// # Errors
    ///
    /// [`StoreError::PreconditionFailed`] or [`StoreError::NoSuchKey`] if `condition` does not hold: of any number of
    /// writers with the same condition, one wins. [`StoreError::DiskFull`] and others if the files cannot be written. Nothing
    /// was stored then, unless only the last sync to disk failed.
    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: NamedTempFile,
        content: Content,
        condition: &Precondition,
    ) -> Result<Version, StoreError> {
        // The slow part, while others may still read and write.
        sync(bytes.path())?;
        self.commit(bucket, key, Some((bytes, content)), condition)
    }

    /// Puts a delete marker on top of an object, whether there is one or not.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: &Precondition,
    ) -> Result<Version, StoreError> {
        self.commit(bucket, key, None, condition)
    }

    /// Removes one version for good and returns what it was, or `None` if there is none with this id.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn remove(
        &self,
        bucket: &str,
        key: &str,
        version_id: &str,
    ) -> Result<Option<Version>, StoreError> {
        let _alone = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder(bucket, key);
        let mut found = numbered(&folder)?.into_iter();
        let Some(found) = found.find(|found| found.version_id == version_id) else {
            return Ok(None);
        };
        let removed = Version::read(&found.path)?;
        // Like its coming, its going is one rename.
        let gone = self.tmp().join(Uuid::new_v4().simple().to_string());
        fs::rename(&found.path, &gone)
            .map_err(|error| StoreError::io("remove", &found.path, error))?;
        sync(&folder)?;
        // The rest is tidying, and the next open does it too.
        let _ = fs::remove_dir_all(&gone);
        let bucket = self.bucket_folder(bucket);
        for empty in folder.ancestors().take_while(|&parent| parent != bucket) {
            if fs::remove_dir(empty).is_err() {
                break;
            }
        }
        Ok(Some(removed))
    }

    /// The newest version of an object, or the one with this id; `None` if there is no such version. May be a delete marker.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn version(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
    ) -> Result<Option<Version>, StoreError> {
        let _shared = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let found = numbered(&self.folder(bucket, key))?;
        let Some(id) = version_id else {
            return self.newest(&found);
        };
        let found = found.iter().find(|found| id == found.version_id);
        found.map(|found| Version::read(&found.path)).transpose()
    }

    /// The newest of these versions. What is damaged is passed over and told of once, so that a put on what is left heals
    /// the object.
    fn newest(&self, found: &[Numbered]) -> Result<Option<Version>, StoreError> {
        let (newest, damaged) = newest(found)?;
        for error in damaged {
            self.tell(&error);
        }
        Ok(newest)
    }

    fn tell(&self, error: &StoreError) {
        let text = error.to_string();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST_TOLD && told.insert(text.clone()) {
            tracing::warn!("{text}; until then it counts as if it were not there");
        }
    }

    /// Every version of an object, the newest first, but for those that are damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn versions(&self, bucket: &str, key: &str) -> Result<Vec<Version>, StoreError> {
        let _shared = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let found = numbered(&self.folder(bucket, key))?;
        let read = found.iter().map(|found| Version::read(&found.path));
        let whole = read.filter_map(|read| match read {
            Err(error @ StoreError::Damaged { .. }) => {
                self.tell(&error);
                None
            }
            read => Some(read),
        });
        whole.collect()
    }

    /// Every key of a bucket that has a version, be it a delete marker, in the order of S3: by bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>, StoreError> {
        let _shared = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let root = self.bucket_folder(bucket);
        let mut keys = Vec::new();
        let mut pending: Vec<Vec<String>> = vec![Vec::new()];
        while let Some(names) = pending.pop() {
            let mut has_versions = false;
            for name in folders_in(&root.join(names.iter().collect::<PathBuf>()))? {
                if name.starts_with('@') {
                    has_versions = true;
                } else {
                    pending.push([names.as_slice(), &[name]].concat());
                }
            }
            if has_versions {
                keys.extend(key_path::key(&names));
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// The buckets that were created or written to, by name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn buckets(&self) -> Result<Vec<String>, StoreError> {
        let folders = folders_in(&self.dir)?.into_iter();
        let mut buckets: Vec<_> = folders
            .filter_map(|folder| key_path::key(&[folder]))
            .collect();
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// Makes a bucket that [`Store::buckets`] lists although nothing was written to it.
    ///
    /// # Errors
    ///
    /// [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let _alone = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        create_folders(&self.bucket_folder(bucket))
    }

    fn commit(
        &self,
        bucket: &str,
        key: &str,
        object: Option<(NamedTempFile, Content)>,
        condition: &Precondition,
    ) -> Result<Version, StoreError> {
        let _alone = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        self.is_ours()?;
        let folder = self.folder(bucket, key);
        let found = numbered(&folder)?;
        condition.check(self.newest(&found)?)?;
        let number = match found.first() {
            Some(last) => last
                .number
                .checked_add(1)
                .ok_or_else(|| StoreError::Number {
                    path: last.path.clone(),
                    why: "has a number that leaves no room for a newer version".into(),
                })?,
            None => 1,
        };
        let draft = TempDir::new_in(self.tmp())
            .map_err(|error| StoreError::io("write to", &self.tmp(), error))?;
        let content = match object {
            Some((bytes, content)) => {
                let path = draft.path().join(key_path::file_name(key));
                bytes
                    .persist(&path)
                    .map_err(|error| StoreError::io("write", &path, error.error))?;
                Some(content)
            }
            None => None,
        };
        let version = Version::new(key, &folder, number, content);
        let description = version.describe(draft.path())?;
        sync(&description)?;
        sync(draft.path())?;

        create_folders(&folder)?;
        // From here on the version exists.
        fs::rename(draft.path(), version.folder())
            .map_err(|error| StoreError::io("write", version.folder(), error))?;
        // Nothing is left there that the draft could remove.
        let _ = draft.keep();
        sync(&folder)?;
        Ok(version)
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join(".backlog-bridge").join("tmp")
    }

    fn bucket_folder(&self, bucket: &str) -> PathBuf {
        self.dir.join(key_path::folder(bucket))
    }

    fn folder(&self, bucket: &str, key: &str) -> PathBuf {
        self.bucket_folder(bucket).join(key_path::folder(key))
    }
}

impl Precondition {
    fn check(&self, newest: Option<Version>) -> Result<(), StoreError> {
        let current = newest.and_then(|newest| newest.content);
        match (self, current) {
            (Self::None, _) | (Self::Absent, None) => Ok(()),
            (Self::Matches(etag), Some(content)) if content.etag == *etag => Ok(()),
            (Self::Matches(_), None) => Err(StoreError::NoSuchKey),
            (Self::Absent | Self::Matches(_), Some(_)) => Err(StoreError::PreconditionFailed),
        }
    }
}

/// The lock, for as long as the file is open. Who was killed a moment ago may still hold it: a process of its own that was
/// just beginning has the file open until it is another program.
fn lock(path: &Path) -> Result<File, TryLockError> {
    let end = Instant::now() + LOCK_WITHIN;
    loop {
        let file = File::create(path).map_err(TryLockError::Error)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOCK_AGAIN),
            locked => return locked.map(|()| file),
        }
    }
}

/// Creates a folder and those above it, so that they outlast a power cut.
fn create_folders(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folders(parent)?;
        fs::create_dir(folder).map_err(|error| StoreError::io("create", folder, error))?;
        sync(parent)?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| StoreError::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write, thread};

    use super::*;

    const BUCKET: &str = "sources";
    const KEY: &str = "web/main.zip";

    fn put(store: &Store, text: &str, condition: &Precondition) -> Result<Version, StoreError> {
        let mut bytes = store.temporary()?;
        bytes.write_all(text.as_bytes()).unwrap();
        let content = Content {
            // Any text will do: the store compares it and no more.
            etag: format!("etag of {text}"),
            size: text.len() as u64,
            content_type: "text/plain".into(),
            metadata: BTreeMap::from([("git-ref".into(), "refs/heads/main".into())]),
            checksums: BTreeMap::new(),
        };
        store.put(BUCKET, KEY, bytes, content, condition)
    }

    fn texts(store: &Store) -> Vec<Option<String>> {
        let text = |version: &Version| {
            version
                .content
                .as_ref()
                .map(|_| io::read_to_string(version.open().unwrap()).unwrap())
        };
        store
            .versions(BUCKET, KEY)
            .unwrap()
            .iter()
            .map(text)
            .collect()
    }

    #[test]
    fn the_last_put_is_the_newest_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..12 {
            put(&store, &n.to_string(), &Precondition::None).unwrap();
        }
        let newest = store.version(BUCKET, KEY, None).unwrap();
        drop(store);

        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.version(BUCKET, KEY, None).unwrap(), newest);
        let expected: Vec<_> = (0..12).rev().map(|n| Some(n.to_string())).collect();
        assert_eq!(texts(&store), expected);
    }

    #[test]
    fn of_many_writers_with_one_condition_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut condition = Precondition::Absent;
        for round in 1..=3 {
            let won: Vec<Version> = thread::scope(|scope| {
                let (store, condition) = (&store, &condition);
                let writers: Vec<_> = (0..16)
                    .map(|n| scope.spawn(move || put(store, &format!("{round}.{n}"), condition)))
                    .collect();
                writers
                    .into_iter()
                    .filter_map(|writer| match writer.join().unwrap() {
                        Ok(version) => Some(version),
                        Err(StoreError::PreconditionFailed) => None,
                        Err(error) => panic!("{error}"),
                    })
                    .collect()
            });
            assert_eq!(won.len(), 1);
            assert_eq!(store.versions(BUCKET, KEY).unwrap().len(), round);
            condition = Precondition::Matches(won[0].content.clone().unwrap().etag);
        }
    }

    #[test]
    fn a_delete_marker_counts_as_no_object() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = put(&store, "first", &Precondition::Absent).unwrap();
        let marker = store.delete(BUCKET, KEY, &Precondition::None).unwrap();
        let matches = Precondition::Matches("etag of first".into());
        assert!(matches!(
            put(&store, "second", &matches),
            Err(StoreError::NoSuchKey)
        ));
        put(&store, "second", &Precondition::Absent).unwrap();
        assert_eq!(
            texts(&store),
            [Some("second".into()), None, Some("first".into())]
        );

        for version in [&first, &marker] {
            let removed = store.remove(BUCKET, KEY, &version.version_id).unwrap();
            assert_eq!(removed.as_ref(), Some(version));
        }
        assert_eq!(texts(&store), [Some("second".into())]);
    }

    #[test]
    fn a_removed_object_leaves_no_folder_but_its_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let version = put(&store, "text", &Precondition::None).unwrap();
        store.remove(BUCKET, KEY, &version.version_id).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(BUCKET)).unwrap().count(), 0);
        assert_eq!(store.buckets().unwrap(), [BUCKET]);
    }

    #[test]
    fn what_a_killed_process_left_is_gone_at_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        put(&store, "whole", &Precondition::None).unwrap();
        let half = store.tmp().join("half");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("main.zip"), "ha").unwrap();
        // A process that is killed runs no destructors: the lock goes, the files stay.
        store.temporary().unwrap().keep().unwrap();
        drop(store);

        let store = Store::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
        assert_eq!(texts(&store), [Some("whole".into())]);
    }

    #[test]
    fn keys_may_lie_inside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let keys = ["a", "a/", "a//b", "a/b", "a/b/c", "あ", "../a"];
        for key in keys {
            store.delete(BUCKET, key, &Precondition::None).unwrap();
        }
        let mut expected = keys.map(String::from);
        expected.sort_unstable();
        assert_eq!(store.keys(BUCKET).unwrap(), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_lock_that_is_being_given_up_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        // A process that was just beginning has the file open, too.
        let inherited = store.lock.try_clone().unwrap();
        drop(store);
        let started = Instant::now();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(inherited);
        });
        Store::open(dir.path()).unwrap();
        assert!(started.elapsed() > Duration::from_millis(250));
    }

    #[test]
    fn a_store_that_cannot_be_opened_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let taken = dir.path().join("taken");
        let _open = Store::open(&taken).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let long = dir.path().join("n".repeat(5_000));
        let bytes = long.as_os_str().len();
        let place = dir.path().display();
        for (dir, expected) in [
            (
                link,
                format!(
                    "the store {place}/link is a link that leads nowhere: remove it, or choose another directory"
                ),
            ),
            (
                long,
                format!(
                    "the store's path is too long for this system ({bytes} bytes): choose another directory"
                ),
            ),
            (
                taken,
                format!(
                    "the store {place}/taken is in use by another process: stop that process or choose another directory"
                ),
            ),
            (
                file.join("below"),
                format!(
                    "the store {place}/file/below cannot be opened because there is a file in its place: choose another directory"
                ),
            ),
            (
                file,
                format!(
                    "the store {place}/file cannot be opened because there is a file in its place: choose another directory"
                ),
            ),
        ] {
            let error = Store::open(&dir).err().map(|error| error.to_string());
            assert_eq!(error, Some(expected));
        }
    }
}
