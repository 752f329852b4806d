//! What is to be typed so that results are told: the lines of the table, and the commands that deploy both stacks.

use super::pipeline::{LONGEST_NAME, LONGEST_NAME_OF_BRANCHES, quoted, stack_name};
use crate::{
    route::{ApiKeySource, Results, Route, RouteTable, Space},
    stack::Stack,
};

/// The secret's name that results.yaml has by itself.
const API_SECRET: &str = "backlog-bridge/api";
/// The stack that it is for.
const STACK: &str = "backlog-bridge";
/// The bridge's parameters that results.yaml has, too; and their values where nobody chose another.
const SHARED: [(&str, &str); 4] = [
    ("ObjectKeys", "*.zip"),
    ("BucketKmsKeyArn", ""),
    ("ExtraBuckets", ""),
    ("PermissionsBoundaryArn", ""),
];

/// The commands that deploy what tells results, to be typed where the templates of a release are. Those that were typed are left
/// out: with a queue of results the bridge itself knows of them.
#[must_use]
pub fn results_commands(stack: &Stack, region: Option<&str>, table: &RouteTable) -> Vec<String> {
    let command = |name: &str, template: Option<&str>, parameters: &[(&str, &str)]| {
        let mut words = vec!["sam deploy --stack-name".to_owned(), name.to_owned()];
        words.extend(template.map(|template| format!("--template-file {template}")));
        words.extend(region.map(|region| format!("--region {}", quoted(region))));
        words.push("--parameter-overrides".to_owned());
        let architecture = stack.parameter("Architecture");
        let architecture = architecture.map(|value| ("Architecture", value));
        let parameters = architecture.iter().chain(parameters);
        words.extend(parameters.map(|(name, value)| quoted(&format!("{name}={value}"))));
        words.join(" ")
    };
    let mut commands = Vec::new();
    if stack.results_queue.is_none() {
        commands.push(command(&stack.name, None, &[("Results", "yes")]));
    }
    let mut parameters = vec![
        ("BridgeStack", stack.name.as_str()),
        ("SourceBucket", stack.bucket.as_str()),
        ("AlarmTopicArn", stack.alarm_topic.as_str()),
    ];
    parameters.extend(SHARED.into_iter().filter_map(|(name, usual)| {
        let value = stack.parameter(name).filter(|value| *value != usual);
        Some((name, value?))
    }));
    let secret = api_secret(stack, table);
    if secret != API_SECRET {
        parameters.push(("ApiKeySecretName", &secret));
    }
    commands.push(command(&stack.results(), Some("results.yaml"), &parameters));
    commands
}

/// The lines that a table lacks so that results are told: what they belong to, and the lines. `pipelines` are those that were
/// found, by the names of routes.
#[must_use]
pub fn results_lines(
    stack: &Stack,
    table: &RouteTable,
    pipelines: &[(String, String)],
) -> Vec<(String, Vec<String>)> {
    let secret = api_secret(stack, table);
    let of_space = |space: &Space| {
        let tells = |route: &Route| {
            table.space_of(route) == space && table.results_of(route) != Results::None
        };
        let mut lines = Vec::new();
        if space.api_key().is_none() {
            lines.push(format!("api_key = \"secret:{secret}\""));
        }
        if !table.routes().iter().any(tells) {
            lines.push("results = \"pull_request\"".to_owned());
        }
        (format!("the [[space]] of {}", space.url()), lines)
    };
    let of_route = |route: &Route| {
        let found = pipelines.iter().find(|(name, _)| name == route.name());
        // As the command names the stack that makes it.
        let longest = if route.is_glob() {
            LONGEST_NAME_OF_BRANCHES
        } else {
            LONGEST_NAME
        };
        let name = found.map_or_else(
            || stack_name(route.name(), longest),
            |(_, name)| name.clone(),
        );
        let lines = match route.pipelines() {
            Some(_) => Vec::new(),
            None => vec![format!("pipeline = \"{name}\"")],
        };
        (format!("the [[route]] {}", route.name()), lines)
    };
    let spaces = table.spaces().iter().map(of_space);
    let all = spaces.chain(table.routes().iter().map(of_route));
    all.filter(|(_, lines)| !lines.is_empty()).collect()
}

/// The secret of the robot's key: that of the table, or the one that results.yaml makes.
fn api_secret(stack: &Stack, table: &RouteTable) -> String {
    let named = table
        .spaces()
        .iter()
        .find_map(|space| match space.api_key() {
            Some(ApiKeySource::Secret { name }) if !name.starts_with("arn:") => Some(name.clone()),
            _ => None,
        });
    // A second bridge needs another name.
    named.unwrap_or_else(|| match &*stack.name {
        STACK => API_SECRET.to_owned(),
        other => format!("{other}/api"),
    })
}
