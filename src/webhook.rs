//! The bodies of Backlog's two webhooks, told apart by what they hold and never by their Content-Type.
//!
//! ```text
//! body ─┬─ {"type":12, "content":…}                    project webhook: every activity of a project, pushes among them
//!       └─ payload={"before":…, "after":…, "ref":…}    Git webhook: the pushes to one repository, as a form or as JSON
//! ```
//!
//! Bodies hold names and e-mail addresses, so no error repeats what a body says.
//!
//! Source: <https://support.nulab.com/hc/en-us/articles/8752305095577>

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    push::{CommitId, InvalidName, PushEvent, RepositoryName},
    space::SpaceUrl,
};

/// The longest body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;

/// How many commits of one push are kept. They are hints, and all of them have to fit into one queue message.
const MAX_COMMITS: usize = 1_000;

/// The activity type of a push.
const GIT_PUSHED: u64 = 12;

/// The activity type of a pull request that is opened.
pub const PULL_REQUEST_ADDED: u64 = 18;

/// What a webhook told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Webhook {
    /// A ref was pushed, or deleted.
    Push(PushEvent),
    /// Someone pressed the button that tests the webhook.
    TestDelivery,
    /// A pull request was opened.
    PullRequest {
        /// The repository.
        repository: RepositoryName,
        /// Its number.
        number: i64,
    },
    /// An activity of another type, which has this number.
    OtherType(u64),
}

/// A body that is no Backlog webhook. Sending it again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("the body has {bytes} bytes, and at most {MAX_BODY_BYTES} are read")]
    TooLarge {
        /// The body's length.
        bytes: usize,
    },
    /// The body did not arrive, or is not the base64 that it should be.
    #[error("the body cannot be read")]
    Unreadable,
    /// The body is neither JSON nor a form.
    #[error("expected the body of a Backlog webhook: a JSON object, or a form with `payload`")]
    Shape,
    /// The body is JSON of somebody else.
    #[error("this is no Backlog webhook: {0}")]
    NotBacklog(&'static str),
    /// What should be JSON is not.
    #[error("malformed JSON at line {line}, column {column}")]
    Json {
        /// The line of the fault, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
    },
    /// A field that a push needs is missing or wrong.
    #[error("`{field}`: expected {expected}")]
    Field {
        /// The field, spelled as the sender spells it.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Webhook {
    /// The push that it told of, or the deletion.
    #[must_use]
    pub fn push(&self) -> Option<&PushEvent> {
        match self {
            Self::Push(push) => Some(push),
            Self::TestDelivery | Self::PullRequest { .. } | Self::OtherType(_) => None,
        }
    }

    /// Parses the body of either webhook.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the body is too long or of any other shape. Sending the same body again cannot help, so the
    /// caller must not ask for a retry.
    pub fn from_body(body: &[u8]) -> Result<Self, ParseError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(ParseError::TooLarge { bytes: body.len() });
        }
        if body.trim_ascii_start().starts_with(b"{") {
            return Self::from_json(body);
        }
        let payload = form_field(body, "payload").ok_or(ParseError::Shape)?;
        Self::from_json(payload.as_bytes()).or_else(|error| match error {
            // Some senders encode twice. If that is not it, the first error is the one to tell.
            ParseError::Json { .. } | ParseError::Shape => {
                let twice = format!("payload={payload}");
                let payload = form_field(twice.as_bytes(), "payload").ok_or(error.clone())?;
                Self::from_json(payload.as_bytes()).map_err(|second| match second {
                    ParseError::Json { .. } | ParseError::Shape => error,
                    second => second,
                })
            }
            error => Err(error),
        })
    }

    fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(ParseError::Shape);
        }
        let shape: Shape = from_slice(json)?;
        let is_push = shape.before.is_some() || shape.after.is_some();
        match (shape.kind, shape.content, shape.reference) {
            (Some(_), Some(_), _) => from_slice::<Activity>(json)?.try_into(),
            (_, _, Some(_)) if is_push => {
                let push = from_slice::<GitPush>(json)?;
                match push.of_others() {
                    Some(why) => Err(ParseError::NotBacklog(why)),
                    None => push.try_into().map(Self::Push),
                }
            }
            (Some(_), None, None) => Err(ParseError::Field {
                field: "content",
                expected: "an object, in a push with `repository`, `ref` and `revisions`",
            }),
            (_, _, Some(_)) => Err(ParseError::Field {
                field: "after",
                expected: "the commit id that the ref points to now, and one in `before`",
            }),
            _ => Err(ParseError::NotBacklog(
                "it has neither `type` and `content`, as a project webhook, nor `ref`, `before` and `after`, as a Git webhook",
            )),
        }
    }
}

/// Only the place of a fault is kept: serde's own text repeats what it found.
fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, ParseError> {
    serde_json::from_slice(json).map_err(|error| ParseError::Json {
        line: error.line(),
        column: error.column(),
    })
}

fn form_field(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// Enough to tell the two webhooks apart.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: Option<IgnoredAny>,
    content: Option<IgnoredAny>,
    before: Option<IgnoredAny>,
    after: Option<IgnoredAny>,
    #[serde(rename = "ref")]
    reference: Option<IgnoredAny>,
}

/// The project webhook's body: one activity.
#[derive(Deserialize)]
struct Activity {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<Number>,
    #[serde(default, deserialize_with = "lenient")]
    project: Option<Project>,
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    kind: Option<Number>,
    #[serde(default, deserialize_with = "lenient")]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    #[serde(default, deserialize_with = "lenient")]
    project_key: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default, deserialize_with = "lenient")]
    change_type: Option<String>,
    #[serde(rename = "ref", default, deserialize_with = "lenient")]
    reference: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
    #[serde(default, deserialize_with = "lenient")]
    revisions: Option<Vec<Lenient<Revision>>>,
    #[serde(default, deserialize_with = "lenient")]
    number: Option<Number>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    url: Option<String>,
    /// Not Backlog's: GitHub, Gitea and Forgejo say so where to fetch from.
    clone_url: Option<IgnoredAny>,
    /// Theirs too: the repository's page.
    html_url: Option<IgnoredAny>,
}

/// One commit, with an id that each of the two webhooks calls something else.
#[derive(Deserialize)]
struct Revision {
    /// The project webhook's.
    #[serde(default, deserialize_with = "lenient")]
    rev: Option<String>,
    /// The Git webhook's.
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
}

/// The Git webhook's body.
#[derive(Deserialize)]
struct GitPush {
    #[serde(default, deserialize_with = "lenient")]
    before: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    after: Option<String>,
    #[serde(rename = "ref", default, deserialize_with = "lenient")]
    reference: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
    #[serde(default, deserialize_with = "lenient")]
    revisions: Option<Vec<Lenient<Revision>>>,
}

impl GitPush {
    /// Why it is a push of somebody else, if it is: they call the commits `commits`. A field that Backlog may add one day
    /// does not make it one.
    fn of_others(&self) -> Option<&'static str> {
        let repository = self.repository.as_ref()?;
        let is_theirs = repository.clone_url.is_some() || repository.html_url.is_some();
        (is_theirs && self.revisions.is_none()).then_some(
            "`revisions` is missing, and `repository` has `clone_url` or `html_url`, as in a push of GitHub, Gitea or Forgejo",
        )
    }
}

/// A number, or its digits in quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Quoted(String),
}

impl Number {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Plain(number) => Some(*number),
            Self::Quoted(text) => text.parse().ok(),
        }
    }
}

/// What should be a `T` and may be anything: Backlog sends `"null"` and `"false"` where it has nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Expected(T),
    Other(IgnoredAny),
}

impl<T> Lenient<T> {
    fn expected(self) -> Option<T> {
        match self {
            Self::Expected(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

/// Reads a field of another type as if it were absent.
fn lenient<'de, D, T>(field: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Lenient::deserialize(field).map(Lenient::expected)
}

impl TryFrom<Activity> for Webhook {
    type Error = ParseError;

    fn try_from(activity: Activity) -> Result<Self, ParseError> {
        let kind = activity.kind.as_ref().and_then(Number::value);
        let kind = kind.ok_or(ParseError::Field {
            field: "type",
            expected: "the number of an activity type",
        })?;
        let project = activity.project.and_then(|project| project.project_key);
        // What the test button sends looks like any other activity, but for this number: real ones count in millions.
        let id = activity.id.as_ref().and_then(Number::value);
        if id == Some(10) && project.as_deref() == Some("TEST") {
            return Ok(Self::TestDelivery);
        }
        if kind == PULL_REQUEST_ADDED {
            let opened = activity.content.and_then(|content| {
                let (project, name) = (project?, content.repository?.name?);
                let repository = format!("{project}/{name}").parse().ok()?;
                let number = content.number?.value()?.try_into().ok()?;
                Some(Self::PullRequest { repository, number })
            });
            return Ok(opened.unwrap_or(Self::OtherType(kind)));
        }
        if kind != GIT_PUSHED {
            return Ok(Self::OtherType(kind));
        }
        let content = activity.content.ok_or(ParseError::Field {
            field: "content",
            expected: "an object",
        })?;
        let repository = content.repository.and_then(|repository| repository.name);
        Ok(Self::Push(PushEvent {
            space_url: None,
            repository: project
                .zip(repository)
                .and_then(|(project, name)| format!("{project}/{name}").parse().ok())
                .ok_or(ParseError::Field {
                    field: "content.repository.name",
                    expected: "a repository's name, and a project key in `project.projectKey`",
                })?,
            ref_name: parsed("content.ref", content.reference.as_deref())?,
            // A change type that we do not know moves the ref somewhere, and the Git server tells where.
            is_deleted: content.change_type.as_deref() == Some("delete"),
            before: None,
            commits: commits(None, content.revisions),
        }))
    }
}

impl TryFrom<GitPush> for PushEvent {
    type Error = ParseError;

    fn try_from(push: GitPush) -> Result<Self, ParseError> {
        let (space_url, repository): (SpaceUrl, RepositoryName) = push
            .repository
            .and_then(|repository| RepositoryName::from_url(&repository.url?))
            .ok_or(ParseError::Field {
                field: "repository.url",
                expected: "the URL of a repository as https://example.backlog.com/git/APP/web",
            })?;
        let before = commit("before", push.before)?;
        let after = commit("after", push.after)?;
        Ok(Self {
            space_url: Some(space_url),
            repository,
            ref_name: parsed("ref", push.reference.as_deref())?,
            is_deleted: after.is_none(),
            before,
            commits: commits(after, push.revisions),
        })
    }
}

/// Git writes "no commit" as zeros.
fn commit(field: &'static str, id: Option<String>) -> Result<Option<CommitId>, ParseError> {
    match id {
        Some(zeros) if zeros.len() == 40 && zeros.bytes().all(|digit| digit == b'0') => Ok(None),
        id => parsed(field, id.as_deref()).map(Some),
    }
}

fn parsed<T: std::str::FromStr<Err = InvalidName>>(
    field: &'static str,
    text: Option<&str>,
) -> Result<T, ParseError> {
    text.unwrap_or_default()
        .parse()
        .map_err(|error: InvalidName| ParseError::Field {
            field,
            expected: error.expected(),
        })
}

/// The tip, if it is known, and the commits that were named: each once, what is no commit id left out.
fn commits(tip: Option<CommitId>, revisions: Option<Vec<Lenient<Revision>>>) -> Vec<CommitId> {
    let named = revisions
        .into_iter()
        .flatten()
        .filter_map(Lenient::expected)
        .filter_map(|revision| revision.rev.or(revision.id)?.parse().ok());
    let mut commits = Vec::new();
    for id in tip.into_iter().chain(named).take(MAX_COMMITS) {
        if !commits.contains(&id) {
            commits.push(id);
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
    const ZEROS: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn every_event_parses_as_pinned() {
        insta::glob!("../events", "{project,git}-*", |path| {
            insta::assert_debug_snapshot!(Webhook::from_body(&fs::read(path).unwrap()));
        });
    }

    #[test]
    fn a_body_of_another_shape_is_refused() {
        let deep = format!(
            r#"{{"type":12,"content":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let shape =
            "expected the body of a Backlog webhook: a JSON object, or a form with `payload`";
        let long_number = format!(r#"{{"type":{},"content":{{}}}}"#, "9".repeat(10_000));
        for (case, body, expected) in [
            ("nothing", "", shape),
            ("an array", "[]", shape),
            ("another form", "token=x", shape),
            ("an empty payload", "payload=", shape),
            ("a payload that is no object", "payload=%5B%5D", shape),
            (
                "cut off",
                "{\n  \"type\": 12,",
                "malformed JSON at line 2, column 13",
            ),
            (
                "a payload cut off",
                "payload=%7B%22type%22%3A",
                "malformed JSON at line 1, column 8",
            ),
            (
                "more after the end",
                r#"{"type":1,"content":{}} x"#,
                "malformed JSON at line 1, column 25",
            ),
            ("deep", &deep, "malformed JSON at line 1, column 148"),
            (
                "a long number",
                &long_number,
                "malformed JSON at line 1, column 10008",
            ),
            (
                "no type",
                r#"{"type":"push","content":{}}"#,
                "`type`: expected the number of an activity type",
            ),
            (
                "a push of nothing",
                r#"{"type":12,"content":"null"}"#,
                "`content`: expected an object",
            ),
            (
                "no repository",
                r#"{"type":12,"project":{"projectKey":"APP"},"content":{"ref":"refs/heads/main"}}"#,
                "`content.repository.name`: expected a repository's name, and a project key in `project.projectKey`",
            ),
            (
                "a repository that is a path",
                r#"{"type":12,"project":{"projectKey":"APP"},"content":{"repository":{"name":"../web"}}}"#,
                "`content.repository.name`: expected a repository's name, and a project key in `project.projectKey`",
            ),
            (
                "no ref",
                r#"{"type":12,"project":{"projectKey":"APP"},"content":{"repository":{"name":"web"}}}"#,
                "`content.ref`: expected a full ref name as refs/heads/main",
            ),
            (
                "a short ref",
                r#"{"type":12,"project":{"projectKey":"APP"},"content":{"ref":"main","repository":{"name":"web"}}}"#,
                "`content.ref`: expected a full ref name as refs/heads/main",
            ),
            (
                "no URL",
                r#"{"ref":"refs/heads/main","after":"x"}"#,
                "`repository.url`: expected the URL of a repository as https://example.backlog.com/git/APP/web",
            ),
            (
                "no before",
                r#"{"ref":"refs/heads/main","after":"x","repository":{"url":"https://example.backlog.com/git/APP/web"}}"#,
                "`before`: expected a commit id of 40 hexadecimal digits",
            ),
        ] {
            let error = Webhook::from_body(body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{case}");
        }
    }

    #[test]
    fn a_body_of_somebody_else_or_half_a_body_is_told_what_is_missing() {
        let nobody = "this is no Backlog webhook: it has neither `type` and `content`, as a project webhook, nor `ref`, `before` \
            and `after`, as a Git webhook";
        let github = "this is no Backlog webhook: `revisions` is missing, and `repository` has `clone_url` or `html_url`, as in a \
            push of GitHub, Gitea or Forgejo";
        let theirs = |url: &str, field: &str| {
            format!(
                r#"{{"ref":"refs/heads/main","before":"{ZEROS}","after":"{COMMIT}","commits":[],"repository":{{"url":"{url}",{field}}}}}"#
            )
        };
        for (case, body, expected) in [
            ("another object", r#"{"action":"opened"}"#, nobody),
            ("an empty object", "{}", nobody),
            (
                "GitHub's ping",
                r#"{"zen":"x","hook":{"type":"Repository"},"repository":{"clone_url":""}}"#,
                nobody,
            ),
            (
                "GitHub's push",
                &theirs(
                    "https://github.com/o/web",
                    r#""clone_url":"https://github.com/o/web.git""#,
                ),
                github,
            ),
            (
                "Gitea's push",
                &theirs(
                    "https://x/api/v1/repos/o/web",
                    r#""html_url":"https://x/o/web""#,
                ),
                github,
            ),
            (
                "a type alone",
                r#"{"type":12}"#,
                "`content`: expected an object, in a push with `repository`, `ref` and `revisions`",
            ),
            (
                "a ref alone",
                r#"{"ref":"refs/heads/main"}"#,
                "`after`: expected the commit id that the ref points to now, and one in `before`",
            ),
        ] {
            let error = Webhook::from_body(body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{case}");
        }
    }

    #[test]
    fn a_field_that_backlog_may_add_does_no_harm() {
        let body = format!(
            r#"{{"ref":"refs/heads/main","before":"{ZEROS}","after":"{COMMIT}","revisions":[],
                "repository":{{"url":"https://example.backlog.com/git/APP/web","clone_url":"x","html_url":"y"}}}}"#
        );
        let webhook = Webhook::from_body(body.as_bytes());
        assert!(matches!(webhook, Ok(Webhook::Push(_))), "{webhook:?}");
    }

    #[test]
    fn a_body_over_6_mib_is_refused() {
        let fits = format!(
            r#"{{"type":1,"content":{{}}}}{}"#,
            " ".repeat(MAX_BODY_BYTES - 23)
        );
        assert_eq!(
            Webhook::from_body(fits.as_bytes()),
            Ok(Webhook::OtherType(1))
        );
        let error = Webhook::from_body((fits + " ").as_bytes()).unwrap_err();
        assert_eq!(
            error,
            ParseError::TooLarge {
                bytes: MAX_BODY_BYTES + 1
            }
        );
    }

    #[test]
    fn no_error_repeats_what_a_body_says() {
        let mail = "hana.aoba@example.com";
        for body in [
            format!(r#"{{"type":"{mail}","content":{{}}}}"#),
            format!(r#"{{"type":12,"type":"{mail}","content":{{}}}}"#),
            format!(
                r#"{{"type":12,"content":{{"ref":"{mail}","repository":{{"name":"{mail}/"}}}}}}"#
            ),
            format!(r#"{{"ref":"{mail}","before":"{mail}","after":"{mail}"}}"#),
            format!(
                r#"{{"ref":"{mail}","before":"{mail}","after":"","repository":{{"url":"https://x/git/APP/web"}}}}"#
            ),
            format!(
                r#"{{"ref":"{mail}","before":"{COMMIT}","after":"{ZEROS}","repository":{{"url":"https://x/git/APP/web"}}}}"#
            ),
            format!(
                r#"{{"ref":"x","after":"x","repository":{{"url":"https://{mail}/git/APP/web"}}}}"#
            ),
            format!("payload={mail}"),
            mail.to_owned(),
        ] {
            let error = Webhook::from_body(body.as_bytes()).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hana"),
                "{body}: {error:?}"
            );
        }
    }

    fn push_of(revisions: &[String]) -> PushEvent {
        let revisions: Vec<String> = revisions
            .iter()
            .map(|id| format!(r#"{{"id":"{id}"}}"#))
            .collect();
        let body = format!(
            r#"{{"ref":"refs/heads/main","before":"{ZEROS}","after":"{COMMIT}","revisions":[{}],
                "repository":{{"url":"https://example.backlog.com/git/APP/web"}}}}"#,
            revisions.join(",")
        );
        match Webhook::from_body(body.as_bytes()) {
            Ok(Webhook::Push(push)) => push,
            other => panic!("expected a push, found {other:?}"),
        }
    }

    #[test]
    fn commits_are_named_once_and_the_tip_first() {
        let other = "1".repeat(40);
        let push = push_of(&[
            other.clone(),
            COMMIT.to_owned(),
            "main".to_owned(),
            other.clone(),
        ]);
        assert_eq!(
            push.commits,
            [COMMIT.parse().unwrap(), other.parse().unwrap()]
        );
    }

    #[test]
    fn a_push_of_very_many_commits_keeps_some_of_them() {
        let ids: Vec<String> = (1..=5_000).map(|number| format!("{number:040x}")).collect();
        let push = push_of(&ids);
        assert_eq!(push.commits.len(), MAX_COMMITS);
        assert_eq!(push.commits[0], COMMIT.parse().unwrap());
    }

    proptest! {
        #[test]
        fn a_git_push_reads_the_same_however_it_is_sent(
            short in "[a-z+%&= 画]{1,6}(/[a-z+%&=画]{1,6})?",
            message in "\\PC{0,20}",
            blanks in "[ \n\r\t]{0,3}",
        ) {
            let json = serde_json::json!({
                "ref": format!("refs/heads/{short}"), "before": ZEROS, "after": COMMIT,
                "repository": {"url": "https://example.backlog.com/git/APP/web"},
                "revisions": [{"id": COMMIT, "message": message}],
            });
            let json = format!("{blanks}{json}");
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let plain = Webhook::from_body(json.as_bytes());
            prop_assert_eq!(&plain, &Webhook::from_body(format!("payload={}", encode(&json)).as_bytes()));
            prop_assert_eq!(&plain, &Webhook::from_body(format!("payload={}", encode(&encode(&json))).as_bytes()));
            if let Ok(Webhook::Push(push)) = plain {
                prop_assert_eq!(push.ref_name.short(), short);
            } else {
                prop_assert!(short.contains(' '), "{plain:?}");
            }
        }

        #[test]
        fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Webhook::from_body(&body);
            let _ = Webhook::from_body(&[b"{", body.as_slice()].concat());
            let _ = Webhook::from_body(&[b"payload=", body.as_slice()].concat());
        }
    }
}
