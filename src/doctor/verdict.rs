//! What is said of what was seen. Pure: each text comes of facts alone.

mod alarms;
mod backlog;
mod bridge;
mod git;
mod objects;
mod pipelines;
mod results;
mod secrets;

use super::{Check, Finding, seen::Unseen};
use crate::{config::Location, stack::StackError};

pub(super) use self::{
    alarms::{Alarms, Schedule, alarms, schedule},
    backlog::{Arrival, Hook, Project, Space},
    bridge::{Function, Queues, WayIn, account_limit, functions, mappings, queues, table, way_in},
    git::{Credentials, Host, Listing, Plan, Repository, Wanted},
    objects::{Bucket, Object, Tip},
    pipelines::{Pipeline, Rule, State, of_object},
    results::{Robot, Telling, results},
    secrets::{GitLogin, git_secret, token_secret},
};

/// The routing table beside whoever asks, if there is one.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where it is.
    pub file: String,
    /// What it holds.
    pub text: String,
}

/// What is said of a login to AWS.
pub(super) fn aws_login(region: Option<&str>, trouble: Option<&str>) -> Finding {
    match (trouble, region) {
        (Some(trouble), _) => Check::AwsLogin.error("AWS", trouble),
        (None, Some(region)) => Check::AwsLogin.ok("AWS", format!("the region is {region}")),
        (None, None) => Check::AwsLogin
            .error("AWS", "no region is set")
            .with("name it: AWS_REGION=ap-northeast-1"),
    }
}

/// What is said of a bridge that is not found, or not wholly there.
#[must_use]
pub fn stack_missing(name: &str, err: StackError) -> Vec<Finding> {
    match err {
        StackError::Unknown(err) => match Unseen::from(err) {
            Unseen::NoLogin(why) => vec![aws_login(None, Some(&why))],
            unseen @ Unseen::Denied(_) => vec![Check::Stack.unknown(name, &unseen)],
            unseen => vec![Check::Stack.error(name, unseen.to_string())],
        },
        err => vec![Check::Stack.error(name, err.to_string())],
    }
}

/// What is said of the state that a deployed bridge is in.
pub(super) fn stack(name: &str, status: &str) -> Finding {
    let events = format!(
        "look what failed: aws cloudformation describe-stack-events --stack-name {name} --query \
         'StackEvents[?contains(ResourceStatus, `FAILED`)].[LogicalResourceId,ResourceStatusReason]'"
    );
    match status {
        _ if status.ends_with("_IN_PROGRESS") => Check::Stack
            .warning(name, format!("the stack is {status}"))
            .with("wait until it is deployed, and ask again"),
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => {
            Check::Stack.ok(name, format!("the stack is {status}"))
        }
        "UPDATE_ROLLBACK_COMPLETE" | "IMPORT_ROLLBACK_COMPLETE" => Check::Stack
            .warning(
                name,
                format!(
                    "the stack is {status}: the last deployment failed, and the one before counts"
                ),
            )
            .with(events),
        _ => Check::Stack
            .error(name, format!("the stack is {status}"))
            .with(events),
    }
}

/// `s3://bucket/key`.
fn address(bucket: &str, key: &str) -> String {
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    Location { bucket, key }.to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    /// The verdict, the words and what to do, as a line.
    pub(super) fn line(finding: &Finding) -> String {
        let Finding {
            check,
            subject,
            verdict,
            message,
            remedy,
            ..
        } = finding;
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "error",
            Verdict::Unknown => "?",
        };
        let remedy = remedy.as_deref().map(|remedy| format!(" => {remedy}"));
        format!(
            "{verdict} {} {subject}: {message}{}",
            check.name(),
            remedy.unwrap_or_default()
        )
    }

    pub(super) fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(line).collect()
    }

    /// The lines of those that are not well.
    pub(super) fn problems(findings: &[Finding]) -> Vec<String> {
        let problems = findings
            .iter()
            .filter(|finding| finding.verdict != Verdict::Ok);
        problems.map(line).collect()
    }

    #[test]
    fn the_state_of_a_stack_is_told() {
        for (status, expected) in [
            (
                "CREATE_COMPLETE",
                "ok stack bridge: the stack is CREATE_COMPLETE",
            ),
            (
                "UPDATE_IN_PROGRESS",
                "warning stack bridge: the stack is UPDATE_IN_PROGRESS => wait until it is deployed, and ask again",
            ),
            (
                "UPDATE_ROLLBACK_COMPLETE",
                "warning stack bridge: the stack is UPDATE_ROLLBACK_COMPLETE: the last deployment failed, and the one before \
                 counts => look what failed: aws cloudformation describe-stack-events --stack-name bridge",
            ),
            (
                "UPDATE_ROLLBACK_FAILED",
                "error stack bridge: the stack is UPDATE_ROLLBACK_FAILED => look what failed: aws cloudformation",
            ),
        ] {
            let line = line(&stack("bridge", status));
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn a_login_to_aws_is_told() {
        for (region, trouble, expected) in [
            (Some("r"), None, "ok aws_login AWS: the region is r"),
            (
                None,
                None,
                "error aws_login AWS: no region is set => name it: AWS_REGION=ap-northeast-1",
            ),
            (
                Some("r"),
                Some("it is over"),
                "error aws_login AWS: it is over",
            ),
        ] {
            assert_eq!(line(&aws_login(region, trouble)), expected);
        }
    }
}
