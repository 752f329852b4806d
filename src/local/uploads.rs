//! Uploads in parts: files in the store's temporary folder until they are put together and become a version.
//!
//! They are forgotten with a restart, which real S3 would not do: whoever still sends parts is told
//! [`StoreError::NoSuchUpload`] and begins again, as the bridge does with a large archive.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use s3s::crypto::{Checksum as _, Md5};
use tempfile::TempPath;
use uuid::Uuid;

use super::{
    error::StoreError,
    store::{Precondition, Store},
    version::{Content, Version},
};

/// The smallest part that may come before another, in bytes.
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

/// An upload that was begun: where it goes, and the parts that are there.
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) content_type: String,
    pub(super) metadata: BTreeMap<String, String>,
    /// The checksum that each part must have, such as `CRC32`, if it was begun with one.
    pub(super) algorithm: Option<String>,
    pub(super) parts: BTreeMap<i32, Part>,
}

/// One part. Its file vanishes with it.
pub(super) struct Part {
    pub(super) bytes: TempPath,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    /// By algorithm, in base64.
    pub(super) checksums: BTreeMap<String, String>,
}

/// A part as the completion names it.
pub(super) struct Named {
    pub(super) number: i32,
    pub(super) etag: String,
    /// By algorithm, in base64.
    pub(super) checksums: BTreeMap<String, String>,
}

impl Part {
    /// The part's `ETag`, without quotes.
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }

    fn is(&self, named: &Named) -> bool {
        let mut checksums = named.checksums.iter();
        self.etag() == named.etag
            && checksums.all(|(algorithm, sum)| self.checksums.get(algorithm) == Some(sum))
    }
}

/// An MD5 as an `ETag` writes it.
pub(super) fn hex(md5: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*md5))
}

/// The uploads under way, by their ids.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Upload>>);

impl Uploads {
    /// Begins an upload and returns its id.
    pub(super) fn begin(&self, upload: Upload) -> String {
        let id = Uuid::new_v4().simple().to_string();
        self.all().insert(id.clone(), upload);
        id
    }

    /// Adds a part, in place of an earlier one with the same number.
    pub(super) fn put_part(
        &self,
        (bucket, key, id): (&str, &str, &str),
        number: i32,
        part: Part,
    ) -> Result<(), StoreError> {
        self.with((bucket, key, id), |upload| {
            upload.parts.insert(number, part);
        })
    }

    /// Looks at an upload.
    pub(super) fn with<T>(
        &self,
        (bucket, key, id): (&str, &str, &str),
        look: impl FnOnce(&mut Upload) -> T,
    ) -> Result<T, StoreError> {
        let mut uploads = self.all();
        match uploads.get_mut(id) {
            Some(upload) if upload.bucket == bucket && upload.key == key => Ok(look(upload)),
            _ => Err(StoreError::NoSuchUpload),
        }
    }

    /// Ends an upload without a trace.
    pub(super) fn abort(&self, target: (&str, &str, &str)) -> Result<(), StoreError> {
        self.with(target, |_| ())?;
        self.all().remove(target.2);
        Ok(())
    }

    /// Makes the named parts the newest version in `store`. The upload lives on if that fails.
    pub(super) fn complete(
        &self,
        store: &Store,
        target: (&str, &str, &str),
        parts: &[Named],
        condition: &Precondition,
    ) -> Result<Version, StoreError> {
        self.with(target, |_| ())?;
        // Out of reach while it is put together: a second completion must not make a second version.
        let upload = self.all().remove(target.2);
        let upload = upload.ok_or(StoreError::NoSuchUpload)?;
        let completed = upload.put_together(store, parts, condition);
        if completed.is_err() {
            self.all().insert(target.2.to_owned(), upload);
        }
        completed
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    fn put_together(
        &self,
        store: &Store,
        named: &[Named],
        condition: &Precondition,
    ) -> Result<Version, StoreError> {
        if !named.is_sorted_by(|one, next| one.number < next.number) {
            return Err(StoreError::InvalidPartOrder);
        }
        if let Some(algorithm) = &self.algorithm
            && !named
                .iter()
                .all(|part| part.checksums.contains_key(algorithm))
        {
            let algorithm = algorithm.clone();
            return Err(StoreError::ChecksumMissing { algorithm });
        }
        let mut bytes = store.temporary()?;
        let mut size = 0;
        let mut digests = Md5::new();
        for (index, named_part) in named.iter().enumerate() {
            let number = named_part.number;
            let part = self.parts.get(&number);
            let part = part
                .filter(|part| part.is(named_part))
                .ok_or(StoreError::InvalidPart { number })?;
            if part.size < MIN_PART_BYTES && index + 1 < named.len() {
                return Err(StoreError::PartTooSmall { number });
            }
            size += File::open(&part.bytes)
                .and_then(|mut part| io::copy(&mut part, &mut bytes))
                .map_err(|error| StoreError::io("write", bytes.path(), error))?;
            digests.update(&part.md5);
        }
        let content = Content {
            etag: format!("{}-{}", hex(&digests.finalize()), named.len()),
            size,
            content_type: self.content_type.clone(),
            metadata: self.metadata.clone(),
            // A checksum of the whole was never sent, and one of the checksums says nothing about the bytes.
            checksums: BTreeMap::new(),
        };
        store.put(&self.bucket, &self.key, bytes, content, condition)
    }
}
