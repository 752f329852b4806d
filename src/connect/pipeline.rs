//! The command that makes a pipeline of an object.

use crate::stack::Stack;

/// How long the name of a stack of pipeline.yaml may be: it names the pipeline.
const LONGEST_NAME: usize = 100;

/// The command that makes a pipeline of an object: one line, to be typed where `pipeline.yaml` is.
#[must_use]
pub fn deploy_command(
    stack: &Stack,
    region: Option<&str>,
    route: &str,
    bucket: &str,
    key: &str,
) -> String {
    let mut command = format!(
        "aws cloudformation deploy --stack-name {} --template-file pipeline.yaml --capabilities CAPABILITY_IAM",
        stack_name(route)
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
    parameter("ObjectKey", key);
    if !key.is_ascii() {
        parameter("ObjectArnPattern", &ascii_pattern(key));
    }
    parameter("AlarmTopicArn", &stack.alarm_topic);
    // What the bridge's own bucket and roles need, those of the pipeline need too.
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
fn stack_name(route: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric();
    let parts = route.split(|c| !is_plain(c));
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    let mut name = parts.join("-");
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name = format!("pipeline-{name}");
    }
    name.truncate(LONGEST_NAME);
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
fn quoted(word: &str) -> String {
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
            assert_eq!(stack_name(route), expected, "{route}");
        }
        assert_eq!(stack_name(&"a".repeat(200)).len(), LONGEST_NAME);
    }

    #[test]
    fn words_are_as_a_shell_reads_them() {
        assert_eq!(quoted("ObjectKey=web/main.zip"), "ObjectKey=web/main.zip");
        assert_eq!(quoted("ObjectKey=it's a.zip"), r"'ObjectKey=it'\''s a.zip'");
        assert_eq!(ascii_pattern("web/機能.zip"), "web/*.zip");
    }
}
