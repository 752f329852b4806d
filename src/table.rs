//! The routing table as it is now. Nobody believes a copy for being young: whoever asks is told of a look at the source that
//! began after the question.

mod looks;

use std::{
    path::PathBuf,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use self::looks::News;
pub use self::looks::{Looks, Reading, Seen, TableFault};
use crate::{
    bucket::{Address, Found, S3},
    config::Location,
    error::{Error, Source as Cause, chain},
    plain,
    route::{Origin, Preferred, RouteTable},
    telemetry::{self, Counted},
};

/// How long a look may take where an earlier table is known.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// A file that is being written is looked at again after this, until two looks agree.
const SETTLE: Duration = Duration::from_millis(100);

/// How often it is, at most.
const LOOKS: u32 = 20;

/// How many objects that two routes can meet in are told of.
const TOLD_CLASHES: usize = 5;

/// How many doubts about a table are told.
const TOLD_DOUBTS: usize = 5;

/// How many older versions are tried, at most, by a process that has not seen a good one yet.
const OLDER: usize = 20;

/// A routing table that follows its source.
#[derive(Debug)]
pub struct LiveTable {
    source: Place,
    /// The bucket of routes that name none.
    default_bucket: Option<String>,
    preferred: Preferred,
    known: Mutex<KnownTable>,
    /// The last table that was of use, for whoever cannot wait for a look.
    last_good: RwLock<Option<Arc<RouteTable>>>,
}

/// What the looks so far found; and the last one, with when it began.
#[derive(Debug, Default)]
struct KnownTable {
    looks: Looks,
    last: Option<(Instant, Reading)>,
}

#[derive(Debug)]
enum Place {
    S3 { s3: S3, at: Location },
    File(PathBuf),
}

/// What became of a look at the source.
enum Look {
    /// It is what it was.
    Same,
    /// There is nothing, and maybe never was.
    Missing,
    /// It was deleted.
    Deleted,
    /// Another text, or why it is none.
    Text {
        text: Result<String, String>,
        version: String,
    },
}

impl LiveTable {
    /// The table in an object. `https` only.
    #[must_use]
    pub fn in_s3(s3: S3, at: Location, default_bucket: String) -> Self {
        Self::new(Place::S3 { s3, at }, Some(default_bucket))
    }

    /// The table in a file that somebody at a terminal named.
    #[must_use]
    pub fn in_file(file: PathBuf, default_bucket: Option<String>) -> Self {
        Self::new(Place::File(file), default_bucket)
    }

    /// The same with variables of the environment in place of secrets, where they are preferred.
    #[must_use]
    pub fn preferring(self, preferred: Preferred) -> Self {
        Self { preferred, ..self }
    }

    /// The same, where `table` was read from a file with these bytes a moment ago.
    #[must_use]
    pub fn knowing(mut self, bytes: &[u8], table: Arc<RouteTable>) -> Self {
        let version = String::from_utf8_lossy(bytes).into_owned();
        let known = Seen::Table(Arc::clone(&table), version);
        self.known.get_mut().looks.learn(known);
        self.tell_oddities(&table);
        self.keep(table);
        self
    }

    fn new(source: Place, default_bucket: Option<String>) -> Self {
        Self {
            source,
            default_bucket,
            preferred: Preferred::default(),
            known: Mutex::default(),
            last_good: RwLock::default(),
        }
    }

    /// Looks at the source. Those who ask while somebody looks share the look that follows.
    pub async fn read(&self) -> Reading {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        if let Some((began, reading)) = &known.last
            && *began > asked
        {
            return reading.clone();
        }
        let began = Instant::now();
        let version = known.looks.version();
        let is_first = version.is_none() && !known.looks.has_good();
        let look = Box::pin(self.look(version, is_first));
        // Without an earlier table, whoever asks has a deadline of its own.
        let look = if known.looks.has_good() {
            let late = |_| Err(self.error("it cannot be read in time", true, None));
            let look = tokio::time::timeout(LOOK_WITHIN, look).await;
            look.unwrap_or_else(late)
        } else {
            look.await
        };
        let was_unread = matches!(known.last, Some((_, Reading::Unread { .. })));
        let was_spoiled = matches!(known.last, Some((_, Reading::Spoiled { .. })));
        let had_good = known.looks.has_good();
        let (mut reading, news) = known.looks.learn(self.seen(look));
        if let Reading::Newest(table) = &reading {
            let routes = plain::count(table.routes().len(), "route", "routes");
            if was_unread || was_spoiled {
                tracing::info!("{} is used again, {routes}", self.name());
            } else if had_good && matches!(news, News::Table(_)) {
                tracing::info!("{} has changed, {routes}", self.name());
            }
        }
        match news {
            News::Table(table) => {
                self.tell_oddities(&table);
                self.keep(table);
            }
            // It is said and counted once, not at each look.
            News::Spoiled(fault) => {
                let message =
                    "the routing table cannot be used; what the last good one takes is taken";
                telemetry::alarm(Counted::RoutingTableInvalid, message, fault.cause());
            }
            News::Unread(fault) if !was_unread => tracing::warn!("{}", chain(fault.cause())),
            News::Unread(_) | News::Nothing => {}
        }
        if let Reading::Spoiled { last: None, .. } = reading
            && let Some(older) = Box::pin(self.older()).await
        {
            reading = known.looks.remember(older.into());
        }
        known.last = Some((began, reading.clone()));
        reading
    }

    /// The table that was last found to be one. It may be out of date.
    ///
    /// # Panics
    ///
    /// Never: nothing panics while it is held.
    pub fn last_good(&self) -> Option<Arc<RouteTable>> {
        let kept = self.last_good.read();
        kept.expect("nothing panics while it is held").clone()
    }

    fn keep(&self, table: Arc<RouteTable>) {
        let kept = self.last_good.write();
        *kept.expect("nothing panics while it is held") = Some(table);
    }

    /// Tells of what cannot work, and of routes that can meet in one object. The table is used all the same: the rest of it
    /// works, and who delivers to an object of two routes is decided by delivery.
    fn tell_oddities(&self, table: &RouteTable) {
        let doubts = table.doubts(self.origin()).into_iter();
        for doubt in doubts.filter(|doubt| doubt.refused).take(TOLD_DOUBTS) {
            tracing::warn!("{}:{}: {}", self.name(), doubt.line, doubt.text);
        }
        let clashes = table.clashes();
        for clash in clashes.found.iter().take(TOLD_CLASHES) {
            tracing::warn!("{}:{}: {clash}", self.name(), clash.later.line);
        }
        let more = clashes.found.len().saturating_sub(TOLD_CLASHES);
        if more > 0 {
            tracing::warn!("{}: {more} more objects are of two routes", self.name());
        }
    }

    /// What a look found, read as a table.
    fn seen(&self, look: Result<Look, Error>) -> Seen {
        let (text, version) = match look {
            Ok(Look::Same) => return Seen::Same,
            Ok(Look::Missing) => {
                return Seen::Missing(self.error("it was there and is gone", false, None).into());
            }
            Ok(Look::Deleted) => {
                return Seen::Deleted(self.error("it was deleted", false, None).into());
            }
            Ok(Look::Text { text, version }) => (text, version),
            Err(err) => return Seen::Unread(err.into()),
        };
        let text = text.map_err(|why| self.error("it cannot be read", false, Some(why.into())));
        match text.and_then(|text| self.parse(&text)) {
            Ok(table) => Seen::Table(table.into(), version),
            Err(err) => Seen::NoTable(err.into(), version),
        }
    }

    async fn look(&self, known: Option<&str>, is_first: bool) -> Result<Look, Error> {
        match &self.source {
            Place::S3 { s3, at } => {
                let found = s3.text(address(at), known).await.map_err(|err| {
                    let transient = err.is_transient();
                    self.error("it cannot be read", transient, Some(err.into()))
                })?;
                Ok(match found {
                    Found::Same => Look::Same,
                    Found::Missing => Look::Missing,
                    Found::Deleted => Look::Deleted,
                    Found::Text { text, etag } => Look::Text {
                        text: Ok(text),
                        version: etag,
                    },
                    Found::NoText { why, etag } => Look::Text {
                        text: Err(why),
                        version: etag,
                    },
                })
            }
            Place::File(file) => {
                let Some(mut bytes) = self.file(file).await? else {
                    return Ok(Look::Missing);
                };
                let version = String::from_utf8_lossy(&bytes);
                if known == Some(&*version) {
                    return Ok(Look::Same);
                }
                // Whoever begins with a table has it whole; a change may be caught half written.
                if !is_first {
                    for _ in 0..LOOKS {
                        tokio::time::sleep(SETTLE).await;
                        match self.file(file).await? {
                            Some(again) if again == bytes => break,
                            Some(again) => bytes = again,
                            None => return Ok(Look::Missing),
                        }
                    }
                }
                let version = String::from_utf8_lossy(&bytes).into_owned();
                let text = plain::utf8(bytes);
                Ok(Look::Text { text, version })
            }
        }
    }

    /// What a file holds; `None` if there is none.
    async fn file(&self, file: &PathBuf) -> Result<Option<Vec<u8>>, Error> {
        let read = async {
            // A look at anything else could take for ever.
            if !tokio::fs::metadata(file).await?.is_file() {
                return Err(std::io::Error::other("it is no regular file"));
            }
            tokio::fs::read(file).await
        };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(self.error("it cannot be read", true, Some(err.into()))),
        }
    }

    /// The newest earlier version that is a routing table, for a process that has seen none.
    async fn older(&self) -> Option<RouteTable> {
        let Place::S3 { s3, at } = &self.source else {
            return None;
        };
        let tell = |err: Error| {
            tracing::warn!("earlier routing tables cannot be read: {}", chain(&err));
        };
        let versions = s3.versions(address(at), OLDER).await;
        for version in versions
            .map_err(tell)
            .ok()?
            .iter()
            .map(|version| &version.id)
        {
            let text = s3.text_version(address(at), version).await;
            let Ok(text) = text.map_err(tell).ok()? else {
                continue;
            };
            if let Ok(table) = self.parse(&text) {
                tracing::warn!("using the version {version} of the routing table {at}");
                return Some(table);
            }
        }
        None
    }

    fn parse(&self, text: &str) -> Result<RouteTable, Error> {
        let bucket = self.default_bucket.as_deref();
        let table = RouteTable::parse(&self.name(), text, bucket, self.origin());
        match table {
            Ok(table) => Ok(table.preferring(self.preferred)),
            Err(err) => Err(self.error("it is wrong", false, Some(err.into()))),
        }
    }

    fn origin(&self) -> Origin {
        match self.source {
            Place::S3 { .. } => Origin::Deployed,
            Place::File(_) => Origin::CommandLine,
        }
    }

    fn name(&self) -> String {
        match &self.source {
            Place::S3 { at, .. } => at.to_string(),
            Place::File(file) => file.display().to_string(),
        }
    }

    fn error(&self, what: &str, transient: bool, source: Option<Cause>) -> Error {
        Error::Routes {
            reason: format!("{}: {what}", self.name()),
            transient,
            source,
        }
    }
}

fn address(at: &Location) -> Address<'_> {
    Address {
        bucket: &at.bucket,
        key: &at.key,
    }
}
