//! What can happen and what must not, in words.

use std::fmt;

use crate::machine::{Commit, GONE};

/// The message that the sweep sends; the event of the n-th push is n.
pub(crate) const SWEEP: u8 = 0xf0;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Push(Commit),
    PushUnheard(Commit),
    Arrive(u8),
    Double(u8),
    Sweep,
    CatchUp,
    Take(u8),
    Head(u8),
    Tip(u8, Commit),
    Built(u8),
    NotBuilt(u8),
    Stored(u8, Commit),
    Refused(u8),
    StoredUnheard(u8, Commit),
    NotStoredUnheard(u8),
    InTheAir(u8),
    Waited(u8),
    Acknowledge(u8),
    ComesAgain(u8),
    Die(u8),
    Expire(u8),
    Land(Commit),
    LandRefused,
    Vanish,
}

/// What must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) text: String,
}

pub(crate) fn violation(invariant: &'static str, text: String) -> Violation {
    Violation { invariant, text }
}

/// A letter for a commit.
pub(crate) fn name(commit: Commit) -> String {
    match commit {
        GONE => "nothing".into(),
        commit => char::from(b'A' + commit - 1).to_string(),
    }
}

pub(crate) fn message(message: u8) -> String {
    match message {
        SWEEP => "the sweep".into(),
        push => format!("push {push}"),
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, what) = match *self {
            Self::Push(commit) => return write!(f, "the ref is pushed to {}", name(commit)),
            Self::PushUnheard(commit) => {
                return write!(
                    f,
                    "the ref is pushed to {}, the event gets lost",
                    name(commit)
                );
            }
            Self::Sweep => return f.write_str("the sweep sends a job"),
            Self::CatchUp => return f.write_str("the Git server catches up"),
            Self::Land(commit) => return write!(f, "a late write stores {}", name(commit)),
            Self::LandRefused => return f.write_str("a late write is refused"),
            Self::Vanish => return f.write_str("a write never arrives"),
            Self::Arrive(who) => (who, "arrives".into()),
            Self::Double(who) => (who, "comes twice".into()),
            Self::Take(who) => (who, "is taken".into()),
            Self::Head(who) => (who, "reads the head".into()),
            Self::Tip(who, commit) => (who, format!("reads the tip, {}", name(commit))),
            Self::Built(who) => (who, "builds".into()),
            Self::NotBuilt(who) => (who, "cannot fetch".into()),
            Self::Stored(who, commit) => (who, format!("stores {}", name(commit))),
            Self::Refused(who) => (who, "is refused".into()),
            Self::StoredUnheard(who, commit) => {
                (who, format!("stores {}, nobody is told", name(commit)))
            }
            Self::NotStoredUnheard(who) => (who, "stores nothing, nobody is told".into()),
            Self::InTheAir(who) => (who, "leaves a write on its way".into()),
            Self::Waited(who) => (who, "has waited".into()),
            Self::Acknowledge(who) => (who, "is acknowledged".into()),
            Self::ComesAgain(who) => (who, "gives up and comes again".into()),
            Self::Die(who) => (who, "dies".into()),
            Self::Expire(who) => (who, "comes again though it is being handled".into()),
        };
        write!(f, "the delivery of {} {what}", message(who))
    }
}
