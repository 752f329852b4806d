//! The mail that a pipeline failed. Unlike a comment it says everything: who gets it may look into AWS.

use serde::de::IgnoredAny;

use super::{Run, source};
use crate::{
    aws::{self, Service},
    error::Error,
    plain,
    route::Destination,
};

/// The longest subject that SNS takes.
const SUBJECT_BYTES: usize = 100;

/// What a failed run is about.
pub(super) struct Mail<'a> {
    pub(super) pipeline: &'a str,
    pub(super) run: &'a Run,
    /// What the route makes of the ref.
    pub(super) to: &'a Destination,
}

impl Mail<'_> {
    /// Tells everybody who listens to the topic.
    pub(super) async fn send(&self, topic: &str) -> Result<(), Error> {
        let (subject, text) = (self.subject(), self.text());
        let input = [
            ("TopicArn", topic),
            ("Subject", &subject),
            ("Message", &text),
        ];
        let sent = aws::query::<IgnoredAny>(Service::Sns, "Publish", &input).await;
        sent.map(drop).map_err(|err| source::error(&err))
    }

    fn subject(&self) -> String {
        let commit = self
            .run
            .holds
            .as_ref()
            .map(|holds| format!(": {:.8}", holds.commit.to_string()));
        let mut subject = format!("{} failed{}", self.pipeline, commit.unwrap_or_default());
        subject.truncate(SUBJECT_BYTES);
        subject
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("The pipeline {} failed.", self.pipeline),
            String::new(),
        ];
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                lines.push(format!("{name}: {}", plain::foreign(value)));
            }
        };
        line("route", &self.to.route);
        let ref_name = &self.to.ref_name;
        line("ref", &format!("{ref_name} of {}", self.to.repository));
        match &self.run.holds {
            Some(holds) => {
                let url = self.to.commit_url(holds.commit);
                line(
                    "commit",
                    &format!("{} {}", holds.commit, url.unwrap_or_default()),
                );
                line("author", &holds.author);
                line("message", &holds.subject);
            }
            None => line("version", &self.run.version),
        }
        if let Some(failure) = &self.run.failure {
            let action = failure.action.as_ref().map(|action| format!(" / {action}"));
            line(
                "failed in",
                &format!("{}{}", failure.stage, action.unwrap_or_default()),
            );
            line("AWS says", &failure.words);
        }
        lines.extend([String::new(), self.run.link.clone()]);
        lines.join("\n")
    }
}
