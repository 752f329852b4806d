//! Pipelines of CodePipeline: which ones read an object, what became of its versions there, and how to go back to one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::aws::{self, CallError, Service};

/// How many pages of a list are read.
const PAGES: usize = 20;

/// How many executions a page has.
const EXECUTIONS: usize = 100;

/// A pipeline, as far as it matters to its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// What happens when a second execution comes: `SUPERSEDED`, `QUEUED` or `PARALLEL`.
    pub mode: String,
    /// What it reads from S3.
    pub sources: Vec<Source>,
    /// Its stages after the one that reads.
    pub stages: Vec<Stage>,
}

/// A source action that reads an object of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The action's name.
    pub action: String,
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// Whether it looks for new versions by itself.
    pub polls: bool,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Whether it makes something of the source, and does nothing else.
    pub only_builds: bool,
}

/// A run of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Its id.
    pub id: String,
    /// What became of it, as CodePipeline says: `Succeeded`, `Failed`, `InProgress` and so on.
    pub status: String,
    /// The versions of its sources.
    pub versions: Vec<String>,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it last changed.
    pub updated: Option<SystemTime>,
    /// Whether it went back to an earlier one.
    pub is_rollback: bool,
}

/// What going back to a version means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The last stage takes again what the execution of that version made.
    RollBack {
        /// The stage.
        stage: String,
        /// The execution.
        execution: String,
    },
    /// The whole pipeline runs with that version.
    Start {
        /// The source action that gets it.
        action: String,
    },
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// The names of all pipelines of the region.
///
/// # Errors
///
/// [`CallError`].
pub async fn names() -> Result<Vec<String>, CallError> {
    let (mut names, mut input) = (Vec::new(), json!({}));
    for _ in 0..PAGES {
        let mut answer = aws::json(Service::CodePipeline, "ListPipelines", &input).await?;
        names.extend(items(&answer, "pipelines").map(|pipeline| text(&pipeline["name"])));
        match answer["nextToken"].take() {
            Value::Null => break,
            next => input["nextToken"] = next,
        }
    }
    Ok(names)
}

/// The pipelines of the region that read an object.
///
/// # Errors
///
/// [`CallError`], also if one may not be looked at: it could be the one.
pub async fn reading(bucket: &str, key: &str) -> Result<Vec<Pipeline>, CallError> {
    let mut found = Vec::new();
    for name in names().await? {
        let pipeline = Pipeline::named(&name).await?;
        if pipeline.source(bucket, key).is_some() {
            found.push(pipeline);
        }
    }
    Ok(found)
}

impl Pipeline {
    /// Looks at a pipeline.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn named(name: &str) -> Result<Self, CallError> {
        let input = json!({"name": name});
        let answer = aws::json(Service::CodePipeline, "GetPipeline", &input).await?;
        let pipeline = &answer["pipeline"];
        let category = |action: &Value| text(&action["actionTypeId"]["category"]);
        let (mut sources, mut stages) = (Vec::new(), Vec::new());
        for stage in items(pipeline, "stages") {
            for action in items(stage, "actions") {
                if category(action) == "Source" && action["actionTypeId"]["provider"] == "S3" {
                    let configuration = &action["configuration"];
                    sources.push(Source {
                        action: text(&action["name"]),
                        bucket: text(&configuration["S3Bucket"]),
                        key: text(&configuration["S3ObjectKey"]),
                        polls: !text(&configuration["PollForSourceChanges"])
                            .eq_ignore_ascii_case("false"),
                    });
                }
            }
            if !items(stage, "actions").any(|action| category(action) == "Source") {
                stages.push(Stage {
                    name: text(&stage["name"]),
                    only_builds: items(stage, "actions")
                        .all(|action| ["Build", "Test"].contains(&&*category(action))),
                });
            }
        }
        Ok(Self {
            name: name.to_owned(),
            arn: text(&answer["metadata"]["pipelineArn"]),
            mode: text(&pipeline["executionMode"]),
            sources,
            stages,
        })
    }

    /// The source that reads an object.
    #[must_use]
    pub fn source(&self, bucket: &str, key: &str) -> Option<&Source> {
        let mut sources = self.sources.iter();
        sources.find(|source| source.bucket == bucket && source.key == key)
    }

    /// How to go back to a version: without a build where an execution of it succeeded and there is a stage that does more
    /// than build. `None` if no source reads the object.
    #[must_use]
    pub fn way_to(
        &self,
        bucket: &str,
        key: &str,
        version: &str,
        executions: &[Execution],
    ) -> Option<Way> {
        let source = self.source(bucket, key)?;
        // One that went back has the versions of another one's sources.
        let succeeded = executions.iter().find(|execution| {
            execution.status == "Succeeded"
                && !execution.is_rollback
                && execution.versions.iter().any(|own| own == version)
        });
        let last = self.stages.last().filter(|stage| !stage.only_builds);
        Some(match (succeeded, last) {
            (Some(execution), Some(stage)) => Way::RollBack {
                stage: stage.name.clone(),
                execution: execution.id.clone(),
            },
            _ => Way::Start {
                action: source.action.clone(),
            },
        })
    }

    /// Goes back. Says which execution does so.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn go(&self, way: &Way, version: &str) -> Result<String, CallError> {
        let (operation, input) = match way {
            Way::RollBack { stage, execution } => (
                "RollbackStage",
                json!({
                    "pipelineName": self.name,
                    "stageName": stage,
                    "targetPipelineExecutionId": execution,
                }),
            ),
            Way::Start { action } => (
                "StartPipelineExecution",
                json!({
                    "name": self.name,
                    "sourceRevisions": [{
                        "actionName": action,
                        "revisionType": "S3_OBJECT_VERSION_ID",
                        "revisionValue": version,
                    }],
                }),
            ),
        };
        let answer = aws::json(Service::CodePipeline, operation, &input).await?;
        Ok(text(&answer["pipelineExecutionId"]))
    }
}

/// The newest executions of a pipeline, the newest first: at least `most` where there are so many.
///
/// # Errors
///
/// [`CallError`].
pub async fn executions(pipeline: &str, most: usize) -> Result<Vec<Execution>, CallError> {
    let mut input = json!({"pipelineName": pipeline, "maxResults": most.clamp(1, EXECUTIONS)});
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let operation = "ListPipelineExecutions";
        let mut answer = aws::json(Service::CodePipeline, operation, &input).await?;
        found.extend(items(&answer, "pipelineExecutionSummaries").map(Execution::of));
        match answer["nextToken"].take() {
            Value::Null => break,
            _ if found.len() >= most => break,
            next => input["nextToken"] = next,
        }
    }
    Ok(found)
}

/// An action of an execution, as far as it matters to what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The execution.
    pub execution: String,
    /// The stage.
    pub stage: String,
    /// The action.
    pub name: String,
    /// What became of it: `Succeeded`, `Failed`, `InProgress` and so on.
    pub status: String,
    /// What AWS says of it; empty if nothing.
    pub words: String,
    /// The bucket and the key that it read, if it is a source that says so.
    pub object: Option<(String, String)>,
}

/// The newest actions of a pipeline, the newest first. `enough` is asked after each page.
///
/// # Errors
///
/// [`CallError`].
pub async fn actions(
    pipeline: &str,
    enough: impl Fn(&[Action]) -> bool,
) -> Result<Vec<Action>, CallError> {
    let mut input = json!({"pipelineName": pipeline, "maxResults": EXECUTIONS});
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let operation = "ListActionExecutions";
        let mut answer = aws::json(Service::CodePipeline, operation, &input).await?;
        found.extend(items(&answer, "actionExecutionDetails").map(Action::of));
        match answer["nextToken"].take() {
            Value::Null => break,
            _ if enough(&found) => break,
            next => input["nextToken"] = next,
        }
    }
    Ok(found)
}

impl Action {
    fn of(detail: &Value) -> Self {
        let (result, variables) = (
            &detail["output"]["executionResult"],
            &detail["output"]["outputVariables"],
        );
        let said = [
            &result["errorDetails"]["message"],
            &result["externalExecutionSummary"],
        ];
        let said = said.into_iter().find_map(Value::as_str);
        let bucket = variables["BucketName"].as_str();
        let object = bucket.zip(variables["ObjectKey"].as_str());
        Self {
            execution: text(&detail["pipelineExecutionId"]),
            stage: text(&detail["stageName"]),
            name: text(&detail["actionName"]),
            status: text(&detail["status"]),
            words: said.unwrap_or_default().to_owned(),
            object: object.map(|(bucket, key)| (bucket.to_owned(), key.to_owned())),
        }
    }
}

impl Execution {
    fn of(summary: &Value) -> Self {
        let revisions = items(summary, "sourceRevisions");
        let time = |name: &str| {
            let seconds = summary[name].as_f64().filter(|time| *time > 0.0);
            let since = Duration::try_from_secs_f64(seconds?).ok()?;
            UNIX_EPOCH.checked_add(since)
        };
        Self {
            id: text(&summary["pipelineExecutionId"]),
            status: text(&summary["status"]),
            versions: revisions
                .map(|revision| text(&revision["revisionId"]))
                .collect(),
            started: time("startTime"),
            updated: time("lastUpdateTime"),
            is_rollback: summary["executionType"] == "ROLLBACK",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(stages: &[(&str, bool)]) -> Pipeline {
        let stages = stages.iter().map(|(name, only_builds)| Stage {
            name: (*name).into(),
            only_builds: *only_builds,
        });
        Pipeline {
            name: "web".into(),
            arn: String::new(),
            mode: "SUPERSEDED".into(),
            sources: vec![Source {
                action: "Source".into(),
                bucket: "b".into(),
                key: "k".into(),
                polls: false,
            }],
            stages: stages.collect(),
        }
    }

    fn execution(id: &str, status: &str, version: &str) -> Execution {
        Execution {
            id: id.into(),
            status: status.into(),
            versions: vec![version.into()],
            started: None,
            updated: None,
            is_rollback: false,
        }
    }

    #[test]
    fn what_was_deployed_is_taken_again_and_all_else_is_built() {
        let start = Some(Way::Start {
            action: "Source".into(),
        });
        let back = |execution: &str| {
            Some(Way::RollBack {
                stage: "Deploy".into(),
                execution: execution.into(),
            })
        };
        let deploys = pipeline(&[("Build", true), ("Deploy", false)]);
        let builds = pipeline(&[("Build", true)]);
        let newest_first = [
            execution("e4", "Failed", "v1"),
            Execution {
                is_rollback: true,
                ..execution("e3", "Succeeded", "v1")
            },
            execution("e2", "Succeeded", "v1"),
            execution("e1", "Failed", "v0"),
        ];
        let way = |pipeline: &Pipeline, version| pipeline.way_to("b", "k", version, &newest_first);
        assert_eq!(way(&deploys, "v1"), back("e2"));
        assert_eq!(way(&deploys, "v0"), start, "it never succeeded");
        assert_eq!(way(&deploys, "v9"), start, "it never ran");
        assert_eq!(way(&builds, "v1"), start, "nothing but builds");
        assert_eq!(deploys.way_to("b", "other", "v1", &newest_first), None);
    }
}
