//! What can happen and what must not, in words.

use std::fmt;

use crate::{
    machine::{Commit, GONE},
    state::Recheck,
};

/// A message: the event of the n-th push is n.
pub(crate) type Message = u16;

/// What the sweep sends.
pub(crate) const SWEEP: Message = 0xff;

/// A second look that is due, with what it is at.
const RECHECK: Message = 0x8000;
const BROKEN: Message = 0x4000;

/// The message of a second look.
pub(crate) fn due(recheck: Recheck) -> Message {
    let broken = if recheck.broken { BROKEN } else { 0 };
    RECHECK | broken | Message::from(recheck.held) << 4 | Message::from(recheck.tip)
}

/// The second look of a message, if it is one: the version and the tip, and whether another tip was seen since.
pub(crate) fn second_look(message: Message) -> Option<(u8, Commit, bool)> {
    let byte = |bits: Message| u8::try_from(bits).expect("eight bits");
    let look = (
        byte(message >> 4 & 0xff),
        byte(message & 0xf),
        message & BROKEN != 0,
    );
    (message & RECHECK != 0).then_some(look)
}

/// The message after its worker, or another one of the process, saw a tip.
pub(crate) fn after_look(message: Message, tip: Commit) -> Message {
    match second_look(message) {
        Some((_, first, _)) if first != tip => message | BROKEN,
        _ => message,
    }
}

/// The message once nobody knows any more what was seen.
pub(crate) fn forgotten(message: Message) -> Message {
    match second_look(message) {
        Some(_) => message & !BROKEN,
        None => message,
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Push(Commit),
    PushUnheard(Commit),
    Arrive(Message),
    Double(Message),
    Sweep,
    CatchUp,
    Due(Commit),
    Take(Message),
    Head(Message),
    Tip(Message, Commit),
    Built(Message),
    NotBuilt(Message),
    Stored(Message, Commit),
    Refused(Message),
    StoredUnheard(Message, Commit),
    NotStoredUnheard(Message),
    InTheAir(Message),
    Waited(Message),
    Acknowledge(Message),
    Parks(Message, Commit),
    ComesAgain(Message),
    Die(Message),
    Expire(Message),
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

pub(crate) fn message(message: Message) -> String {
    if second_look(message).is_some() {
        return "a second look".into();
    }
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
            Self::Due(commit) => {
                return write!(
                    f,
                    "a minute later, the second look at {} is due",
                    name(commit)
                );
            }
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
            Self::Parks(who, commit) => (
                who,
                format!(
                    "is acknowledged, and a second look at {} parked",
                    name(commit)
                ),
            ),
            Self::ComesAgain(who) => (who, "gives up and comes again".into()),
            Self::Die(who) => (who, "dies".into()),
            Self::Expire(who) => (who, "comes again though it is being handled".into()),
        };
        write!(f, "the delivery of {} {what}", message(who))
    }
}
