//! Why an event leads to nothing, in words for whoever reads Backlog's history of a webhook.

use std::fmt;

/// Why an event leads to nothing. This is the text of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// No route wants the repository and the ref.
    NoRoute,
    /// No routing table has been stored yet.
    NoRoutingTable,
    /// The ref is gone; the object stays.
    Deletion,
    /// Someone pressed the button that tests the webhook.
    TestDelivery,
    /// An activity of another type.
    OtherType(u64),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route matches"),
            Self::NoRoutingTable => f.write_str("no routing table yet"),
            Self::Deletion => f.write_str("the ref was deleted"),
            Self::TestDelivery => f.write_str("test delivery received: the webhook works"),
            Self::OtherType(number) => match activity_name(*number) {
                Some(name) => write!(f, "{name} (type {number})"),
                None => write!(f, "type {number} is not a push"),
            },
        }
    }
}

/// What Backlog calls an activity type. There are more, and more to come.
///
/// Source: <https://developer.nulab.com/docs/backlog/api/2/get-recent-updates/>
fn activity_name(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "issue created",
        2 => "issue updated",
        3 => "issue commented",
        4 => "issue deleted",
        5 => "wiki page created",
        6 => "wiki page updated",
        7 => "wiki page deleted",
        8 => "file added",
        9 => "file updated",
        10 => "file deleted",
        11 => "Subversion commit",
        13 => "repository created",
        14 => "several issues updated",
        15 => "user joined the project",
        16 => "user left the project",
        17 => "notification added",
        18 => "pull request created",
        19 => "pull request updated",
        20 => "pull request commented",
        21 => "pull request deleted",
        22 => "milestone created",
        23 => "milestone updated",
        24 => "milestone deleted",
        25 => "group joined the project",
        26 => "group left the project",
        _ => return None,
    })
}
