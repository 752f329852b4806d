//! What a webhook asks for: jobs, or nothing and why. Pure; whoever takes webhooks asks here.

use std::fmt;

use crate::{
    error::Error,
    plain,
    push::{PushEvent, RepositoryName},
    queue::Job,
    route::{Destination, Results, Route, RouteTable},
    space::SpaceUrl,
    table::Reading,
    webhook::{PULL_REQUEST_ADDED, Webhook},
};

/// How many spaces of a table are named to whoever posts from another one.
const SHOWN_SPACES: usize = 5;

/// Why a webhook asks for nothing. This is the text of the answer, for whoever reads Backlog's history of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    /// No route wants the repository and the ref.
    NoRoute,
    /// The webhook names a space that the table does not have.
    NoSpace {
        /// The space.
        named: SpaceUrl,
        /// Those of the table.
        known: Vec<SpaceUrl>,
    },
    /// The routes of these names want it, and are paused.
    Paused(Vec<String>),
    /// No routing table has been stored yet.
    NoRoutingTable,
    /// The ref is gone; the object stays.
    Deletion,
    /// Someone pressed the button that tests the webhook.
    TestDelivery,
    /// An activity of another type.
    OtherType(u64),
}

/// Why there are no jobs.
#[derive(Debug)]
pub enum NoJobs {
    /// None are needed.
    Ignored(Ignored),
    /// Nobody knows: the newest table cannot be had, and the one before it takes no such push.
    Unknown(Error),
}

/// The jobs of a webhook, at least one: one for each route that takes the push. `reading` began after the webhook came.
///
/// # Errors
///
/// [`NoJobs`] says why there are none.
pub fn plan(webhook: &Webhook, reading: &Reading, request_id: &str) -> Result<Vec<Job>, NoJobs> {
    let push = wanted(webhook).map_err(NoJobs::Ignored)?;
    let (table, unknown) = match reading {
        Reading::Newest(table) => (table, None),
        Reading::Never => return Err(NoJobs::Ignored(Ignored::NoRoutingTable)),
        Reading::Spoiled { last, fault } | Reading::Unread { last, fault } => match last {
            Some(table) => (table, Some(fault)),
            None => return Err(NoJobs::Unknown(fault.error())),
        },
    };
    // A ref that makes no object key is a job too: its failure is then told of where every other is.
    let matching = table.matching(push).into_iter();
    let routes = matching.map(|to| to.map_or_else(|err| err.route, |to| to.route));
    let is_paused = |name: &String| table.route(name).is_some_and(Route::is_paused);
    let (paused, routes): (Vec<_>, Vec<_>) = routes.partition(is_paused);
    let jobs = routes.into_iter().map(|route| Job {
        by_glob: table.route(&route).is_some_and(Route::is_glob),
        ..Job::new(route, push, request_id)
    });
    let jobs: Vec<_> = jobs.collect();
    match (jobs.is_empty(), unknown, &push.space_url) {
        (false, ..) => Ok(jobs),
        (true, Some(fault), _) => Err(NoJobs::Unknown(fault.error())),
        (true, None, _) if !paused.is_empty() => Err(NoJobs::Ignored(Ignored::Paused(paused))),
        (true, None, Some(url)) if !table.has_space(&url.mark()) => {
            let known = table.spaces().iter().map(|space| space.url().clone());
            Err(NoJobs::Ignored(Ignored::NoSpace {
                named: url.clone(),
                known: known.collect(),
            }))
        }
        (true, None, _) => Err(NoJobs::Ignored(Ignored::NoRoute)),
    }
}

/// What a table makes of a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A delivery.
    Deliver {
        /// Where to.
        to: Destination,
        /// Whether the route is a glob, and so asks for no ref by name.
        is_glob: bool,
    },
    /// Nothing: its route is paused.
    Paused,
    /// Its route is gone, or takes another ref: these jobs, one for each route that takes the job's ref now.
    Anew(Vec<Job>),
}

/// Where a job goes by a table that was read after the job came in.
///
/// # Errors
///
/// [`Error`] if the newest table cannot be had and the one before it does not know the route, or the ref makes no object key.
pub fn next(reading: &Reading, job: &Job) -> Result<Next, Error> {
    let table = match reading {
        // Whether this one is enough is seen once the object's head is known.
        Reading::Spoiled {
            last: Some(table), ..
        } => table,
        _ => reading.newest()?,
    };
    if let Some(to) = table.destination(&job.route, &job.repository, &job.ref_name) {
        let route = table.route(&job.route);
        if route.is_some_and(Route::is_paused) {
            return Ok(Next::Paused);
        }
        let is_glob = route.is_some_and(Route::is_glob);
        return Ok(Next::Deliver { to: to?, is_glob });
    }
    let table = reading.newest()?;
    let routes = table.routes().iter();
    let routes = routes.filter(|route| route.takes(&job.repository, &job.ref_name));
    let jobs = routes.map(|route| Job {
        route: route.name().to_owned(),
        ..job.clone()
    });
    Ok(Next::Anew(jobs.collect()))
}

/// Why nothing is delivered of a route that is paused.
#[must_use]
pub fn paused(route: &str) -> String {
    format!("the route {route} is paused")
}

/// The jobs of those to whom `table` gives an object that a delivery of `job` wrote before it learned of that table.
#[must_use]
pub fn heirs(job: &Job, bucket: &str, key: &str, table: &RouteTable) -> Vec<Job> {
    let heirs = table.claimants(bucket, key).into_iter();
    let heirs = heirs.map(|(route, ref_name)| {
        let (name, repository) = (route.name().to_owned(), route.repository().clone());
        Job {
            // Nobody pushed there, and the sweep would find it too.
            swept: true,
            ..Job::unhinted(name, repository, ref_name, &job.request_id)
        }
    });
    // A route may keep its name and ref, and so the group, and take another repository.
    let is_other = |heir: &Job| {
        let who = |job: &Job| {
            (
                job.route.clone(),
                job.repository.clone(),
                job.ref_name.clone(),
            )
        };
        who(heir) != who(job)
    };
    heirs.filter(is_other).collect()
}

/// The push that [`plan`] needs a table for.
///
/// # Errors
///
/// [`Ignored`] if it has nothing to do whatever the table says, so that none need be read.
pub fn wanted(webhook: &Webhook) -> Result<&PushEvent, Ignored> {
    match webhook {
        Webhook::Push(push) if push.is_deleted => Err(Ignored::Deletion),
        Webhook::Push(push) => Ok(push),
        Webhook::TestDelivery => Err(Ignored::TestDelivery),
        // For whoever tells results.
        Webhook::PullRequest { .. } => Err(Ignored::OtherType(PULL_REQUEST_ADDED)),
        Webhook::OtherType(number) => Err(Ignored::OtherType(*number)),
    }
}

/// The routes whose results pull requests of a repository are told.
///
/// # Errors
///
/// [`NoJobs`] if there are none, or nobody knows.
pub fn telling(repository: &RepositoryName, reading: &Reading) -> Result<Vec<String>, NoJobs> {
    let table = match reading {
        Reading::Never => return Err(NoJobs::Ignored(Ignored::NoRoutingTable)),
        Reading::Spoiled {
            last: Some(table), ..
        }
        | Reading::Unread {
            last: Some(table), ..
        } => table,
        reading => reading.newest().map_err(NoJobs::Unknown)?,
    };
    let routes = table.routes().iter().filter(|route| {
        let is_told = table.results_of(route) != Results::None && route.pipelines().is_some();
        route.repository() == repository && is_told
    });
    let names: Vec<_> = routes.map(|route| route.name().to_owned()).collect();
    if names.is_empty() {
        return Err(NoJobs::Ignored(Ignored::OtherType(PULL_REQUEST_ADDED)));
    }
    Ok(names)
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route matches"),
            Self::NoSpace { named, known } => {
                let shown = |url: &SpaceUrl| plain::foreign(&url.to_string());
                write!(f, "no space of the table is {}; it has ", shown(named))?;
                let first: Vec<_> = known.iter().take(SHOWN_SPACES).map(shown).collect();
                f.write_str(&first.join(", "))?;
                match known.len().saturating_sub(SHOWN_SPACES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Paused(routes) => match routes.as_slice() {
                [route] => f.write_str(&paused(route)),
                routes => write!(f, "the routes {} are paused", routes.join(", ")),
            },
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
    use std::sync::Arc;

    use super::*;
    use crate::{route::Origin, table::TableFault};

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

    fn push(ref_name: &str, is_deleted: bool) -> Webhook {
        push_to(None, ref_name, is_deleted)
    }

    fn push_to(space_url: Option<&str>, ref_name: &str, is_deleted: bool) -> Webhook {
        Webhook::Push(PushEvent {
            space_url: space_url.map(|url| url.parse().unwrap()),
            repository: "APP/web".parse().unwrap(),
            ref_name: ref_name.parse().unwrap(),
            is_deleted,
            before: None,
            commits: vec!["1".repeat(40).parse().unwrap()],
        })
    }

    fn table() -> Arc<RouteTable> {
        let table = RouteTable::parse("routes.toml", TABLE, Some("sources"), Origin::Deployed);
        table.unwrap().into()
    }

    fn fault() -> TableFault {
        TableFault::from(Error::Routes {
            reason: "it is wrong".into(),
            transient: false,
            source: None,
        })
    }

    /// The routes that get a job, or why there is none.
    fn planned(webhook: &Webhook, reading: &Reading) -> Result<Vec<String>, String> {
        match plan(webhook, reading, "a-request") {
            Ok(jobs) => {
                let about = |job: &Job| job.request_id == "a-request" && job.hints.len() == 1;
                assert!(jobs.iter().all(about), "{jobs:?}");
                Ok(jobs.into_iter().map(|job| job.route).collect())
            }
            Err(NoJobs::Ignored(why)) => Err(why.to_string()),
            Err(NoJobs::Unknown(err)) => {
                assert!(err.is_transient(), "{err}");
                Err(err.to_string())
            }
        }
    }

    #[test]
    fn a_space_that_is_not_there_is_named_in_one_short_line() {
        let url = |path: &str| format!("https://git.example.com/{path}").parse::<SpaceUrl>();
        let named = url(&format!("a\u{202e}b{}", "c".repeat(100_000))).unwrap();
        let known = (1..=7).map(|n| url(&n.to_string()).unwrap()).collect();
        let text = Ignored::NoSpace { named, known }.to_string();
        assert!(
            text.starts_with("no space of the table is https://git.example.com/a\\u{202e}bccc")
        );
        assert!(text.ends_with("…; it has https://git.example.com/1, https://git.example.com/2, https://git.example.com/3, \
            https://git.example.com/4, https://git.example.com/5 and 2 more"), "{text}");
        assert!(text.len() < 1_000, "{}", text.len());
    }

    #[test]
    fn a_webhook_asks_for_jobs_or_for_nothing_with_a_reason() {
        let newest = Reading::Newest(table());
        let unnameable = format!("refs/heads/{}", "n/".repeat(500) + "n");
        let space = Some("https://other.backlog.com/git");
        let main = || push("refs/heads/main", false);
        for (case, webhook, reading, expected) in [
            ("two routes", main(), &newest, Ok(&["main", "all"][..])),
            (
                "a new branch",
                push("refs/heads/dev", false),
                &newest,
                Ok(&["all"]),
            ),
            (
                "a ref that makes no object key",
                push(&unnameable, false),
                &newest,
                Ok(&["all"]),
            ),
            (
                "a tag",
                push("refs/tags/v1", false),
                &newest,
                Err("no route matches"),
            ),
            (
                "another space",
                push_to(space, "refs/heads/main", false),
                &newest,
                Err(
                    "no space of the table is https://other.backlog.com/git; it has https://example.backlog.com/git",
                ),
            ),
            (
                "no table",
                main(),
                &Reading::Never,
                Err("no routing table yet"),
            ),
            (
                "a deletion",
                push("refs/heads/main", true),
                &Reading::Never,
                Err("the ref was deleted"),
            ),
            (
                "the test button",
                Webhook::TestDelivery,
                &Reading::Never,
                Err("test delivery received: the webhook works"),
            ),
            (
                "an issue",
                Webhook::OtherType(1),
                &Reading::Never,
                Err("issue created (type 1)"),
            ),
        ] {
            let expected = expected.map(|routes| routes.iter().map(ToString::to_string).collect());
            let expected = expected.map_err(ToString::to_string);
            assert_eq!(planned(&webhook, reading), expected, "{case}");
        }
    }

    #[test]
    fn without_the_newest_table_what_the_last_one_takes_is_taken() {
        let unknown = Err("no routing table: it is wrong".to_owned());
        let (some, fault) = (Some(table()), fault());
        for (case, reading, main, tag) in [
            (
                "spoiled",
                Reading::Spoiled {
                    last: some.clone(),
                    fault: fault.clone(),
                },
                Ok(vec!["main".to_owned(), "all".to_owned()]),
                unknown.clone(),
            ),
            (
                "not to be read",
                Reading::Unread {
                    last: some,
                    fault: fault.clone(),
                },
                Ok(vec!["main".to_owned(), "all".to_owned()]),
                unknown.clone(),
            ),
            (
                "nor any other",
                Reading::Unread { last: None, fault },
                unknown.clone(),
                unknown.clone(),
            ),
        ] {
            let webhook = push("refs/heads/main", false);
            assert_eq!(planned(&webhook, &reading), main, "{case}");
            let webhook = push("refs/tags/v1", false);
            assert_eq!(planned(&webhook, &reading), tag, "{case}");
        }
    }

    #[test]
    fn a_job_whose_route_is_gone_is_planned_anew() {
        let job = |route: &str, ref_name: &str| {
            let webhook = push(ref_name, false);
            Job::new(route.into(), webhook.push().unwrap(), "a-request")
        };
        let routes =
            |jobs: Vec<Job>| -> Vec<String> { jobs.into_iter().map(|job| job.route).collect() };
        let table = table();
        let newest = Reading::Newest(Arc::clone(&table));
        let anew = |job: &Job| match next(&newest, job).unwrap() {
            Next::Anew(jobs) => routes(jobs),
            other => panic!("{other:?}"),
        };
        let renamed = job("branches", "refs/heads/dev");
        assert_eq!(anew(&renamed), ["all"]);
        assert_eq!(anew(&job("main", "refs/heads/dev")), ["all"]);
        assert_eq!(anew(&job("tags", "refs/tags/v1")), [""; 0]);

        let spoiled = Reading::Spoiled {
            last: Some(Arc::clone(&table)),
            fault: fault(),
        };
        assert!(next(&spoiled, &renamed).unwrap_err().is_transient());
        let known = next(&spoiled, &job("all", "refs/heads/dev")).unwrap();
        assert!(matches!(known, Next::Deliver { is_glob: true, .. }));

        let heirs = |key| heirs(&renamed, "sources", key, &table);
        assert_eq!(routes(heirs("main.zip")), ["main"]);
        assert_eq!(heirs("main.zip")[0].ref_name.as_str(), "refs/heads/main");
        assert_eq!(heirs("all/x.zip")[0].ref_name.as_str(), "refs/heads/x");
        assert_eq!(routes(heirs("other.zip")), [""; 0]);
    }

    #[test]
    fn what_is_paused_gets_no_job() {
        let with = |main: &str, all: &str| {
            let text = TABLE.replace(
                "object = \"main.zip\"",
                &format!("object = \"main.zip\"\n{main}"),
            );
            let text = text.replace("{ref}.zip\"", &format!("{{ref}}.zip\"\n{all}"));
            let table = RouteTable::parse("routes.toml", &text, Some("sources"), Origin::Deployed);
            Reading::Newest(Arc::new(table.unwrap()))
        };
        let paused = "paused = true";
        for (main, all, expected) in [
            ("paused = false", "", Ok(vec!["main", "all"])),
            (paused, "", Ok(vec!["all"])),
            ("", paused, Ok(vec!["main"])),
            (paused, paused, Err("the routes main, all are paused")),
        ] {
            let reading = with(main, all);
            let webhook = push("refs/heads/main", false);
            let planned = planned(&webhook, &reading);
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(planned, expected.map_err(str::to_owned), "{main} {all}");
            let job = Job::new("main".into(), webhook.push().unwrap(), "a-request");
            let is_paused = next(&reading, &job).unwrap() == Next::Paused;
            assert_eq!(is_paused, main == paused);
        }
        let one = planned(&push("refs/heads/dev", false), &with("", paused));
        assert_eq!(one, Err("the route all is paused".into()));
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
