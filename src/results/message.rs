//! The messages of the queue of results. Each only says where to look.

use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    push::RepositoryName,
    queue::{At, Of},
};

/// The group of every message, whoever sends it: the looks of all pipelines come one after the other. Two at once could both
/// find that a comment is missing.
pub const GROUP: &str = "results";

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A pipeline, or a project of builds.
    Pipeline {
        /// Its name.
        name: String,
        /// Whether it is a project of builds; `None` if that is not known.
        builds: Option<bool>,
        /// The run that changed, if one did.
        run: Option<Changed>,
        /// Which request it came from, to find that in the log.
        request_id: String,
    },
    /// A pull request that was opened.
    Opened {
        /// The repository.
        repository: RepositoryName,
        /// Its number.
        number: i64,
        /// As above.
        request_id: String,
    },
    /// Every pipeline that the table names, as far as it changed within a day.
    All {
        /// As above.
        request_id: String,
    },
}

/// A run that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// Whether it was over then.
    pub is_over: bool,
    /// Whether it had failed then.
    pub is_red: bool,
}

/// Where a look goes on that the time did not reach the end of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rest {
    /// The first pipeline that is left. They are looked at in the order of their names.
    pub(super) pipeline: String,
    /// The last of its refs that was looked at, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

/// The message as it is spelled on the wire. The template's rules write `state` and `time`, too: SQS drops a message whose text
/// it had within five minutes, and a run that begins and ends within them has two.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution: Option<String>,
    /// The ARN of a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pull_request: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    look: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<Rest>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    request_id: String,
}

impl Message {
    /// A look at one pipeline.
    #[must_use]
    pub fn of_pipeline(name: &str, request_id: &str) -> Self {
        Self::Pipeline {
            name: name.to_owned(),
            builds: None,
            run: None,
            request_id: request_id.to_owned(),
        }
    }

    /// Which request it came from.
    #[must_use]
    pub fn request_id(&self) -> &str {
        match self {
            Self::Pipeline { request_id, .. }
            | Self::Opened { request_id, .. }
            | Self::All { request_id } => request_id,
        }
    }

    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`Error::Job`] if it is none.
    pub fn parse(body: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Job { reason };
        let wire: Wire = serde_json::from_str(body).map_err(|err| wrong(err.to_string()))?;
        let request_id = wire.request_id;
        let state = wire.state.unwrap_or_default();
        let changed = |id: String| Changed {
            id,
            is_over: !matches!(
                &*state,
                "STARTED" | "RESUMED" | "STOPPING" | "CANCELING" | "IN_PROGRESS" | ""
            ),
            is_red: matches!(&*state, "FAILED" | "FAULT" | "TIMED_OUT"),
        };
        match (
            wire.pipeline,
            wire.project,
            wire.repository,
            wire.pull_request,
        ) {
            (Some(name), None, None, None) => Ok(Self::Pipeline {
                name,
                builds: wire.execution.is_some().then_some(false),
                run: wire.execution.map(changed),
                request_id,
            }),
            (None, Some(name), None, None) => {
                let id = |arn: String| match arn.split_once(":build/") {
                    Some((_, id)) => id.to_owned(),
                    None => arn,
                };
                Ok(Self::Pipeline {
                    name,
                    builds: Some(true),
                    run: wire.build.map(id).map(changed),
                    request_id,
                })
            }
            (None, None, Some(repository), Some(number)) => {
                let repository = repository.parse();
                let repository =
                    repository.map_err(|err: crate::push::InvalidName| wrong(err.to_string()))?;
                Ok(Self::Opened {
                    repository,
                    number,
                    request_id,
                })
            }
            (None, None, None, None) if wire.look => Ok(Self::All { request_id }),
            _ => Err(wrong("it names nothing to look at".into())),
        }
    }

    /// The message's body.
    ///
    /// # Panics
    ///
    /// Never: a message is plain data.
    #[must_use]
    pub fn body(&self) -> String {
        serde_json::to_string(&self.wire()).expect("plain data")
    }

    /// The body of the message with which a look goes on.
    pub(super) fn body_of_rest(&self, rest: Rest) -> String {
        let wire = Wire {
            // What is to be done about a run that changed was done by then.
            execution: None,
            build: None,
            rest: Some(rest),
            ..self.wire()
        };
        serde_json::to_string(&wire).expect("plain data")
    }

    fn wire(&self) -> Wire {
        let mut wire = Wire {
            request_id: self.request_id().to_owned(),
            ..Wire::default()
        };
        match self {
            Self::Pipeline {
                name, builds, run, ..
            } => {
                let id = run.as_ref().map(|run| run.id.clone());
                if *builds == Some(true) {
                    (wire.project, wire.build) = (Some(name.clone()), id);
                } else {
                    (wire.pipeline, wire.execution) = (Some(name.clone()), id);
                }
            }
            Self::Opened {
                repository, number, ..
            } => {
                wire.repository = Some(repository.to_string());
                wire.pull_request = Some(*number);
            }
            Self::All { .. } => wire.look = true,
        }
        wire
    }
}

impl Rest {
    /// Where a message says that a look goes on.
    pub(super) fn of(body: &str) -> Option<Self> {
        serde_json::from_str::<Wire>(body).ok()?.rest
    }
}

/// Reads a dead letter of results. It goes back as it was: of a run that failed there is a mail.
///
/// # Errors
///
/// Why it stays.
pub fn letter(body: &str) -> Result<(Of, String), &'static str> {
    let at = match Message::parse(body) {
        Ok(Message::Pipeline { name, .. }) => At::Pipeline(name),
        Ok(Message::Opened {
            repository, number, ..
        }) => At::Request(repository, number),
        Ok(Message::All { .. }) => return Err("it is a look at all; the next one makes up for it"),
        Err(_) => return Err("it is no job"),
    };
    let look = Of::Look {
        at,
        body: body.to_owned(),
        group: GROUP,
    };
    // Whether it was sent back is seen by its text.
    Ok((look, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_where_to_look() {
        let red = Changed {
            id: "e1".into(),
            is_over: true,
            is_red: true,
        };
        for (body, expected) in [
            (
                r#"{"pipeline":"web","execution":"e1","state":"FAILED","time":"2026-04-01T00:00:00Z"}"#,
                Message::Pipeline {
                    name: "web".into(),
                    builds: Some(false),
                    run: Some(red.clone()),
                    request_id: String::new(),
                },
            ),
            (
                r#"{"project":"web-branches","build":"arn:aws:codebuild:r:1:build/web-branches:b1","state":"TIMED_OUT"}"#,
                Message::Pipeline {
                    name: "web-branches".into(),
                    builds: Some(true),
                    run: Some(Changed {
                        id: "web-branches:b1".into(),
                        ..red.clone()
                    }),
                    request_id: String::new(),
                },
            ),
        ] {
            assert_eq!(Message::parse(body).unwrap(), expected, "{body}");
        }
        for state in ["STARTED", "RESUMED", "STOPPING", "IN_PROGRESS"] {
            let body = format!(r#"{{"pipeline":"web","execution":"e1","state":"{state}"}}"#);
            let Message::Pipeline { run: Some(run), .. } = Message::parse(&body).unwrap() else {
                panic!("{body}");
            };
            assert!(!run.is_over && !run.is_red, "{state}");
        }
        for body in [
            "",
            "{}",
            "{\"look\":false}",
            r#"{"sweep":true}"#,
            r#"{"repository":"web","pull_request":1}"#,
        ] {
            assert!(Message::parse(body).is_err(), "{body}");
        }
    }

    #[test]
    fn what_is_sent_is_read_as_what_it_was() {
        for message in [
            Message::of_pipeline("web", "a-request"),
            Message::Opened {
                repository: "APP/web".parse().unwrap(),
                number: 7,
                request_id: "a-request".into(),
            },
            Message::All {
                request_id: "a-request".into(),
            },
        ] {
            assert_eq!(Message::parse(&message.body()).unwrap(), message);
            assert_eq!(Rest::of(&message.body()), None);
            let rest = Rest {
                pipeline: "web".into(),
                after: Some("web refs/heads/x".into()),
            };
            let body = message.body_of_rest(rest.clone());
            assert_eq!(Message::parse(&body).unwrap(), message);
            assert_eq!(Rest::of(&body), Some(rest));
        }
    }
}
