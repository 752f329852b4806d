//! What a webhook asks for: jobs, or nothing and why. Pure; whoever takes webhooks asks here.

use std::fmt;

use crate::{
    push::{Change, PushEvent},
    queue::Job,
    route::RouteTable,
    webhook::Webhook,
};

/// Why a webhook asks for nothing. This is the text of the answer, for whoever reads Backlog's history of a webhook.
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

/// The jobs of a webhook, at least one: one for each route of `table` that takes the push. Without a table, none was ever
/// stored.
///
/// # Errors
///
/// [`Ignored`] if there is nothing to do.
pub fn plan(
    webhook: &Webhook,
    table: Option<&RouteTable>,
    request_id: &str,
) -> Result<Vec<Job>, Ignored> {
    let push = wanted(webhook)?;
    let table = table.ok_or(Ignored::NoRoutingTable)?;
    // A ref that makes no object key is a job too: its failure is then told of where every other is.
    let matching = table.matching(push).into_iter();
    let routes = matching.map(|to| to.map_or_else(|err| err.route, |to| to.route));
    let jobs: Vec<_> = routes
        .map(|route| Job::new(route, push, request_id))
        .collect();
    if jobs.is_empty() {
        return Err(Ignored::NoRoute);
    }
    Ok(jobs)
}

/// The push that [`plan`] needs a table for.
///
/// # Errors
///
/// [`Ignored`] if it has nothing to do whatever the table says, so that none need be read.
pub fn wanted(webhook: &Webhook) -> Result<&PushEvent, Ignored> {
    match webhook {
        Webhook::Push(push) if push.change == Change::Deleted => Err(Ignored::Deletion),
        Webhook::Push(push) => Ok(push),
        Webhook::TestDelivery => Err(Ignored::TestDelivery),
        Webhook::OtherType(number) => Err(Ignored::OtherType(*number)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Origin;

    const TABLE: &str = r#"
        [[space]]
        url = "https://example.backlog.com/git"
        [[route]]
        name = "main"
        repository = "APP/web"
        ref = "refs/heads/main"
        object = "main.zip"
        [[route]]
        name = "all"
        repository = "APP/web"
        ref = "refs/heads/*"
        object = "all/{ref}.zip"
    "#;

    fn push(ref_name: &str, change: Change) -> Webhook {
        Webhook::Push(PushEvent {
            space_url: None,
            repository: "APP/web".parse().unwrap(),
            ref_name: ref_name.parse().unwrap(),
            change,
            before: None,
            commits: vec!["1".repeat(40).parse().unwrap()],
        })
    }

    #[test]
    fn a_webhook_asks_for_jobs_or_for_nothing_with_a_reason() {
        let table = RouteTable::parse("routes.toml", TABLE, Some("sources"), Origin::Deployed);
        let table = &table.unwrap();
        let unnameable = format!("refs/heads/{}", "n/".repeat(500) + "n");
        for (case, webhook, table, expected) in [
            (
                "two routes",
                push("refs/heads/main", Change::Updated),
                Some(table),
                Ok(&["main", "all"][..]),
            ),
            (
                "a new branch",
                push("refs/heads/dev", Change::Created),
                Some(table),
                Ok(&["all"]),
            ),
            (
                "a ref that makes no object key",
                push(&unnameable, Change::Updated),
                Some(table),
                Ok(&["all"]),
            ),
            (
                "a tag",
                push("refs/tags/v1", Change::Created),
                Some(table),
                Err(Ignored::NoRoute),
            ),
            (
                "no table",
                push("refs/heads/main", Change::Updated),
                None,
                Err(Ignored::NoRoutingTable),
            ),
            (
                "a deletion",
                push("refs/heads/main", Change::Deleted),
                None,
                Err(Ignored::Deletion),
            ),
            (
                "the test button",
                Webhook::TestDelivery,
                None,
                Err(Ignored::TestDelivery),
            ),
            (
                "an issue",
                Webhook::OtherType(1),
                None,
                Err(Ignored::OtherType(1)),
            ),
        ] {
            let planned = plan(&webhook, table, "a-request");
            let routes = planned.as_ref().map(|jobs| {
                let about = |job: &Job| job.request_id == "a-request" && job.hints.len() == 1;
                assert!(jobs.iter().all(about), "{case}");
                jobs.iter().map(|job| job.route.as_str()).collect()
            });
            let expected = expected.map(<[&str]>::to_vec);
            assert_eq!(routes.map_err(|why| *why), expected, "{case}");
        }
    }

    #[test]
    fn a_reason_says_what_it_was() {
        for (reason, expected) in [
            (Ignored::OtherType(1), "issue created (type 1)"),
            (Ignored::OtherType(99), "type 99 is not a push"),
            (
                Ignored::TestDelivery,
                "test delivery received: the webhook works",
            ),
        ] {
            assert_eq!(reason.to_string(), expected);
        }
    }
}
