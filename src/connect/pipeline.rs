//! The commands that make a pipeline of an object, and builds of all objects of a glob.

use crate::{route::Route, route::RouteTable, stack::Stack};

/// How long the name of a stack of pipeline.yaml may be: it names the pipeline.
pub(super) const LONGEST_NAME: usize = 100;
/// How long that of one of branches.yaml may be: it names a function, with `-starter` behind it.
pub(super) const LONGEST_NAME_OF_BRANCHES: usize = 56;

/// The command that makes a pipeline of an object: one line, to be typed where `pipeline.yaml` is.
#[must_use]
pub fn deploy_command(
    stack: &Stack,
    region: Option<&str>,
    route: &str,
    bucket: &str,
    key: &str,
) -> String {
    let pattern = (!key.is_ascii()).then(|| ascii_pattern(key));
    let mut parameters = vec![("ObjectKey", key)];
    parameters.extend(
        pattern
            .as_deref()
            .map(|pattern| ("ObjectArnPattern", pattern)),
    );
    let name = stack_name(route, LONGEST_NAME);
    command(stack, region, ("pipeline.yaml", &name), bucket, &parameters)
}

/// The commands that have every branch of the table's globs built, one for each folder that their objects lie in: each one line, to
/// be typed where `branches.yaml` is. None for a glob of tags, one that is paused, and one whose objects have no folder that the
/// template takes.
#[must_use]
pub fn branches_commands(stack: &Stack, region: Option<&str>, table: &RouteTable) -> Vec<String> {
    let mut commands = Vec::new();
    let mut folders = Vec::new();
    let builds = |route: &&Route| {
        route.is_glob() && !route.is_paused() && !route.pattern().as_str().starts_with("refs/tags/")
    };
    for route in table.routes().iter().filter(builds) {
        let bucket = route.bucket();
        let Some(folder) = folder(&route.key_start()) else {
            continue;
        };
        if folders.contains(&(bucket, folder.clone())) {
            continue;
        }
        let except = exact_keys(table, bucket, &folder).join(",");
        let mut parameters = vec![("KeyPrefix", folder.as_str())];
        if !except.is_empty() {
            parameters.push(("ExceptKeys", &except));
        }
        let name = stack_name(route.name(), LONGEST_NAME_OF_BRANCHES);
        commands.push(command(
            stack,
            region,
            ("branches.yaml", &name),
            bucket,
            &parameters,
        ));
        folders.push((bucket, folder));
    }
    commands
}

/// The folder that all keys with this beginning lie in, if it is one that `branches.yaml` takes as its `KeyPrefix`.
fn folder(start: &str) -> Option<String> {
    let folder = &start[..=start.rfind('/')?];
    let is_taken = |c: char| (' '..='~').contains(&c) && !"*?$".contains(c);
    let fits = folder.len() <= 256 && folder.chars().all(is_taken);
    (fits && !folder.starts_with('/') && !folder.starts_with("config/")).then(|| folder.to_owned())
}

/// The objects of exact routes in this folder: they have pipelines of their own.
fn exact_keys(table: &RouteTable, bucket: &str, folder: &str) -> Vec<String> {
    let exact = table
        .routes()
        .iter()
        .filter(|route| route.bucket() == bucket);
    let keys = exact.filter_map(|route| {
        let name = route.pattern().exact()?;
        let to = route.destination(table.space_of(route), name).ok()?;
        Some(to.key.as_str().to_owned())
    });
    keys.filter(|key| key.starts_with(folder) && !key.contains(','))
        .collect()
}

/// The command that deploys a template as a stack of this name, with what every template of builds takes.
fn command(
    stack: &Stack,
    region: Option<&str>,
    (template, name): (&str, &str),
    bucket: &str,
    parameters: &[(&str, &str)],
) -> String {
    let mut command = format!(
        "aws cloudformation deploy --stack-name {name} --template-file {template} --capabilities CAPABILITY_IAM"
    );
    if let Some(region) = region {
        command += " --region ";
        command += &quoted(region);
    }
    command += " --parameter-overrides";
    let mut parameter = |name: &str, value: &str| {
        command += " ";
        command += &quoted(&format!("{name}={value}"));
    };
    parameter("SourceBucket", bucket);
    for (name, value) in parameters {
        parameter(name, value);
    }
    parameter("AlarmTopicArn", &stack.alarm_topic);
    // What the bridge's own bucket and roles need, those of the builds need too.
    let is_own = bucket == stack.bucket;
    if let Some(key) = stack.parameter("BucketKmsKeyArn").filter(|_| is_own) {
        parameter("SourceKmsKeyArn", key);
    }
    if let Some(boundary) = stack.parameter("PermissionsBoundaryArn") {
        parameter("PermissionsBoundaryArn", boundary);
    }
    command
}

/// A name for the stack: letters, digits and hyphens, a letter first.
pub(super) fn stack_name(route: &str, longest: usize) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric();
    let parts = route.split(|c| !is_plain(c));
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    let mut name = parts.join("-");
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name = format!("pipeline-{name}");
    }
    name.truncate(longest);
    name.trim_end_matches('-').to_owned()
}

/// A key for a policy, which takes no more than ASCII: with `*` in place of all else.
fn ascii_pattern(key: &str) -> String {
    let mut pattern = String::new();
    for c in key.chars() {
        match c {
            ' '..='~' if c != '$' => pattern.push(c),
            _ if pattern.ends_with('*') => {}
            _ => pattern.push('*'),
        }
    }
    pattern
}

/// A word of a shell's command.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_any_route_has_a_name_that_cloudformation_takes() {
        for (route, expected) in [
            ("web-main", "web-main"),
            ("APP/web refs/heads/main", "APP-web-refs-heads-main"),
            ("機能", "pipeline"),
            ("2024", "pipeline-2024"),
            ("a_b.c", "a-b-c"),
        ] {
            assert_eq!(stack_name(route, LONGEST_NAME), expected, "{route}");
        }
        assert_eq!(
            stack_name(&"a".repeat(200), LONGEST_NAME).len(),
            LONGEST_NAME
        );
    }

    #[test]
    fn a_folder_is_one_that_branches_yaml_takes() {
        for (start, expected) in [
            ("web/branches/", Some("web/branches/")),
            ("web/release-", Some("web/")),
            ("web-", None),
            ("", None),
            ("config/", None),
            ("/web/", None),
            ("機能/", None),
            ("web/$/", None),
        ] {
            assert_eq!(folder(start).as_deref(), expected, "{start}");
        }
    }

    #[test]
    fn words_are_as_a_shell_reads_them() {
        assert_eq!(quoted("ObjectKey=web/main.zip"), "ObjectKey=web/main.zip");
        assert_eq!(quoted("ObjectKey=it's a.zip"), r"'ObjectKey=it'\''s a.zip'");
        assert_eq!(ascii_pattern("web/機能.zip"), "web/*.zip");
    }
}
