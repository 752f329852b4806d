//! Answers with an end to what is taken in of them: a server that never stops talking fills neither the memory nor the time.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use super::{
    Heard,
    front::Front,
    http::Answer,
    wanted::{Filter, Said, Wanted},
};
use crate::{plain, progress::Progress};

/// How long an answer may be, in bytes, without any of it being of use: words between the pieces of a pack.
const ANSWER_BYTES: u64 = 16 << 20;

/// How long a list of refs may be, in bytes, most of which nobody asked for.
const REFS_BYTES: u64 = 256 << 20;

/// What may still come, in bytes; and which refs are kept of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowance {
    left: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    wanted: Arc<Mutex<Option<(Wanted, bool)>>>,
    is_cut: Arc<AtomicBool>,
    has_long_ids: Arc<AtomicBool>,
    /// What the server says is wrong.
    said: Arc<Mutex<Option<String>>>,
    /// Who is told how many bytes come.
    told: Arc<Mutex<Option<Arc<Progress>>>>,
    heard: Heard,
    /// What the headers of the last answer say of it.
    about: Arc<Mutex<About>>,
}

/// What the headers of an answer say of it.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    /// Where it sends its client.
    pub(super) redirect: Option<String>,
    /// What it is, such as `text/html`.
    pub(super) content_type: Option<String>,
    /// How its body is compressed.
    pub(super) encoding: Option<String>,
    /// How long whoever asks should wait, in the words of HTTP.
    pub(super) retry_after: Option<String>,
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

    /// Begins a new answer, a list of refs; or the first one, which brings capabilities.
    pub(super) fn renew_for(&self, wanted: &Wanted, is_hello: bool) {
        self.begin(REFS_BYTES);
        self.is_cut.store(false, Relaxed);
        *self.wanted() = Some((wanted.clone(), is_hello));
        *self.told() = None;
    }

    fn begin(&self, bytes: u64) {
        self.left.store(bytes, Relaxed);
        self.most.store(bytes, Relaxed);
        *self.saying() = None;
    }

    fn saying(&self) -> MutexGuard<'_, Option<String>> {
        self.said.lock().expect("nothing panics while it is held")
    }

    /// Takes note of what the server says is wrong.
    pub(super) fn says(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        *self.saying() = Some(plain::foreign(text.trim()));
    }

    /// What the server says is wrong, in the last answer.
    pub(super) fn said(&self) -> Option<String> {
        self.saying().clone()
    }

    fn wanted(&self) -> MutexGuard<'_, Option<(Wanted, bool)>> {
        self.wanted.lock().expect("nothing panics while it is held")
    }

    fn told(&self) -> MutexGuard<'_, Option<Arc<Progress>>> {
        self.told.lock().expect("nothing panics while it is held")
    }

    fn noted(&self) -> MutexGuard<'_, About> {
        self.about.lock().expect("nothing panics while it is held")
    }

    /// Takes note of what the headers of an answer say of it.
    pub(super) fn is_about(&self, about: About) {
        *self.noted() = about;
    }

    /// What the headers of the last answer say of it.
    pub(super) fn about(&self) -> About {
        self.noted().clone()
    }

    /// Whether refs were listed whose ids are no SHA-1.
    pub(super) fn has_long_ids(&self) -> bool {
        self.has_long_ids.load(Relaxed)
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
        self.reduce(bytes);
    }

    fn reduce(&self, bytes: usize) {
        let left = self.left.load(Relaxed).saturating_sub(bytes as u64);
        self.left.store(left, Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.is_spent() {
            let most = self.most.load(Relaxed);
            let why = format!("the answer goes on after {most} bytes that are of no use");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
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

/// An answer's body.
pub(super) struct Body {
    wire: Plain,
    lines: Lines,
    allowance: Allowance,
}

impl Body {
    /// `answer`, which is a list of refs where one was announced, and a pack otherwise.
    pub(super) fn new(answer: Answer, allowance: &Allowance) -> Self {
        let lines = match allowance.wanted().take() {
            Some((wanted, is_hello)) => Lines::Refs(Filter::new(wanted, is_hello)),
            None => Lines::Pack(Front::default()),
        };
        Self {
            wire: Plain::New(Some(Wire {
                body: answer,
                allowance: allowance.clone(),
            })),
            lines,
            allowance: allowance.clone(),
        }
    }
}

/// What the packet lines of an answer are for.
enum Lines {
    Refs(Filter),
    Pack(Front),
}

/// The body as it comes.
struct Wire {
    body: Answer,
    allowance: Allowance,
}

/// The body without the compression that some caches add though nobody asked for it. How it is compressed is known once the
/// headers were read, which is before the first byte of the body is.
enum Plain {
    New(Option<Wire>),
    AsItIs(Wire),
    Inflated(BufReader<Box<dyn Read + Send>>, Allowance),
}

impl Plain {
    fn open(&mut self) -> io::Result<()> {
        let Self::New(wire) = self else {
            return Ok(());
        };
        let Some(wire) = wire.take() else {
            return Err(io::Error::other("the answer could not be read before"));
        };
        let allowance = wire.allowance.clone();
        let encoding = allowance.noted().encoding.take().unwrap_or_default();
        let inflated: Box<dyn Read + Send> = match encoding.to_ascii_lowercase().as_str() {
            "" | "identity" => {
                *self = Self::AsItIs(wire);
                return Ok(());
            }
            "gzip" | "x-gzip" => Box::new(GzDecoder::new(wire)),
            "deflate" => Box::new(ZlibDecoder::new(wire)),
            other => {
                let other = plain::foreign(other);
                let why = format!("the answer is compressed as {other}, which nobody asked for");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        };
        *self = Self::Inflated(BufReader::new(inflated), allowance);
        Ok(())
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Plain {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.open()?;
        match self {
            Self::New(_) => Ok(&[]),
            Self::AsItIs(wire) => wire.fill_buf(),
            Self::Inflated(inflated, allowance) => {
                allowance.check()?;
                inflated.fill_buf()
            }
        }
    }

    fn consume(&mut self, n: usize) {
        match self {
            Self::New(_) => {}
            Self::AsItIs(wire) => wire.consume(n),
            Self::Inflated(inflated, allowance) => {
                // What came of it is counted as it came: both count, so that no few bytes become very many.
                allowance.reduce(n);
                inflated.consume(n);
            }
        }
    }
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
        let filled = match &mut self.lines {
            Lines::Refs(filter) => {
                let filled = filter.fill(&mut self.wire).map(drop);
                self.allowance.is_cut.fetch_or(filter.is_cut(), Relaxed);
                let has_long_ids = filter.has_long_ids();
                self.allowance.has_long_ids.fetch_or(has_long_ids, Relaxed);
                filled
            }
            Lines::Pack(front) => front.fill(&mut self.wire).map(drop),
        };
        if let Err(err) = filled {
            let said = err.get_ref().and_then(|held| held.downcast_ref::<Said>());
            if let Some(Said(said)) = said {
                *self.allowance.saying() = Some(said.clone());
            }
            return Err(err);
        }
        // Nothing more is read for what is there.
        match &mut self.lines {
            Lines::Refs(filter) => filter.fill(&mut self.wire),
            Lines::Pack(front) => front.fill(&mut self.wire),
        }
    }

    fn consume(&mut self, n: usize) {
        match &mut self.lines {
            Lines::Refs(filter) => filter.consume(n, &mut self.wire),
            Lines::Pack(front) => front.consume(n, &mut self.wire),
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
        self.allowance.check()?;
        self.body.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.allowance.spend(n);
        self.body.consume(n);
    }
}
