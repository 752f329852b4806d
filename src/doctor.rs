//! Every hop of a push is looked at, and what is wrong is told with what to do. Nothing is written anywhere.
//!
//! What is seen (`git`, `backlog`, `bridge`, `objects`, `pipelines`) is apart from what is said of it (`verdict`): each
//! text is made of facts alone.

mod backlog;
mod bridge;
mod examine;
mod git;
mod objects;
mod pipelines;
mod results;
mod seen;
mod verdict;

use serde::Serialize;

pub use self::{
    bridge::{Deployed, Table},
    examine::Patient,
    verdict::{Local, stack_missing},
};

/// Every check has a name, in the order of a push. What stands first is needed for what follows.
macro_rules! checks {
    ($($(#[doc = $text:literal])* $variant:ident = $name:literal,)*) => {
        /// A question about a hop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[doc = $text])* $variant,)*
        }

        impl Check {
            /// All of them, in the order of a push.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// A name for programs. It never changes.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

checks! {
    /// Whether there is a login to AWS.
    AwsLogin = "aws_login",
    /// Whether the bridge is deployed.
    Stack = "stack",
    /// Whose key of Backlog's API it is.
    ApiKey = "api_key",
    /// Whether the project is there and has Git.
    Project = "project",
    /// What the key's owner may do.
    Role = "role",
    /// Whether the project posts its pushes to the bridge.
    Webhook = "webhook",
    /// Whether a repository posts them, too.
    GitWebhook = "git_webhook",
    /// Whether the last push was told.
    Arrival = "arrival",
    /// Whether the function answers.
    WayIn = "way_in",
    /// Whether a function is as it was deployed.
    Function = "function",
    /// Whether the webhook's token is there.
    TokenSecret = "token_secret",
    /// Whether the routing table is of use.
    Table = "table",
    /// Whether the queue is as it was deployed.
    Queue = "queue",
    /// Whether jobs are taken from the queue.
    Mapping = "mapping",
    /// Whether jobs were given up.
    DeadLetters = "dead_letters",
    /// Whether the bridge looks for pushes that no webhook told of.
    Sweep = "sweep",
    /// How many functions may run.
    AccountLimit = "account_limit",
    /// Whether the Git login is filled in.
    GitSecret = "git_secret",
    /// Whether the Git server answers, over TLS.
    Reach = "reach",
    /// Whether this machine's clock is right.
    Clock = "clock",
    /// Whether the Git login is taken.
    GitLogin = "git_login",
    /// Whether the repository is there.
    Repository = "repository",
    /// Whether the refs are there.
    Ref = "ref",
    /// Whether Git sends only what changed.
    Protocol = "protocol",
    /// What the server says of LFS.
    Lfs = "lfs",
    /// Whether the bucket keeps versions.
    Versioning = "versioning",
    /// Whether the bucket tells of new versions.
    Events = "events",
    /// Whether the bucket is in the region.
    Region = "region",
    /// Whether the bridge may use the bucket's key.
    Encryption = "encryption",
    /// Whether the bridge may write the object.
    Access = "access",
    /// Whether the object holds the tip.
    Object = "object",
    /// Whether a new version starts the pipeline.
    Rule = "rule",
    /// Whether the pipeline reads the object.
    Pipeline = "pipeline",
    /// Whether results can be told.
    Results = "results",
    /// Which alarms are on.
    Alarm = "alarm",
    /// Whether anybody is told of alarms.
    AlarmAddress = "alarm_address",
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and may not be meant.
    Warning,
    /// It does not work.
    Error,
    /// It could not be looked at.
    Unknown,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The question.
    #[serde(serialize_with = "name")]
    pub check: Check,
    /// What it is about, such as a route or a function.
    pub subject: String,
    /// The answer.
    pub verdict: Verdict,
    /// The same in words.
    pub message: String,
    /// What to do: a command or a sentence.
    pub remedy: Option<String>,
    /// Whether it follows from another finding, which says what to do.
    #[serde(skip)]
    pub follows: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn name<S: serde::Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name())
}

impl Finding {
    fn new(
        check: Check,
        subject: impl Into<String>,
        verdict: Verdict,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check,
            subject: subject.into(),
            verdict,
            message: message.into(),
            remedy: None,
            follows: false,
        }
    }

    fn with(self, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..self }
    }
}

impl Check {
    fn ok(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(self, subject, Verdict::Ok, message)
    }

    fn warning(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(self, subject, Verdict::Warning, message)
    }

    fn error(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(self, subject, Verdict::Error, message)
    }

    fn unknown(self, subject: impl Into<String>, why: &seen::Unseen) -> Finding {
        Finding {
            follows: why.follows(),
            remedy: why.remedy(),
            ..Finding::new(
                self,
                subject,
                Verdict::Unknown,
                format!("not checked: {why}"),
            )
        }
    }
}

/// How many findings there are of each kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// What works.
    pub well: usize,
    /// What works, and may not be meant.
    pub warnings: usize,
    /// What does not work.
    pub errors: usize,
    /// What could not be looked at.
    pub unknown: usize,
}

impl Tally {
    /// Counts.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let mut tally = Self::default();
        for finding in findings {
            *match finding.verdict {
                Verdict::Ok => &mut tally.well,
                Verdict::Warning => &mut tally.warnings,
                Verdict::Error => &mut tally.errors,
                Verdict::Unknown => &mut tally.unknown,
            } += 1;
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = crate::plain::count;
        let (errors, warnings) = (
            count(self.errors, "error", "errors"),
            count(self.warnings, "warning", "warnings"),
        );
        let Self { well, unknown, .. } = self;
        write!(
            f,
            "{errors}, {warnings}, {well} well, {unknown} not checked"
        )
    }
}
