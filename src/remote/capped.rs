//! The HTTP client with an end to what it takes in: a server that never stops talking fills neither the memory nor the time.

use std::{
    any::Any,
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse, reqwest,
};

/// How long an answer may be, in bytes, without any of it being of use: refs, which are kept in memory, or words between the
/// pieces of a pack. Room for 200,000 refs.
const ANSWER_BYTES: u64 = 16 << 20;

/// What may still come, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// Begins a new answer.
    pub(super) fn renew(&self) {
        self.0.store(ANSWER_BYTES, Relaxed);
    }

    /// A pack may be as long as its reader likes: so many bytes of it came, and about as many may come with them.
    fn earn(&self, bytes: usize) {
        let more = 2 * bytes as u64;
        let left = self.0.load(Relaxed).saturating_add(more);
        self.0.store(left, Relaxed);
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Relaxed).saturating_sub(bytes as u64);
        self.0.store(left, Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// A pack on its way to its reader, which earns what its answer spends.
pub(super) struct Pack<'a, R> {
    pub(super) wire: &'a mut R,
    pub(super) allowance: &'a Allowance,
}

impl<R: Read> Read for Pack<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.wire.read(buffer)?;
        self.allowance.earn(read);
        Ok(read)
    }
}

/// The HTTP client of `gix`, whose answers end when the allowance does.
pub(super) struct Capped {
    client: reqwest::Remote,
    allowance: Allowance,
}

impl Capped {
    pub(super) fn new(allowance: Allowance) -> Self {
        Self {
            client: reqwest::Remote::default(),
            allowance,
        }
    }

    fn body(&self, body: Plain) -> Body {
        Body {
            body,
            allowance: self.allowance.clone(),
        }
    }
}

type Plain = <reqwest::Remote as Http>::ResponseBody;

impl Http for Capped {
    type Headers = <reqwest::Remote as Http>::Headers;
    type ResponseBody = Body;
    type PostBody = <reqwest::Remote as Http>::PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<GetResponse<Self::Headers, Body>, gix::Error> {
        let GetResponse { headers, body } = self.client.get(url, base_url, headers)?;
        let body = self.body(body);
        Ok(GetResponse { headers, body })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        kind: PostBodyDataKind,
    ) -> Result<PostResponse<Self::Headers, Body, Self::PostBody>, gix::Error> {
        let PostResponse {
            post_body,
            headers,
            body,
        } = self.client.post(url, base_url, headers, kind)?;
        let body = self.body(body);
        Ok(PostResponse {
            post_body,
            headers,
            body,
        })
    }

    fn configure(&mut self, config: &dyn Any) -> Result<(), gix::Error> {
        self.client.configure(config)
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.client.redirected_base_url()
    }
}

/// An answer's body.
pub(super) struct Body {
    body: Plain,
    allowance: Allowance,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.allowance.is_spent() {
            let why = format!("the answer goes on after {ANSWER_BYTES} bytes that are of no use");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.body.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.allowance.spend(n);
        self.body.consume(n);
    }
}
