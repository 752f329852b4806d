//! The HTTP client with an end to what it takes in: a server that never stops talking fills neither the memory nor the time.

use std::{
    any::Any,
    io::{self, BufRead, Read},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse, reqwest,
};

use super::{
    Heard,
    wanted::{Filter, Wanted},
};
use crate::progress::Progress;

/// How long an answer may be, in bytes, without any of it being of use: words between the pieces of a pack.
const ANSWER_BYTES: u64 = 16 << 20;

/// How long a list of refs may be, in bytes, most of which nobody asked for.
const REFS_BYTES: u64 = 256 << 20;

/// What may still come, in bytes; and which refs are kept of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowance {
    left: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    wanted: Arc<Mutex<Option<Wanted>>>,
    is_cut: Arc<AtomicBool>,
    /// Who is told how many bytes come.
    told: Arc<Mutex<Option<Arc<Progress>>>>,
    heard: Heard,
    /// Where the last answer sends its client.
    redirect: Arc<Mutex<Option<String>>>,
}

impl Allowance {
    pub(super) fn new(heard: Heard) -> Self {
        Self {
            heard,
            ..Self::default()
        }
    }

    /// Begins a new answer, a pack, of which `progress` is told.
    pub(super) fn renew(&self, progress: &Arc<Progress>) {
        *self.told() = Some(Arc::clone(progress));
        self.begin(ANSWER_BYTES);
    }

    /// Begins a new answer, a list of refs.
    pub(super) fn renew_for(&self, wanted: &Wanted) {
        self.begin(REFS_BYTES);
        self.is_cut.store(false, Relaxed);
        *self.wanted() = Some(wanted.clone());
        *self.told() = None;
    }

    fn begin(&self, bytes: u64) {
        self.left.store(bytes, Relaxed);
        self.most.store(bytes, Relaxed);
    }

    fn wanted(&self) -> MutexGuard<'_, Option<Wanted>> {
        self.wanted.lock().expect("nothing panics while it is held")
    }

    fn told(&self) -> MutexGuard<'_, Option<Arc<Progress>>> {
        self.told.lock().expect("nothing panics while it is held")
    }

    fn redirects(&self) -> MutexGuard<'_, Option<String>> {
        let redirect = self.redirect.lock();
        redirect.expect("nothing panics while it is held")
    }

    /// Where the last answer sends its client, if it does.
    pub(super) fn redirect(&self) -> Option<String> {
        self.redirects().clone()
    }

    /// Whether refs were left out of the last list for which there was no room.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// A pack may be as long as its reader likes: so many bytes of it came, and about as many may come with them.
    fn earn(&self, bytes: usize) {
        let more = 2 * bytes as u64;
        let left = self.left.load(Relaxed).saturating_add(more);
        self.left.store(left, Relaxed);
    }

    fn spend(&self, bytes: usize) {
        self.heard.add(bytes as u64);
        if let Some(progress) = &*self.told() {
            progress.add_wire(bytes as u64);
        }
        let left = self.left.load(Relaxed).saturating_sub(bytes as u64);
        self.left.store(left, Relaxed);
    }

    /// Whether the last answer was longer than it may be.
    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Relaxed) == 0
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

    fn headers(&self, headers: PlainHeaders) -> Headers {
        *self.allowance.redirects() = None;
        Headers {
            plain: headers,
            line: Vec::new(),
            allowance: self.allowance.clone(),
        }
    }

    fn body(&self, body: Plain) -> Body {
        let allowance = self.allowance.clone();
        let filter = allowance.wanted().take().map(Filter::new);
        Body {
            wire: Wire { body, allowance },
            filter,
        }
    }
}

type Plain = <reqwest::Remote as Http>::ResponseBody;
type PlainHeaders = <reqwest::Remote as Http>::Headers;

impl Http for Capped {
    type Headers = Headers;
    type ResponseBody = Body;
    type PostBody = <reqwest::Remote as Http>::PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<GetResponse<Self::Headers, Body>, gix::Error> {
        let GetResponse { headers, body } = self.client.get(url, base_url, headers)?;
        let (headers, body) = (self.headers(headers), self.body(body));
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
        let (headers, body) = (self.headers(headers), self.body(body));
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

/// How much of a header's line is looked at, in bytes.
const HEADER_BYTES: usize = 4 << 10;

/// An answer's headers, of which it is noted where they send the client.
pub(super) struct Headers {
    plain: PlainHeaders,
    line: Vec<u8>,
    allowance: Allowance,
}

impl Headers {
    fn note(&mut self, byte: u8) {
        if byte != b'\n' {
            if self.line.len() < HEADER_BYTES {
                self.line.push(byte);
            }
            return;
        }
        let line = String::from_utf8_lossy(&self.line);
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("location")
        {
            *self.allowance.redirects() = Some(value.trim().to_owned());
        }
        self.line.clear();
    }
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.plain.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        // What is there already cannot fail.
        let bytes = self.plain.fill_buf().unwrap_or_default();
        let bytes = bytes[..n.min(bytes.len())].to_vec();
        for byte in bytes {
            self.note(byte);
        }
        self.plain.consume(n);
    }
}

/// An answer's body.
pub(super) struct Body {
    wire: Wire,
    filter: Option<Filter>,
}

/// The body as it comes.
struct Wire {
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
        let Some(filter) = &mut self.filter else {
            return self.wire.fill_buf();
        };
        let is_cut = Arc::clone(&self.wire.allowance.is_cut);
        filter.fill(&mut self.wire)?;
        is_cut.fetch_or(filter.is_cut(), Relaxed);
        // Nothing more is read for what is there.
        filter.fill(&mut self.wire)
    }

    fn consume(&mut self, n: usize) {
        match &mut self.filter {
            Some(filter) => filter.consume(n, &mut self.wire),
            None => self.wire.consume(n),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Wire {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.allowance.is_spent() {
            let most = self.allowance.most.load(Relaxed);
            let why = format!("the answer goes on after {most} bytes that are of no use");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.body.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.allowance.spend(n);
        self.body.consume(n);
    }
}
