//! The routing table as it is now: read again when its source has changed, and the last good one kept.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{
    bucket::{Address, Found, S3},
    config::Location,
    error::{Error, Source as Cause, chain},
    route::{Origin, RouteTable, RouteTableError},
    telemetry,
};

/// How often, at most, the source of a good table is looked at.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// How long such a look may take before the table that is known has to do.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// A routing table that follows its source.
#[derive(Debug)]
pub struct LiveTable {
    source: Source,
    /// The bucket of routes that name none.
    default_bucket: Option<String>,
    good: Mutex<Option<Good>>,
}

#[derive(Debug)]
enum Source {
    S3 { s3: S3, at: Location },
    File(PathBuf),
}

#[derive(Debug)]
struct Good {
    table: Arc<RouteTable>,
    /// What its source is compared by: an entity tag, or the text itself.
    version: String,
    checked: Instant,
}

/// What became of a look at the source.
enum Look {
    /// It is what it was.
    Same,
    /// There is nothing.
    Missing,
    New {
        table: RouteTable,
        version: String,
    },
}

impl LiveTable {
    /// The table in an object. `https` only.
    #[must_use]
    pub fn in_s3(s3: S3, at: Location, default_bucket: String) -> Self {
        Self::new(Source::S3 { s3, at }, Some(default_bucket))
    }

    /// The table in a file that somebody at a terminal named.
    #[must_use]
    pub fn in_file(file: PathBuf, default_bucket: Option<String>) -> Self {
        Self::new(Source::File(file), default_bucket)
    }

    fn new(source: Source, default_bucket: Option<String>) -> Self {
        Self {
            source,
            default_bucket,
            good: Mutex::default(),
        }
    }

    /// The table; `None` if none was ever stored. A new one that is of no use is told of, and the last good one kept.
    ///
    /// # Errors
    ///
    /// [`Error::Routes`] if there is no good one to keep. It is transient unless the table itself is wrong.
    pub async fn current(&self) -> Result<Option<Arc<RouteTable>>, Error> {
        self.at_most(self.check_every()).await
    }

    /// The same, after a look at the source in any case: for whoever misses a route that another process knows of.
    ///
    /// # Errors
    ///
    /// As [`LiveTable::current`].
    pub async fn newest(&self) -> Result<Option<Arc<RouteTable>>, Error> {
        self.at_most(Duration::ZERO).await
    }

    /// The table, which was compared with its source `age` ago at most.
    async fn at_most(&self, age: Duration) -> Result<Option<Arc<RouteTable>>, Error> {
        let mut good = self.good.lock().await;
        let known = good.as_ref().map(|good| (good.checked, &*good.version));
        if known.is_some_and(|(checked, _)| checked.elapsed() < age) {
            return Ok(good.as_ref().map(|good| Arc::clone(&good.table)));
        }
        let look = Box::pin(self.look(known.map(|(_, version)| version)));
        // Without a good one, whoever asks has a deadline of its own.
        let look = match known {
            Some(_) => tokio::time::timeout(LOOK_WITHIN, look).await,
            None => Ok(look.await),
        };
        let late = |_| Err(self.error("it cannot be read in time", true, None));
        let look = look.unwrap_or_else(late);
        let checked = Instant::now();
        let (good, fault) = match (&mut *good, look) {
            (good, Ok(Look::New { table, version })) => {
                let table = Arc::new(table);
                let new = Good {
                    table,
                    version,
                    checked,
                };
                (good.insert(new), None)
            }
            (Some(good), Ok(Look::Same)) => (good, None),
            (Some(good), Ok(Look::Missing)) => {
                let fault = self.error("it was there and is gone", false, None);
                (good, Some(fault))
            }
            (Some(good), Err(fault)) => (good, Some(fault)),
            (None, Ok(Look::Missing | Look::Same)) => return Ok(None),
            (None, Err(fault)) => {
                tell(&fault, "there is no good routing table yet");
                return Err(fault);
            }
        };
        good.checked = checked;
        if let Some(fault) = fault {
            tell(&fault, "keeping the last good routing table");
        }
        Ok(Some(Arc::clone(&good.table)))
    }

    fn check_every(&self) -> Duration {
        match self.source {
            Source::S3 { .. } => CHECK_EVERY,
            Source::File(_) => Duration::ZERO,
        }
    }

    async fn look(&self, known: Option<&str>) -> Result<Look, Error> {
        match &self.source {
            Source::S3 { s3, at } => {
                let address = Address {
                    bucket: &at.bucket,
                    key: &at.key,
                };
                let found = s3.text(address, known).await.map_err(|err| {
                    let transient = err.is_transient();
                    self.error("it cannot be read", transient, Some(err.into()))
                })?;
                match found {
                    Found::Same => Ok(Look::Same),
                    Found::Missing => Ok(Look::Missing),
                    Found::Text { text, etag } => self.parse(&text, etag, Origin::Deployed),
                }
            }
            Source::File(file) => match tokio::fs::read_to_string(file).await {
                Ok(text) if known == Some(&text) => Ok(Look::Same),
                Ok(text) => self.parse(&text, text.clone(), Origin::CommandLine),
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Look::Missing),
                Err(err) => Err(self.error("it cannot be read", true, Some(err.into()))),
            },
        }
    }

    fn parse(&self, text: &str, version: String, origin: Origin) -> Result<Look, Error> {
        let bucket = self.default_bucket.as_deref();
        let table = RouteTable::parse(&self.name(), text, bucket, origin);
        let wrong = |err: RouteTableError| self.error("it is wrong", false, Some(err.into()));
        let table = table.map_err(wrong)?;
        Ok(Look::New { table, version })
    }

    fn name(&self) -> String {
        match &self.source {
            Source::S3 { at, .. } => at.to_string(),
            Source::File(file) => file.display().to_string(),
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

/// An alarm is for a table that somebody has to mend; that S3 cannot be asked for once is none.
fn tell(fault: &Error, message: &str) {
    if fault.is_transient() {
        tracing::warn!("{message}: {}", chain(fault));
    } else {
        telemetry::alarm("RoutingTableInvalid", message, fault);
    }
}
