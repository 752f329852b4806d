//! Pull requests, and comments of pull requests and issues. Of a comment only what it says can be changed, by who wrote it.

use form_urlencoded::Serializer;
use reqwest::Method;

use super::{ApiError, Backlog, Comment, Form, PAGE, PullRequest};
use crate::push::RepositoryName;

/// How many pages of requests are read.
const PAGES: usize = 20;

/// What has comments.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A pull request.
    PullRequest(&'a RepositoryName, i64),
    /// An issue, such as `APP-123`.
    Issue(&'a str),
}

impl Place<'_> {
    fn path(self) -> Vec<String> {
        match self {
            Self::PullRequest(repository, number) => {
                let mut path = requests_of(repository);
                path.extend([number.to_string(), "comments".into()]);
                path
            }
            Self::Issue(key) => ["issues", key, "comments"].map(str::to_owned).into(),
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PullRequest(repository, number) => {
                write!(f, "the pull request {number} of {repository}")
            }
            Self::Issue(key) => write!(f, "the issue {key}"),
        }
    }
}

fn requests_of(repository: &RepositoryName) -> Vec<String> {
    let (project, name) = (repository.project(), repository.repository());
    [
        "projects",
        project,
        "git",
        "repositories",
        name,
        "pullRequests",
    ]
    .map(str::to_owned)
    .into()
}

impl Backlog {
    /// The pull requests of a repository that are open. Backlog cannot be asked for those of one branch.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn open_requests(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<PullRequest>, ApiError> {
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let statuses = [PullRequest::OPEN];
            let page = self.requests(repository, &statuses, found.len()).await?;
            let is_last = page.len() < PAGE;
            found.extend(page);
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Of those that were closed or merged, the first hundred that Backlog lists.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn closed_requests(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<PullRequest>, ApiError> {
        let statuses = [PullRequest::CLOSED, PullRequest::MERGED];
        self.requests(repository, &statuses, 0).await
    }

    async fn requests(
        &self,
        repository: &RepositoryName,
        statuses: &[i64],
        offset: usize,
    ) -> Result<Vec<PullRequest>, ApiError> {
        let doing = format!("list the pull requests of {repository}");
        let statuses = statuses.iter();
        let mut query: Vec<_> = statuses
            .map(|status| ("statusId[]", status.to_string()))
            .collect();
        query.push(("count", PAGE.to_string()));
        if offset > 0 {
            query.push(("offset", offset.to_string()));
        }
        let path = requests_of(repository);
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        self.call(&doing, Method::GET, &path, &query, None).await
    }

    /// One pull request.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn request(
        &self,
        repository: &RepositoryName,
        number: i64,
    ) -> Result<PullRequest, ApiError> {
        let doing = format!("ask for the pull request {number} of {repository}");
        let mut path = requests_of(repository);
        path.push(number.to_string());
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        self.get(&doing, &path).await
    }

    /// The comments of a pull request or an issue, in whatever order; and whether there are more than `limit`.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn comments(
        &self,
        place: Place<'_>,
        limit: usize,
    ) -> Result<(Vec<Comment>, bool), ApiError> {
        let doing = format!("list the comments of {place}");
        let path = place.path();
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let mut found: Vec<Comment> = Vec::new();
        loop {
            let oldest = found.iter().map(|comment| comment.id).min();
            let mut query = vec![("count", PAGE.to_string()), ("order", "desc".into())];
            query.extend(oldest.map(|oldest| ("maxId", oldest.to_string())));
            let page: Vec<Comment> = self.call(&doing, Method::GET, &path, &query, None).await?;
            let is_last = page.len() < PAGE;
            // The oldest one comes again, if the limit is one of those that it lets through.
            let before = found.len();
            let older = |comment: &Comment| oldest.is_none_or(|oldest| comment.id < oldest);
            found.extend(page.into_iter().filter(older));
            if is_last || found.len() == before {
                return Ok((found, false));
            }
            if found.len() > limit {
                return Ok((found, true));
            }
        }
    }

    /// Adds a comment, and notifies these users of it.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. Where [`ApiError::may_be_done`], look before asking again: there could be two.
    pub async fn add_comment(
        &self,
        place: Place<'_>,
        content: &str,
        notified: &[i64],
    ) -> Result<Comment, ApiError> {
        let doing = format!("comment {place}");
        let mut form = Serializer::new(String::new());
        form.append_pair("content", content);
        for user in notified {
            form.append_pair("notifiedUserId[]", &user.to_string());
        }
        let form = Form::of(form.finish());
        let path = place.path();
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        self.call(&doing, Method::POST, &path, &[], Some(form))
            .await
    }

    /// Gives a comment of one's own another text. Nobody is notified.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn change_comment(
        &self,
        place: Place<'_>,
        id: i64,
        content: &str,
    ) -> Result<Comment, ApiError> {
        let doing = format!("change a comment of {place}");
        let mut form = Serializer::new(String::new());
        let form = Form::of(form.append_pair("content", content).finish());
        let mut path = place.path();
        path.push(id.to_string());
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        self.call(&doing, Method::PATCH, &path, &[], Some(form))
            .await
    }
}
