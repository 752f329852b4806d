//! What came in: each request, and what was given back for it.

use std::{
    io::{self, Read},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use http_body_util::BodyExt;
use hyper::{
    Method,
    body::{Body, Bytes, Frame, Incoming},
    http::request::Parts,
};
use tokio::sync::mpsc;

use super::super::{cgi::Stream, fault::Op};
use super::{collect, lock, text};

/// How much of a request's body the log keeps.
const LOGGED: usize = 64 * 1024;
/// How much of a request's body tells what it asks for.
const PEEKED: usize = 32;

/// One request that came in.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub op: Option<Op>,
    pub method: String,
    /// As it was sent, escapes included.
    pub path: String,
    /// The header `Git-Protocol`.
    pub protocol: Option<String>,
    /// Connections count from 1.
    pub connection: usize,
    /// Whether it carried `Authorization`, right or wrong.
    pub authorized: bool,
    /// Its first 64 KiB, as they were sent.
    pub body: Vec<u8>,
    pub body_bytes: usize,
    /// `None` as long as there is no answer.
    pub status: Option<u16>,
    /// What was given to the connection up to now.
    pub response_bytes: usize,
}

impl Request {
    /// What it asks for.
    pub fn op(&self) -> Op {
        self.op.unwrap_or(Op::Other)
    }
}

pub(super) type Entry = Arc<Mutex<Request>>;

/// What a request asks for; reads the start of its body if need be.
pub(super) async fn op_of(head: &Parts, upload: &mut Upload) -> Op {
    let path = head.uri.path();
    match head.method {
        Method::GET if path.ends_with("/info/refs") => Op::Handshake,
        Method::POST if path.ends_with("/git-receive-pack") => Op::Push,
        Method::POST if path.ends_with("/git-upload-pack") => {
            let mut start = upload.peek().await;
            if text(&head.headers, "content-encoding").as_deref() == Some("gzip") {
                let mut plain = Vec::new();
                let start_only = flate2::read::GzDecoder::new(&start[..]);
                // The stream is cut, which is an error, after everything that is there.
                start_only.take(PEEKED as u64).read_to_end(&mut plain).ok();
                start = plain;
            }
            match start.get(4..) {
                Some(line) if line.starts_with(b"command=ls-refs") => Op::LsRefs,
                Some(line) if line.starts_with(b"command=fetch") => Op::Fetch,
                Some(line) if line.starts_with(b"want ") => Op::Fetch,
                _ => Op::Other,
            }
        }
        _ => Op::Other,
    }
}

/// A request's body: what was read of it to see what it is, and the rest.
pub(super) struct Upload {
    pub(super) peeked: Vec<Bytes>,
    pub(super) rest: Incoming,
    pub(super) entry: Entry,
}

impl Upload {
    async fn peek(&mut self) -> Vec<u8> {
        let mut start = Vec::new();
        while start.len() < PEEKED {
            let Some(Ok(bytes)) = self.next().await else {
                break;
            };
            start.extend_from_slice(&bytes);
            self.peeked.push(bytes);
        }
        start
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let frame = self.rest.frame().await?.map_err(io::Error::other);
            let bytes = match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(_trailers)) => continue,
                Err(error) => return Some(Err(error)),
            };
            let mut entry = lock(&self.entry);
            let room = LOGGED.saturating_sub(entry.body.len());
            entry
                .body
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
            entry.body_bytes += bytes.len();
            return Some(Ok(bytes));
        }
    }

    pub(super) fn stream(mut self) -> Stream {
        let (sender, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for bytes in std::mem::take(&mut self.peeked) {
                sender.send(Ok(bytes)).await.ok();
            }
            // To the end, even if nobody listens any more: the connection is used again.
            while let Some(bytes) = self.next().await {
                sender.send(bytes).await.ok();
            }
        });
        stream
    }

    pub(super) async fn collect(self) -> io::Result<Bytes> {
        collect(self.stream()).await
    }
}

/// A response's body as it comes; what was given to the connection is logged.
pub(super) struct Streamed {
    pub(super) body: Stream,
    pub(super) entry: Entry,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = ready!(self.body.poll_recv(context));
        if let Some(Ok(bytes)) = &next {
            lock(&self.entry).response_bytes += bytes.len();
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }
}
