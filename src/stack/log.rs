//! What the functions of a deployed bridge have logged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{CallError, Stack};
use crate::{
    aws::{self, Service},
    push::RepositoryName,
};

/// How many pages of a log are read at once. One has up to a megabyte.
const PAGES: usize = 20;

/// A line that a function has logged.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// When.
    pub time: SystemTime,
    /// The function's name.
    pub function: String,
    /// What: an object, or a text of whatever is no JSON.
    pub value: Value,
}

impl Stack {
    /// What `deliver` has logged since `begin` of the jobs of one request: a line of JSON each, in the order of their times. A
    /// line is to be seen some seconds after it was written.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn outcomes(
        &self,
        request_id: &str,
        begin: SystemTime,
    ) -> Result<Vec<Value>, CallError> {
        let of_request = format!("{{ $.request_id = \"{request_id}\" }}");
        let lines = self.log(&self.deliver(), begin, Some(&of_request)).await?;
        Ok(lines.into_iter().map(|line| line.value).collect())
    }

    /// Whether `receive` has logged a webhook of a repository since `begin`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn was_told_of(
        &self,
        repository: &RepositoryName,
        begin: OffsetDateTime,
    ) -> Result<bool, CallError> {
        let of_repository = format!("{{ $.repository = \"{repository}\" }}");
        let lines = self
            .log(&self.receive(), begin.into(), Some(&of_repository))
            .await?;
        Ok(!lines.is_empty())
    }

    /// What a function has logged since `begin`, in the order of the times; without the lines in which Lambda tells that an
    /// invocation began and ended well. `pattern` is one of CloudWatch Logs.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn log(
        &self,
        function: &str,
        begin: SystemTime,
        pattern: Option<&str>,
    ) -> Result<Vec<LogLine>, CallError> {
        let begin = begin.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut input = json!({
            "logGroupName": format!("/aws/lambda/{function}"),
            "startTime": u64::try_from(begin.as_millis()).unwrap_or(u64::MAX),
        });
        if let Some(pattern) = pattern {
            input["filterPattern"] = pattern.into();
        }
        let mut lines = Vec::new();
        for _ in 0..PAGES {
            let mut answer = aws::json(Service::Logs, "FilterLogEvents", &input).await?;
            for event in answer["events"].as_array().into_iter().flatten() {
                let message = event["message"].as_str().unwrap_or_default().trim_end();
                let millis = event["timestamp"].as_u64().unwrap_or_default();
                let value = serde_json::from_str(message).ok().filter(Value::is_object);
                if value.is_none() && is_of_lambda(message) {
                    continue;
                }
                lines.push(LogLine {
                    time: UNIX_EPOCH + Duration::from_millis(millis),
                    function: function.to_owned(),
                    value: value.unwrap_or_else(|| message.into()),
                });
            }
            match answer["nextToken"].take() {
                Value::Null => break,
                token => input["nextToken"] = token,
            }
        }
        Ok(lines)
    }
}

/// Whether Lambda itself says so, and nothing is wrong.
fn is_of_lambda(message: &str) -> bool {
    let ordinary = ["START ", "END ", "REPORT ", "INIT_START "];
    let is_ordinary = ordinary.iter().any(|begin| message.starts_with(begin));
    message.is_empty() || (is_ordinary && !message.contains("Status: "))
}
