//! The routing table for editors: a JSON Schema, made from the fields that the reader knows. It refuses nothing that the reader
//! takes; what only the reader can see, such as two names that are the same, it lets pass.

use serde_json::{Map, Value, json};

use super::file::{ROUTE, ROUTE_NEEDS, SPACE, SPACE_NEEDS};

/// The JSON Schema of a routing table.
///
/// Source: <https://json-schema.org/draft-07>, which the editors know that read `#:schema`
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The routing table of backlog-bridge",
        "type": "object",
        "required": ["space", "route"],
        "additionalProperties": false,
        "properties": {
            "space": entries("A Backlog space.", SPACE, SPACE_NEEDS, of_space),
            "route": entries("Refs of one repository, and their objects.", ROUTE, ROUTE_NEEDS, of_route),
        },
    })
}

fn entries(what: &str, known: &[&str], needed: &[&str], field: fn(&str) -> Value) -> Value {
    let fields = known.iter().map(|name| ((*name).to_owned(), field(name)));
    json!({
        "type": "array",
        "minItems": 1,
        "items": {
            "description": what,
            "type": "object",
            "required": needed,
            "additionalProperties": false,
            "properties": fields.collect::<Map<_, _>>(),
        },
    })
}

fn of_space(name: &str) -> Value {
    match name {
        "url" => text(
            "Where the repositories are, at {url}/PROJECT/repository.git.",
            "^([Hh][Tt][Tt][Pp][Ss]?://[^@/?# ]+(/[^?# ]*)?|[Ff][Ii][Ll][Ee]:///.*)$",
        ),
        "credentials" => text(
            "Who may read them: secret:NAME of AWS Secrets Manager, or env:PREFIX for PREFIX_USERNAME and PREFIX_PASSWORD. Left \
             out, they are public.",
            SOURCE,
        ),
        "name" => label("The name that routes call the space by. Needed only with several spaces."),
        "api_key" => text(
            "The bridge's own key of Backlog's API: secret:NAME, or env:PREFIX for PREFIX_API_KEY.",
            SOURCE,
        ),
        "language" => one_of("The language of texts that go to Backlog.", &["ja", "en"]),
        "results" => results(),
        "results_issue" => text(
            "The issue that is told of a run which no pull request is about: commit, for the one that the commit names, or APP-123.",
            "^(commit|[A-Z][A-Z0-9_]*-[1-9][0-9]*)$",
        ),
        // The reader takes the two words as texts, too.
        "results_detail" => json!({
            "description": "Whether what AWS says of a failure is told, too.",
            "enum": [true, false, "true", "false"],
        }),
        _ => json!({}),
    }
}

fn results() -> Value {
    one_of(
        "What pull requests are told of pipelines.",
        &["none", "alert", "pull_request"],
    )
}

/// Where a login or a key comes from.
const SOURCE: &str = "^(secret:[A-Za-z0-9/_+=.@!:-]+|env:[A-Za-z][A-Za-z0-9_]*)$";

fn of_route(name: &str) -> Value {
    match name {
        "name" => label("The name, for logs and commands. Left out: the repository and the ref."),
        "space" => label("Which space it means. Needed only with several spaces."),
        "repository" => text(
            "Project key and repository, as APP/web.",
            r"^[^/\\]+/[^/\\]+$",
        ),
        "ref" => text(
            "The ref in full, as refs/heads/main; with * for many, as refs/heads/release/* or refs/tags/v*.",
            r"^refs/[^\u0000-\u0020\u007f~^:?\[\\]+$",
        ),
        "object" => text(
            "The object's key, as web/main.zip; or a template with {project}, {repository} and {ref}.",
            "^[^/]",
        ),
        "bucket" => text(
            "The bucket. Left out: SOURCE_BUCKET.",
            "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        ),
        "sweep" => one_of(
            "Which refs the sweep delivers that no webhook told of. Left out: all for one ref, existing with a *.",
            &["all", "existing"],
        ),
        // The reader takes the two words as texts, too.
        "paused" => json!({
            "description": "Whether nothing is delivered.",
            "enum": [true, false, "true", "false"],
        }),
        "pipeline" => text(
            "The CodePipeline that watches the object, or a template with {ref}. Left out, it is looked for.",
            r"^([A-Za-z0-9.@_-]|\{ref\})+$",
        ),
        "results" => results(),
        _ => json!({}),
    }
}

fn text(what: &str, pattern: &str) -> Value {
    json!({"description": what, "type": "string", "pattern": pattern})
}

fn label(what: &str) -> Value {
    json!({"description": what, "type": "string", "minLength": 1})
}

fn one_of(what: &str, texts: &[&str]) -> Value {
    json!({"description": what, "enum": texts})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        for (known, field) in [(SPACE, of_space as fn(&str) -> Value), (ROUTE, of_route)] {
            for name in known {
                assert!(field(name)["description"].is_string(), "{name}");
            }
        }
    }
}
