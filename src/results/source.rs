//! The runs of a pipeline, or of a project of builds, as AWS has them now.

use std::{
    collections::{HashMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::Mutex;

use super::{Failure, Run, State};
use crate::{
    aws::CallError,
    codebuild::{self, Build},
    error::Error,
    pipeline::{self, Action, Execution, Pipeline},
};

/// How many runs are known of a pipeline. Those of all refs that it builds are among them.
const RUNS: usize = 100;

/// How much is kept in memory of what does not change.
const KEPT: usize = 10_000;

/// The runs of a pipeline, the newest first.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) runs: Vec<Taken>,
    /// Whether there are older ones.
    pub(super) is_cut: bool,
}

/// A run, and what it took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// Without what its version holds.
    pub(super) run: Run,
    /// The bucket and the key, if AWS says so.
    pub(super) object: Option<(String, String)>,
}

/// How the object of a run is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objects {
    /// From the routing table: there is one.
    Table,
    /// From the pipeline: there is one.
    Pipeline,
    /// From the run.
    Run,
}

/// AWS, and what of its answers is kept: what is over changes no more.
#[derive(Debug, Default)]
pub(super) struct Sources {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the run's id, with when it last changed.
    failures: HashMap<String, (i64, Option<Failure>)>,
    objects: HashMap<String, (String, String)>,
    /// By the pipeline's name.
    sources: HashMap<String, (String, String)>,
}

impl Sources {
    /// The runs of whatever has this name; `None` if nothing has.
    pub(super) async fn read(
        &self,
        name: &str,
        builds: Option<bool>,
        region: &str,
        objects: Objects,
    ) -> Result<Option<Source>, Error> {
        if builds != Some(true) {
            match pipeline::executions(name, RUNS).await {
                Ok(executions) => {
                    let read = self.of_pipeline(name, executions, region, objects);
                    return Box::pin(read).await.map(Some).map_err(|err| error(&err));
                }
                Err(err) if err.code == "PipelineNotFoundException" && builds.is_none() => {}
                Err(err) if err.code == "PipelineNotFoundException" => return Ok(None),
                Err(err) => return Err(error(&err)),
            }
        }
        let found = codebuild::builds(name).await.map_err(|err| error(&err))?;
        Ok(found.map(|(builds, is_cut)| Source {
            runs: builds
                .into_iter()
                .map(|build| of_build(name, build, region))
                .collect(),
            is_cut,
        }))
    }

    async fn of_pipeline(
        &self,
        name: &str,
        executions: Vec<Execution>,
        region: &str,
        objects: Objects,
    ) -> Result<Source, CallError> {
        let mut kept = self.kept.lock().await;
        if kept.failures.len() + kept.objects.len() > KEPT {
            *kept = Kept::default();
        }
        let of_all = match objects {
            Objects::Pipeline => Some(kept.source(name).await?),
            Objects::Table | Objects::Run => None,
        };
        kept.learn(name, &executions, objects).await?;
        let is_cut = executions.len() >= RUNS;
        let runs = executions.into_iter().map(|execution| {
            let state = match &*execution.status {
                "Succeeded" => State::Succeeded,
                "Failed" => State::Failed,
                "Superseded" => State::Superseded,
                "Stopped" | "Cancelled" => State::Stopped,
                _ => State::Running,
            };
            let started = seconds(execution.started);
            let failure = kept.failures.get(&execution.id);
            Taken {
                object: match objects {
                    Objects::Run => kept.objects.get(&execution.id).cloned(),
                    _ => of_all.clone(),
                },
                run: Run {
                    state,
                    started,
                    updated: seconds(execution.updated).max(started),
                    version: execution.versions.into_iter().next().unwrap_or_default(),
                    holds: None,
                    is_rollback: execution.is_rollback,
                    failure: failure.and_then(|(_, failure)| failure.clone()).filter(|_| state == State::Failed),
                    link: format!(
                        "https://{}/codesuite/codepipeline/pipelines/{name}/executions/{}/timeline?region={region}",
                        console(region),
                        execution.id
                    ),
                    id: execution.id,
                },
            }
        });
        Ok(Source {
            runs: runs.collect(),
            is_cut,
        })
    }
}

impl Kept {
    /// The one object that a pipeline reads.
    async fn source(&mut self, name: &str) -> Result<(String, String), CallError> {
        if let Some(source) = self.sources.get(name) {
            return Ok(source.clone());
        }
        let sources = Pipeline::named(name).await?.sources.into_iter();
        let source = sources.map(|source| (source.bucket, source.key)).next();
        let source = source.unwrap_or_default();
        self.sources.insert(name.to_owned(), source.clone());
        Ok(source)
    }

    /// Where runs failed, and what they took, of those of which it is not known yet.
    async fn learn(
        &mut self,
        name: &str,
        executions: &[Execution],
        objects: Objects,
    ) -> Result<(), CallError> {
        let failed = executions.iter().filter(|execution| {
            let known = self.failures.get(&execution.id);
            execution.status == "Failed"
                && known.is_none_or(|(updated, _)| *updated != seconds(execution.updated))
        });
        let failed: HashMap<&str, i64> = failed
            .map(|execution| (execution.id.as_str(), seconds(execution.updated)))
            .collect();
        let taken = executions.iter().filter(|execution| {
            objects == Objects::Run && !self.objects.contains_key(&execution.id)
        });
        let taken: HashSet<&str> = taken.map(|execution| execution.id.as_str()).collect();
        if failed.is_empty() && taken.is_empty() {
            return Ok(());
        }
        let oldest = executions.last().map(|execution| execution.id.clone());
        let actions = pipeline::actions(name, |actions| {
            // What is not found up to the oldest run is nowhere.
            let is_failed = |id: &str| {
                actions
                    .iter()
                    .any(|action| action.execution == id && action.status == "Failed")
            };
            let is_taken = |id: &str| {
                actions
                    .iter()
                    .any(|action| action.execution == id && action.object.is_some())
            };
            let is_end = actions.last().map(|action| &action.execution) == oldest.as_ref();
            is_end || (failed.keys().all(|id| is_failed(id)) && taken.iter().all(|id| is_taken(id)))
        });
        let actions = actions.await?;
        for (id, updated) in failed {
            // A stage that was tried again has the newest first.
            let failed = actions
                .iter()
                .find(|action| action.execution == id && action.status == "Failed");
            let failure = failed.map(
                |Action {
                     stage, name, words, ..
                 }| Failure {
                    stage: stage.clone(),
                    action: Some(name.clone()),
                    words: words.clone(),
                },
            );
            self.failures.insert(id.to_owned(), (updated, failure));
        }
        for action in actions {
            if let Some(object) = action.object {
                self.objects.insert(action.execution, object);
            }
        }
        Ok(())
    }
}

fn of_build(project: &str, build: Build, region: &str) -> Taken {
    let state = match &*build.status {
        "SUCCEEDED" => State::Succeeded,
        "FAILED" | "FAULT" | "TIMED_OUT" => State::Failed,
        "STOPPED" => State::Stopped,
        _ => State::Running,
    };
    let started = seconds(build.started);
    let failure = build.failed.filter(|_| state == State::Failed);
    Taken {
        object: build.object,
        run: Run {
            state,
            started,
            updated: seconds(build.ended).max(started),
            version: build.version,
            holds: None,
            is_rollback: false,
            failure: failure.map(|(stage, words)| Failure {
                stage,
                action: None,
                words,
            }),
            link: format!(
                "https://{}/codesuite/codebuild/projects/{project}/build/{}/log?region={region}",
                console(region),
                build.id.replace(':', "%3A")
            ),
            id: build.id,
        },
    }
}

fn console(region: &str) -> String {
    let is_china = region.starts_with("cn-");
    let domain = if is_china {
        "console.amazonaws.cn"
    } else {
        "console.aws.amazon.com"
    };
    format!("{region}.{domain}")
}

fn seconds(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| since.as_secs().try_into().ok())
        .unwrap_or_default()
}

/// What AWS did not do.
pub(super) fn error(err: &CallError) -> Error {
    Error::Results {
        reason: err.to_string(),
        transient: err.transient,
    }
}
