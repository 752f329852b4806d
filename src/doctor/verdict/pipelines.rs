//! Pipelines: whether a new version of an object starts one that reads it.

use super::address;
use crate::{
    doctor::{Check, Finding, seen::Seen},
    pipeline::Source,
    plain,
};

/// A pipeline with sources in S3.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Pipeline {
    pub(in crate::doctor) name: String,
    pub(in crate::doctor) sources: Vec<Source>,
    /// `SUPERSEDED`, `QUEUED` or `PARALLEL`.
    pub(in crate::doctor) mode: String,
    /// What starts it.
    pub(in crate::doctor) rules: Seen<Vec<Rule>>,
    pub(in crate::doctor) state: Seen<State>,
}

/// How a pipeline is.
#[derive(Debug, Clone, Default)]
pub(in crate::doctor) struct State {
    /// Stages that nothing enters now, and why.
    pub(in crate::doctor) closed: Vec<(String, String)>,
    /// What its source said last, if that failed.
    pub(in crate::doctor) source_failed: Option<String>,
}

/// A rule of `EventBridge` that starts a pipeline.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Rule {
    pub(in crate::doctor) name: String,
    pub(in crate::doctor) is_enabled: bool,
    /// What it waits for, in words.
    pub(in crate::doctor) waits_for: String,
    /// Whether it takes the event of each source of the pipeline, in their order.
    pub(in crate::doctor) takes: Vec<Seen<bool>>,
}

/// What is said of an object: what reads it, and what starts that.
pub(in crate::doctor) fn of_object(
    route: &str,
    (bucket, key): (&str, &str),
    (is_exact, named): (bool, Option<&str>),
    here: &str,
    deploy: &str,
    pipelines: &Seen<Vec<Pipeline>>,
) -> Vec<Finding> {
    let at = address(bucket, key);
    let pipelines = match pipelines {
        Ok(pipelines) => pipelines,
        Err(unseen) => return vec![Check::Pipeline.unknown(route, unseen)],
    };
    if let Some(named) = named {
        let Some(found) = pipelines.iter().find(|pipeline| pipeline.name == named) else {
            return vec![
                Check::Pipeline
                    .error(
                        route,
                        format!("there is no pipeline {named} in {here} that reads S3, and the route names it"),
                    )
                    .with(format!("correct pipeline in the route, or deploy it: {deploy}")),
            ];
        };
        // One for all refs of a glob is told by whoever starts it what to read.
        let is_own = |source: &Source| source.bucket == bucket && source.key == key;
        if !is_exact && !found.sources.iter().any(is_own) {
            return vec![Check::Pipeline.ok(route, format!("the pipeline {named} is there"))];
        }
    }
    let readers = pipelines.iter().flat_map(|pipeline| {
        let sources = pipeline.sources.iter().enumerate();
        sources.map(move |(place, source)| (pipeline, place, source))
    });
    let (own, others): (Vec<_>, Vec<_>) =
        readers.partition(|(_, _, source)| source.bucket == bucket && source.key == key);
    if own.is_empty() {
        let near = others.iter().find(|(_, _, source)| {
            let is_near = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
            source.key == key || (source.bucket == bucket && is_near(&source.key, key))
        });
        return match near {
            Some((pipeline, _, source)) => vec![
                Check::Pipeline
                    .error(
                        route,
                        format!("no pipeline reads {at}; {} reads {}", pipeline.name, address(&source.bucket, &source.key)),
                    )
                    .with(format!("deploy the pipeline {} with the route's bucket and object: {deploy}", pipeline.name)),
            ],
            // Nobody need build every branch.
            None if !is_exact => Vec::new(),
            None => vec![
                Check::Pipeline
                    .warning(route, format!("no pipeline in {here} reads {at}, and events start those of their own region alone"))
                    .with(deploy),
            ],
        };
    }
    let found = own.into_iter().map(|(pipeline, place, source)| {
        [
            started(route, &at, pipeline, place, source),
            reads(route, pipeline, source),
        ]
    });
    found.flatten().collect()
}

/// Whether a new version starts it.
fn started(route: &str, at: &str, pipeline: &Pipeline, place: usize, source: &Source) -> Finding {
    let name = &pipeline.name;
    let rules = match &pipeline.rules {
        Ok(rules) => rules,
        Err(unseen) => return Check::Rule.unknown(route, unseen),
    };
    let takes = |rule: &Rule| rule.takes.get(place).cloned().unwrap_or(Ok(false));
    let mut of_object = rules
        .iter()
        .filter(|rule| takes(rule) == Ok(true))
        .peekable();
    if let Some(disabled) = of_object.peek().copied() {
        return match of_object.find(|rule| rule.is_enabled) {
            Some(rule) => Check::Rule.ok(route, format!("the rule {} starts {name}", rule.name)),
            None => Check::Rule
                .error(
                    route,
                    format!(
                        "no rule starts {name} for {at}; the rule {} is disabled",
                        disabled.name
                    ),
                )
                .with(format!("aws events enable-rule --name {}", disabled.name)),
        };
    }
    if let Some(unseen) = rules.iter().find_map(|rule| takes(rule).err()) {
        return Check::Rule.unknown(route, &unseen);
    }
    if source.polls {
        return Check::Rule.ok(route, format!("{name} asks S3 by itself"));
    }
    let waiting = match rules.first() {
        Some(rule) => format!("; the rule {} waits for {}", rule.name, rule.waits_for),
        None => String::new(),
    };
    Check::Rule
        .error(route, format!("no rule starts {name} for {at}{waiting}"))
        .with(format!(
            "deploy the pipeline's stack {name} again, with the route's bucket and object"
        ))
}

/// Whether it reads the object as it should.
fn reads(route: &str, pipeline: &Pipeline, source: &Source) -> Finding {
    let Pipeline {
        name, mode, state, ..
    } = pipeline;
    if let Ok(State {
        source_failed: Some(why),
        ..
    }) = state
    {
        return Check::Pipeline
            .error(
                route,
                format!("{name} could not read the object: {}", plain::foreign(why)),
            )
            .with("\"Access denied\": its role may not read the object, or lacks SourceKmsKeyArn");
    }
    if source.polls {
        return Check::Pipeline
            .warning(route, format!("{name} asks S3 by itself, too (PollForSourceChanges is not false), so that it may start twice"))
            .with(format!("set PollForSourceChanges of {name}'s source to \"false\""));
    }
    if let Ok(State { closed, .. }) = state
        && let Some((stage, why)) = closed.first()
    {
        return Check::Pipeline
            .warning(route, format!("nothing enters the stage {stage} of {name}: {}", plain::foreign(why)))
            .with(format!(
                "aws codepipeline enable-stage-transition --pipeline-name {name} --stage-name {stage} --transition-type Inbound"
            ));
    }
    if mode == "PARALLEL" {
        return Check::Pipeline
            .warning(route, format!("{name} runs executions side by side (PARALLEL), so that an older push may be deployed over a newer one"))
            .with("set its execution mode to SUPERSEDED or QUEUED");
    }
    match state {
        Ok(_) => Check::Pipeline.ok(route, format!("{name} reads the object")),
        Err(unseen) => Check::Pipeline.unknown(route, unseen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{seen::Unseen, verdict::tests::problems};

    fn rule(name: &str, is_enabled: bool, takes: bool) -> Rule {
        Rule {
            name: name.into(),
            is_enabled,
            waits_for: "web/Main.zip of b".into(),
            takes: vec![Ok(takes)],
        }
    }

    fn pipeline(key: &str, rules: Vec<Rule>) -> Pipeline {
        Pipeline {
            name: "web-main".into(),
            sources: vec![Source {
                action: "Source".into(),
                bucket: "b".into(),
                key: key.into(),
                polls: false,
            }],
            mode: "SUPERSEDED".into(),
            rules: Ok(rules),
            state: Ok(State::default()),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
    fn what_starts_and_reads_an_object_is_told() {
        let well = || pipeline("web/main.zip", vec![rule("r", true, true)]);
        let with = |change: &dyn Fn(&mut Pipeline)| {
            let mut pipeline = well();
            change(&mut pipeline);
            Ok(vec![pipeline])
        };
        let state = |state: State| with(&|pipeline| pipeline.state = Ok(state.clone()));
        for (case, pipelines, expected) in [
            ("well", with(&|_| {}), &[][..]),
            (
                "none",
                Ok(Vec::new()),
                &[
                    "warning pipeline web: no pipeline in r-1 reads s3://b/web/main.zip, and events start those of their own region alone => deploy it",
                ],
            ),
            (
                "another case",
                Ok(vec![pipeline("web/Main.zip", Vec::new())]),
                &[
                    "error pipeline web: no pipeline reads s3://b/web/main.zip; web-main reads s3://b/web/Main.zip",
                ],
            ),
            (
                "another bucket",
                with(&|pipeline| pipeline.sources[0].bucket = "c".into()),
                &[
                    "error pipeline web: no pipeline reads s3://b/web/main.zip; web-main reads s3://c/web/main.zip",
                ],
            ),
            (
                "no rule",
                with(&|pipeline| pipeline.rules = Ok(Vec::new())),
                &[
                    "error rule web: no rule starts web-main for s3://b/web/main.zip => deploy the pipeline's stack",
                ],
            ),
            (
                "another key",
                with(&|pipeline| pipeline.rules = Ok(vec![rule("n", true, false)])),
                &[
                    "error rule web: no rule starts web-main for s3://b/web/main.zip; the rule n waits for web/Main.zip of b",
                ],
            ),
            (
                "disabled",
                with(&|pipeline| pipeline.rules = Ok(vec![rule("n", false, true)])),
                &[
                    "error rule web: no rule starts web-main for s3://b/web/main.zip; the rule n is disabled => aws events enable-rule --name n",
                ],
            ),
            (
                "polls",
                with(&|pipeline| pipeline.sources[0].polls = true),
                &["warning pipeline web: web-main asks S3 by itself, too"],
            ),
            (
                "parallel",
                with(&|pipeline| pipeline.mode = "PARALLEL".into()),
                &["warning pipeline web: web-main runs executions side by side"],
            ),
            (
                "closed",
                state(State {
                    closed: vec![("Deploy".into(), "on leave".into())],
                    ..State::default()
                }),
                &[
                    "warning pipeline web: nothing enters the stage Deploy of web-main: on leave => aws codepipeline enable-stage-transition --pipeline-name web-main --stage-name Deploy",
                ],
            ),
            (
                "no access",
                state(State {
                    source_failed: Some("Access denied".into()),
                    ..State::default()
                }),
                &["error pipeline web: web-main could not read the object: Access denied"],
            ),
            (
                "denied",
                Err(Unseen::Denied("codepipeline:ListPipelines".into())),
                &["? pipeline web: not checked: needs codepipeline:ListPipelines"],
            ),
            (
                "rules denied",
                with(&|pipeline| {
                    pipeline.rules = Err(Unseen::Denied("events:ListRuleNamesByTarget".into()));
                }),
                &["? rule web: not checked: needs events:ListRuleNamesByTarget"],
            ),
        ] {
            let found = of_object(
                "web",
                ("b", "web/main.zip"),
                (true, None),
                "r-1",
                "deploy it",
                &pipelines,
            );
            let found = problems(&found);
            assert_eq!(found.len(), expected.len(), "{case}: {found:?}");
            for (line, expected) in found.iter().zip(expected) {
                assert!(line.starts_with(expected), "{case}: {line}");
            }
        }
        // A glob need not have a pipeline for each ref.
        assert!(
            of_object(
                "web",
                ("b", "x.zip"),
                (false, None),
                "r-1",
                "",
                &Ok(Vec::new())
            )
            .is_empty()
        );
    }

    #[test]
    fn a_pipeline_that_the_route_names_is_told() {
        let there = || Ok(vec![pipeline("web/main.zip", vec![rule("r", true, true)])]);
        for (key, is_exact, named, expected) in [
            ("web/main.zip", true, "web-main", None),
            (
                "web/main.zip",
                true,
                "web-mian",
                Some(
                    "error pipeline web: there is no pipeline web-mian in r-1 that reads S3, and the route names it => correct pipeline",
                ),
            ),
            ("web/other.zip", false, "web-main", None),
            (
                "web/other.zip",
                true,
                "web-main",
                Some("warning pipeline web: no pipeline in r-1 reads s3://b/web/other.zip"),
            ),
        ] {
            let named = (is_exact, Some(named));
            let found = of_object("web", ("b", key), named, "r-1", "deploy it", &there());
            let found = problems(&found);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(
                expected.is_none_or(|expected| found[0].starts_with(expected)),
                "{found:?}"
            );
        }
    }
}
