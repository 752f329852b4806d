//! A space of Backlog, as far as its API is asked: over TLS, with the codes, roles and pages that Nulab documents, and with
//! what can go wrong on the way.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

use super::{git_server::GitServer, tls::Ca};

/// The key of an administrator.
pub const ADMIN_KEY: &str = "sentinelAdminKey0123456789abcdefghijklmnopqrstuvwxyzABCDEF";
/// The key of a normal user.
pub const ROBOT_KEY: &str = "sentinelRobotKey0123456789abcdefghijklmnopqrstuvwxyzABCDEF";
/// The key of somebody without two-factor authentication, which the space demands of all.
pub const BARE_KEY: &str = "sentinelBareKey";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The values of a field of the form.
    pub fn form(&self, name: &str) -> Vec<String> {
        values(&self.body, name)
    }
}

/// What happens to a request in place of a right answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not done; this status and code say so.
    Refuse(u16, i64),
    /// It is done, and then the connection ends without an answer.
    Drop,
    /// The answer comes late.
    Late(Duration),
    /// A redirect to there.
    Redirect(String),
    /// This status and body.
    Answer(u16, &'static str, Vec<u8>),
    /// The right answer and blanks behind it, so many bytes in all.
    Padded(usize),
}

#[derive(Default)]
struct Space {
    requests: Vec<Request>,
    /// How the method and path begin, how often yet, and what then happens.
    faults: Vec<(String, usize, Fault)>,
    projects: Vec<Project>,
    next: i64,
    habits: Habits,
    /// Of each pull request (`APP/web/1`) and issue (`APP-1`), with when each was written.
    comments: BTreeMap<String, Vec<(Value, Instant)>>,
    /// By project and repository.
    pulls: BTreeMap<(String, String), Vec<Value>>,
}

/// How comments are kept, which Nulab does not say.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a habit that a space has or has not"
)]
pub struct Habits {
    /// For how long a list does not show a new comment.
    pub lag: Duration,
    /// Whether ends of lines are two characters, and blanks at the ends go.
    pub crlf: bool,
    /// Whether merged requests say which commit they came in with.
    pub no_merge_commit: bool,
    /// Whether users and the space say no language and no zone.
    pub is_bare: bool,
    /// Whether a request's author hears of each new comment, unasked.
    pub tells_author: bool,
    /// Whether the key is taken from the query alone.
    pub wants_query: bool,
}

struct Project {
    key: String,
    /// Whether the administrator of the space may change its webhooks, too.
    is_open: bool,
    hooks: Vec<Value>,
    repositories: Vec<Value>,
    activities: Vec<Value>,
    /// What it says of itself, if not the usual.
    said: serde_json::Map<String, Value>,
}

/// The API of a space; stops when it is dropped.
pub struct TestBacklog {
    port: u16,
    space: Arc<Mutex<Space>>,
    runtime: Option<Runtime>,
}

impl TestBacklog {
    /// A space with these projects.
    pub fn start(ca: &Ca, projects: &[&str]) -> Self {
        let projects = projects.iter().map(|&key| Project {
            key: key.to_owned(),
            is_open: true,
            hooks: Vec::new(),
            repositories: Vec::new(),
            activities: Vec::new(),
            said: serde_json::Map::new(),
        });
        let space = Arc::new(Mutex::new(Space {
            projects: projects.collect(),
            next: 100,
            ..Space::default()
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = TlsAcceptor::from(ca.server_config());
        runtime.spawn(accept(listener, tls, Arc::clone(&space)));
        Self {
            port,
            space,
            runtime: Some(runtime),
        }
    }

    /// Answers beside the repositories of a Git server, too, as in a space.
    pub fn stand_beside(&self, git: &GitServer) {
        let space = Arc::clone(&self.space);
        git.answer_api(move |head, body| {
            let space = Arc::clone(&space);
            Box::pin(async move { answer(&space, &head, &body).await })
        });
    }

    /// For the table: where its repositories would be.
    pub fn space_url(&self) -> String {
        format!("https://localhost:{}/git", self.port)
    }

    /// What the space says of a project: a field, and its value from now on.
    pub fn say(&self, project: &str, field: &str, value: Value) {
        self.with(project, |project| {
            project.said.insert(field.to_owned(), value);
        });
    }

    /// All requests up to now.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The method and path of those that change something.
    pub fn writes(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        let writes = requests.filter(|request| request.method != "GET");
        writes
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }

    /// Forgets the requests up to now.
    pub fn clear_requests(&self) {
        self.lock().requests.clear();
    }

    /// Lets the next `times` requests go wrong whose method and path (below `/api/v2/`) begin like this.
    pub fn fault(&self, begins: &str, times: usize, fault: Fault) {
        self.lock().faults.push((begins.to_owned(), times, fault));
    }

    /// Nobody may see the webhooks of a project.
    pub fn close(&self, project: &str) {
        self.with(project, |project| project.is_open = false);
    }

    /// A webhook that somebody registered. Returns its id.
    pub fn hook(&self, project: &str, hook_url: &str, types: &[i64]) -> i64 {
        let hook = json!({"name": "somebody's", "description": null, "hookUrl": hook_url,
            "allEvent": false, "activityTypeIds": types, "createdUser": null, "created": null});
        let id = self.next();
        self.with(project, |project| project.keep(id, hook));
        id
    }

    /// One webhook in place of all that a project has.
    pub fn replace_hooks(&self, project: &str, hook_url: &str, types: &[i64]) {
        self.with(project, |project| project.hooks.clear());
        self.hook(project, hook_url, types);
    }

    /// All webhooks of a project.
    pub fn hooks(&self, project: &str) -> Vec<Value> {
        self.with(project, |project| project.hooks.clone())
    }

    /// A repository, of which `hook_url` is the webhook of its own.
    pub fn repository(&self, project: &str, name: &str, hook_url: Option<&str>) {
        let (id, url) = (self.next(), self.space_url());
        let repository = json!({"id": id, "projectId": 1, "name": name, "description": null, "hookUrl": hook_url,
            "httpUrl": format!("{url}/{project}/{name}.git"), "pushedAt": null, "createdUser": null});
        self.with(project, |project| project.repositories.push(repository));
    }

    /// How the space keeps comments from now on.
    pub fn habits(&self, habits: Habits) {
        self.lock().habits = habits;
    }

    /// A pull request of `APP/web`, by its number; opened by the user 7.
    pub fn pull(&self, number: i64, branch: &str, base: &str) {
        let pull = json!({"id": 1000 + number, "projectId": 1, "repositoryId": 5, "number": number, "summary": "#image(x)",
            "base": base, "branch": branch, "status": {"id": 1, "name": "Open"}, "assignee": null, "issue": null,
            "baseCommit": null, "branchCommit": null, "mergeCommit": null, "closeAt": null, "mergeAt": null,
            "createdUser": {"id": 7, "userId": null, "name": "A"}, "created": null});
        let at = ("APP".to_owned(), "web".to_owned());
        self.lock().pulls.entry(at).or_default().push(pull);
    }

    /// Closes a pull request, or merges it with this commit.
    pub fn end_pull(&self, number: i64, merge_commit: Option<&str>) {
        let mut space = self.lock();
        let hides = space.habits.no_merge_commit;
        let pulls = space.pulls.values_mut().flatten();
        let now = time::OffsetDateTime::now_utc();
        let now = now
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        for pull in pulls.filter(|pull| pull["number"] == number) {
            let (id, name, at) = match merge_commit {
                Some(_) => (3, "Merged", "mergeAt"),
                None => (2, "Closed", "closeAt"),
            };
            pull["status"] = json!({"id": id, "name": name});
            pull[at] = now.clone().into();
            pull["mergeCommit"] = merge_commit.filter(|_| !hides).into();
        }
    }

    /// The comments of a pull request (`APP/web/1`) or an issue (`APP-1`), the first one first.
    pub fn comments(&self, place: &str) -> Vec<Value> {
        let space = self.lock();
        let comments = space.comments.get(place).into_iter().flatten();
        comments.map(|(comment, _)| comment.clone()).collect()
    }

    /// A comment by the user of this number. Returns its id.
    pub fn comment(&self, place: &str, user: i64, content: &str) -> i64 {
        self.lock().add_comment(place, user, content, &[])
    }

    /// Removes a comment by hand.
    pub fn remove_comment(&self, place: &str, id: i64) {
        let mut space = self.lock();
        let comments = space.comments.get_mut(place).expect("there are some");
        comments.retain(|(comment, _)| comment["id"] != id);
    }

    /// Gives a comment another text by hand, a minute from now on.
    pub fn edit_comment(&self, place: &str, id: i64, content: &str) {
        let mut space = self.lock();
        let comments = space.comments.get_mut(place).expect("there are some");
        for (comment, _) in comments
            .iter_mut()
            .filter(|(comment, _)| comment["id"] == id)
        {
            comment["content"] = content.into();
            let later = time::OffsetDateTime::now_utc() + Duration::from_hours(1);
            let later = later.format(&time::format_description::well_known::Rfc3339);
            comment["updated"] = later.unwrap().into();
        }
    }

    /// A push of one commit to `web` by the user of this number.
    pub fn push_by(&self, project: &str, user: i64, ref_name: &str, commit: &str) {
        let id = self.next();
        let push = json!({"id": id, "type": 12, "project": {"id": 1, "projectKey": project},
            "content": {"repository": {"id": 5, "name": "web"}, "ref": ref_name, "revisions": [{"rev": commit, "comment": "x"}]},
            "createdUser": {"id": user, "userId": null}, "created": "2026-04-01T00:00:00Z"});
        self.with(project, |project| project.activities.push(push));
    }

    /// So many pushes to `web`, one after the other.
    pub fn pushes(&self, project: &str, count: usize) {
        for _ in 0..count {
            let id = self.next();
            let push = json!({"id": id, "type": 12, "project": {"id": 1, "projectKey": project},
                "content": {"repository": {"id": 5, "name": "web"}, "ref": "refs/heads/main", "revisions": []},
                "createdUser": {"id": 1, "userId": null}, "created": "2026-04-01T00:00:00Z"});
            self.with(project, |project| project.activities.push(push));
        }
    }

    fn next(&self) -> i64 {
        let mut space = self.lock();
        space.next += 1;
        space.next
    }

    fn with<T>(&self, project: &str, change: impl FnOnce(&mut Project) -> T) -> T {
        let mut space = self.lock();
        let project = space.projects.iter_mut().find(|own| own.key == project);
        change(project.expect("the test has the project"))
    }

    fn lock(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap()
    }
}

impl Drop for TestBacklog {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Project {
    fn keep(&mut self, id: i64, mut hook: Value) -> Value {
        hook["id"] = id.into();
        self.hooks.push(hook.clone());
        hook
    }
}

async fn accept(listener: std::net::TcpListener, tls: TlsAcceptor, space: Arc<Mutex<Space>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, space) = (tls.clone(), Arc::clone(&space));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let space = Arc::clone(&space);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                    answer(&space, &head, &body).await
                }
            });
            let http = http1::Builder::new();
            http.serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

type Answer = Response<Full<Bytes>>;

/// An error ends the connection.
async fn answer(space: &Mutex<Space>, head: &Parts, body: &Bytes) -> io::Result<Answer> {
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    let (fault, done) = {
        let mut space = space.lock().unwrap();
        space.requests.push(request.clone());
        let line = format!(
            "{} {}",
            request.method,
            request.path.trim_start_matches("/api/v2/")
        );
        let fault = space
            .faults
            .iter_mut()
            .find(|(begins, times, _)| *times > 0 && line.starts_with(begins.as_str()))
            .map(|(_, times, fault)| {
                *times -= 1;
                fault.clone()
            });
        let done = match fault {
            Some(Fault::Refuse(status, code)) => Err((status, code, "as the test has it".into())),
            Some(Fault::Redirect(_) | Fault::Answer(..)) => Ok(Value::Null),
            _ => space.carry_out(&request),
        };
        (fault, done)
    };
    let (status, text) = match done {
        Ok(value) => (200, value.to_string()),
        Err((status, code, message)) => {
            let error = json!({"message": message, "code": code, "moreInfo": ""});
            (status, json!({"errors": [error]}).to_string())
        }
    };
    let mut response = respond(
        status,
        "application/json;charset=utf-8",
        text.clone().into(),
    );
    match fault {
        Some(Fault::Drop) => return Err(io::Error::other("the test ends the connection")),
        Some(Fault::Late(time)) => tokio::time::sleep(time).await,
        Some(Fault::Redirect(to)) => {
            response = respond(302, "text/html", Vec::new());
            let to = HeaderValue::try_from(to).unwrap();
            response.headers_mut().insert(header::LOCATION, to);
        }
        Some(Fault::Answer(status, kind, body)) => response = respond(status, kind, body),
        Some(Fault::Padded(length)) => {
            let mut padded = text.into_bytes();
            padded.resize(length, b' ');
            response = respond(200, "application/json", padded);
        }
        _ => {}
    }
    Ok(response)
}

fn respond(status: u16, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let reset = time::OffsetDateTime::now_utc().unix_timestamp() + 42;
    for (name, value) in [
        ("x-ratelimit-limit", 150),
        ("x-ratelimit-remaining", 149),
        ("x-ratelimit-reset", reset),
    ] {
        headers.insert(name, HeaderValue::from(value));
    }
    answer
}

type Done = Result<Value, (u16, i64, String)>;

impl Space {
    fn carry_out(&mut self, request: &Request) -> Done {
        let fail = |status, code, message: &str| Err((status, code, message.to_owned()));
        let wants_query = self.habits.wants_query;
        let in_query = values(&request.query, "apiKey").pop();
        let in_header = request.header("x-api-key");
        let key = if wants_query {
            in_query.as_deref()
        } else {
            in_header
        };
        let is_administrator = match key {
            Some(ADMIN_KEY) => true,
            Some(ROBOT_KEY) => false,
            Some(BARE_KEY) => return fail(403, 12, "Two-factor authentication is required."),
            _ => return fail(401, 11, "Authentication failure."),
        };
        if request.query.contains("apiKey") && !wants_query {
            return fail(400, 7, "The test wants the key in the header alone.");
        }
        let is_form = request
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if ["POST", "PATCH"].contains(&&*request.method) && !is_form {
            return fail(400, 7, "A form is expected.");
        }
        let path = request.path.strip_prefix("/api/v2/").unwrap_or_default();
        let parts: Vec<_> = path.split('/').collect();
        let me = 1 + i64::from(!is_administrator);
        match &parts[..] {
            [
                "projects",
                project,
                "git",
                "repositories",
                name,
                "pullRequests",
                rest @ ..,
            ] => {
                return self.pull_requests(request, me, (project, name), rest);
            }
            ["issues", key, "comments", rest @ ..] => {
                return self.talk(request, me, key, rest);
            }
            _ => {}
        }
        let user = json!({"id": 1 + i64::from(!is_administrator), "userId": if is_administrator { json!("admin") } else { Value::Null },
            "name": "Robot", "roleType": if is_administrator { 1 } else { 2 }, "lang": null, "mailAddress": null, "nulabAccount": null});
        let limit = json!({"limit": 600, "remaining": 599, "reset": 1_774_000_000});
        match (request.method.as_str(), &parts[..]) {
            ("GET", ["users", "myself"]) => Ok(user),
            ("GET", ["space"]) => Ok(
                json!({"spaceKey": "example", "name": "Example", "ownerId": 1, "lang": if self.habits.is_bare { Value::Null } else { "ja".into() },
                "timezone": if self.habits.is_bare { Value::Null } else { "Asia/Tokyo".into() }, "reportSendTime": null, "textFormattingRule": "markdown", "created": null, "updated": null}),
            ),
            ("GET", ["rateLimit"]) => Ok(json!({"rateLimit": {"read": limit, "update": limit,
                "search": null, "icon": null}})),
            ("GET", ["projects"]) => Ok(self.projects.iter().map(Project::about).collect()),
            (_, ["projects", key, rest @ ..]) => {
                self.next += 1;
                let id = self.next;
                let found = self.projects.iter_mut().find(|project| project.key == *key);
                let Some(project) = found else {
                    return fail(404, 6, "No project.");
                };
                project.carry_out(request, rest, is_administrator, id)
            }
            _ => fail(404, 6, "No such API."),
        }
    }
}

impl Space {
    fn pull_requests(
        &mut self,
        request: &Request,
        me: i64,
        of: (&str, &str),
        rest: &[&str],
    ) -> Done {
        let fail = |status, code, message: &str| Err((status, code, message.to_owned()));
        let at = (of.0.to_owned(), of.1.to_owned());
        if !self.projects.iter().any(|project| project.key == of.0) {
            return fail(404, 6, "No project.");
        }
        let pulls = self.pulls.get(&at).map(Vec::as_slice).unwrap_or_default();
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                let statuses = values(&request.query, "statusId[]");
                let number = |name: &str, default: usize| {
                    let value = values(&request.query, name).into_iter().next();
                    value.map_or(default, |value| value.parse().unwrap())
                };
                let mut found: Vec<_> = pulls
                    .iter()
                    .filter(|pull| {
                        statuses.is_empty() || statuses.contains(&pull["status"]["id"].to_string())
                    })
                    .cloned()
                    .collect();
                found.sort_by_key(|pull| std::cmp::Reverse(pull["number"].as_i64()));
                let found = found.into_iter().skip(number("offset", 0));
                Ok(found.take(number("count", 20).clamp(1, 100)).collect())
            }
            (method, [number, rest @ ..]) => {
                let Some(pull) = pulls
                    .iter()
                    .find(|pull| pull["number"] == number.parse::<i64>().unwrap_or_default())
                else {
                    return fail(404, 6, "No pull request.");
                };
                match (method, rest) {
                    ("GET", []) => Ok(pull.clone()),
                    (_, ["comments", rest @ ..]) => {
                        let place = format!("{}/{}/{number}", of.0, of.1);
                        self.talk(request, me, &place, rest)
                    }
                    _ => fail(404, 6, "No such API."),
                }
            }
            _ => fail(404, 6, "No such API."),
        }
    }

    fn add_comment(&mut self, place: &str, user: i64, content: &str, notified: &[String]) -> i64 {
        self.next += 1;
        let id = self.next;
        let content = self.kept(content);
        let now = time::OffsetDateTime::now_utc();
        let now = now
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        let author = (self.habits.tells_author && place.contains('/')).then_some(7);
        let notified = notified.iter().map(|user| user.parse::<i64>().unwrap());
        let notified = notified.chain(author);
        let notified = notified.map(|user| json!({"user": {"id": user}}));
        let comment = json!({"id": id, "content": content, "changeLog": null, "createdUser": {"id": user, "userId": null},
            "created": now, "updated": now, "stars": [], "notifications": notified.collect::<Value>()});
        let comments = self.comments.entry(place.to_owned()).or_default();
        comments.push((comment, Instant::now()));
        id
    }

    fn kept(&self, content: &str) -> String {
        if self.habits.crlf {
            content.trim().replace('\n', "\r\n")
        } else {
            content.to_owned()
        }
    }

    /// Comments of a pull request or an issue.
    fn talk(&mut self, request: &Request, me: i64, place: &str, rest: &[&str]) -> Done {
        let fail = |status, code, message: &str| Err((status, code, message.to_owned()));
        let content = request.form("content").pop().unwrap_or_default();
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                let number = |name: &str| {
                    let value = values(&request.query, name).into_iter().next();
                    value.and_then(|value| value.parse::<i64>().ok())
                };
                let most = usize::try_from(number("count").unwrap_or(20).clamp(1, 100)).unwrap();
                let newest = number("maxId").unwrap_or(i64::MAX);
                let comments = self.comments.get(place).into_iter().flatten().rev();
                let shown = comments.filter(|(_, written)| written.elapsed() >= self.habits.lag);
                let shown = shown.filter(|(comment, _)| comment["id"].as_i64().unwrap() <= newest);
                Ok(shown
                    .take(most)
                    .map(|(comment, _)| comment.clone())
                    .collect())
            }
            ("POST", []) if content.is_empty() => fail(400, 7, "content is required."),
            ("POST", []) => {
                let id = self.add_comment(place, me, &content, &request.form("notifiedUserId[]"));
                let comments = self.comments[place].iter();
                let mut own = comments.filter(|(comment, _)| comment["id"] == id);
                Ok(own.next().unwrap().0.clone())
            }
            ("PATCH", [id]) => {
                let content = self.kept(&content);
                let comments = self.comments.entry(place.to_owned()).or_default();
                let found = comments
                    .iter_mut()
                    .find(|(comment, _)| comment["id"] == id.parse::<i64>().unwrap_or_default());
                let Some((comment, _)) = found else {
                    return fail(404, 6, "No comment.");
                };
                if comment["createdUser"]["id"] != me {
                    return fail(403, 5, "You can update only your own comment.");
                }
                comment["content"] = content.into();
                let now = time::OffsetDateTime::now_utc();
                let now = now.format(&time::format_description::well_known::Rfc3339);
                comment["updated"] = now.unwrap().into();
                Ok(comment.clone())
            }
            _ => fail(404, 6, "No such API."),
        }
    }
}

impl Project {
    fn about(&self) -> Value {
        let mut about = json!({"id": 1, "projectKey": self.key, "name": "受注アプリ", "useGit": true, "archived": false,
            "textFormattingRule": null, "chartEnabled": null});
        for (field, value) in &self.said {
            about[field] = value.clone();
        }
        about
    }

    fn carry_out(
        &mut self,
        request: &Request,
        rest: &[&str],
        is_administrator: bool,
        new: i64,
    ) -> Done {
        let fail = |status, code, message: &str| Err((status, code, message.to_owned()));
        match (request.method.as_str(), rest) {
            ("GET", []) => Ok(self.about()),
            ("GET", ["git", "repositories"]) => Ok(self.repositories.clone().into()),
            ("GET", ["activities"]) => Ok(self.page(request)),
            (_, ["webhooks", ..]) if !is_administrator || !self.is_open => {
                fail(403, 5, "You do not have permission.")
            }
            ("GET", ["webhooks"]) => Ok(self.hooks.clone().into()),
            ("POST", ["webhooks"]) => {
                let url = request.form("hookUrl");
                if !url.first().is_some_and(|url| url.starts_with("http")) {
                    return fail(400, 7, "hookUrl is invalid.");
                }
                let hook = json!({"name": "", "description": "", "hookUrl": "", "allEvent": false, "activityTypeIds": [],
                    "createdUser": null, "created": null, "updatedUser": null, "updated": null});
                Ok(self.keep(new, fill(hook, request)))
            }
            (method, ["webhooks", id]) => {
                let mut hooks = self.hooks.iter();
                let Some(at) = hooks.position(|hook| hook["id"].as_i64() == id.parse().ok()) else {
                    return fail(404, 6, "No webhook.");
                };
                match method {
                    "GET" => Ok(self.hooks[at].clone()),
                    "DELETE" => Ok(self.hooks.remove(at)),
                    "PATCH" => {
                        self.hooks[at] = fill(self.hooks[at].clone(), request);
                        Ok(self.hooks[at].clone())
                    }
                    _ => fail(404, 6, "No such API."),
                }
            }
            _ => fail(404, 6, "No such API."),
        }
    }

    /// A part of what happened, the newest first.
    fn page(&self, request: &Request) -> Value {
        let number = |name: &str| {
            let values = values(&request.query, name).into_iter().next();
            values.and_then(|value| value.parse::<i64>().ok())
        };
        let count = usize::try_from(number("count").unwrap_or(20).clamp(1, 100)).unwrap();
        let newest = number("maxId").unwrap_or(i64::MAX);
        let wanted = number("activityTypeId[]");
        let found = self.activities.iter().rev().filter(|activity| {
            activity["id"].as_i64().unwrap() <= newest
                && wanted.is_none_or(|wanted| activity["type"] == wanted)
        });
        found.take(count).cloned().collect()
    }
}

/// What a form makes of a webhook.
fn fill(mut hook: Value, request: &Request) -> Value {
    for name in ["name", "description", "hookUrl"] {
        if let Some(value) = request.form(name).pop() {
            hook[name] = value.into();
        }
    }
    if let Some(value) = request.form("allEvent").pop() {
        hook["allEvent"] = (value == "true").into();
    }
    let types = request.form("activityTypeIds[]");
    if !types.is_empty() {
        let types = types.iter().map(|value| value.parse::<i64>().unwrap());
        hook["activityTypeIds"] = types.collect();
    }
    hook
}

fn values(text: &str, name: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(text.as_bytes());
    let own = pairs.filter(|(own, _)| own == name);
    own.map(|(_, value)| value.into_owned()).collect()
}
