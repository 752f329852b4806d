//! What is said of each object that was looked at: one line of JSON, with the same fields everywhere.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, Serializer};
use tracing::Level;

use crate::{
    deliver::{Delivery, Success},
    error::{Error, chain},
    plain,
    progress::Stage,
    push::{RefName, RepositoryName},
    queue::Job,
    route::Destination,
    telemetry::{self, Counted, Metric},
};

/// Warnings that a line of JSON has: one tree can have thousands.
const FIRST_WARNINGS: usize = 20;

/// What became of one object, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A new object version holds the tip.
    Published,
    /// Nothing was done; a delivery would make a new version.
    WouldPublish,
    /// The object held the tip already.
    AlreadyCurrent,
    /// The ref is gone; the object stays as it is.
    BranchGone,
    /// There was nothing to do.
    Ignored,
    /// It went wrong.
    Failed,
}

impl From<&Result<Success, Error>> for Outcome {
    fn from(result: &Result<Success, Error>) -> Self {
        match result {
            Ok(Success::Published) => Self::Published,
            Ok(Success::AlreadyCurrent) => Self::AlreadyCurrent,
            Ok(Success::BranchGone) => Self::BranchGone,
            Ok(Success::Moved { .. }) => Self::Ignored,
            Err(_) => Self::Failed,
        }
    }
}

/// In words for people.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::WouldPublish => "would publish",
            Self::AlreadyCurrent => "already current",
            Self::BranchGone => "branch gone",
            Self::Ignored => "ignored",
            Self::Failed => "failed",
        })
    }
}

/// What an outcome is about, as far as it is known.
#[derive(Debug, Default, Clone, Copy)]
pub struct Subject<'a> {
    /// The route's name.
    pub route: Option<&'a str>,
    /// The repository.
    pub repository: Option<&'a RepositoryName>,
    /// The ref.
    pub ref_name: Option<&'a RefName>,
}

impl<'a> From<&'a RepositoryName> for Subject<'a> {
    fn from(repository: &'a RepositoryName) -> Self {
        Self {
            repository: Some(repository),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a Job> for Subject<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            route: Some(&job.route),
            repository: Some(&job.repository),
            ref_name: Some(&job.ref_name),
        }
    }
}

impl<'a> From<&'a Destination> for Subject<'a> {
    fn from(to: &'a Destination) -> Self {
        Self {
            route: Some(&to.route),
            repository: Some(&to.repository),
            ref_name: Some(&to.ref_name),
        }
    }
}

/// What became of one object. Its fields and their names are a contract; what is not known is absent. It is read back from the
/// log of a function.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The ref.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_name: Option<String>,
    /// What became of it, in a word.
    pub outcome: Outcome,
    /// Why nothing was done, where the outcome is `ignored`; where it was delivered, why the object does not hold the tip, or
    /// why there is a new version though it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The commit that the object holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Where the ref pointed when it was last asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tip: Option<String>,
    /// The bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_key: Option<String>,
    /// The object's current version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// Entries of the archive that was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_sha256: Option<String>,
    /// The size of all packs that were received, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_bytes: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(
        rename = "duration_ms",
        skip_serializing_if = "Option::is_none",
        with = "optional_millis",
        default
    )]
    pub took: Option<Duration>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// Why everything was fetched, though the object held an earlier commit of the ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_fetch: Option<String>,
    /// What people should know, one sentence each. A line of JSON has the first of them, and how many more there are.
    #[serde(flatten, with = "first_warnings")]
    pub warnings: Vec<String>,
    /// The time each stage took.
    #[serde(skip)]
    pub stages: Vec<(Stage, Duration)>,
    /// Whether what failed comes again by itself.
    #[serde(skip)]
    pub again: bool,
    /// What was seen of a tip that looks older than what the object held.
    #[serde(skip)]
    pub step_back: Option<SeenBack>,
    /// How often its job was tried, with this time.
    #[serde(skip)]
    pub tries: u32,
}

/// What was seen of a tip that looks older than what the object held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBack {
    /// It was seen; a second look follows.
    First,
    /// The second look showed it again, and it is delivered.
    Confirmed,
    /// The second look showed something else.
    TakenBack,
}

impl SeenBack {
    fn metric(self) -> Metric {
        Metric {
            name: match self {
                Self::First => Counted::StepsBackSeen,
                Self::Confirmed => Counted::StepsBackConfirmed,
                Self::TakenBack => Counted::StepsBackTakenBack,
            },
            count: 1,
            by: &[&[]],
        }
    }
}

/// What went wrong.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    /// A name for alarms and queries.
    pub kind: Cow<'static, str>,
    /// The error and its causes.
    pub message: String,
    /// Whether the same may succeed later without anybody changing anything.
    pub transient: bool,
}

impl From<&Error> for Fault {
    fn from(err: &Error) -> Self {
        Self {
            kind: err.kind().into(),
            message: plain::message(chain(err)),
            transient: err.is_transient(),
        }
    }
}

/// Writes a time in whole milliseconds.
pub(crate) fn millis<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    time.as_millis().serialize(to)
}

/// A time in whole milliseconds, if it is known.
mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_millis()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let millis = Option::<u64>::deserialize(from)?;
        Ok(millis.map(Duration::from_millis))
    }
}

/// The first of the warnings, and how many more there are.
mod first_warnings {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::FIRST_WARNINGS;
    use crate::plain;

    #[derive(Serialize, Deserialize)]
    struct First {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        further_warnings: Option<usize>,
    }

    pub(super) fn serialize<S: Serializer>(warnings: &[String], to: S) -> Result<S::Ok, S::Error> {
        let (first, further) = warnings.split_at(warnings.len().min(FIRST_WARNINGS));
        let first = First {
            warnings: first.iter().map(|text| plain::foreign(text)).collect(),
            further_warnings: Some(further.len()).filter(|&more| more > 0),
        };
        first.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        First::deserialize(from).map(|first| first.warnings)
    }
}

impl Report {
    /// A delivery that began at `started` and ended now.
    #[must_use]
    pub fn of(to: &Destination, delivery: Delivery, started: Instant) -> Self {
        let outcome = Outcome::from(&delivery.result);
        let reason = reason(&delivery);
        let step_back = delivery.step_back.is_some().then_some(SeenBack::First);
        Self {
            commit: delivery.commit.map(|commit| commit.to_string()),
            tip: delivery.tip.map(|tip| tip.to_string()),
            bucket: Some(to.bucket.clone()),
            object_key: Some(to.key.to_string()),
            version_id: delivery.version_id,
            entries: delivery.entries,
            archive_bytes: delivery.archive_bytes,
            archive_sha256: delivery.archive_sha256,
            fetched_bytes: delivery.fetched_bytes,
            took: Some(started.elapsed()),
            error: delivery.result.as_ref().err().map(Into::into),
            reason: reason.map(Into::into),
            full_fetch: delivery.full_fetch,
            warnings: delivery.warnings,
            stages: delivery.stages,
            step_back,
            ..Self::new(outcome, to.into())
        }
    }

    /// A failure before any object was looked at.
    #[must_use]
    pub fn failed<'a>(subject: impl Into<Subject<'a>>, err: &Error) -> Self {
        Self {
            error: Some(err.into()),
            ..Self::new(Outcome::Failed, subject.into())
        }
    }

    /// Something that leads to nothing, and why.
    #[must_use]
    pub fn ignored<'a>(subject: impl Into<Subject<'a>>, reason: String) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(Outcome::Ignored, subject.into())
        }
    }

    /// A ref that the Git server did not show at any look.
    #[must_use]
    pub fn gone<'a>(subject: impl Into<Subject<'a>>) -> Self {
        Self::new(Outcome::BranchGone, subject.into())
    }

    /// Nothing but this is known.
    pub(crate) fn new(outcome: Outcome, about: Subject<'_>) -> Self {
        Self {
            route: about.route.map(Into::into),
            repository: about.repository.map(ToString::to_string),
            ref_name: about.ref_name.map(ToString::to_string),
            outcome,
            reason: None,
            commit: None,
            tip: None,
            bucket: None,
            object_key: None,
            version_id: None,
            entries: None,
            archive_bytes: None,
            archive_sha256: None,
            fetched_bytes: None,
            took: None,
            error: None,
            full_fetch: None,
            warnings: Vec::new(),
            stages: Vec::new(),
            again: false,
            step_back: None,
            tries: 1,
        }
    }

    /// Whether it failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.error.is_some()
    }

    /// Writes the line of a job into the log, and counts it. `context` is what else is known, such as the request it came
    /// from.
    pub fn log(&self, context: &impl Serialize) {
        let mut metrics = vec![Metric {
            name: Counted::Deliveries,
            count: 1,
            by: &[&["outcome"]],
        }];
        metrics.extend(self.step_back.map(SeenBack::metric));
        self.record(context, metrics);
    }

    /// The same for what was no job: nothing was delivered, well or not.
    pub(crate) fn log_failure(&self, context: &impl Serialize) {
        self.record(context, Vec::new());
    }

    fn record(&self, context: &impl Serialize, mut metrics: Vec<Metric>) {
        #[derive(Serialize)]
        struct Line<'a, C> {
            #[serde(flatten)]
            report: &'a Report,
            #[serde(flatten)]
            context: &'a C,
            #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
            stages_ms: serde_json::Map<String, serde_json::Value>,
        }
        let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let stages = self.stages.iter();
        let line = Line {
            report: self,
            context,
            stages_ms: stages
                .map(|(stage, time)| (stage.name().to_owned(), millis(time).into()))
                .collect(),
        };
        let (level, message) = self.level_and_message();
        metrics.extend(self.error.as_ref().map(|_| failures(self.again)));
        telemetry::record(level, &message, &line, &metrics);
    }

    fn level_and_message(&self) -> (Level, String) {
        let what = match (&self.route, &self.repository, &self.ref_name) {
            (Some(route), ..) => route,
            (None, Some(repository), _) => repository,
            _ => "a message",
        };
        match (&self.error, &self.reason) {
            // What comes again by itself needs nobody yet.
            (Some(fault), _) if self.again => {
                (Level::WARN, format!("{what}: failed: {}", fault.message))
            }
            (Some(fault), _) => (Level::ERROR, format!("{what}: failed: {}", fault.message)),
            (None, Some(reason)) => (Level::INFO, format!("{what}: {}: {reason}", self.outcome)),
            (None, None) if self.tries > 1 => {
                let text = format!(
                    "{what}: {} again, at the attempt {}",
                    self.outcome, self.tries
                );
                (Level::INFO, text)
            }
            (None, None) => (Level::INFO, format!("{what}: {}", self.outcome)),
        }
    }
}

/// Why a delivery that went well left the object as it is.
fn reason(delivery: &Delivery) -> Option<&'static str> {
    match delivery.result {
        Ok(Success::Moved { .. }) => Some("the routing table has changed meanwhile; try again"),
        Ok(_) if delivery.step_back.is_some() => Some("the server shows an older commit"),
        Ok(Success::Published) if delivery.is_repeat => {
            Some("a new version of the commit that the object held already, as asked")
        }
        _ => None,
    }
}

/// The count of failures that alarms watch, by whether what failed comes again by itself.
pub(crate) fn failures(again: bool) -> Metric {
    Metric {
        name: if again {
            Counted::TransientFailures
        } else {
            Counted::PermanentFailures
        },
        count: 1,
        by: &[&[], &["error_kind"]],
    }
}
