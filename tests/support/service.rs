//! The deployed bridge on this machine: both functions as real processes, between a Git server with TLS, a queue, secrets and
//! an S3.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::{
    BUCKET, KEY, MAIN,
    git_server::GitServer,
    lambda::{Invocation, Lambda},
    s3::{StoredVersion, TestS3},
    secrets::TestSecrets,
    sqs::TestSqs,
    upstream::{Repository, Upstream},
};

/// The webhook's token at the start.
pub const TOKEN: &str = "the-first-webhook-token-of-all";
/// The login of the Git server at the start.
pub const LOGIN: (&str, &str) = ("robot@example.com", "p@ss:word/1");
/// The name of the token's secret.
pub const TOKEN_SECRET: &str = "bridge/token";
/// The name of the login's secret.
pub const GIT_SECRET: &str = "bridge/git";

const ROUTES_KEY: &str = "config/routes.toml";

/// How long an invocation may take unless a test says otherwise.
const LIMIT: Duration = Duration::from_secs(40);

/// How long until the queue is empty, at most.
const DRAIN: Duration = Duration::from_mins(1);

pub struct Service {
    pub upstream: Upstream,
    pub repository: Repository,
    pub git: GitServer,
    pub s3: TestS3,
    pub sqs: TestSqs,
    pub secrets: TestSecrets,
    pub receive: Lambda,
    pub deliver: Lambda,
    /// The environment of both functions.
    pub vars: Vec<(&'static str, String)>,
}

impl Service {
    /// One route, from the main branch of `APP/web`.
    pub async fn start() -> Self {
        Self::with(&[(MAIN, KEY, "")], &[]).await
    }

    /// Routes from refs of `APP/web` to objects, each with more lines for the table, and more variables for both functions.
    pub async fn with(routes: &[(&str, &str, &str)], vars: &[(&'static str, &str)]) -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let git = GitServer::start(upstream.root(), Some(LOGIN));
        let s3 = TestS3::start().await;
        let sqs = TestSqs::start(Duration::from_mins(1), 5);
        let secrets = TestSecrets::start();
        secrets.put(TOKEN_SECRET, TOKEN);
        let (username, password) = LOGIN;
        secrets.put(
            GIT_SECRET,
            &json!({"username": username, "password": password}).to_string(),
        );
        let mut all = vec![
            ("AWS_ENDPOINT_URL_S3", s3.endpoint().to_owned()),
            ("AWS_ENDPOINT_URL_SQS", sqs.endpoint()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.endpoint()),
            (
                "SSL_CERT_FILE",
                git.ca_file().to_str().expect("a plain path").to_owned(),
            ),
            ("SOURCE_BUCKET", BUCKET.into()),
            ("ROUTES", format!("s3://{BUCKET}/{ROUTES_KEY}")),
            ("QUEUE_URL", sqs.url()),
            ("WEBHOOK_TOKEN", format!("secret:{TOKEN_SECRET}")),
        ];
        all.extend(vars.iter().map(|&(name, value)| (name, value.to_owned())));
        let receive = Lambda::start(env!("CARGO_BIN_EXE_receive"), &all, LIMIT).await;
        let deliver = Lambda::start(env!("CARGO_BIN_EXE_deliver"), &all, LIMIT).await;
        let service = Self {
            upstream,
            repository,
            git,
            s3,
            sqs,
            secrets,
            receive,
            deliver,
            vars: all,
        };
        if !routes.is_empty() {
            service.put_routes(&service.table(routes)).await;
        }
        service
    }

    /// A routing table for this Git server.
    pub fn table(&self, routes: &[(&str, &str, &str)]) -> String {
        let mut text = format!(
            "[[space]]\nurl = \"{}\"\ncredentials = \"secret:{GIT_SECRET}\"\n",
            self.git.space_url()
        );
        for (ref_name, key, more) in routes {
            write!(
                text,
                "[[route]]\nname = \"{ref_name}\"\nrepository = \"APP/web\"\nref = \"{ref_name}\"\nobject = \"{key}\"\n{more}\n"
            )
            .unwrap();
        }
        text
    }

    /// Stores the routing table, as an operator does.
    pub async fn put_routes(&self, text: &str) {
        let put = self.s3.client().put_object().bucket(BUCKET).key(ROUTES_KEY);
        put.body(text.to_owned().into_bytes().into())
            .send()
            .await
            .unwrap();
    }

    /// Posts a body as API Gateway hands it on, and returns the status and the answer.
    pub async fn post(&self, path: &str, body: &str) -> (u64, Value) {
        let (status, body) = answer(&self.receive.invoke(&request("POST", path, body)).await);
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// Tells of a push with a project webhook.
    pub async fn push(&self, ref_name: &str, commits: &[&str]) -> (u64, Value) {
        let body = project_push("update", ref_name, commits);
        self.post(&format!("/hooks/{TOKEN}"), &body).await
    }

    /// Handles all that is on the queue, one message an invocation.
    pub async fn drain(&self) -> Vec<Invocation> {
        self.sqs.drain(&self.deliver, 1, DRAIN).await
    }

    /// Puts a sweep on the queue as the scheduler does, and handles all that follows.
    pub async fn sweep(&self) -> Vec<Invocation> {
        self.sqs.put(r#"{"sweep":true}"#, "sweep");
        self.drain().await
    }

    /// The versions of the main branch's object, the newest first.
    pub fn versions(&self) -> Vec<StoredVersion> {
        self.s3.versions(BUCKET, KEY)
    }

    /// What each of them holds.
    pub fn commits(&self) -> Vec<String> {
        let versions = self.versions().into_iter();
        versions
            .map(|version| version.metadata["git-commit"].clone())
            .collect()
    }

    /// The lines in the log of `deliver` that tell of an outcome.
    pub fn outcomes(&self) -> Vec<Value> {
        lines(&self.deliver)
            .into_iter()
            .filter(|line| line.get("outcome").is_some())
            .collect()
    }
}

/// What a function logged.
pub fn lines(lambda: &Lambda) -> Vec<Value> {
    let lines = lambda.log().into_iter();
    lines
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect()
}

/// A request as an HTTP API hands it to a function.
pub fn request(method: &str, path: &str, body: &str) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "headers": {"content-type": "application/json", "x-forwarded-for": "203.0.113.11"},
        "requestContext": {
            "stage": "$default",
            "http": {"method": method, "path": path, "sourceIp": "203.0.113.11"},
        },
        "body": body,
        "isBase64Encoded": false,
    })
}

/// Status and body of an answer to API Gateway.
pub fn answer(invocation: &Invocation) -> (u64, String) {
    let answer = invocation.result.as_ref().expect("an answer");
    let body = answer["body"].as_str().expect("a body").to_owned();
    (answer["statusCode"].as_u64().expect("a status"), body)
}

/// The body of a project webhook that tells of a push to `APP/web`.
pub fn project_push(change: &str, ref_name: &str, commits: &[&str]) -> String {
    let revisions: Vec<_> = commits
        .iter()
        .map(|commit| json!({"rev": commit, "comment": "a marker in a message"}))
        .collect();
    json!({
        "id": 123_456,
        "project": {"id": 1, "projectKey": "APP", "name": "Application"},
        "type": 12,
        "content": {
            "change_type": change,
            "ref": ref_name,
            "repository": {"id": 1, "name": "web", "description": null},
            "revision_count": commits.len(),
            "revision_type": "commit",
            "revisions": revisions,
        },
        "notifications": [],
        "createdUser": {"id": 1, "name": "a marker of a name", "mailAddress": "marker@example.com"},
        "created": "2026-04-01T00:00:00Z",
    })
    .to_string()
}
