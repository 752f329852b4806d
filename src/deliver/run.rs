//! One delivery in progress: carries out what [`step`](super::step) decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Deliverer, Delivery, Success,
    build::{Base, Built, archive_error},
    git::Git,
    holder::{Holder, Ruling},
    ledger::Ledger,
    previous::Previous,
    step::{Action, Saw, Steps, Verdict},
};
use crate::{
    archive::{Dates, Times},
    bucket::{Address, Condition, Current, Label},
    deadline::{flowing, in_time},
    error::Error,
    plain,
    progress::{Progress, Stage},
    push::CommitId,
    remote::Tip,
    route::Destination,
};

/// The first pause after a lost race; each further one is twice as long, up to [`MAX_PAUSE`]. A random part of it is waited.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Rounds in which a commit may be refused that the Git server shows. After them, the queue lets it rest for longer.
const REFUSED_FETCHES: u32 = 3;

pub(super) struct Run<'a> {
    bridge: &'a Deliverer,
    to: &'a Destination,
    at: Address<'a>,
    git: Git<'a>,
    progress: &'a Arc<Progress>,
    steps: Steps,
    /// What the last head showed.
    head: Option<Current>,
    /// The entity tag of what it showed, which the next write's condition names.
    beside: Option<String>,
    /// When it showed that, in seconds of Unix time: the time of what has changed since.
    now: i64,
    /// The current version, if it is one of ours.
    previous: Option<Previous>,
    /// The tip that was read last.
    tip: Option<Tip>,
    /// The archive that was built last. A round that was lost to a fault of S3 need not fetch again.
    built: Option<Built>,
    /// The entity tag of the version whose times it goes on from.
    built_beside: Option<String>,
    /// The part of the last build that was no fetch, and has a stage of its own.
    archiving: Duration,
    ledger: Ledger,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        bridge: &'a Deliverer,
        to: &'a Destination,
        git: Git<'a>,
        steps: Steps,
        progress: &'a Arc<Progress>,
    ) -> Self {
        Self {
            bridge,
            to,
            at: to.into(),
            git,
            progress,
            steps,
            head: None,
            beside: None,
            now: 0,
            previous: None,
            tip: None,
            built: None,
            built_beside: None,
            archiving: Duration::ZERO,
            ledger: Ledger::new(),
        }
    }

    /// Carries out one action after the other, to the last or to the deadline.
    pub(super) async fn finish(mut self) -> Delivery {
        let mut action = self.steps.start();
        let progress = self.progress;
        let result = loop {
            if let Action::Done(verdict) = action {
                break in_time(progress, Box::pin(self.conclude(verdict))).await;
            }
            let stage = self.stage(&action);
            progress.begin(stage);
            let started = Instant::now();
            let saw = in_time(progress, Box::pin(self.carry_out(action))).await;
            let archiving = std::mem::take(&mut self.archiving);
            let time = started.elapsed().saturating_sub(archiving);
            self.ledger.took(stage, time);
            if !archiving.is_zero() {
                self.ledger.took(Stage::Archive, archiving);
            }
            match saw {
                Ok(saw) => action = self.steps.next(saw),
                Err(err) => break Err(err),
            }
        };
        let mut delivery = self.ledger.delivery;
        delivery.result = result;
        delivery.stages.sort_unstable();
        delivery
    }

    fn stage(&self, action: &Action) -> Stage {
        match action {
            Action::Head | Action::Pause { .. } => Stage::Head,
            Action::Table => Stage::Routes,
            Action::Tip if self.steps.is_verifying() => Stage::Verify,
            Action::Tip => Stage::Tip,
            Action::Build(_) => Stage::Fetch,
            Action::Put(_) => Stage::Put,
            Action::Wait(_) | Action::Done(_) => Stage::Settle,
        }
    }

    async fn carry_out(&mut self, action: Action) -> Result<Saw, Error> {
        match action {
            Action::Head => {
                self.previous = None;
                // A process that has just started has to read the login's secret.
                let head = self.bridge.s3.head(self.at);
                let (has_login, head) = tokio::join!(self.git.log_in(), head);
                has_login?;
                let head = head?;
                self.beside = head.current.as_ref().map(|current| current.etag.clone());
                self.now = head.time;
                self.head = head.current;
                Ok(Saw::Head(self.beside.clone()))
            }
            Action::Table => self.judge().await.map(Saw::Table),
            Action::Tip => {
                self.tip = self.git.tip(&self.to.ref_name).await?;
                if let Some(tip) = self.tip {
                    self.steps.peeled(tip.object.into(), tip.commit);
                }
                let tip = self.tip.map(|tip| tip.commit);
                if let Some((first, since)) = self.steps.first_look()
                    && self.bridge.tips.showed_other(self.at, first, since)
                {
                    self.steps.take_back();
                }
                self.bridge.tips.saw(self.at, tip, Instant::now());
                self.ledger.delivery.tip = tip;
                Ok(Saw::Tip(tip))
            }
            Action::Build(commit) => match self.build_in_time(commit).await {
                Ok(time) => Ok(Saw::Built(time)),
                Err(err) => self.not_built(commit, err).await,
            },
            Action::Put(condition) => self.put(&condition).await,
            Action::Pause { rounds } => {
                let most = (FIRST_PAUSE * 2u32.saturating_pow(rounds - 1)).min(MAX_PAUSE);
                tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
                Ok(Saw::Waited)
            }
            Action::Wait(_) if !self.progress.is_patient() && self.steps.leaves_wait() => {
                self.ledger.delivery.is_unsettled = true;
                Ok(Saw::Waited)
            }
            Action::Wait(time) => {
                tokio::select! {
                    () = tokio::time::sleep(time) => {}
                    () = self.progress.hurried() => self.ledger.delivery.is_unsettled = true,
                }
                Ok(Saw::Waited)
            }
            Action::Done(_) => unreachable!("the loop ends with it"),
        }
    }

    /// Reads the table, and judges by it what the last head showed, or what was written since.
    async fn judge(&mut self) -> Result<Ruling, Error> {
        let reading = self.bridge.table.read().await;
        let ruling = Ruling::of(&reading, self.head.as_ref(), self.to)?;
        if let Some(current) = self.head.take() {
            self.examine(&current, &ruling)?;
        }
        Ok(ruling)
    }

    /// Takes note of what the current version is and what a write would replace.
    fn examine(&mut self, current: &Current, ruling: &Ruling) -> Result<(), Error> {
        let replaces = match ruling {
            Ruling::Go(Some(Holder::Unrouted {
                repository,
                ref_name,
            })) => {
                let (repository, ref_name) = (plain::foreign(repository), plain::foreign(ref_name));
                if !self.bridge.replaces_unrouted {
                    return Err(Error::Unrouted {
                        bucket: self.at.bucket.into(),
                        key: self.at.key.into(),
                        repository,
                        ref_name,
                    });
                }
                Some(format!(
                    "replaced what the object held before, {repository} {ref_name}"
                ))
            }
            Ruling::Go(Some(Holder::Foreign)) => {
                Some("replaced an object that backlog-bridge did not write".into())
            }
            _ => None,
        };
        if let (Ruling::Go(Some(Holder::Us(_))), Some(holding)) = (ruling, &current.holds) {
            self.previous = Some(Previous::of(current, holding));
            if self.ledger.found_ours(holding, self.built.as_ref()) {
                self.steps.found_own_write(holding.commit);
            }
        }
        self.ledger.found(current, replaces);
        Ok(())
    }

    /// The same, while the pack comes fast enough.
    async fn build_in_time(&mut self, commit: CommitId) -> Result<Option<i64>, Error> {
        let (progress, limits) = (self.progress, self.bridge.limits);
        let from = (&self.to.repository, &*self.to.url);
        let built = flowing(progress, &limits, from, Box::pin(self.build(commit))).await;
        // Nobody else stops work that is waited for.
        let is_given_up = built.is_err() && progress.is_stopped();
        if is_given_up || progress.is_slow() {
            self.git.was_slow(is_given_up);
        } else if built.is_ok() {
            self.git.was_fast();
        }
        built
    }

    /// Builds the archive, and says when the commit was made.
    async fn build(&mut self, commit: CommitId) -> Result<Option<i64>, Error> {
        // The times of an archive are good for the place behind one version only.
        if let Some(built) = &self.built
            && built.snapshot.commit == commit
            && self.built_beside == self.beside
        {
            return Ok(built.snapshot.about.time);
        }
        self.built = None;
        let tip = self.tip.expect("the tip was read before");
        let built = match self.build_on_previous(tip).await? {
            Ok(built) => built,
            Err(before) => {
                let now = self.now;
                let (limits, progress) = (self.bridge.limits, Arc::clone(self.progress));
                let dates = Dates { now, before };
                self.git.build(tip, dates, limits, progress).await?
            }
        };
        self.built_beside.clone_from(&self.beside);
        self.archiving = built.archiving;
        self.ledger.fetched(built.fetched_bytes);
        let time = built.snapshot.about.time;
        self.built = Some(built);
        Ok(time)
    }

    /// Builds on the current version, if there is one of ours that can be used. Otherwise takes note why not, and gives the
    /// times of that version, if they at least can be used.
    async fn build_on_previous(&mut self, tip: Tip) -> Result<Result<Built, Option<Times>>, Error> {
        // A version of the same commit is made anew, with the delivery's time for every entry.
        let previous = self.previous.clone();
        let Some(previous) = previous.filter(|previous| previous.commit != tip.commit) else {
            return Ok(Err(None));
        };
        let (limits, progress) = (self.bridge.limits, Arc::clone(self.progress));
        // The version is read and verified while the Git server finds out what has changed.
        let (there, stock) = oneshot::channel();
        let base = Base::new(previous.commit, stock);
        let stock = async {
            let stock = previous.stock(self.bridge, self.at, &progress).await;
            let times = stock.as_ref().ok().map(|(_, times)| times.clone());
            there.send(stock).ok();
            times
        };
        let (now, on) = (self.now, Arc::clone(&progress));
        let building = async {
            let built = self.git.build_on(base, tip, now, limits, on).await;
            // While only the version is waited for, no pack is late.
            self.progress.received();
            built
        };
        let (built, times) = tokio::join!(building, stock);
        let useless = match built? {
            Ok(built) => return Ok(Ok(built)),
            Err(useless) => useless,
        };
        self.ledger.fetched(useless.fetched_bytes);
        self.ledger.delivery.full_fetch = Some(useless.why);
        self.progress.begin(Stage::Fetch);
        Ok(Err(times))
    }

    /// What a fetch that failed means.
    ///
    /// Before protocol v2, a server gives only what its refs lead to: a commit that was pushed away between the tip and the
    /// fetch cannot be had, and is not what anybody wants any more. If it is still the tip, another machine of the server
    /// may have answered, which does not have it yet.
    async fn not_built(&mut self, commit: CommitId, err: Error) -> Result<Saw, Error> {
        let again = match err {
            // It was given up: nothing that is built now would come to its end.
            _ if self.progress.is_stopped() => return Err(err),
            Error::Fetch { .. } => false,
            Error::NotGiven { .. } => self.steps.rounds() < REFUSED_FETCHES,
            _ => return Err(err),
        };
        match self.git.tip(&self.to.ref_name).await {
            Ok(tip) if again || tip.is_none_or(|tip| tip.commit != commit) => Ok(Saw::NotBuilt),
            _ => Err(err),
        }
    }

    async fn put(&mut self, condition: &Condition) -> Result<Saw, Error> {
        let Built {
            snapshot, archive, ..
        } = self.built.as_mut().expect("it was built before");
        // A new id for each write: should one of them arrive late, the head tells which it was.
        let delivery_id = uuid::Uuid::new_v4().simple().to_string();
        archive
            .stamp(snapshot.commit, &delivery_id)
            .map_err(|err| archive_error(err, &self.git.remote))?;
        let previous = self.previous.as_ref();
        let is_repeat = previous.is_some_and(|previous| previous.commit == snapshot.commit);
        self.ledger.is_repeat = is_repeat;
        let label = Label {
            space: &self.to.space,
            repository: &self.to.repository,
            ref_name: &self.to.ref_name,
            commit: snapshot.commit,
            tree: snapshot.tree,
            about: &snapshot.about,
            url: self.to.commit_url(snapshot.commit),
            delivery_id: &delivery_id,
            previous: previous.and_then(|previous| {
                if is_repeat {
                    previous.before
                } else {
                    Some(previous.commit)
                }
            }),
        };
        let s3 = &self.bridge.s3;
        let put = s3.put(self.at, archive, &label, condition, self.progress);
        let put = put.await?;
        let built = self.built.as_ref().expect("it is still there");
        Ok(if self.ledger.put(&delivery_id, put, built) {
            Saw::Stored(delivery_id)
        } else {
            Saw::NotStored
        })
    }

    async fn conclude(&mut self, verdict: Verdict) -> Result<Success, Error> {
        match verdict {
            Verdict::Published(_) => Ok(Success::Published),
            Verdict::AlreadyCurrent(_) => {
                self.ledger.left_as_it_is();
                Ok(Success::AlreadyCurrent)
            }
            Verdict::StepBack {
                published, seen, ..
            } => {
                self.ledger.delivery.step_back = Some(seen);
                Ok(if published {
                    Success::Published
                } else {
                    Success::AlreadyCurrent
                })
            }
            Verdict::BranchGone => Ok(Success::BranchGone),
            Verdict::Moved { stored } => Ok(Success::Moved { stored }),
            Verdict::RefNotFound => Err(self.git.ref_not_found(&self.to.ref_name).await),
            Verdict::KeyConflict {
                repository,
                ref_name,
            } => Err(Error::KeyConflict {
                bucket: self.at.bucket.into(),
                key: self.at.key.into(),
                repository: plain::foreign(&repository),
                ref_name: plain::foreign(&ref_name),
            }),
            Verdict::Contention { stored } => {
                self.ledger.delivery.is_overtaken = stored;
                Err(self.ledger.lost(self.steps.rounds()))
            }
        }
    }
}
