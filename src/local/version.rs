//! One version of an object on disk: a folder, named after its number and its id, with the bytes and what is known of them.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{error::StoreError, key_path};

/// How long a description may be, in bytes. Ours are far below 10 KiB.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// One version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The object's key.
    pub key: String,
    /// The version id: random, so that nobody can know it who was not told.
    pub version_id: String,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub modified: OffsetDateTime,
    /// What was stored, or `None` if this is a delete marker.
    pub content: Option<Content>,
    /// Where the files are.
    #[serde(skip)]
    folder: PathBuf,
}

/// What is known about an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The `ETag`, without quotes.
    pub etag: String,
    /// How long the object is, in bytes.
    pub size: u64,
    /// The Content-Type.
    pub content_type: String,
    /// The user metadata, without the `x-amz-meta-` in front.
    pub metadata: BTreeMap<String, String>,
    /// By algorithm, such as `CRC32`, the checksum in base64.
    pub checksums: BTreeMap<String, String>,
}

impl Version {
    /// A version that comes into being now, as number `number` in the folder of its key.
    pub(super) fn new(key: &str, folder: &Path, number: u64, content: Option<Content>) -> Self {
        let version_id = Uuid::new_v4().simple().to_string();
        Self {
            key: key.to_owned(),
            modified: OffsetDateTime::now_utc(),
            content,
            folder: folder.join(format!("@{number:08}-{version_id}")),
            version_id,
        }
    }

    /// Reads what a version's folder says of it.
    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(key_path::DESCRIPTION_NAME);
        let damaged = |why: String| StoreError::Damaged {
            path: path.clone(),
            why,
        };
        let json = match open_file(&path) {
            Ok(Some(mut file)) => {
                let mut json = Vec::new();
                let most = (&mut file).take(MAX_DESCRIPTION_BYTES);
                { most }.read_to_end(&mut json).map(|_| json)
            }
            Ok(None) => return Err(damaged("it is no file".into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(damaged("it is missing".into()));
            }
            Err(error) => Err(error),
        };
        let json = json.map_err(|error| StoreError::io("read", &path, error))?;
        let mut version: Self =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if let Some(content) = &version.content {
            let values = content.metadata.values();
            let mut headers = values.chain([&content.etag, &content.content_type]);
            if !headers.all(|value| HeaderValue::from_str(value).is_ok()) {
                return Err(damaged("it holds what no header can say".into()));
            }
        }
        folder.clone_into(&mut version.folder);
        Ok(version)
    }

    /// Writes into `draft` what [`Version::read`] reads once that is the version's folder. Returns where.
    pub(super) fn describe(&self, draft: &Path) -> Result<PathBuf, StoreError> {
        let description = draft.join(key_path::DESCRIPTION_NAME);
        let json = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .map_err(|error| StoreError::io("describe", &self.folder, error))?;
        fs::write(&description, json)
            .map_err(|error| StoreError::io("write", &description, error))?;
        Ok(description)
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the version's bytes. They stay readable while they are open, even if the version is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchKey`] if the version was removed meanwhile, or is a delete marker.
    pub fn open(&self) -> Result<File, StoreError> {
        let path = self.path();
        match open_file(&path) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(StoreError::Damaged {
                path,
                why: "it is no file".into(),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::NoSuchKey),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// Where the version's bytes are, unless it is a delete marker.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(key_path::file_name(&self.key))
    }
}

/// Opens a file; `None` if it is something else, of which opening alone might take for ever.
fn open_file(path: &Path) -> io::Result<Option<File>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    File::open(path).map(Some)
}

/// A version as its folder's name tells it.
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) version_id: String,
    pub(super) path: PathBuf,
}

/// The newest of `found` that can be read, the newest first, and what is damaged above it.
///
/// # Errors
///
/// [`StoreError`] if nobody can say which it is, or it cannot be read now.
pub(super) fn newest(found: &[Numbered]) -> Result<(Option<Version>, Vec<StoreError>), StoreError> {
    let mut damaged = Vec::new();
    for (nth, version) in found.iter().enumerate() {
        if let Some(other) = found.get(nth + 1)
            && other.number == version.number
        {
            let name = other.path.file_name().unwrap_or_default();
            return Err(StoreError::Number {
                path: version.path.clone(),
                why: format!("and {} have the same number", name.display()),
            });
        }
        match Version::read(&version.path) {
            Err(err @ StoreError::Damaged { .. }) => damaged.push(err),
            read => return Ok((Some(read?), damaged)),
        }
    }
    Ok((None, damaged))
}

/// The versions in a key's folder, the newest first.
pub(super) fn numbered(folder: &Path) -> Result<Vec<Numbered>, StoreError> {
    let mut found: Vec<_> = folders_in(folder)?
        .into_iter()
        .filter_map(|name| {
            let (number, version_id) = name.strip_prefix('@')?.split_once('-')?;
            Some(Numbered {
                number: number.parse().ok()?,
                version_id: version_id.to_owned(),
                path: folder.join(&name),
            })
        })
        .collect();
    found.sort_unstable_by_key(|found| Reverse(found.number));
    Ok(found)
}

/// The names of the folders in a folder; none if it does not exist. Other names than UTF-8 are nothing of ours.
pub(super) fn folders_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let read = |error| StoreError::io("read", folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
