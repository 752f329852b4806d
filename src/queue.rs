//! The queue between `receive` and `deliver`: what a message says. How it is sent is `queue::sqs`'s.

mod part;
mod redrive;
mod sqs;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::part::SweepWire;
pub use self::{
    part::Part,
    redrive::{At, Moved, Of, Reads, Redrive, Round},
    sqs::{Depth, Sqs},
};
use crate::{
    error::Error,
    progress::Progress,
    push::{CommitId, PushEvent, RefName, RepositoryName},
};

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Bring one ref's object to the ref's tip.
    Deliver(Box<Job>),
    /// Look at every object, or at those of a part, and make jobs for those that are not what their refs are.
    Sweep(Option<Part>),
}

/// One ref to be delivered by one route. A hint, like the event it comes from: what is fetched and where it goes is up to
/// the routing table and the Git server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The route's name.
    pub route: String,
    /// The repository.
    pub repository: RepositoryName,
    /// The ref.
    pub ref_name: RefName,
    /// Commits that the event named.
    pub hints: Vec<CommitId>,
    /// The commit that the ref pointed to before the push, if the event said so.
    pub before: Option<CommitId>,
    /// Which request it came from, to find that in the log.
    pub request_id: String,
    /// Whether the sweep made it, and so will make it again.
    pub swept: bool,
    /// Whether a person wants a new version in any case, also of the commit that the object holds.
    pub again: bool,
    /// Whether a glob takes the ref, so that an event may name any. Not on the wire: whoever reads a message asks the table.
    pub by_glob: bool,
    /// What has to be looked at once more, if that is what it is for.
    pub recheck: Option<Recheck>,
    /// The Git server or repository that gave no answer, whose jobs are tried one after the other until it does.
    pub rests: Option<String>,
}

/// A later look. It is parked first, so that what waits is in the way of no delivery; then it is a job of its ref like any
/// other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recheck {
    /// The second look at a step back.
    StepBack {
        /// What the first look saw.
        seen: StepBack,
        /// How long it was parked; `None` while it is.
        waited: Option<Duration>,
    },
    /// At whether the Git server has the ref by now.
    Ref {
        /// How long after the event, at least.
        after: Duration,
    },
}

/// How long after its event a ref is looked for that the Git server did not have.
pub const LOOKS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(7),
    Duration::from_secs(70),
];

/// When a ref is looked for again, if it was not there at a look this long after its event.
#[must_use]
pub fn next_look(age: Duration) -> Option<Duration> {
    // A look that comes a little early is that look: clocks differ.
    let age = age + Duration::from_millis(500);
    LOOKS.into_iter().find(|look| *look > age)
}

/// A tip that looks older than what the object holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepBack {
    /// The version that the object held, by its delivery's id.
    pub held: String,
    /// The tip that was seen.
    pub tip: CommitId,
}

/// The message as it is spelled on the wire.
#[derive(Serialize, Deserialize)]
struct Wire {
    route: String,
    repository: String,
    #[serde(rename = "ref")]
    ref_name: String,
    #[serde(default)]
    hints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(default)]
    request_id: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    swept: bool,
    /// A version that does not know this makes an ordinary delivery of it, as with `recheck`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    recheck: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waited_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests: Option<String>,
    /// Without it, the first of the looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
}

impl Job {
    /// The job that a push makes for one route.
    #[must_use]
    pub fn new(route: String, push: &PushEvent, request_id: &str) -> Self {
        let (repository, ref_name) = (push.repository.clone(), push.ref_name.clone());
        Self {
            hints: push.commits.clone(),
            before: push.before,
            ..Self::unhinted(route, repository, ref_name, request_id)
        }
    }

    /// Whether one delivery is enough for this and `later`, which came after it.
    #[must_use]
    pub fn unites_with(&self, later: &Self) -> bool {
        let is_plain = |job: &Self| job.recheck.is_none() && job.rests.is_none() && !job.again;
        let names = |job: &Self| {
            (
                job.route.clone(),
                job.repository.clone(),
                job.ref_name.clone(),
            )
        };
        is_plain(self) && is_plain(later) && names(self) == names(later)
    }

    /// One job for this and `later`, which came after it.
    pub fn unite(&mut self, later: &Self) {
        let known = |commit: &&CommitId| !self.hints.contains(commit);
        let new: Vec<_> = later.hints.iter().filter(known).copied().collect();
        self.hints.extend(new);
        // A tip that was left is one that the server shows no more.
        self.before = later.before;
        self.request_id.clone_from(&later.request_id);
        self.swept &= later.swept;
        self.by_glob |= later.by_glob;
    }

    /// A job of which nothing is known but what to look at.
    #[must_use]
    pub fn unhinted(
        route: String,
        repository: RepositoryName,
        ref_name: RefName,
        request_id: &str,
    ) -> Self {
        Self {
            route,
            repository,
            ref_name,
            hints: Vec::new(),
            before: None,
            request_id: request_id.to_owned(),
            swept: false,
            again: false,
            by_glob: false,
            recheck: None,
            rests: None,
        }
    }

    /// The same job, to be tried when somebody may answer who did not.
    #[must_use]
    pub fn resting(&self, silent: &str) -> Self {
        Self {
            rests: Some(silent.to_owned()),
            ..self.clone()
        }
    }

    /// How far its delivery is, which has not begun. A Git server that takes long has one turn for all that wait for it.
    #[must_use]
    pub fn progress(&self, deadline: Instant) -> Progress {
        let progress = Progress::until(deadline);
        match self.rests {
            Some(_) => progress,
            None => progress.impatient(),
        }
    }

    /// A second look, parked, at the step back that a delivery of this job met.
    #[must_use]
    pub fn parked(&self, seen: StepBack) -> Self {
        self.later(Recheck::StepBack { seen, waited: None })
    }

    /// The same second look, to be taken now.
    #[must_use]
    pub fn due(&self, waited: Duration) -> Self {
        let mut due = self.clone();
        if let Some(Recheck::StepBack { waited: been, .. }) = &mut due.recheck {
            *been = Some(waited);
        }
        due
    }

    /// A look, parked, at whether the ref is there so long after the event.
    #[must_use]
    pub fn awaited(&self, after: Duration) -> Self {
        self.later(Recheck::Ref { after })
    }

    /// The job that goes on where the ref was faster.
    #[must_use]
    pub fn going_on(&self) -> Self {
        Self {
            // What the event told of is delivered, and history.
            hints: Vec::new(),
            before: None,
            recheck: None,
            rests: None,
            again: false,
            ..self.clone()
        }
    }

    /// The job of a ref that is there by now.
    #[must_use]
    pub fn found(&self) -> Self {
        Self {
            recheck: None,
            ..self.clone()
        }
    }

    fn later(&self, recheck: Recheck) -> Self {
        Self {
            hints: Vec::new(),
            before: None,
            recheck: Some(recheck),
            rests: None,
            // Whatever is delivered after it is a new version, or none is due any more.
            again: false,
            ..self.clone()
        }
    }

    /// What it looks for a second time, while it is parked.
    #[must_use]
    pub fn parks(&self) -> Option<&StepBack> {
        match &self.recheck {
            Some(Recheck::StepBack { seen, waited: None }) => Some(seen),
            _ => None,
        }
    }

    /// Whether both park the same.
    #[must_use]
    pub fn parks_same(&self, other: &Self) -> bool {
        (&self.route, &self.ref_name, self.parks())
            == (&other.route, &other.ref_name, other.parks())
    }

    /// What is handled one after the other: the jobs of one route and ref; what one repository has parked; the refs of one
    /// that are awaited, of which anybody who knows the token can name any number; or what a silent Git server keeps waiting.
    #[must_use]
    pub fn group(&self) -> String {
        // No name holds a line break.
        if let Some(silent) = &self.rests {
            return hash(&format!("\n\n\n{silent}"));
        }
        hash(&match &self.recheck {
            Some(Recheck::Ref { .. }) => format!("\n\n{}", self.repository),
            Some(Recheck::StepBack { waited: None, .. }) => format!("\n{}", self.repository),
            _ => format!("{}\n{}", self.route, self.ref_name),
        })
    }

    /// By what SQS knows a message again that it took before. Of two jobs it must never drop one: A, B and A again within
    /// five minutes are three deliveries. Of two that park the same within a minute, one is enough: it has yet to look.
    fn deduplication_id(&self, now: SystemTime) -> String {
        let Some(StepBack { held, tip }) = self.parks() else {
            return uuid::Uuid::new_v4().simple().to_string();
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let minute = since.as_secs() / 60;
        let (route, ref_name) = (&self.route, &self.ref_name);
        hash(&format!("{route}\n{ref_name}\n{held}\n{tip}\n{minute}"))
    }

    /// The message's body.
    ///
    /// # Panics
    ///
    /// Never: a job is plain data.
    #[must_use]
    pub fn body(&self) -> String {
        let (seen, waited) = match &self.recheck {
            Some(Recheck::StepBack { seen, waited }) => (Some(seen), *waited),
            _ => (None, None),
        };
        let after = match &self.recheck {
            Some(Recheck::Ref { after }) if *after != LOOKS[0] => Some(*after),
            _ => None,
        };
        let wire = Wire {
            route: self.route.clone(),
            repository: self.repository.to_string(),
            ref_name: self.ref_name.to_string(),
            hints: self.hints.iter().map(CommitId::to_string).collect(),
            before: self.before.map(|commit| commit.to_string()),
            request_id: self.request_id.clone(),
            swept: self.swept,
            again: self.again,
            recheck: self.recheck.is_some(),
            held: seen.map(|seen| seen.held.clone()),
            tip: seen.map(|seen| seen.tip.to_string()),
            waited_ms: waited.and_then(|waited| waited.as_millis().try_into().ok()),
            rests: self.rests.clone(),
            after_ms: after.and_then(|after| after.as_millis().try_into().ok()),
        };
        serde_json::to_string(&wire).expect("plain data")
    }
}

/// A name for any text, of which a message's ids may not have more than 128 characters.
fn hash(text: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

impl Message {
    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`Error::Job`] if it is neither a job nor `{"sweep":true}`.
    pub fn parse(body: &str) -> Result<Self, Error> {
        if let Ok(sweep) = serde_json::from_str::<SweepWire>(body)
            && sweep.sweep
        {
            return sweep.part().map(Self::Sweep);
        }
        let wrong = |reason: String| Error::Job { reason };
        let wire: Wire = serde_json::from_str(body).map_err(|err| wrong(err.to_string()))?;
        let name = |err: crate::push::InvalidName| wrong(err.to_string());
        let hints = wire.hints.iter().map(|commit| commit.parse());
        let recheck = match (wire.recheck, wire.held, wire.tip) {
            (false, ..) => None,
            (true, Some(held), Some(tip)) => Some(Recheck::StepBack {
                seen: StepBack {
                    held,
                    tip: tip.parse().map_err(name)?,
                },
                waited: wire.waited_ms.map(Duration::from_millis),
            }),
            (true, ..) => Some(Recheck::Ref {
                after: wire.after_ms.map_or(LOOKS[0], Duration::from_millis),
            }),
        };
        Ok(Self::Deliver(Box::new(Job {
            route: wire.route,
            repository: wire.repository.parse().map_err(name)?,
            ref_name: wire.ref_name.parse().map_err(name)?,
            hints: hints.collect::<Result<_, _>>().map_err(name)?,
            before: wire
                .before
                .map(|commit| commit.parse())
                .transpose()
                .map_err(name)?,
            request_id: wire.request_id,
            swept: wire.swept,
            again: wire.again,
            by_glob: false,
            recheck,
            rests: wire.rests,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            route: "web-main".into(),
            repository: "APP/web".parse().unwrap(),
            ref_name: "refs/heads/main".parse().unwrap(),
            hints: vec!["1".repeat(40).parse().unwrap()],
            before: Some("2".repeat(40).parse().unwrap()),
            request_id: "a-request".into(),
            swept: false,
            again: false,
            by_glob: false,
            recheck: None,
            rests: None,
        }
    }

    #[test]
    fn a_recheck_is_spelled_as_a_job_with_what_was_seen() {
        let step_back = StepBack {
            held: "d".into(),
            tip: "3".repeat(40).parse().unwrap(),
        };
        let recheck = job().parked(step_back.clone());
        let tip = "3".repeat(40);
        let expected = format!(
            r#"{{"route":"web-main","repository":"APP/web","ref":"refs/heads/main","hints":[],"request_id":"a-request","recheck":true,"held":"d","tip":"{tip}"}}"#
        );
        assert_eq!(recheck.body(), expected);
        let due = recheck.due(Duration::from_millis(61_500));
        let waited = expected.replace('}', ",\"waited_ms\":61500}");
        assert_eq!(due.body(), waited);
        for (body, job) in [(&expected, &recheck), (&waited, &due)] {
            assert_eq!(
                Message::parse(body).unwrap(),
                Message::Deliver(job.clone().into())
            );
        }

        let (minute, later) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_mins(1));
        let other = job().parked(StepBack {
            held: "e".into(),
            ..step_back
        });
        let id = recheck.deduplication_id(minute);
        assert_eq!(recheck.deduplication_id(minute), id);
        assert_ne!(recheck.deduplication_id(later), id);
        assert_ne!(other.deduplication_id(minute), id);
        for job in [job(), due] {
            assert_ne!(job.deduplication_id(minute), job.deduplication_id(minute));
        }
    }

    #[test]
    fn what_waits_for_a_server_is_a_job_that_says_for_which() {
        let silent = "https://a.example/git/APP/web.git";
        let rests = job().resting(silent);
        assert!(rests.body().contains(&format!("\"rests\":\"{silent}\"")));
        // The jobs of all refs that wait for it are one group, which is nobody else's.
        let other_ref = Job {
            ref_name: "refs/heads/dev".parse().unwrap(),
            ..rests.clone()
        };
        assert_eq!(rests.group(), other_ref.group());
        let groups = [
            rests.group(),
            job().group(),
            job().awaited(LOOKS[0]).group(),
            job().resting("https://a.example").group(),
        ];
        let distinct: std::collections::HashSet<_> = groups.iter().collect();
        assert_eq!(distinct.len(), groups.len());
        // A later look after another time than the first one says after which.
        let later = job().awaited(Duration::from_secs(7));
        assert!(
            later.body().contains("\"after_ms\":7000"),
            "{}",
            later.body()
        );
        assert!(!job().awaited(LOOKS[0]).body().contains("after"));
        for job in [rests, later, job().awaited(LOOKS[0])] {
            let read = Message::parse(&job.body()).unwrap();
            assert_eq!(read, Message::Deliver(job.into()));
        }
    }

    #[test]
    fn a_job_is_spelled_as_the_contract_has_it() {
        let (hint, before) = ("1".repeat(40), "2".repeat(40));
        let expected = format!(
            r#"{{"route":"web-main","repository":"APP/web","ref":"refs/heads/main","hints":["{hint}"],"before":"{before}","request_id":"a-request"}}"#
        );
        assert_eq!(job().body(), expected);
        assert_eq!(
            Message::parse(&expected).unwrap(),
            Message::Deliver(job().into())
        );
    }

    #[test]
    fn a_message_is_a_job_or_the_sweep() {
        let job = r#""route":"r","repository":"APP/web","ref":"refs/heads/main""#;
        for (case, body, expected) in [
            ("the sweep", r#"{"sweep":true}"#.to_owned(), Ok("sweep")),
            ("the least a job says", format!("{{{job}}}"), Ok("job")),
            (
                "a field of a later version",
                format!("{{{job},\"x\":1}}"),
                Ok("job"),
            ),
            (
                "no sweep",
                r#"{"sweep":false}"#.to_owned(),
                Err("missing field `route`"),
            ),
            ("no JSON", "hello".to_owned(), Err("expected value")),
            (
                "a short hint",
                format!("{{{job},\"hints\":[\"12\"]}}"),
                Err("expected a commit id of 40 hexadecimal digits, found \"12\""),
            ),
            (
                "a short ref",
                r#"{"route":"r","repository":"APP/web","ref":"main"}"#.to_owned(),
                Err("expected a full ref name as refs/heads/main, found \"main\""),
            ),
        ] {
            let found = Message::parse(&body).map(|message| match message {
                Message::Sweep(_) => "sweep",
                Message::Deliver(_) => "job",
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{case}"),
                (Err(err), Err(expected)) => {
                    let text = crate::error::chain(&err);
                    assert!(text.contains(expected), "{case}: {text}");
                    assert_eq!(err.kind(), "job", "{case}");
                }
                (found, _) => panic!("{case}: {found:?}"),
            }
        }
    }

    #[test]
    fn of_jobs_that_unite_the_later_one_says_what_was_before() {
        let commit = |digit: &str| digit.repeat(40).parse().unwrap();
        let later = Job {
            hints: vec![commit("1"), commit("4")],
            before: Some(commit("1")),
            request_id: "the-later-request".into(),
            ..job()
        };
        let swept = Job {
            swept: true,
            ..job()
        };
        let mut united = swept.clone();
        assert!(united.unites_with(&later));
        united.unite(&later);
        let expected = Job {
            hints: vec![commit("1"), commit("4")],
            ..later.clone()
        };
        assert_eq!(united, expected);
        united.unite(&swept);
        assert!(!united.swept, "somebody pushed");
        assert_eq!(united.before, job().before);
        let step_back = StepBack {
            held: "d".into(),
            tip: commit("3"),
        };
        for other in [
            job().parked(step_back),
            job().resting("https://a.example"),
            Job {
                again: true,
                ..job()
            },
            Job {
                route: "all".into(),
                ..job()
            },
            Job {
                ref_name: "refs/heads/dev".parse().unwrap(),
                ..job()
            },
        ] {
            assert!(
                !job().unites_with(&other) && !other.unites_with(&job()),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_group_is_one_route_and_one_ref() {
        let other_ref = Job {
            ref_name: "refs/heads/dev".parse().unwrap(),
            ..job()
        };
        let other_route = Job {
            route: "all".into(),
            ..job()
        };
        let again = Job {
            hints: Vec::new(),
            request_id: "another".into(),
            ..job()
        };
        assert_eq!(job().group(), again.group());
        assert_ne!(job().group(), other_ref.group());
        assert_ne!(job().group(), other_route.group());
        let parked = |job: &Job| {
            let (held, tip) = (String::new(), "3".repeat(40).parse().unwrap());
            job.parked(StepBack { held, tip })
        };
        assert_ne!(parked(&job()).group(), job().group());
        assert_eq!(parked(&job()).group(), parked(&other_ref).group());
        assert_eq!(parked(&job()).due(Duration::ZERO).group(), job().group());
        assert_eq!(job().group().len(), 43);
    }
}
