//! The deployed bridge: its functions, queues, secrets, routing table, schedule and alarms.

use std::collections::BTreeMap;

use similar::{ChangeTag, TextDiff};

use super::Local;
use crate::{
    doctor::{
        Check, Finding,
        bridge::Table,
        seen::{Seen, Unseen},
    },
    plain,
};

/// How many functions a new account runs at once.
const FEW_FUNCTIONS: u64 = 10;

/// What `receive` answers to Backlog's own test of a webhook.
const TEST_ANSWER: &str = "test delivery received: the webhook works";

/// A function, as Lambda shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Function {
    pub(in crate::doctor) state: String,
    pub(in crate::doctor) state_reason: String,
    pub(in crate::doctor) update: String,
    pub(in crate::doctor) update_reason: String,
    /// In seconds.
    pub(in crate::doctor) timeout: Option<u64>,
    pub(in crate::doctor) architecture: Option<String>,
    pub(in crate::doctor) variables: BTreeMap<String, String>,
}

/// The two functions; `expected` are the variables that the outputs of the stack speak of.
pub(in crate::doctor) fn functions(
    stack: &str,
    found: &[(String, Seen<Option<Function>>)],
    expected: &[(&str, String)],
    queues: &Queues,
) -> Vec<Finding> {
    let again =
        format!("deploy the stack {stack} again, which puts back what somebody has changed");
    let architectures: Vec<_> = found
        .iter()
        .filter_map(|(_, found)| found.as_ref().ok()?.as_ref()?.architecture.as_deref())
        .collect();
    let is_mixed = architectures.windows(2).any(|two| two[0] != two[1]);
    let one = |(name, found): &(String, Seen<Option<Function>>)| {
        let function = match found {
            Ok(Some(function)) => function,
            Ok(None) => {
                return Check::Function
                    .error(name, "there is no such function")
                    .with(&again);
            }
            Err(unseen) => return Check::Function.unknown(name, unseen),
        };
        let Function {
            state,
            state_reason,
            update,
            update_reason,
            ..
        } = function;
        if state == "Failed" {
            return Check::Function
                .error(
                    name,
                    format!("the function cannot run: {}", plain::foreign(state_reason)),
                )
                .with(&again);
        }
        if update == "Failed" {
            return Check::Function
                .error(
                    name,
                    format!(
                        "its last update failed, and the code before it runs: {}",
                        plain::foreign(update_reason)
                    ),
                )
                .with(&again);
        }
        for (variable, value) in expected {
            // Each function has those that it reads.
            match function.variables.get(*variable) {
                Some(found) if found != value => {
                    return Check::Function
                        .error(
                            name,
                            format!(
                                "{variable} is {}, and the stack says {value}",
                                plain::foreign(found)
                            ),
                        )
                        .with(&again);
                }
                None if ["ROUTES", "QUEUE_URL"].contains(variable) => {
                    return Check::Function
                        .error(
                            name,
                            format!("{variable} is not set, and the stack says {value}"),
                        )
                        .with(&again);
                }
                _ => {}
            }
        }
        let visibility = queues.visibility();
        if let (Some(timeout), Some(visibility)) = (function.timeout, visibility)
            && timeout > visibility
        {
            return Check::Function
                .error(
                    name,
                    format!("it may run for {timeout} s, and the queue shows a job again after {visibility} s, while it is still under way"),
                )
                .with(&again);
        }
        if is_mixed {
            return Check::Function
                .warning(
                    name,
                    format!(
                        "the functions are of different processors: {}",
                        architectures.join(", ")
                    ),
                )
                .with(&again);
        }
        Check::Function.ok(name, "it is as it was deployed")
    };
    found.iter().map(one).collect()
}

/// What takes jobs from the queue: the states of all mappings.
pub(in crate::doctor) fn mappings(function: &str, found: &Seen<Vec<(String, String)>>) -> Finding {
    let mappings = match found {
        Ok(mappings) => mappings,
        Err(unseen) => return Check::Mapping.unknown(function, unseen),
    };
    match &mappings[..] {
        [] => Check::Mapping
            .error(function, "nothing hands it the jobs of the queue")
            .with("deploy the stack again"),
        [.., (id, state)] if state != "Enabled" => Check::Mapping
            .error(
                function,
                format!("jobs wait, since the function is not handed them: the mapping is {state}"),
            )
            .with(format!(
                "aws lambda update-event-source-mapping --uuid {id} --enabled"
            )),
        _ => Check::Mapping.ok(function, "it is handed the jobs of the queue"),
    }
}

/// The queue and the one of dead letters, by their attributes.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Queues {
    pub(in crate::doctor) stack: String,
    pub(in crate::doctor) queue: (String, Seen<BTreeMap<String, String>>),
    pub(in crate::doctor) dead_letters: (String, Seen<BTreeMap<String, String>>),
}

impl Queues {
    fn visibility(&self) -> Option<u64> {
        let attributes = self.queue.1.as_ref().ok()?;
        attributes.get("VisibilityTimeout")?.parse().ok()
    }
}

pub(in crate::doctor) fn queues(queues: &Queues) -> Vec<Finding> {
    let Queues {
        stack,
        queue,
        dead_letters,
    } = queues;
    let again = format!("deploy the stack {stack} again");
    let number = |attributes: &BTreeMap<String, String>, name: &str| -> u64 {
        attributes
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    };
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    let own = name(&queue.0);
    found.push(match &queue.1 {
        Err(unseen) => Check::Queue.unknown(own, unseen),
        Ok(all) if all.get("FifoQueue").is_none_or(|value| value != "true") => {
            Check::Queue.error(own, "it is no FIFO queue, so a ref could be delivered twice at once").with(&again)
        }
        Ok(all) => match all.get("RedrivePolicy") {
            None => Check::Queue
                .error(own, "it has no redrive policy: what fails comes again for ever, and holds up its branch")
                .with(&again),
            Some(policy) if !policy.contains(&format!(":{}\"", name(&dead_letters.0))) => Check::Queue
                .error(own, format!("it gives jobs up to another queue than {}: {}", name(&dead_letters.0), plain::foreign(policy)))
                .with(&again),
            Some(_) => {
                let (waiting, in_flight) = (
                    number(all, "ApproximateNumberOfMessages"),
                    number(all, "ApproximateNumberOfMessagesNotVisible"),
                );
                Check::Queue.ok(own, format!("{waiting} waiting, {in_flight} in flight"))
            }
        },
    });
    let own = name(&dead_letters.0);
    found.push(match &dead_letters.1 {
        Err(unseen) => Check::DeadLetters.unknown(own, unseen),
        Ok(all) => match number(all, "ApproximateNumberOfMessages") {
            0 => Check::DeadLetters.ok(own, "no job was given up"),
            letters => Check::DeadLetters
                .error(own, plain::count(usize::try_from(letters).unwrap_or(usize::MAX), "job was given up", "jobs were given up"))
                .with(format!("mend what the log names, then send them back: backlog-bridge redrive --stack {stack}")),
        },
    });
    found
}

/// The routing table of the deployed bridge, and the one beside whoever asks.
pub(in crate::doctor) fn table(
    at: &str,
    stack: &str,
    found: &Seen<Table>,
    local: Option<&Local>,
) -> Finding {
    let push = format!("backlog-bridge routes push --stack {stack}");
    let text = match found {
        Ok(Table::Good { text, .. }) => text,
        Ok(Table::Missing) => {
            return Check::Table
                .error(at, "there is no routing table, so nothing is delivered")
                .with(push);
        }
        Ok(Table::Deleted) => {
            return Check::Table
                .error(
                    at,
                    "the routing table was deleted; the functions go on with the last good one",
                )
                .with(push);
        }
        Ok(Table::Wrong(why)) => {
            let why = why.lines().collect::<Vec<_>>().join("; ");
            return Check::Table
                .error(
                    at,
                    format!(
                        "the routing table is wrong, and the last good one is used: {}",
                        plain::foreign(&why)
                    ),
                )
                .with(push);
        }
        Err(unseen) => return Check::Table.unknown(at, unseen),
    };
    let Some(local) = local.filter(|local| local.text != *text) else {
        return Check::Table.ok(at, "the routing table is of use");
    };
    let diff = TextDiff::configure().diff_lines(text.as_str(), local.text.as_str());
    let changed = diff
        .iter_all_changes()
        .filter(|change| change.tag() != ChangeTag::Equal);
    let lines = plain::count(changed.count(), "line", "lines");
    Check::Table
        .warning(
            at,
            format!("it differs from {} here in {lines}", local.file),
        )
        .with(format!(
            "store yours: {push}; or take that one: backlog-bridge routes pull --stack {stack}"
        ))
}

/// How many functions the account runs at once, and how many of them deliveries may be.
pub(in crate::doctor) fn account_limit(limit: &Seen<u64>, maximum: Option<u64>) -> Finding {
    match limit {
        Ok(limit) if *limit <= FEW_FUNCTIONS => {
            let maximum = maximum.map(|maximum| format!(", of which {maximum} may be deliveries"));
            Check::AccountLimit
                .warning(
                    "Lambda",
                    format!("the account runs at most {limit} functions at once{}: webhooks may be refused while much is delivered", maximum.unwrap_or_default()),
                )
                .with("ask for more in Service Quotas (Lambda, Concurrent executions), or deploy with a lower MaximumConcurrency")
        }
        Ok(limit) => Check::AccountLimit.ok("Lambda", format!("{limit} functions may run at once")),
        Err(unseen) => Check::AccountLimit.unknown("Lambda", unseen),
    }
}

/// What the function answers to Backlog's own test of a webhook.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct WayIn {
    /// Without the token.
    pub(in crate::doctor) hooks: String,
    /// Whether only some addresses may post.
    pub(in crate::doctor) is_limited: bool,
    /// The status and the body.
    pub(in crate::doctor) answer: Seen<(u16, String)>,
}

pub(in crate::doctor) fn way_in(way: &WayIn) -> Finding {
    let WayIn {
        hooks,
        is_limited,
        answer,
    } = way;
    match answer {
        Ok((200, body)) if body.contains(TEST_ANSWER) => Check::WayIn.ok(hooks, "a webhook's test is answered"),
        Ok((404, _)) if *is_limited => Check::WayIn.unknown(
            hooks,
            &Unseen::Needs("it answers 404, as it does to all who are not in ALLOWED_IPS, and this machine may be none of them".into()),
        ),
        Ok((404, _)) => Check::WayIn
            .error(hooks, "it answers 404 to the token of the bridge; the function may have another one for up to five minutes")
            .with("ask again in five minutes; if it stays so, deploy the stack again"),
        Ok((429, _)) => Check::WayIn.warning(hooks, "it answers 429: there are too many requests now"),
        Ok((503, _)) => Check::WayIn
            .error(hooks, "it answers 503: the function cannot read its token or its table, or cannot send to its queue")
            .with("look at the log of receive: docs/operate.md, Webhooks fail"),
        Ok((status, _)) => Check::WayIn
            .error(hooks, format!("it answers {status}: the function cannot start, or something else answers there"))
            .with("look at the log of receive: docs/operate.md, Functions fail"),
        Err(unseen) => Check::WayIn.unknown(hooks, unseen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::tests::{line, problems};

    fn queue(changes: &[(&str, Option<&str>)]) -> Queues {
        let mut queue = BTreeMap::from(
            [
                ("FifoQueue", "true"),
                ("VisibilityTimeout", "360"),
                (
                    "RedrivePolicy",
                    "{\"deadLetterTargetArn\":\"arn:aws:sqs:r:1:dead.fifo\",\"maxReceiveCount\":5}",
                ),
                ("ApproximateNumberOfMessages", "0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let dead = queue.clone();
        for (name, value) in changes {
            match value {
                Some(value) => _ = queue.insert((*name).into(), (*value).into()),
                None => _ = queue.remove(*name),
            }
        }
        Queues {
            stack: "bridge".into(),
            queue: ("https://sqs/1/q.fifo".into(), Ok(queue)),
            dead_letters: ("https://sqs/1/dead.fifo".into(), Ok(dead)),
        }
    }

    #[test]
    fn functions_are_told() {
        let good = || Function {
            state: "Active".into(),
            update: "Successful".into(),
            timeout: Some(300),
            architecture: Some("x86_64".into()),
            variables: [("ROUTES", "s3://b/r"), ("QUEUE_URL", "q")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Function::default()
        };
        let with = |change: &dyn Fn(&mut Function)| {
            let mut function = good();
            change(&mut function);
            Ok(Some(function))
        };
        let denied = Err(Unseen::Denied("lambda:GetFunctionConfiguration".into()));
        for (case, function, expected) in [
            (
                "well",
                with(&|_| {}),
                "ok function f: it is as it was deployed",
            ),
            (
                "missing",
                Ok(None),
                "error function f: there is no such function => deploy the stack bridge again",
            ),
            (
                "failed",
                with(&|f| {
                    f.state = "Failed".into();
                    f.state_reason = "no role".into();
                }),
                "error function f: the function cannot run: no role",
            ),
            (
                "update",
                with(&|f| {
                    f.update = "Failed".into();
                    f.update_reason = "too large".into();
                }),
                "error function f: its last update failed, and the code before it runs: too large",
            ),
            (
                "variable",
                with(&|f| _ = f.variables.insert("ROUTES".into(), "s3://c/r".into())),
                "error function f: ROUTES is s3://c/r, and the stack says s3://b/r => deploy",
            ),
            (
                "no variable",
                with(&|f| _ = f.variables.remove("QUEUE_URL")),
                "error function f: QUEUE_URL is not set, and the stack says q",
            ),
            (
                "timeout",
                with(&|f| f.timeout = Some(900)),
                "error function f: it may run for 900 s, and the queue shows a job again after 360 s",
            ),
            (
                "processor",
                with(&|f| f.architecture = Some("arm64".into())),
                "warning function f: the functions are of different processors: x86_64, arm64",
            ),
            (
                "denied",
                denied,
                "? function f: not checked: needs lambda:GetFunctionConfiguration",
            ),
        ] {
            let found = [
                ("e".to_owned(), Ok(Some(good()))),
                ("f".to_owned(), function),
            ];
            let expected_variables = [
                ("ROUTES", "s3://b/r".into()),
                ("QUEUE_URL", "q".into()),
                ("SOURCE_BUCKET", "b".into()),
            ];
            let found = functions("bridge", &found, &expected_variables, &queue(&[]));
            assert!(
                line(&found[1]).starts_with(expected),
                "{case}: {}",
                line(&found[1])
            );
        }
    }

    #[test]
    fn queues_and_mappings_are_told() {
        let dead = |letters: &str| {
            let mut queues = queue(&[]);
            let attributes = queues.dead_letters.1.as_mut().unwrap();
            attributes.insert("ApproximateNumberOfMessages".into(), letters.into());
            queues
        };
        for (found, expected) in [
            (queue(&[]), None),
            (
                queue(&[("FifoQueue", None)]),
                Some("error queue q.fifo: it is no FIFO queue"),
            ),
            (
                queue(&[("RedrivePolicy", None)]),
                Some("error queue q.fifo: it has no redrive policy"),
            ),
            (
                queue(&[("RedrivePolicy", Some("{\"deadLetterTargetArn\":\"arn:x\"}"))]),
                Some("error queue q.fifo: it gives jobs up to another queue than dead.fifo"),
            ),
            (
                dead("1"),
                Some(
                    "error dead_letters dead.fifo: 1 job was given up => mend what the log names, then send them back: backlog-bridge redrive --stack bridge",
                ),
            ),
            (
                dead("3"),
                Some("error dead_letters dead.fifo: 3 jobs were given up"),
            ),
        ] {
            let found = problems(&queues(&found));
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(
                expected.is_none_or(|expected| found[0].starts_with(expected)),
                "{found:?}"
            );
        }
        let state = |state: &str| Ok(vec![("u-1".to_owned(), state.to_owned())]);
        for (found, expected) in [
            (state("Enabled"), "ok mapping deliver"),
            (
                state("Disabled"),
                "error mapping deliver: jobs wait, since the function is not handed them: the mapping is Disabled => aws lambda update-event-source-mapping --uuid u-1 --enabled",
            ),
            (
                Ok(Vec::new()),
                "error mapping deliver: nothing hands it the jobs of the queue",
            ),
            (
                Err(Unseen::Denied("lambda:ListEventSourceMappings".into())),
                "? mapping deliver: not checked: needs lambda:ListEventSourceMappings",
            ),
        ] {
            let line = line(&mappings("deliver", &found));
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn tables_are_told() {
        let text = "[[space]]\nurl = \"https://x.backlog.com/git\"\n[[route]]\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"o.zip\"\n";
        let good = || {
            let table = crate::route::RouteTable::parse(
                "t",
                text,
                Some("bucket"),
                crate::route::Origin::Deployed,
            );
            Table::Good {
                text: text.into(),
                table: table.unwrap().into(),
            }
        };
        let local = |text: &str| {
            Some(Local {
                file: "routes.toml".into(),
                text: text.into(),
            })
        };
        for (found, local, expected) in [
            (good(), None, "ok table s3://b/r"),
            (good(), local(text), "ok table s3://b/r"),
            (
                good(),
                local(&text.replace("o.zip", "p.zip")),
                "warning table s3://b/r: it differs from routes.toml here in 2 lines => store yours: backlog-bridge routes push --stack bridge",
            ),
            (
                Table::Missing,
                None,
                "error table s3://b/r: there is no routing table, so nothing is delivered => backlog-bridge routes push --stack bridge",
            ),
            (
                Table::Deleted,
                None,
                "error table s3://b/r: the routing table was deleted",
            ),
            (
                Table::Wrong("t:1: x\nt:2: y".into()),
                None,
                "error table s3://b/r: the routing table is wrong, and the last good one is used: t:1: x; t:2: y",
            ),
        ] {
            let line = line(&table("s3://b/r", "bridge", &Ok(found), local.as_ref()));
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn a_small_account_is_told() {
        for (limit, expected) in [
            (1000, "ok account_limit Lambda: 1000 functions"),
            (
                10,
                "warning account_limit Lambda: the account runs at most 10 functions at once, of which 5 may be deliveries",
            ),
        ] {
            let line = line(&account_limit(&Ok(limit), Some(5)));
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn the_way_in_is_told() {
        for (limited, answer, expected) in [
            (
                false,
                Ok((200, format!("{{\"ignored\":\"{TEST_ANSWER}\"}}"))),
                "ok way_in https://h: a webhook's test is answered",
            ),
            (
                false,
                Ok((404, String::new())),
                "error way_in https://h: it answers 404 to the token of the bridge",
            ),
            (
                true,
                Ok((404, String::new())),
                "? way_in https://h: not checked: it answers 404, as it does to all who are not in ALLOWED_IPS",
            ),
            (
                false,
                Ok((503, String::new())),
                "error way_in https://h: it answers 503",
            ),
            (
                false,
                Ok((500, String::new())),
                "error way_in https://h: it answers 500: the function cannot start",
            ),
            (
                false,
                Ok((200, "<html>".into())),
                "error way_in https://h: it answers 200",
            ),
        ] {
            let line = line(&way_in(&WayIn {
                hooks: "https://h".into(),
                is_limited: limited,
                answer,
            }));
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
