//! Backlog as results need it: who we are there, how a project writes, its requests, and our comments.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Mutex;

use super::{Comment, Fate, Home, Marker, Markup, Request, Words};
use crate::{
    backlog::{ApiError, Backlog, Fault, Place, PullRequest},
    error::{Error, chain},
    push::{CommitId, RepositoryName},
    route::{self, Language},
    secrets::read_api_key,
};

/// The most comments of a request that are read. Where there are more, nothing new is written.
const COMMENTS: usize = 2_000;

/// How far back a push is looked for whose author is to be told, in pushes of the project.
const PUSHES: usize = 100;

/// How long one look waits for a limit of Backlog to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what a space says of itself is believed.
const BELIEVED: Duration = Duration::from_hours(1);

/// What Backlog calls Markdown.
const MARKDOWN: &str = "markdown";

/// The API of a space, for the owner of the table's key.
#[derive(Debug)]
pub(super) struct Space {
    api: Backlog,
    me: i64,
    language: Language,
    zone: Option<jiff::tz::TimeZone>,
    began: Instant,
    markups: Mutex<HashMap<String, Markup>>,
}

impl Space {
    /// Asks who we are, and what the space is like.
    pub(super) async fn open(space: &route::Space) -> Result<Self, Error> {
        let Some(source) = space.api_key() else {
            return Err(Error::Results {
                reason: format!(
                    "the table has no `api_key` for {}; give the space one, or set its `results` to \"none\"",
                    space.url()
                ),
                transient: false,
            });
        };
        let key = read_api_key(source).await.map_err(|err| Error::Results {
            transient: err.is_transient(),
            reason: chain(&err),
        })?;
        let api = Backlog::new(space.url(), &key).map_err(|err| error(&err))?;
        let me = patiently(|| api.myself()).await?;
        let about = patiently(|| api.space()).await?;
        let said = match about.lang.as_deref() {
            Some("ja") => Language::Japanese,
            _ => Language::English,
        };
        Ok(Self {
            me: me.id,
            language: space.language().unwrap_or(said),
            zone: about.timezone.as_deref().and_then(Words::zone_of),
            began: Instant::now(),
            markups: Mutex::default(),
            api,
        })
    }

    pub(super) fn is_old(&self) -> bool {
        self.began.elapsed() > BELIEVED
    }

    /// How things are said in a project.
    pub(super) async fn words(&self, project: &str, detail: bool) -> Result<Words, Error> {
        let mut markups = self.markups.lock().await;
        let markup = if let Some(markup) = markups.get(project) {
            *markup
        } else {
            let about = patiently(|| self.api.project(project)).await?;
            let markup = match about.text_formatting_rule.as_deref() {
                Some(MARKDOWN) => Markup::Markdown,
                _ => Markup::Backlog,
            };
            markups.insert(project.to_owned(), markup);
            markup
        };
        Ok(Words {
            language: self.language,
            markup,
            zone: self.zone.clone(),
            detail,
        })
    }

    /// The requests of a repository: the open ones, and the last ones that ended.
    pub(super) async fn requests(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<Request>, Error> {
        let mut all = patiently(|| self.api.open_requests(repository)).await?;
        all.extend(patiently(|| self.api.closed_requests(repository)).await?);
        Ok(all.into_iter().filter_map(request).collect())
    }

    /// The branch of a request; `None` if there is no such request.
    pub(super) async fn branch(
        &self,
        repository: &RepositoryName,
        number: i64,
    ) -> Result<Option<String>, Error> {
        let ask = async || match self.api.request(repository, number).await {
            Err(err) if err.fault == Fault::NotThere => Ok(None),
            found => found.map(Some),
        };
        Ok(patiently(ask).await?.and_then(|found| found.branch))
    }

    /// Our comments there that have this marker; and whether there are more comments than are read.
    pub(super) async fn comments(
        &self,
        repository: &RepositoryName,
        home: &Home,
        marker: &Marker,
    ) -> Result<(Vec<Comment>, bool), Error> {
        let place = place(repository, home);
        let (comments, is_cut) = patiently(|| self.api.comments(place, COMMENTS)).await?;
        let own = comments.into_iter().filter_map(|comment| {
            let text = comment.content?;
            let is_own = comment.created_user?.id == self.me;
            Some(Comment {
                kind: marker.kind_of(&text).filter(|_| is_own)?,
                id: comment.id,
                text,
                updated: comment.updated.as_deref().and_then(seconds),
            })
        });
        Ok((own.collect(), is_cut))
    }

    /// Writes a new comment. Returns its number.
    pub(super) async fn add(
        &self,
        repository: &RepositoryName,
        home: &Home,
        text: &str,
        notified: &[i64],
    ) -> Result<i64, Error> {
        let place = place(repository, home);
        // Asked again, there could be two: the next look sees whether it is there.
        let added = match self.api.add_comment(place, text, notified).await {
            Err(err) if patience(&err).is_some() => {
                tokio::time::sleep(patience(&err).unwrap_or_default()).await;
                self.api.add_comment(place, text, notified).await
            }
            added => added,
        };
        added.map(|comment| comment.id).map_err(|err| error(&err))
    }

    /// Gives a comment of ours another text. `None` if it is no more.
    pub(super) async fn change(
        &self,
        repository: &RepositoryName,
        home: &Home,
        id: i64,
        text: &str,
    ) -> Result<Option<()>, Error> {
        let place = place(repository, home);
        let change = || self.api.change_comment(place, id, text);
        let changed = match change().await {
            Err(err) if patience(&err).is_some() => {
                tokio::time::sleep(patience(&err).unwrap_or_default()).await;
                change().await
            }
            changed => changed,
        };
        match changed {
            Ok(_) => Ok(Some(())),
            Err(err) if err.fault == Fault::NotThere => Ok(None),
            Err(err) => Err(error(&err)),
        }
    }

    /// Who pushed a commit, if it was not long ago.
    pub(super) async fn pusher(
        &self,
        repository: &RepositoryName,
        commit: CommitId,
    ) -> Result<Option<i64>, Error> {
        let pushes = patiently(|| self.api.activities(repository.project(), PUSHES)).await?;
        let commit = commit.to_string();
        let found = pushes.into_iter().find(|push| {
            let Some(content) = &push.content else {
                return false;
            };
            let name = content
                .repository
                .as_ref()
                .and_then(|named| named.name.as_deref());
            let mut commits = content.revisions.iter().flatten();
            name == Some(repository.repository())
                && commits.any(|own| own.rev.as_deref() == Some(&*commit))
        });
        Ok(found.and_then(|push| Some(push.created_user?.id)))
    }
}

fn place<'a>(repository: &'a RepositoryName, home: &'a Home) -> Place<'a> {
    match home {
        Home::Request(number) => Place::PullRequest(repository, *number),
        Home::Issue(key) => Place::Issue(key),
    }
}

fn request(found: PullRequest) -> Option<Request> {
    let fate = match found.status?.id {
        PullRequest::OPEN => Fate::Open,
        status => Fate::Over {
            at: found
                .merge_at
                .as_deref()
                .or(found.close_at.as_deref())
                .and_then(seconds),
            is_merged: status == PullRequest::MERGED,
            commit: found.merge_commit.and_then(|commit| commit.parse().ok()),
        },
    };
    Some(Request {
        number: found.number,
        branch: found.branch?,
        base: found.base?,
        fate,
        author: found.created_user.map(|user| user.id),
    })
}

/// A time of Backlog in seconds of Unix time.
fn seconds(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.unix_timestamp())
}

/// How long to wait for a limit to end, if that is not long.
fn patience(err: &ApiError) -> Option<Duration> {
    match err.fault {
        Fault::Wait(left) if left <= PATIENCE => Some(left),
        _ => None,
    }
}

/// Asks, and once more where a limit ends soon.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, ApiError>) -> Result<T, Error> {
    let answer = match ask().await {
        Err(err) if patience(&err).is_some() => {
            tokio::time::sleep(patience(&err).unwrap_or_default()).await;
            ask().await
        }
        answer => answer,
    };
    answer.map_err(|err| error(&err))
}

/// What Backlog did not do.
fn error(err: &ApiError) -> Error {
    Error::Results {
        reason: chain(err),
        transient: err.is_transient(),
    }
}
