//! Bytes in and out: a request's body into a file with every checksum verified, and a file into a response's body. Neither is
//! ever in memory as a whole.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Bytes, Frame, SizeHint},
};
use s3s::{
    Body, S3Error, S3Request, S3Result, StdError, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256},
    dto::StreamingBlob,
    s3_error,
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};

use super::{error::StoreError, store::Store};

/// How much of a file is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// How many pieces of a body may wait for the disk.
const PIECES_IN_FLIGHT: usize = 4;

/// The algorithms of S3, as its messages spell them.
const ALGORITHMS: [&str; 5] = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];

/// A body that arrived whole and is what its sender says it is.
pub(super) struct SavedBody {
    pub(super) bytes: NamedTempFile,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    /// By algorithm, in base64: the ones that were sent, or CRC64NVME.
    pub(super) checksums: BTreeMap<String, String>,
}

/// What the headers say about a body, and which trailers they promise.
struct Claims {
    headers: HeaderMap,
}

/// Receives the body of `request` into a temporary file of the store. All of it is read, even if the disk is full: clients
/// listen only after they have sent everything.
///
/// # Errors
///
/// `BadDigest` or `InvalidDigest` if a checksum or Content-MD5 does not match, `IncompleteBody` if the body ends early or its
/// signature does not match, and what the store's error stands for.
pub(super) async fn receive<T>(
    store: &Arc<Store>,
    request: &mut S3Request<T>,
    body: Option<StreamingBlob>,
) -> S3Result<SavedBody> {
    let claims = Claims {
        headers: std::mem::take(&mut request.headers),
    };
    let mut hasher = claims.hasher();
    let mut body = body.map(Body::from).unwrap_or_default();

    let (pieces, mut inbox) = mpsc::channel::<Bytes>(PIECES_IN_FLIGHT);
    let store = Arc::clone(store);
    let writer = tokio::task::spawn_blocking(move || {
        let mut bytes = store.temporary()?;
        let (mut size, mut md5) = (0, Md5::new());
        while let Some(piece) = inbox.blocking_recv() {
            md5.update(&piece);
            hasher.update(&piece);
            size += piece.len() as u64;
            let written = bytes.write_all(&piece);
            written.map_err(|error| StoreError::io("write", bytes.path(), error))?;
        }
        Ok::<_, StoreError>((bytes, size, md5.finalize(), checksums(hasher)))
    });
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| s3_error!(IncompleteBody, "the body is broken: {error}"));
        if let Ok(piece) = frame?.into_data() {
            // A writer that gave up says why when it is waited for.
            let _ = pieces.send(piece).await;
        }
    }
    drop(pieces);
    let (bytes, size, md5, checksums) = writer.await.map_err(S3Error::internal_error)??;
    let trailers = request.trailing_headers.as_ref();
    let trailers = trailers.and_then(TrailingHeaders::take).unwrap_or_default();
    claims.check(&trailers, &md5, &checksums)?;
    Ok(SavedBody {
        bytes,
        size,
        md5,
        checksums,
    })
}

impl Claims {
    /// Computes what was claimed, and CRC64NVME, as S3 does, if nothing was.
    fn hasher(&self) -> ChecksumHasher {
        let claimed = |algorithm: &str| {
            self.headers.contains_key(header(algorithm)) || self.trailer_names(&header(algorithm))
        };
        let none = !ALGORITHMS.into_iter().any(claimed);
        ChecksumHasher {
            crc32: claimed("CRC32").then(Crc32::new),
            crc32c: claimed("CRC32C").then(Crc32c::new),
            crc64nvme: (claimed("CRC64NVME") || none).then(Crc64Nvme::new),
            sha1: claimed("SHA1").then(Sha1::new),
            sha256: claimed("SHA256").then(Sha256::new),
        }
    }

    /// Whether `x-amz-trailer` promises this header.
    fn trailer_names(&self, header: &str) -> bool {
        let promised = self.headers.get("x-amz-trailer");
        promised
            .and_then(|names| names.to_str().ok())
            .is_some_and(|names| {
                names
                    .split(',')
                    .any(|name| name.trim().eq_ignore_ascii_case(header))
            })
    }

    /// Compares what was claimed, in front of the body or behind it, with what arrived.
    fn check(
        &self,
        trailers: &HeaderMap,
        md5: &[u8; 16],
        computed: &BTreeMap<String, String>,
    ) -> S3Result<()> {
        for (algorithm, computed) in computed {
            let header = header(algorithm);
            let in_front = self.headers.get(&header);
            let claimed = in_front.or_else(|| trailers.get(&header));
            if claimed.map_or(self.trailer_names(&header), |claimed| claimed != computed) {
                return Err(s3_error!(
                    BadDigest,
                    "The {algorithm} you specified did not match the calculated checksum."
                ));
            }
        }
        if let Some(claimed) = self.headers.get("content-md5") {
            let claimed = BASE64_STANDARD.decode(claimed).ok();
            match claimed.filter(|claimed| claimed.len() == md5.len()) {
                None => return Err(s3_error!(InvalidDigest)),
                Some(claimed) if claimed != md5 => {
                    return Err(s3_error!(
                        BadDigest,
                        "The Content-MD5 you specified did not match what we received."
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn header(algorithm: &str) -> String {
    format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase())
}

fn checksums(hasher: ChecksumHasher) -> BTreeMap<String, String> {
    let sums = hasher.finalize();
    let sums = [
        sums.checksum_crc32,
        sums.checksum_crc32c,
        sums.checksum_crc64nvme,
        sums.checksum_sha1,
        sums.checksum_sha256,
    ];
    let named = ALGORITHMS.into_iter().zip(sums);
    named
        .filter_map(|(algorithm, sum)| Some((algorithm.to_owned(), sum?)))
        .collect()
}

/// The bytes of `file` in `range` as a response's body, read as the client takes them.
pub(super) fn send(mut file: File, range: &Range<u64>) -> io::Result<StreamingBlob> {
    file.seek(SeekFrom::Start(range.start))?;
    Ok(Body::http_body(FileBody {
        file: tokio::fs::File::from_std(file),
        remaining: range.end - range.start,
    })
    .into())
}

struct FileBody {
    file: tokio::fs::File,
    remaining: u64,
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let length =
            usize::try_from(self.remaining).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let mut piece = vec![0; length];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.file).poll_read(context, &mut buffer))?;
        let length = buffer.filled().len();
        if length == 0 {
            return Poll::Ready(Some(Err(Box::new(io::Error::from(
                io::ErrorKind::UnexpectedEof,
            )))));
        }
        piece.truncate(length);
        self.remaining -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use s3s::S3ErrorCode;

    use super::*;

    #[test]
    fn what_was_claimed_must_be_what_arrived() {
        const RIGHT: &str = "NhCmhg==";
        const WRONG: &str = "AAAAAA==";
        let promise = ("x-amz-trailer", "x-amz-checksum-crc32");
        for (case, headers, trailers, expected) in [
            ("nothing", vec![], vec![], None),
            (
                "in front, right",
                vec![("x-amz-checksum-crc32", RIGHT)],
                vec![],
                None,
            ),
            (
                "in front, wrong",
                vec![("x-amz-checksum-crc32", WRONG)],
                vec![],
                Some(S3ErrorCode::BadDigest),
            ),
            (
                "behind, right",
                vec![promise],
                vec![("x-amz-checksum-crc32", RIGHT)],
                None,
            ),
            (
                "behind, wrong",
                vec![promise],
                vec![("x-amz-checksum-crc32", WRONG)],
                Some(S3ErrorCode::BadDigest),
            ),
            (
                "promised and left out",
                vec![promise],
                vec![],
                Some(S3ErrorCode::BadDigest),
            ),
            (
                "MD5, right",
                vec![("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")],
                vec![],
                None,
            ),
            (
                "MD5, wrong",
                vec![("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")],
                vec![],
                Some(S3ErrorCode::BadDigest),
            ),
            (
                "MD5, too short",
                vec![("content-md5", "AAAA")],
                vec![],
                Some(S3ErrorCode::InvalidDigest),
            ),
        ] {
            let [headers, trailers] = [headers, trailers].map(|pairs| {
                let pairs = pairs.into_iter();
                pairs
                    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                    .collect::<HeaderMap>()
            });
            let claims = Claims { headers };
            let mut hasher = claims.hasher();
            hasher.update(b"hello");
            let checked = claims.check(&trailers, &Md5::checksum(b"hello"), &checksums(hasher));
            let refused = checked.err().map(|error| error.code().clone());
            assert_eq!(refused, expected, "{case}");
        }
    }
}
