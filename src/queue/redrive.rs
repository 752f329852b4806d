//! Dead letters on their way back to the queue. A job delivers what its ref is today, so one job stands for all letters of a
//! route and ref. Letters of results go back as they were, each text once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Job, Message, Sqs, sqs::Letter};
use crate::{
    error::Error,
    push::{RefName, RepositoryName},
};

/// How long letters are kept from others while they are looked at.
const HIDDEN: Duration = Duration::from_mins(1);

/// So many looks in a row that show nothing say that there is nothing.
const EMPTY_LOOKS: usize = 2;

/// More letters than this are not held at once.
const HELD: usize = 200;

/// What a letter is of. Those of one become one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// A job of a route and ref.
    Ref(String, RepositoryName, RefName),
    /// A look at a pipeline, or at the pipelines of a pull request.
    Look {
        /// Which one.
        at: At,
        /// The message as it was.
        body: String,
        /// Its group.
        group: &'static str,
    },
}

/// What a look is at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// A pipeline, or a project of builds.
    Pipeline(String),
    /// A pull request of a repository.
    Request(RepositoryName, i64),
}

/// Reads a letter: what it is of, and which request it came from; or why it stays.
pub type Reads = fn(&str) -> Result<(Of, String), &'static str>;

/// Moves letters back. Killed at any time and begun again, it ends the same: a job may have been sent twice, which does no harm.
#[derive(Debug)]
pub struct Redrive<'a> {
    letters: &'a Sqs,
    queue: &'a Sqs,
    reads: Reads,
    request_id: String,
    begin: SystemTime,
    /// What a job was sent for.
    sent: BTreeSet<Of>,
}

/// Letters that are held.
#[derive(Debug, Default)]
pub struct Round {
    /// Those that make a job, by what it is of.
    jobs: BTreeMap<Of, Vec<Letter>>,
    /// Those that stay, and why.
    left: Vec<(Letter, Option<Of>, &'static str)>,
    /// Those that nobody asked for.
    others: Vec<Letter>,
}

/// What became of letters, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// What they are of, if that is known.
    pub of: Option<Of>,
    /// How many.
    pub letters: usize,
    /// How many messages were sent for them, or would be.
    pub messages: usize,
    /// Why they stay where they are; `None` if messages were sent, or would be.
    pub left: Option<String>,
}

impl Round {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.left.is_empty()
    }

    /// How many jobs it makes, of how many letters.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.jobs.len(), self.jobs.values().map(Vec::len).sum())
    }

    /// What would become of them.
    #[must_use]
    pub fn outlook(&self) -> Vec<Moved> {
        let jobs = self.jobs.iter();
        let jobs = jobs.map(|(of, letters)| Moved::new(Some(of), letters.len(), None));
        jobs.chain(self.left()).collect()
    }

    fn left(&self) -> impl Iterator<Item = Moved> {
        let left = self.left.iter();
        left.map(|(letter, of, why)| {
            let why = format!("{why} (message {})", letter.id);
            Moved::new(of.as_ref(), 1, Some(why))
        })
    }
}

impl Moved {
    fn new(of: Option<&Of>, letters: usize, left: Option<String>) -> Self {
        Self {
            of: of.cloned(),
            letters,
            messages: usize::from(left.is_none()),
            left,
        }
    }

    /// Whether two are of the same, as people see it.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let is_same = match (&self.of, &other.of) {
            (Some(Of::Look { at, .. }), Some(Of::Look { at: own, .. })) => at == own,
            (of, own) => of == own,
        };
        is_same && self.left == other.left
    }
}

impl<'a> Redrive<'a> {
    /// Of jobs, from the dead letters to the queue that they were on.
    #[must_use]
    pub fn of_jobs(letters: &'a Sqs, queue: &'a Sqs) -> Self {
        Self::new(letters, queue, read_job)
    }

    /// The same of other messages.
    #[must_use]
    pub fn new(letters: &'a Sqs, queue: &'a Sqs, reads: Reads) -> Self {
        Self {
            letters,
            queue,
            reads,
            request_id: format!("redrive-{}", uuid::Uuid::new_v4().simple()),
            begin: SystemTime::now(),
            sent: BTreeSet::new(),
        }
    }

    /// Takes hold of letters: all that can be seen. Of one route and ref those are ten, as further ones are hidden while these
    /// are held; another round has the next.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then those that were held come back by themselves.
    pub async fn hold(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Round, Error> {
        let mut round = Round::default();
        let (mut empty, mut held) = (0, 0_usize);
        while empty < EMPTY_LOOKS && held < HELD {
            let letters = self.letters.receive(HIDDEN).await?;
            empty = if letters.is_empty() { empty + 1 } else { 0 };
            for letter in letters {
                self.sort(letter, &is_wanted, &mut round);
            }
            // What nobody asked for does not stand in the way of what somebody did.
            held = round.jobs.values().map(Vec::len).sum();
        }
        Ok(round)
    }

    fn sort(&self, letter: Letter, is_wanted: impl Fn(&str) -> bool, round: &mut Round) {
        let (of, request_id) = match (self.reads)(&letter.body) {
            Ok(read) => read,
            Err(why) => return round.left.push((letter, None, why)),
        };
        let is_other = matches!(&of, Of::Ref(route, ..) if !is_wanted(route));
        if is_other {
            round.others.push(letter);
        } else if request_id == self.request_id {
            let why = "what was sent back has failed again";
            round.left.push((letter, Some(of), why));
        } else if self.sent.contains(&of) && letter.sent > self.begin {
            let why = "it came meanwhile; run this again";
            round.left.push((letter, Some(of), why));
        } else {
            round.jobs.entry(of).or_default().push(letter);
        }
    }

    /// Sends a job for each route and ref that none was sent for yet, and only then deletes its letters. What stays is let go.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then what was not deleted comes back by itself.
    pub async fn send(&mut self, round: Round) -> Result<Vec<Moved>, Error> {
        let mut moved = Vec::new();
        for (of, letters) in &round.jobs {
            let is_new = !self.sent.contains(of);
            if is_new {
                match of.clone() {
                    Of::Ref(route, repository, ref_name) => {
                        let job = Job::unhinted(route, repository, ref_name, &self.request_id);
                        self.queue.send(&job).await?;
                    }
                    Of::Look { body, group, .. } => self.queue.send_text(&body, group).await?,
                }
                self.sent.insert(of.clone());
            }
            for letter in letters {
                self.letters.delete(letter).await?;
            }
            moved.push(Moved {
                messages: usize::from(is_new),
                ..Moved::new(Some(of), letters.len(), None)
            });
        }
        moved.extend(round.left());
        let stay = round.left.iter().map(|(letter, ..)| letter);
        self.let_go(stay.chain(&round.others)).await?;
        Ok(moved)
    }

    /// Lets all of them be seen again, as they were.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then they come back by themselves, a minute later.
    pub async fn release(&self, round: &Round) -> Result<(), Error> {
        let left = round.left.iter().map(|(letter, ..)| letter);
        let all = round.jobs.values().flatten().chain(left);
        self.let_go(all.chain(&round.others)).await
    }

    async fn let_go(&self, letters: impl Iterator<Item = &Letter>) -> Result<(), Error> {
        for letter in letters {
            self.letters
                .postpone(&letter.receipt, Duration::ZERO)
                .await?;
        }
        Ok(())
    }
}

fn read_job(body: &str) -> Result<(Of, String), &'static str> {
    match Message::parse(body) {
        Ok(Message::Deliver(job)) => {
            let of = Of::Ref(job.route, job.repository, job.ref_name);
            Ok((of, job.request_id))
        }
        Ok(Message::Sweep(_)) => Err("it is a sweep; the next one makes up for it"),
        Err(_) => Err("it is no job"),
    }
}

/// An instant in milliseconds of Unix time.
pub(super) fn instant(millis: &str) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.parse().unwrap_or_default())
}
