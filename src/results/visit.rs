//! What is done for one message: how long it may take, and what was asked for it already.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{
    Request, Why,
    message::{Changed, Rest},
};
use crate::{
    error::{Error, chain},
    push::{CommitId, RepositoryName},
};

/// How long before the invocation ends the last look does.
const MARGIN: Duration = Duration::from_secs(5);

/// How often a space may fail to answer before it is not asked any more for a message.
const SILENCES: usize = 2;

/// Where this bridge runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The account's number.
    pub account: String,
    /// The region.
    pub region: String,
}

/// The time of an invocation.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When it began.
    pub began: Instant,
    /// Nothing more is begun after that.
    pub until: Instant,
    /// Everything has ended by then.
    pub end: Instant,
}

impl Times {
    /// Of an invocation that began and has so much time left.
    #[must_use]
    pub fn new(began: Instant, left: Duration) -> Self {
        Self {
            began,
            until: began + left / 2,
            end: began + left.saturating_sub(MARGIN),
        }
    }

    /// What some work comes to before the end.
    pub(super) async fn within<T>(
        self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = tokio::time::timeout_at(self.end.into(), work).await;
        done.unwrap_or_else(|_| {
            Err(Error::Results {
                reason: "the time was over".into(),
                transient: true,
            })
        })
    }
}

/// What is asked of one pipeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    /// Whether it is a project of builds; `None` if that is not known.
    pub(super) builds: Option<bool>,
    pub(super) changed: Option<&'a Changed>,
    pub(super) why: Why,
    /// Whether it is not tried again.
    pub(super) is_last: bool,
}

/// What is done for one message, and what was asked for it already.
pub(super) struct Visit<'a> {
    pub(super) place: &'a Place,
    pub(super) times: Times,
    /// By space and repository.
    pub(super) requests: HashMap<(String, RepositoryName), Vec<Request>>,
    pub(super) pushers: HashMap<(String, RepositoryName, CommitId), Option<i64>>,
    /// Why a space, or a repository of it, is not to be asked again.
    refused: HashMap<(String, Option<RepositoryName>), String>,
    silences: HashMap<String, usize>,
    /// Where the message says that it goes on.
    pub(super) from: Option<Rest>,
    /// Where the next one has to.
    pub(super) rest: Option<Rest>,
    pub(super) comments: usize,
    pub(super) warnings: Vec<String>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(place: &'a Place, times: Times, from: Option<Rest>) -> Self {
        Self {
            place,
            times,
            requests: HashMap::new(),
            pushers: HashMap::new(),
            refused: HashMap::new(),
            silences: HashMap::new(),
            from,
            rest: None,
            comments: 0,
            warnings: Vec::new(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.times.until
    }

    /// Remembers that a space did not answer.
    pub(super) fn heard(&mut self, space: &str, err: &Error) {
        if err.is_transient() {
            *self.silences.entry(space.to_owned()).or_default() += 1;
        }
    }

    /// Whether a space, or a repository of it, may be asked: not if it refused, or was silent too often.
    pub(super) fn may_ask(
        &self,
        space: &str,
        repository: Option<&RepositoryName>,
    ) -> Result<(), Error> {
        if let Some(reason) = self.refused.get(&(space.to_owned(), repository.cloned())) {
            return Err(Error::Results {
                reason: reason.clone(),
                transient: false,
            });
        }
        if self
            .silences
            .get(space)
            .is_some_and(|count| *count >= SILENCES)
        {
            return Err(Error::Results {
                reason: format!("{space} did not answer, and is not asked any more in this look"),
                transient: true,
            });
        }
        Ok(())
    }

    /// Remembers what was refused.
    pub(super) fn learn<T>(
        &mut self,
        space: &str,
        repository: Option<&RepositoryName>,
        answer: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(err) = &answer
            && !err.is_transient()
        {
            let at = (space.to_owned(), repository.cloned());
            self.refused.insert(at, reason(err));
        }
        answer
    }
}

/// Several faults as one.
pub(super) fn joined(mut faults: Vec<Error>) -> Result<(), Error> {
    if faults.len() < 2 {
        return faults.pop().map_or(Ok(()), Err);
    }
    let transient = faults.iter().any(Error::is_transient);
    let reasons: BTreeSet<_> = faults.iter().map(reason).collect();
    let reasons: Vec<_> = reasons.into_iter().collect();
    Err(Error::Results {
        reason: reasons.join("; "),
        transient,
    })
}

fn reason(err: &Error) -> String {
    match err {
        Error::Results { reason, .. } => reason.clone(),
        err => chain(err),
    }
}
