//! What is seen of pipelines and of the rules that start them.

use serde_json::{Value, json};

use super::{
    seen::{Seen, Time, Unseen, all},
    verdict::{Pipeline, Rule, State},
};
use crate::{
    aws::{self, CallError, Service},
    pipeline::{self, Source},
    plain,
};

/// How many pages of rules are read.
const PAGES: usize = 20;

/// Looks at all pipelines of the region whose sources are in S3. Of those that read one of `objects`, also at what starts them.
pub(super) async fn look(time: &Time, objects: &[(String, String)]) -> Seen<Vec<Pipeline>> {
    let names = time.look(pipeline::names()).await?;
    let looks = names.into_iter().map(|name| {
        let time = time.clone();
        async move { time.look(pipeline::Pipeline::named(&name)).await }
    });
    // One that nobody may look at could be the one.
    let found: Vec<_> = all(looks).await.into_iter().collect::<Result<_, _>>()?;
    let found = found.into_iter().filter(|found| !found.sources.is_empty());
    let looks = found.map(|found| {
        let time = time.clone();
        let is_own = objects
            .iter()
            .any(|(bucket, key)| found.source(bucket, key).is_some());
        async move {
            let (rules, state) = if is_own {
                tokio::join!(
                    time.look(rules(&found.arn, &found.sources)),
                    time.look(state(&found.name))
                )
            } else {
                let after = Unseen::After("it reads no object of the table".into());
                (Err(after.clone()), Err(after))
            };
            Pipeline {
                name: found.name,
                sources: found.sources,
                mode: found.mode,
                rules,
                state,
            }
        }
    });
    Ok(all(looks).await)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The names of the rules that start a pipeline.
async fn rule_names(arn: &str) -> Result<Vec<String>, CallError> {
    let (mut names, mut input) = (Vec::new(), json!({"TargetArn": arn}));
    for _ in 0..PAGES {
        let mut answer = aws::json(Service::EventBridge, "ListRuleNamesByTarget", &input).await?;
        names.extend(
            answer["RuleNames"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text),
        );
        match answer["NextToken"].take() {
            Value::Null => break,
            next => input["NextToken"] = next,
        }
    }
    Ok(names)
}

/// The rules that start a pipeline, each tried with the event that a new version of each source is.
async fn rules(arn: &str, sources: &[Source]) -> Result<Vec<Rule>, CallError> {
    let mut rules = Vec::new();
    for name in rule_names(arn).await? {
        let rule = aws::json(Service::EventBridge, "DescribeRule", &json!({"Name": name})).await?;
        let pattern = text(&rule["EventPattern"]);
        let mut takes = Vec::new();
        // A rule with a schedule has none.
        if !pattern.is_empty() {
            for source in sources {
                let input =
                    json!({"EventPattern": pattern, "Event": event(arn, source).to_string()});
                let answer = aws::json(Service::EventBridge, "TestEventPattern", &input).await;
                let is_taken = answer.map(|answer| answer["Result"] == true);
                takes.push(is_taken.map_err(Unseen::from));
            }
        }
        rules.push(Rule {
            is_enabled: rule["State"]
                .as_str()
                .is_none_or(|state| state.starts_with("ENABLED")),
            waits_for: waits_for(&pattern),
            name,
            takes,
        });
    }
    Ok(rules)
}

/// What S3 tells of a new version.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
fn event(arn: &str, source: &Source) -> Value {
    // arn:aws:codepipeline:region:account:name
    let mut parts = arn.split(':').skip(3);
    let (region, account) = (parts.next(), parts.next());
    json!({
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": account,
        "time": "2026-01-01T00:00:00Z",
        "region": region,
        "resources": [format!("arn:aws:s3:::{}", source.bucket)],
        "detail": {
            "version": "0",
            "bucket": {"name": source.bucket},
            "object": {"key": source.key, "size": 1, "etag": "0", "version-id": "0", "sequencer": "0"},
            "request-id": "0",
            "requester": account,
            "reason": "PutObject",
        },
    })
}

/// What a rule waits for, as far as it names objects.
fn waits_for(pattern: &str) -> String {
    let pattern: Value = serde_json::from_str(pattern).unwrap_or_default();
    let names = |values: &Value| {
        let values = values.as_array().into_iter().flatten();
        let names =
            values.map(|value| value.as_str().map_or_else(|| value.to_string(), Into::into));
        plain::foreign(&names.collect::<Vec<_>>().join(", "))
    };
    let detail = &pattern["detail"];
    match (
        names(&detail["object"]["key"]),
        names(&detail["bucket"]["name"]),
    ) {
        (keys, _) if keys.is_empty() => "other events".into(),
        (keys, buckets) if buckets.is_empty() => keys,
        (keys, buckets) => format!("{keys} of {buckets}"),
    }
}

async fn state(name: &str) -> Result<State, CallError> {
    let answer = aws::json(
        Service::CodePipeline,
        "GetPipelineState",
        &json!({"name": name}),
    )
    .await?;
    let stages = answer["stageStates"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let closed = stages
        .iter()
        .filter(|stage| stage["inboundTransitionState"]["enabled"] == false);
    let actions = stages
        .first()
        .and_then(|stage| stage["actionStates"].as_array());
    let mut failed = actions
        .into_iter()
        .flatten()
        .map(|action| &action["latestExecution"]);
    Ok(State {
        closed: closed
            .map(|stage| {
                (
                    text(&stage["stageName"]),
                    text(&stage["inboundTransitionState"]["disabledReason"]),
                )
            })
            .collect(),
        source_failed: failed
            .find(|execution| execution["status"] == "Failed")
            .map(|execution| text(&execution["errorDetails"]["message"])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_waits_for_is_said_in_words() {
        for (pattern, expected) in [
            (
                r#"{"source":["aws.s3"],"detail":{"bucket":{"name":["b"]},"object":{"key":["web/main.zip"]}}}"#,
                "web/main.zip of b",
            ),
            (
                r#"{"detail":{"object":{"key":[{"prefix":"web/"}]}}}"#,
                "{\"prefix\":\"web/\"}",
            ),
            (r#"{"source":["aws.ecr"]}"#, "other events"),
            ("", "other events"),
        ] {
            assert_eq!(waits_for(pattern), expected);
        }
    }
}
