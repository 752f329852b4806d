//! Dead letters on their way back to the queue. A job delivers what its ref is today, so one job stands for all letters of a
//! route and ref.

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

/// Whose letters belong together.
type Of = (String, RepositoryName, RefName);

/// Moves letters back. Killed at any time and begun again, it ends the same: a job may have been sent twice, which does no harm.
#[derive(Debug)]
pub struct Redrive<'a> {
    letters: &'a Sqs,
    queue: &'a Sqs,
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
    /// The route's name, if they are jobs.
    pub route: Option<String>,
    /// The repository.
    pub repository: Option<RepositoryName>,
    /// The ref.
    pub ref_name: Option<RefName>,
    /// How many.
    pub letters: usize,
    /// Why they stay where they are; `None` if a job was sent, or would be.
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
            route: of.map(|(route, ..)| route.clone()),
            repository: of.map(|(_, repository, _)| repository.clone()),
            ref_name: of.map(|(.., ref_name)| ref_name.clone()),
            letters,
            left,
        }
    }
}

impl<'a> Redrive<'a> {
    /// From the dead letters to the queue that they were on.
    #[must_use]
    pub fn new(letters: &'a Sqs, queue: &'a Sqs) -> Self {
        Self {
            letters,
            queue,
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
        let job = match Message::parse(&letter.body) {
            Ok(Message::Deliver(job)) => *job,
            Ok(Message::Sweep(_)) => {
                let why = "it is a sweep; the next one makes up for it";
                return round.left.push((letter, None, why));
            }
            Err(_) => return round.left.push((letter, None, "it is no job")),
        };
        let of = (job.route, job.repository, job.ref_name);
        if !is_wanted(&of.0) {
            round.others.push(letter);
        } else if job.request_id == self.request_id {
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
            if !self.sent.contains(of) {
                let (route, repository, ref_name) = of.clone();
                let job = Job::unhinted(route, repository, ref_name, &self.request_id);
                self.queue.send(&job).await?;
                self.sent.insert(of.clone());
            }
            for letter in letters {
                self.letters.delete(letter).await?;
            }
            moved.push(Moved::new(Some(of), letters.len(), None));
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

/// An instant in milliseconds of Unix time.
pub(super) fn instant(millis: &str) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.parse().unwrap_or_default())
}
