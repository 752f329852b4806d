//! Where one object stands, decided from its head, the tip and the table; and what a delivery would make of it. Pure.

use super::{Asked, State, Status};
use crate::{
    bucket::Current,
    deliver::holder::{Held, Holder, Ruling, owner},
    error::{Error, chain},
    outcome::{Outcome, Report, Subject},
    plain,
    plan::paused,
    push::CommitId,
    route::{Destination, RouteTable, Sweep},
};

const STEP_BACK: &str = "the Git server shows the commit that the object held before; a second look, a minute after the \
                         first, delivers it";

impl Status {
    /// Says where the object stands that `current` is the head of.
    pub(super) fn judge(
        &mut self,
        asked: &Asked<'_>,
        current: Option<&Current>,
        to: &Destination,
        table: &RouteTable,
        replaces_unrouted: bool,
    ) {
        let route = asked.route;
        if let Err(err) = asked.tip {
            self.fault = Some(err.into());
        }
        let (state, reason) = match (whose(current, to, table), asked.tip) {
            (Some(Holder::Us(held)), tip) => {
                self.commit = Some(held.commit.to_string());
                compare(&held, tip)
            }
            (Some(other), _) => {
                let why = self.object(other, to, replaces_unrouted);
                (State::Foreign, Some(why))
            }
            (None, Err(err)) => (State::Unknown, Some(chain(err))),
            (None, Ok(None)) => {
                let err = Error::RefNotFound {
                    repository: route.repository().clone(),
                    ref_name: asked.ref_name.clone(),
                    hint: "look at its name".into(),
                };
                self.fault = Some((&err).into());
                let why = "the repository has no such ref";
                (State::NeverDelivered, Some(why.into()))
            }
            (None, Ok(Some(_))) if route.sweep() == Sweep::Existing => {
                let why = "no push of it came; sync the route to deliver it";
                (State::NeverDelivered, Some(why.into()))
            }
            (None, Ok(Some(_))) => (State::NeverDelivered, None),
        };
        self.reason = reason.map(plain::message);
        self.state = state;
        self.is_wrong = match state {
            State::Behind | State::Foreign | State::Unknown => true,
            State::NeverDelivered => route.sweep() == Sweep::All,
            _ => false,
        };
        if route.is_paused() {
            (self.state, self.is_wrong) = (State::Paused, false);
        }
    }

    /// Why the object is not what a delivery of this ref made; and what a delivery would say to that.
    fn object(&mut self, holder: Holder, to: &Destination, replaces_unrouted: bool) -> String {
        let (bucket, key) = (to.bucket.clone(), to.key.to_string());
        let err = match holder {
            Holder::Unrouted {
                repository,
                ref_name,
            } => {
                let (repository, ref_name) =
                    (plain::foreign(&repository), plain::foreign(&ref_name));
                let what = format!("{repository} {ref_name}");
                if replaces_unrouted {
                    self.replaces = Some(format!("it would replace what the object holds, {what}"));
                } else {
                    let err = Error::Unrouted {
                        bucket,
                        key,
                        repository,
                        ref_name,
                    };
                    self.fault = Some((&err).into());
                }
                return format!("it holds {what}, which the table does not deliver there any more");
            }
            Holder::Other {
                repository,
                ref_name,
            } => Error::KeyConflict {
                bucket,
                key,
                repository: plain::foreign(&repository),
                ref_name: plain::foreign(&ref_name),
            },
            Holder::Foreign | Holder::Us(_) => {
                let what = "it would replace an object that backlog-bridge did not write";
                self.replaces = Some(what.into());
                return "backlog-bridge did not write what is there".into();
            }
        };
        self.fault = Some((&err).into());
        chain(&err)
    }

    /// What a delivery would do now, as far as can be told without one. `again` asks for a new version in any case, `now` for
    /// a step back without a second look.
    #[must_use]
    pub fn plan(self, again: bool, now: bool) -> Report {
        let (outcome, reason) = match self.state {
            State::Paused => (Outcome::Ignored, Some(paused(&self.route))),
            _ if self.fault.is_some() => (Outcome::Failed, None),
            State::BranchGone => (Outcome::BranchGone, None),
            State::Held if !now => (Outcome::AlreadyCurrent, self.reason),
            State::Current if !again => (Outcome::AlreadyCurrent, None),
            _ => (Outcome::WouldPublish, None),
        };
        let error = self.fault.filter(|_| outcome == Outcome::Failed);
        let replaces = self.replaces.filter(|_| outcome == Outcome::WouldPublish);
        Report {
            route: Some(self.route),
            repository: Some(self.repository),
            ref_name: Some(self.ref_name),
            reason,
            commit: self.commit,
            tip: self.tip,
            bucket: self.bucket,
            object_key: self.object_key,
            version_id: self.version_id,
            error,
            warnings: replaces.into_iter().collect(),
            ..Report::new(outcome, Subject::default())
        }
    }
}

/// Whose the object is. What the table gives to another alone is that one's, whoever wrote it.
fn whose(current: Option<&Current>, to: &Destination, table: &RouteTable) -> Option<Holder> {
    match owner(table, to) {
        Some(Ruling::Conflict {
            repository,
            ref_name,
        }) => Some(Holder::Other {
            repository,
            ref_name,
        }),
        _ => current.map(|current| Holder::of(current, to, table)),
    }
}

/// Where a version of ours stands.
fn compare(held: &Held, tip: Result<Option<CommitId>, &Error>) -> (State, Option<String>) {
    match tip {
        Err(err) => (State::Unknown, Some(chain(err))),
        Ok(None) => (State::BranchGone, None),
        Ok(Some(tip)) if tip == held.commit => (State::Current, None),
        Ok(tip) if held.previous == tip => (State::Held, Some(STEP_BACK.into())),
        Ok(Some(_)) => (State::Behind, None),
    }
}
