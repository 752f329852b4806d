//! Builds of `CodeBuild` that were told which version of an object to build, as those of every branch are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub use crate::aws::CallError;
use crate::aws::{self, Service};

/// How many builds are asked for at once.
const BUILDS: usize = 100;

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its id, such as `web-branches:0a1b…`.
    pub id: String,
    /// What became of it: `SUCCEEDED`, `FAILED`, `FAULT`, `TIMED_OUT`, `IN_PROGRESS` or `STOPPED`.
    pub status: String,
    /// The bucket and the key of what it builds, if it was told.
    pub object: Option<(String, String)>,
    /// The version of it.
    pub version: String,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// The phase that failed, and what `CodeBuild` says of it.
    pub failed: Option<(String, String)>,
}

/// The newest builds of a project, the newest first, and whether there are more; `None` if there is no such project.
///
/// # Errors
///
/// [`CallError`].
pub async fn builds(project: &str) -> Result<Option<(Vec<Build>, bool)>, CallError> {
    // The newest come first. To ask for an order is an error beyond 100 builds.
    let input = json!({"projectName": project});
    let listed = aws::json(Service::CodeBuild, "ListBuildsForProject", &input).await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(err) if err.code == "ResourceNotFoundException" => return Ok(None),
        Err(err) => return Err(err),
    };
    let ids = listed["ids"].as_array().cloned().unwrap_or_default();
    if ids.is_empty() {
        return Ok(Some((Vec::new(), false)));
    }
    let is_cut = ids.len() > BUILDS || !listed["nextToken"].is_null();
    let input = json!({"ids": ids.iter().take(BUILDS).collect::<Vec<_>>()});
    let answer = aws::json(Service::CodeBuild, "BatchGetBuilds", &input).await?;
    let builds = answer["builds"].as_array().into_iter().flatten();
    let mut builds: Vec<_> = builds.map(Build::of).collect();
    builds.sort_by_key(|build| std::cmp::Reverse(build.started));
    Ok(Some((builds, is_cut)))
}

impl Build {
    fn of(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let time = |name: &str| {
            let seconds = answer[name].as_f64().filter(|time| *time > 0.0);
            let since = Duration::try_from_secs_f64(seconds?).ok()?;
            UNIX_EPOCH.checked_add(since)
        };
        let variables = answer["environment"]["environmentVariables"].as_array();
        let variable = |name: &str| {
            let mut variables = variables.into_iter().flatten();
            let found = variables.find(|variable| variable["name"] == name)?;
            found["value"].as_str().map(str::to_owned)
        };
        let mut phases = answer["phases"].as_array().into_iter().flatten();
        let failed = phases.find(|phase| {
            let status = phase["phaseStatus"].as_str().unwrap_or_default();
            !matches!(status, "" | "SUCCEEDED" | "IN_PROGRESS" | "STOPPED")
        });
        Self {
            id: text(&answer["id"]),
            status: text(&answer["buildStatus"]),
            object: variable("SOURCE_BUCKET").zip(variable("SOURCE_KEY")),
            version: text(&answer["sourceVersion"]),
            started: time("startTime"),
            ended: time("endTime"),
            failed: failed.map(|phase| {
                let contexts = phase["contexts"].as_array().into_iter().flatten();
                let words: Vec<_> = contexts.map(|context| text(&context["message"])).collect();
                (text(&phase["phaseType"]), words.join(" "))
            }),
        }
    }
}
