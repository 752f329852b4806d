//! Backlog's API: who a key belongs to, what a space and its projects hold, the webhooks of a project, and comments.
//!
//! The key goes into a header that is marked as sensitive, and nowhere else. Nobody is followed to another place.
//!
//! Source: <https://developer.nulab.com/docs/backlog/>

mod answer;
mod error;
mod requests;

use std::time::Duration;

use form_urlencoded::Serializer;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use self::error::Asked;
pub use self::{
    answer::{
        About, Activity, Allowance, Author, Comment, Content, Named, OPENED, PUSHED, Project,
        PullRequest, RateLimit, Repository, Revision, Status, User, Webhook,
    },
    error::{ApiError, Fault},
    requests::Place,
};
use crate::{network, secrets::Password, space::SpaceUrl};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a request may take, with its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The longest answer that is read, in bytes. A hundred comments are the longest that is asked for.
const ANSWER_BYTES: usize = 4 << 20;

/// How many activities Backlog gives at once.
const PAGE: usize = 100;

/// Whether the key goes into the query (`apiKey=`) in place of the header, which an old installation may not know. Servers and
/// proxies write queries into their logs.
const KEY_IN_QUERY: bool = false;

/// The API of one space, as the owner of one key sees it.
#[derive(Debug, Clone)]
pub struct Backlog {
    http: reqwest::Client,
    /// Such as `https://example.backlog.com/api/v2`.
    base: Url,
    /// With the port, where it is not the scheme's own.
    host: String,
    key: Password,
    header: HeaderValue,
    in_query: bool,
    within: Duration,
}

/// What a webhook is to be. What is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct WebhookChange<'a> {
    /// The name that people see.
    pub name: Option<&'a str>,
    /// What it is for.
    pub description: Option<&'a str>,
    /// Where it posts to.
    pub hook_url: Option<&'a Password>,
    /// Whether it posts every activity.
    pub all_event: Option<bool>,
    /// The activities that it posts: all of them, not only new ones.
    pub activity_type_ids: Option<&'a [i64]>,
}

/// The body of a request that changes something.
struct Form<'a> {
    encoded: String,
    /// What of it no message may repeat.
    secrets: Vec<&'a str>,
}

impl Form<'_> {
    /// A form that holds no secret.
    fn of(encoded: String) -> Self {
        Self {
            encoded,
            secrets: Vec::new(),
        }
    }
}

impl Backlog {
    /// The API of a space. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if the space is one that has no API, or the key cannot be one. The key is not repeated.
    pub fn new(space: &SpaceUrl, key: &Password) -> Result<Self, ApiError> {
        let url = space.to_string();
        let asked = Asked {
            doing: "ask Backlog's API",
            host: &url,
            base: &url,
            secrets: &[],
        };
        let base = space.api_url().and_then(|base| base.parse::<Url>().ok());
        let base = base.ok_or_else(|| {
            let advice = "name a space of Backlog in `url`, as https://example.backlog.com/git";
            asked.error(Fault::NoApi, advice, "it is reached over https alone")
        })?;
        let key: Password = key.reveal().trim().to_owned().into();
        let header = HeaderValue::from_str(key.reveal()).ok();
        let header = header.filter(|header| !header.is_empty() && header.to_str().is_ok());
        let mut header = header.ok_or_else(|| {
            let advice = "give it as Backlog shows it (Personal settings, API)";
            asked.error(Fault::WrongKey, advice, "that is no API key")
        })?;
        header.set_sensitive(true);
        let http = network::http_client(base.as_str())
            .connect_timeout(CONNECT_WITHIN)
            .https_only(base.scheme() == "https")
            .build()
            .map_err(|err| asked.unanswered(&err))?;
        let host = base.host_str().unwrap_or_default();
        Ok(Self {
            http,
            host: base
                .port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            base,
            key,
            header,
            in_query: KEY_IN_QUERY,
            within: ANSWER_WITHIN,
        })
    }

    /// The same for an installation that takes the key from the query alone.
    #[must_use]
    pub fn with_key_in_query(self) -> Self {
        Self {
            in_query: true,
            ..self
        }
    }

    /// The same with another limit to how long a request may take, with its answer.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self {
            within: limit,
            ..self
        }
    }

    /// The space's host, such as `example.backlog.com`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Who the key belongs to.
    ///
    /// # Errors
    ///
    /// [`ApiError`], as of every method here.
    pub async fn myself(&self) -> Result<User, ApiError> {
        self.get("ask whose API key it is", &["users", "myself"])
            .await
    }

    /// What the space says of itself.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn space(&self) -> Result<About, ApiError> {
        self.get("ask for the space", &["space"]).await
    }

    /// How many requests are left in this minute. The question is one of them.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn rate_limit(&self) -> Result<RateLimit, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            rate_limit: RateLimit,
        }
        let answer: Answer = self
            .get("ask for the limits of requests", &["rateLimit"])
            .await?;
        Ok(answer.rate_limit)
    }

    /// The projects that the key's owner sees.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn projects(&self) -> Result<Vec<Project>, ApiError> {
        self.get("list the projects", &["projects"]).await
    }

    /// One project, by its key.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn project(&self, key: &str) -> Result<Project, ApiError> {
        self.get(&format!("ask for the project {key}"), &["projects", key])
            .await
    }

    /// The Git repositories of a project. A reporter or a viewer does not see them.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn repositories(&self, project: &str) -> Result<Vec<Repository>, ApiError> {
        let doing = format!("list the repositories of {project}");
        self.get(&doing, &["projects", project, "git", "repositories"])
            .await
    }

    /// The webhooks of a project. Only an administrator, of the project or the space, sees and changes them.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn webhooks(&self, project: &str) -> Result<Vec<Webhook>, ApiError> {
        let doing = format!("list the webhooks of {project}");
        self.get(&doing, &["projects", project, "webhooks"]).await
    }

    /// Gives a project one more webhook.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. Where [`ApiError::may_be_done`], look before asking again: there could be two.
    pub async fn add_webhook(
        &self,
        project: &str,
        webhook: &WebhookChange<'_>,
    ) -> Result<Webhook, ApiError> {
        let doing = format!("add a webhook to {project}");
        self.call(
            &doing,
            Method::POST,
            &["projects", project, "webhooks"],
            &[],
            Some(webhook.form()),
        )
        .await
    }

    /// Changes a webhook of a project.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn change_webhook(
        &self,
        project: &str,
        id: i64,
        change: &WebhookChange<'_>,
    ) -> Result<Webhook, ApiError> {
        let doing = format!("change the webhook {id} of {project}");
        let path = ["projects", project, "webhooks", &id.to_string()];
        self.call(&doing, Method::PATCH, &path, &[], Some(change.form()))
            .await
    }

    /// Takes a webhook from a project.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn remove_webhook(&self, project: &str, id: i64) -> Result<(), ApiError> {
        let doing = format!("remove the webhook {id} of {project}");
        let path = ["projects", project, "webhooks", &id.to_string()];
        let gone: Result<IgnoredAny, _> = self.call(&doing, Method::DELETE, &path, &[], None).await;
        gone.map(drop)
    }

    /// The pushes to a project's repositories, the newest first, at most `limit` of them.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn activities(&self, project: &str, limit: usize) -> Result<Vec<Activity>, ApiError> {
        let doing = format!("list the pushes to {project}");
        let mut found: Vec<Activity> = Vec::new();
        while found.len() < limit {
            let oldest = found.last().map(|activity| activity.id);
            let wanted = limit - found.len() + usize::from(oldest.is_some());
            let mut query = vec![
                ("activityTypeId[]", PUSHED.to_string()),
                ("count", wanted.min(PAGE).to_string()),
                ("order", "desc".into()),
            ];
            // The oldest one comes again, if the limit is one of those that it lets through.
            query.extend(oldest.map(|oldest| ("maxId", oldest.to_string())));
            let path = ["projects", project, "activities"];
            let page: Vec<Activity> = self.call(&doing, Method::GET, &path, &query, None).await?;
            // Whatever a server makes of the question, each round goes further back.
            let older = |activity: &Activity| oldest.is_none_or(|oldest: i64| activity.id < oldest);
            let before = found.len();
            found.extend(page.into_iter().filter(older));
            if found.len() == before {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn get<T: DeserializeOwned>(&self, doing: &str, path: &[&str]) -> Result<T, ApiError> {
        self.call(doing, Method::GET, path, &[], None).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        doing: &str,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        form: Option<Form<'_>>,
    ) -> Result<T, ApiError> {
        let mut secrets = vec![self.key.reveal()];
        secrets.extend(form.iter().flat_map(|form| &form.secrets));
        let asked = Asked {
            doing,
            host: &self.host,
            base: self.base.as_str(),
            secrets: &secrets,
        };
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        if self.in_query {
            url.query_pairs_mut()
                .append_pair("apiKey", self.key.reveal());
        }
        let mut request = self.http.request(method, url).timeout(self.within);
        request = request.header(ACCEPT, "application/json");
        if !self.in_query {
            request = request.header("X-Api-Key", self.header.clone());
        }
        if let Some(form) = &form {
            let form_type = "application/x-www-form-urlencoded";
            request = request
                .header(CONTENT_TYPE, form_type)
                .body(form.encoded.clone());
        }
        let mut answer = request.send().await.map_err(|err| asked.unanswered(&err))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|err| asked.unanswered(&err))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                let why = format!("the answer is longer than {ANSWER_BYTES} bytes");
                return Err(asked.no_api(&why));
            }
            body.extend_from_slice(&chunk);
        }
        if !answer.status().is_success() {
            return Err(asked.refused(answer.status(), answer.headers(), &body));
        }
        serde_json::from_slice(&body).map_err(|err| {
            let kind = answer.headers().get(CONTENT_TYPE);
            let is_page = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
            asked.no_api(&if is_page {
                "the answer is a web page".to_owned()
            } else {
                // What serde says of it may repeat a part.
                format!(
                    "the answer is not what the API gives, at line {} column {}",
                    err.line(),
                    err.column()
                )
            })
        })
    }
}

impl<'a> WebhookChange<'a> {
    fn form(&self) -> Form<'a> {
        let hook_url = self.hook_url.map(Password::reveal);
        let token = hook_url.and_then(|url| url.rsplit('/').next());
        Form {
            encoded: self.encoded(),
            secrets: [hook_url, token].into_iter().flatten().collect(),
        }
    }

    fn encoded(&self) -> String {
        let mut form = Serializer::new(String::new());
        let fields = [
            ("name", self.name),
            ("description", self.description),
            ("hookUrl", self.hook_url.map(Password::reveal)),
            (
                "allEvent",
                self.all_event.map(|all| if all { "true" } else { "false" }),
            ),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        for id in self.activity_type_ids.unwrap_or_default() {
            form.append_pair("activityTypeIds[]", &id.to_string());
        }
        form.finish()
    }
}
