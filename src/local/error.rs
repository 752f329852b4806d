//! Why the store refuses: one sentence each that says what a person can do, or what a client did wrong.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};
use s3s::{S3Error, S3ErrorCode};

use crate::{aws::ERROR_MESSAGE, error::chain, plain};

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file is where the store should be, or above it.
    #[error("the store {} cannot be opened because there is a file in its place: choose another directory", dir.display())]
    NotADirectory {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// The system refuses to let us write.
    #[error("the store {} is not writable: change its permissions or choose another directory", dir.display())]
    NotWritable {
        /// The directory that was asked for.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store's place is a link to nowhere.
    #[error("the store {} is a link that leads nowhere: remove it, or choose another directory", dir.display())]
    DeadLink {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// The store's place has a name that no file system takes.
    #[error("the store's path is too long for this system ({} bytes): choose another directory", dir.as_os_str().len())]
    PathTooLong {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// What this process has open is not what is there now.
    #[error("the store {} was deleted, moved or replaced while it was in use: start again", dir.display())]
    Gone {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// Another process has the store open, or this one has it open already.
    #[error("the store {} is in use by another process: stop that process or choose another directory", dir.display())]
    InUse {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// No port could be had on loopback.
    #[error("cannot listen on loopback")]
    Listen {
        /// What the system said.
        source: io::Error,
    },
    /// There is no room left.
    #[error("the disk is full at {}: nothing was stored", path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the file system refuses.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A `version.json` that the store did not write, or not like this.
    #[error("{} is damaged: restore it, or delete the folder it is in: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        why: String,
    },
    /// Nobody can say which of two versions is the newer one, or none could be newer than this one.
    #[error("{} {why}: delete the folder that is wrong", path.display())]
    Number {
        /// The version's folder.
        path: PathBuf,
        /// What is wrong with its number.
        why: String,
    },
    /// Something that is no folder is where a key's versions should be.
    #[error("{} is no folder, and an object's versions belong there: move it elsewhere", path.display())]
    NotAFolder {
        /// What is in the way.
        path: PathBuf,
    },
    /// The key makes a longer path than this system can have.
    #[error("the key is too long for this system's paths")]
    KeyTooLong,
    /// [`Precondition::Matches`](super::Precondition::Matches) on an object that does not exist.
    #[error("there is no such object")]
    NoSuchKey,
    /// The newest version is not what the [`Precondition`](super::Precondition) asks for.
    #[error("the object has changed")]
    PreconditionFailed,
    /// No upload in parts of this object has this id: never begun, ended, or forgotten with a restart.
    #[error("there is no such upload: it was completed, aborted, or begun before a restart")]
    NoSuchUpload,
    /// A part that is named at completion is not what was uploaded.
    #[error("part {number} is missing or has another ETag")]
    InvalidPart {
        /// The part's number.
        number: i32,
    },
    /// A part is named without the checksum that its upload was begun with.
    #[error("the upload was begun with {algorithm}, which must be named for each part")]
    ChecksumMissing {
        /// Such as `CRC32`.
        algorithm: String,
    },
    /// Parts that are named at completion are not in ascending order.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is smaller than S3 takes.
    #[error("part {number} is smaller than 5 MiB and not the last")]
    PartTooSmall {
        /// The part's number.
        number: i32,
    },
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // Or this process may not write as much.
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            ErrorKind::InvalidFilename => Self::KeyTooLong,
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => Self::NotAFolder { path },
            _ => Self::Io {
                doing,
                path,
                source,
            },
        }
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::KeyTooLong => S3ErrorCode::KeyTooLongError,
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::InvalidPart { .. } => S3ErrorCode::InvalidPart,
            StoreError::ChecksumMissing { .. } => S3ErrorCode::InvalidRequest,
            StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            StoreError::PartTooSmall { .. } => S3ErrorCode::EntityTooSmall,
            StoreError::DiskFull { .. } => S3ErrorCode::Custom("InsufficientStorage".into()),
            StoreError::Damaged { .. }
            | StoreError::Number { .. }
            | StoreError::NotAFolder { .. }
            | StoreError::Gone { .. } => S3ErrorCode::Custom("DamagedStore".into()),
            _ => S3ErrorCode::InternalError,
        };
        // Neither is one of those that clients try again at once: that frees no disk, and mends nothing.
        let status = match &error {
            StoreError::DiskFull { .. } => Some(StatusCode::INSUFFICIENT_STORAGE),
            StoreError::Damaged { .. }
            | StoreError::Number { .. }
            | StoreError::NotAFolder { .. }
            | StoreError::Gone { .. } => Some(StatusCode::UNPROCESSABLE_ENTITY),
            _ => None,
        };
        let text = chain(&error);
        // Whoever writes is told of a full disk.
        if status.is_some_and(|status| status != StatusCode::INSUFFICIENT_STORAGE)
            || code == S3ErrorCode::InternalError
        {
            tracing::warn!("the embedded S3: {text}");
        }
        let mut answer = Self::with_message(code, text.clone());
        if let Some(status) = status {
            answer.set_status_code(status);
        }
        // The answer to a HEAD has no body that could say it.
        if let Ok(words) = HeaderValue::from_bytes(plain::foreign(&text).as_bytes()) {
            let name = HeaderName::from_static(ERROR_MESSAGE);
            answer.set_headers(HeaderMap::from_iter([(name, words)]));
        }
        answer.set_source(Box::new(error));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_status_of_its_own_that_clients_do_not_try_again() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = StoreError::io("write", Path::new("store/file"), kind.into());
            let answer = S3Error::from(error);
            assert_eq!(answer.status_code(), Some(StatusCode::INSUFFICIENT_STORAGE));
            assert_eq!(
                answer.message(),
                Some(
                    format!(
                        "the disk is full at store/file: nothing was stored: {}",
                        io::Error::from(kind)
                    )
                    .as_str()
                )
            );
        }
    }
}
