//! What tells results in Backlog.

use std::collections::BTreeMap;

use super::Function;
use crate::{
    doctor::{Check, Finding, seen::Seen},
    plain,
    secrets::Held,
};

/// Whose key results are told with, in a space where they are wanted.
#[derive(Debug)]
pub(in crate::doctor) enum Robot {
    /// Nobody's: the space has none.
    Unnamed(String),
    /// That of a secret.
    Secret(String, Seen<Held<()>>),
}

/// The function, and the attributes of its dead letters.
type Deployed = (Seen<Option<Function>>, Seen<BTreeMap<String, String>>);

/// What tells results.
#[derive(Debug)]
pub(in crate::doctor) struct Telling {
    /// The bridge's stack.
    pub(in crate::doctor) stack: String,
    /// The function's name.
    pub(in crate::doctor) name: String,
    /// `None` with Results=no.
    pub(in crate::doctor) deployed: Option<Deployed>,
    pub(in crate::doctor) robots: Vec<Robot>,
}

/// One line: the first thing that is wrong.
pub(in crate::doctor) fn results(telling: &Telling) -> Finding {
    let Telling {
        stack,
        name,
        deployed,
        robots,
    } = telling;
    let deploy = format!("backlog-bridge connect --stack {stack} --results yes");
    let Some((function, letters)) = deployed else {
        return Check::Results
            .error(
                name,
                "the table wants results told, and the stack has Results=no",
            )
            .with(deploy);
    };
    match function {
        Ok(None) => {
            return Check::Results
                .error(
                    name,
                    "results.yaml is not deployed, and the stack has Results=yes",
                )
                .with(deploy);
        }
        Ok(Some(function)) if function.state == "Failed" => {
            let why = plain::foreign(&function.state_reason);
            return Check::Results
                .error(name, format!("the function cannot run: {why}"))
                .with(deploy);
        }
        Ok(Some(_)) => {}
        Err(unseen) => return Check::Results.unknown(name, unseen),
    }
    for robot in robots {
        match robot {
            Robot::Unnamed(space) => {
                return Check::Results
                    .error(
                        name,
                        format!("the space {space} has no api_key, and wants results told"),
                    )
                    .with(deploy);
            }
            Robot::Secret(_, Ok(Held::Filled(()))) => {}
            Robot::Secret(secret, Ok(_)) => {
                return Check::Results
                    .error(name, format!("the secret {secret} does not hold {{\"api_key\":\"…\"}} with the robot's key filled in"))
                    .with("docs/operate.md, Results in Backlog, says how to fill it in");
            }
            Robot::Secret(_, Err(unseen)) => return Check::Results.unknown(name, unseen),
        }
    }
    let letters = match letters {
        Ok(all) => all.get("ApproximateNumberOfMessages"),
        Err(unseen) => return Check::Results.unknown(name, unseen),
    };
    match letters.and_then(|count| count.parse().ok()).unwrap_or(0) {
        0 => Check::Results.ok(name, "results can be told"),
        count => Check::Results
            .error(name, plain::count(count, "message was given up", "messages were given up"))
            .with(format!("mend what the log names, then send them back: backlog-bridge redrive --stack {stack}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::tests::line;

    #[test]
    fn what_keeps_results_from_being_told_is_told_with_what_to_do() {
        let telling = |deployed, robots| Telling {
            stack: "bridge".into(),
            name: "bridge-results".into(),
            deployed,
            robots,
        };
        let letters = |count: &str| {
            let count = ("ApproximateNumberOfMessages".to_owned(), count.to_owned());
            let function = Function {
                state: "Active".into(),
                ..Function::default()
            };
            Some((Ok(Some(function)), Ok(BTreeMap::from([count]))))
        };
        let deploy = "=> backlog-bridge connect --stack bridge --results yes";
        let redrive = "=> mend what the log names, then send them back: backlog-bridge redrive --stack bridge";
        for (telling, begin, end) in [
            (
                telling(letters("0"), Vec::new()),
                "ok results bridge-results",
                "can be told",
            ),
            (
                telling(letters("2"), Vec::new()),
                "error results bridge-results: 2 messages",
                redrive,
            ),
            (
                telling(None, Vec::new()),
                "error results bridge-results",
                deploy,
            ),
            (
                telling(Some((Ok(None), Ok(BTreeMap::new()))), Vec::new()),
                "error results bridge-results: results.yaml is not deployed",
                deploy,
            ),
            (
                telling(letters("0"), vec![Robot::Unnamed("https://a".into())]),
                "error results bridge-results: the space https://a has no api_key",
                deploy,
            ),
        ] {
            let line = line(&results(&telling));
            assert!(line.starts_with(begin) && line.ends_with(end), "{line}");
        }
    }
}
