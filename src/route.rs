//! The routing table: which ref of which repository goes to which object. Everything that is acted on comes from here;
//! a push only picks the routes to look at.

mod clash;
mod doubt;
mod draft;
mod entry;
mod explanation;
mod faults;
mod file;
mod object;
mod pattern;
mod pausing;
mod pipeline;
mod results;
mod schema;
mod space;

use std::{collections::HashMap, str::FromStr};

pub use self::{
    clash::{Clash, Clashes, Delivered, MAX_CLASHES, MAX_COMPARISONS},
    doubt::Doubt,
    draft::Draft,
    explanation::{Explanation, Match},
    faults::RouteTableError,
    file::MAX_TABLE_BYTES,
    object::{KeyError, KeyTemplate, ObjectKey, ROUTES_KEY},
    pattern::RefPattern,
    pausing::{NotPaused, with_paused},
    pipeline::PipelineName,
    results::{Results, ResultsIssue},
    schema::schema,
    space::{
        ApiKeySource, CredentialsSource, InvalidApiKeySource, InvalidCredentialsSource, Language,
        Preferred, Space,
    },
};
use crate::push::{CommitId, InvalidName, PushEvent, RefName, RepositoryName};

/// Which fields a table may have. It grows by one in a release that brings new fields, and the functions' environment says it,
/// so that no table is stored for functions that would refuse it. Release 0.1.0, which does not say it, reads 1.
pub const TABLE_FORMAT: u32 = 2;

/// All routes, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    spaces: Vec<Space>,
    routes: Vec<Route>,
    index: Index,
    newest: Option<NewField>,
}

/// A field of a table that not every bridge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewField {
    /// What it is called.
    pub name: &'static str,
    /// The first [`TABLE_FORMAT`] that has it.
    pub format: u32,
    /// Where it is first, counted from 1.
    pub line: usize,
}

/// Where routes are in [`RouteTable::routes`], for questions that come with every push and every delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Index {
    names: HashMap<String, usize>,
    repositories: HashMap<RepositoryName, Vec<usize>>,
    /// The exact routes, by the keys that they write to in whichever bucket.
    exact_keys: HashMap<String, Vec<usize>>,
}

impl Index {
    fn of(routes: &[Route]) -> Self {
        let mut repositories: HashMap<_, Vec<_>> = HashMap::new();
        let mut exact_keys: HashMap<_, Vec<_>> = HashMap::new();
        for (at, route) in routes.iter().enumerate() {
            let same = repositories.entry(route.repository.clone());
            same.or_default().push(at);
            if let Some(Ok(key)) = route.pattern.exact().map(|exact| route.key(exact)) {
                exact_keys.entry(key.to_string()).or_default().push(at);
            }
        }
        let all = routes.iter().enumerate();
        Self {
            names: all.map(|(at, route)| (route.name.clone(), at)).collect(),
            repositories,
            exact_keys,
        }
    }
}

/// One line from refs of one repository to objects in one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    name: String,
    /// Where the route's space is in [`RouteTable::spaces`].
    space: usize,
    repository: RepositoryName,
    pattern: RefPattern,
    object: KeyTemplate,
    bucket: String,
    sweep: Sweep,
    is_paused: bool,
    pipeline: Option<PipelineName>,
    results: Option<Results>,
    lines: Lines,
}

/// Where the fields of a route are in the file, from 1. One that is left out is where the route begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines {
    repository: usize,
    pattern: usize,
    object: usize,
}

/// Which refs the sweep delivers when no webhook told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// All that match.
    All,
    /// Those that have an object already, so that a first sweep over `refs/heads/*` does not deploy every old branch.
    Existing,
}

/// Who wrote the table, and so how far it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A deployed bridge reads it: `https` only.
    Deployed,
    /// Someone at a terminal named the file: `file` too, and `http` to the same machine, both without credentials.
    CommandLine,
}

/// One object that a ref is delivered to, and all it takes to do so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The route's name.
    pub route: String,
    /// The space's [`SpaceUrl::mark`](crate::space::SpaceUrl::mark).
    pub space: String,
    /// The URL to fetch from: `{space}/{project}/{repository}.git`, percent-encoded where a URL needs it.
    pub url: String,
    /// Whether the space is one of Backlog, which has pages of commits.
    pub on_backlog: bool,
    /// Who may read it.
    pub credentials: CredentialsSource,
    /// The repository.
    pub repository: RepositoryName,
    /// The ref.
    pub ref_name: RefName,
    /// The bucket to write to.
    pub bucket: String,
    /// The object to write.
    pub key: ObjectKey,
}

impl Destination {
    /// The page of a commit, if the repository is on Backlog.
    #[must_use]
    pub fn commit_url(&self, commit: CommitId) -> Option<String> {
        let repository = self.url.strip_suffix(".git")?;
        self.on_backlog
            .then(|| format!("{repository}/commit/{commit}"))
    }
}

/// Who may own an object: a ref of a repository, in one space or in any.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The space's [`SpaceUrl::mark`](crate::space::SpaceUrl::mark); `None` if it may be any.
    pub space: Option<&'a str>,
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The ref.
    pub ref_name: &'a RefName,
}

/// A route takes a ref whose name makes no object key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot name the object of {ref_name} in the route {route:?}")]
pub struct DestinationError {
    /// The route's name.
    pub route: String,
    /// The ref.
    pub ref_name: RefName,
    /// What is wrong with the key.
    pub source: KeyError,
}

impl RouteTable {
    fn new(spaces: Vec<Space>, routes: Vec<Route>, newest: Option<NewField>) -> Self {
        Self {
            index: Index::of(&routes),
            spaces,
            routes,
            newest,
        }
    }

    /// The field that needs the newest bridge; `None` if every bridge can read this table.
    #[must_use]
    pub fn newest_field(&self) -> Option<NewField> {
        self.newest
    }

    /// Reads a routing table. `default_bucket` is `SOURCE_BUCKET`, for routes that name no bucket.
    ///
    /// # Errors
    ///
    /// [`RouteTableError`] names every fault that was found, with `file` and its line.
    pub fn parse(
        file: &str,
        text: &str,
        default_bucket: Option<&str>,
        origin: Origin,
    ) -> Result<Self, RouteTableError> {
        file::read(file, text, default_bucket, origin)
    }

    /// The same with variables of the environment in place of secrets, where they are preferred.
    #[must_use]
    pub fn preferring(mut self, preferred: Preferred) -> Self {
        preferred.apply(&mut self.spaces);
        self
    }

    /// All routes, in the order in which they were written.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// All spaces, in the order in which they were written.
    #[must_use]
    pub fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    /// The route of this name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        let at = *self.index.names.get(name)?;
        self.routes.get(at)
    }

    /// The routes of a repository of this name, in whichever space, in the order in which they were written.
    fn routes_of(&self, repository: &RepositoryName) -> impl Iterator<Item = &Route> {
        let places = self.index.repositories.get(repository);
        places.into_iter().flatten().map(|at| &self.routes[*at])
    }

    /// Where the route of this name delivers a ref to; `None` if there is no such route, or it does not take the ref.
    #[must_use]
    pub fn destination(
        &self,
        route: &str,
        repository: &RepositoryName,
        ref_name: &RefName,
    ) -> Option<Result<Destination, DestinationError>> {
        let route = self.route(route)?;
        let takes = route.takes(repository, ref_name);
        takes.then(|| route.destination(self.space_of(route), ref_name))
    }

    /// The routes whose object a pipeline of this name may watch.
    pub fn of_pipeline<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Route> {
        let routes = self.routes.iter();
        routes.filter(move |route| {
            let pipeline = route.pipeline.as_ref();
            pipeline.is_some_and(|own| own.may_be(name))
        })
    }

    /// What pull requests are told of a route's pipeline.
    #[must_use]
    pub fn results_of(&self, route: &Route) -> Results {
        route.results.unwrap_or(self.space_of(route).results)
    }

    /// Whether there is a space with this [`SpaceUrl::mark`](crate::space::SpaceUrl::mark).
    #[must_use]
    pub fn has_space(&self, mark: &str) -> bool {
        self.spaces.iter().any(|space| space.url.mark() == mark)
    }

    /// The space that a route's repository is in.
    #[must_use]
    pub fn space_of(&self, route: &Route) -> &Space {
        &self.spaces[route.space]
    }

    /// Where a push is delivered to: once for every route that takes it. A webhook that names its space picks from the
    /// routes of that space, any other from all.
    #[must_use]
    pub fn matching(&self, push: &PushEvent) -> Vec<Result<Destination, DestinationError>> {
        self.routes_of(&push.repository)
            .map(|route| (route, self.space_of(route)))
            .filter(|(_, space)| push.space_url.as_ref().is_none_or(|url| *url == space.url))
            .filter(|(route, _)| route.takes(&push.repository, &push.ref_name))
            .map(|(route, space)| route.destination(space, &push.ref_name))
            .collect()
    }

    /// Whether the table gives an object to a claimant. What an exact route names belongs to it alone; anything else to
    /// every glob that leads the ref there.
    #[must_use]
    pub fn gives(&self, bucket: &str, key: &str, to: &Claimant<'_>) -> bool {
        let is_to = |route: &Route| {
            let is_space = |space| self.space_of(route).url.mark() == space;
            route.takes(to.repository, to.ref_name) && to.space.is_none_or(is_space)
        };
        let mut named = self.named(bucket, key).peekable();
        if named.peek().is_some() {
            return named.any(is_to);
        }
        self.routes_of(to.repository).any(|route| {
            route.bucket == bucket
                && is_to(route)
                && route.key(to.ref_name).is_ok_and(|own| own.as_str() == key)
        })
    }

    /// The first exact route that names an object.
    #[must_use]
    pub fn owner(&self, bucket: &str, key: &str) -> Option<&Route> {
        self.named(bucket, key).next()
    }

    /// The routes to which the table gives an object, each with the refs that lead there.
    #[must_use]
    pub fn claimants(&self, bucket: &str, key: &str) -> Vec<(&Route, RefName)> {
        let named = self.named(bucket, key);
        let named = named.filter_map(|route| Some((route, route.pattern.exact()?.clone())));
        let named: Vec<_> = named.collect();
        if !named.is_empty() {
            return named;
        }
        let globs = self.routes.iter().filter(|route| route.bucket == bucket);
        let globs = globs.filter(|route| route.pattern.exact().is_none());
        let refs = globs.flat_map(|route| {
            let refs = route.refs_of(key).into_iter();
            refs.map(move |name| (route, name))
        });
        refs.collect()
    }

    fn named(&self, bucket: &str, key: &str) -> impl Iterator<Item = &Route> {
        let places = self.index.exact_keys.get(key).into_iter().flatten();
        let routes = places.map(|at| &self.routes[*at]);
        routes.filter(move |route| route.bucket == bucket)
    }
}

impl Route {
    /// The route's name, unlike that of any other route. Default: repository and ref, such as `APP/web refs/heads/main`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The repository that the route takes refs from.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The refs that it takes.
    #[must_use]
    pub fn pattern(&self) -> &RefPattern {
        &self.pattern
    }

    /// The object that it writes.
    #[must_use]
    pub fn object(&self) -> &KeyTemplate {
        &self.object
    }

    /// The bucket that it writes to.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Which of them the sweep delivers.
    #[must_use]
    pub fn sweep(&self) -> Sweep {
        self.sweep
    }

    /// Whether nothing is delivered of it for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The pipeline that watches the object of a ref, if the table names it.
    #[must_use]
    pub fn pipeline(&self, ref_name: &RefName) -> Option<String> {
        let pipeline = self.pipeline.as_ref()?;
        Some(pipeline.of(ref_name))
    }

    /// The pipelines that it names: none, one, or those that a template makes of refs.
    #[must_use]
    pub fn pipelines(&self) -> Option<&PipelineName> {
        self.pipeline.as_ref()
    }

    /// Whether it may take more than one ref.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.pattern.exact().is_none()
    }

    /// What the keys of all its objects begin with.
    #[must_use]
    pub fn key_start(&self) -> String {
        self.object.start(&self.repository)
    }

    /// The refs it takes that lead to the object of this key.
    #[must_use]
    pub fn refs_of(&self, key: &str) -> Vec<RefName> {
        let mut refs = self.object.refs(&self.repository, key);
        refs.retain(|name| self.pattern.matches(name));
        refs
    }

    /// Whether the route takes this ref of this repository.
    #[must_use]
    pub fn takes(&self, repository: &RepositoryName, ref_name: &RefName) -> bool {
        self.repository == *repository && self.pattern.matches(ref_name)
    }

    /// Where a ref that the route takes is delivered to. `space` is [`RouteTable::space_of`] the route.
    ///
    /// # Errors
    ///
    /// [`DestinationError`] if the ref's name makes no object key.
    pub fn destination(
        &self,
        space: &Space,
        ref_name: &RefName,
    ) -> Result<Destination, DestinationError> {
        let key = self.key(ref_name).map_err(|source| DestinationError {
            route: self.name.clone(),
            ref_name: ref_name.clone(),
            source,
        })?;
        Ok(Destination {
            route: self.name.clone(),
            space: space.url.mark(),
            url: self.repository.url_in(&space.url),
            on_backlog: space.url.is_backlog(),
            credentials: space.credentials.clone(),
            repository: self.repository.clone(),
            ref_name: ref_name.clone(),
            bucket: self.bucket.clone(),
            key,
        })
    }

    fn key(&self, ref_name: &RefName) -> Result<ObjectKey, KeyError> {
        self.object.expand(&self.repository, ref_name)
    }
}

impl FromStr for Sweep {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "all" => Ok(Self::All),
            "existing" => Ok(Self::Existing),
            _ => Err(InvalidName::new("\"all\" or \"existing\"", text)),
        }
    }
}

/// Takes a text as the name of a bucket by the rules that S3 has for new ones.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
pub(crate) fn bucket_name(text: &str) -> Result<String, InvalidName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let valid = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&b| plain(b) || b == b'.' || b == b'-')
        && bytes.first().is_some_and(|&b| plain(b))
        && bytes.last().is_some_and(|&b| plain(b))
        && !text.contains("..")
        && text.parse::<std::net::Ipv4Addr>().is_err();
    if valid {
        Ok(text.to_owned())
    } else {
        let is_url = text.contains("://") || text.starts_with("arn:");
        let expected = if is_url {
            "the name of a bucket alone, without s3:// and key"
        } else {
            "a bucket name of 3 to 63 lower-case letters, digits, dots and hyphens"
        };
        Err(InvalidName::new(expected, text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_routed(
        table: &RouteTable,
        bucket: &str,
        key: &str,
        repository: &RepositoryName,
        ref_name: &RefName,
    ) -> bool {
        let claimant = Claimant {
            space: None,
            repository,
            ref_name,
        };
        table.gives(bucket, key, &claimant)
    }

    fn table(text: &str) -> RouteTable {
        RouteTable::parse("routes.toml", text, Some("sources"), Origin::Deployed)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn two_spaces() -> RouteTable {
        table(
            r#"
            [[space]]
            name = "ours"
            url = "https://example.backlog.com/git"
            credentials = "secret:backlog-bridge/git"
            [[space]]
            name = "theirs"
            url = "https://partner.backlog.jp/git/"
            credentials = "env:PARTNER"

            [[route]]
            name = "web-main"
            space = "ours"
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "web/main.zip"
            [[route]]
            name = "web-any"
            space = "ours"
            repository = "APP/web"
            ref = "refs/heads/*"
            object = "{project}/{repository}/{ref}.zip"
            bucket = "branches"
            [[route]]
            space = "theirs"
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "partner.zip"
            sweep = "existing"
            "#,
        )
    }

    fn push(space_url: Option<&str>, repository: &str, ref_name: &str) -> PushEvent {
        PushEvent {
            space_url: space_url.map(|url| url.parse().unwrap()),
            repository: repository.parse().unwrap(),
            ref_name: ref_name.parse().unwrap(),
            is_deleted: false,
            before: None,
            commits: Vec::new(),
        }
    }

    #[test]
    fn every_route_that_takes_a_push_delivers_it() {
        let table = two_spaces();
        let ours = Some("https://example.backlog.com/git");
        let theirs = Some("https://partner.backlog.jp/git");
        for (case, push, expected) in [
            (
                "a Git webhook",
                push(ours, "APP/web", "refs/heads/main"),
                &["web-main", "web-any"][..],
            ),
            (
                "of the other space",
                push(theirs, "APP/web", "refs/heads/main"),
                &["APP/web refs/heads/main"],
            ),
            (
                "of a third space",
                push(
                    Some("https://x.backlog.com/git"),
                    "APP/web",
                    "refs/heads/main",
                ),
                &[],
            ),
            (
                "a project webhook",
                push(None, "APP/web", "refs/heads/main"),
                &["web-main", "web-any", "APP/web refs/heads/main"],
            ),
            (
                "a branch",
                push(None, "APP/web", "refs/heads/release/1"),
                &["web-any"],
            ),
            ("a tag", push(None, "APP/web", "refs/tags/main"), &[]),
            (
                "another repository",
                push(None, "APP/webs", "refs/heads/main"),
                &[],
            ),
            (
                "another case",
                push(None, "app/web", "refs/heads/main"),
                &[],
            ),
        ] {
            let matching = table.matching(&push);
            let names: Vec<_> = matching
                .iter()
                .map(|to| to.as_ref().unwrap().route.as_str())
                .collect();
            assert_eq!(names, expected, "{case}");
        }
    }

    #[test]
    fn a_destination_comes_from_the_table() {
        let table = two_spaces();
        let ref_name: RefName = "refs/heads/機能/画面".parse().unwrap();
        let route = table.route("web-any").unwrap();
        let destination = route.destination(table.space_of(route), &ref_name);
        assert_eq!(
            destination,
            Ok(Destination {
                route: "web-any".to_owned(),
                space: "https://example.backlog.com/git".into(),
                url: "https://example.backlog.com/git/APP/web.git".to_owned(),
                on_backlog: true,
                credentials: CredentialsSource::Secret {
                    name: "backlog-bridge/git".to_owned()
                },
                repository: "APP/web".parse().unwrap(),
                ref_name,
                bucket: "branches".to_owned(),
                key: "APP/web/機能/画面.zip".parse().unwrap(),
            })
        );
    }

    #[test]
    fn a_ref_that_makes_no_key_is_an_error_with_a_reason() {
        let table = two_spaces();
        let push = push(None, "APP/web", &format!("refs/heads/{}", "n".repeat(1013)));
        let [Err(error)] = &table.matching(&push)[..] else {
            panic!("one route takes it");
        };
        assert_eq!(error.route, "web-any");
        assert_eq!(error.source, KeyError::TooLong { bytes: 1025 });
        assert!(!is_routed(
            &table,
            "branches",
            "x",
            &push.repository,
            &push.ref_name
        ));
    }

    #[test]
    fn the_sweep_is_careful_with_globs() {
        let table = two_spaces();
        let sweeps: Vec<_> = table.routes().iter().map(Route::sweep).collect();
        assert_eq!(sweeps, [Sweep::All, Sweep::Existing, Sweep::Existing]);
    }

    #[test]
    fn a_table_explains_itself() {
        let table = two_spaces();
        let explain = |repository: &str, ref_name: &str| {
            let explanations =
                table.explain(&repository.parse().unwrap(), &ref_name.parse().unwrap());
            explanations
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(
            explain("APP/web", "refs/heads/dev"),
            "web-main: does not match: takes refs/heads/main\n\
             web-any: writes s3://branches/APP/web/dev.zip\n\
             APP/web refs/heads/main: does not match: takes refs/heads/main"
        );
        assert_eq!(
            explain("APP/api", "refs/heads/main"),
            "web-main: does not match: takes the repository APP/web\n\
             web-any: does not match: takes the repository APP/web\n\
             APP/web refs/heads/main: does not match: takes the repository APP/web"
        );
        let long = format!("refs/heads/{}", "n".repeat(1013));
        assert!(
            explain("APP/web", &long)
                .contains("web-any: matches, but cannot write: expected an object key")
        );
    }

    #[test]
    fn an_object_is_routed_while_a_route_writes_it() {
        let table = two_spaces();
        for (case, bucket, key, repository, ref_name, expected) in [
            (
                "exact",
                "sources",
                "web/main.zip",
                "APP/web",
                "refs/heads/main",
                true,
            ),
            (
                "glob",
                "branches",
                "APP/web/a/b.zip",
                "APP/web",
                "refs/heads/a/b",
                true,
            ),
            (
                "another ref",
                "sources",
                "web/main.zip",
                "APP/web",
                "refs/heads/dev",
                false,
            ),
            (
                "another repository",
                "sources",
                "web/main.zip",
                "APP/api",
                "refs/heads/main",
                false,
            ),
            (
                "another bucket",
                "branches",
                "web/main.zip",
                "APP/web",
                "refs/heads/main",
                false,
            ),
            (
                "another key",
                "sources",
                "web/main2.zip",
                "APP/web",
                "refs/heads/main",
                false,
            ),
        ] {
            let routed = is_routed(
                &table,
                bucket,
                key,
                &repository.parse().unwrap(),
                &ref_name.parse().unwrap(),
            );
            assert_eq!(routed, expected, "{case}");
        }
    }

    #[test]
    fn an_object_is_given_to_whom_the_table_names() {
        let table = table(
            r#"
            [[space]]
            name = "ours"
            url = "https://example.backlog.com/git"
            [[space]]
            name = "theirs"
            url = "https://partner.backlog.jp/git"
            [[route]]
            name = "prod"
            space = "ours"
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "site/prod.zip"
            [[route]]
            name = "any"
            space = "ours"
            repository = "APP/web"
            ref = "refs/heads/*"
            object = "site/{ref}.zip"
            [[route]]
            name = "partner's"
            space = "theirs"
            repository = "APP/web"
            ref = "refs/tags/*"
            object = "site/{ref}.zip"
            [[route]]
            name = "others"
            space = "theirs"
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "site/v1.zip"
            bucket = "others"
            "#,
        );
        let ours = Some("https://example.backlog.com/git");
        let theirs = Some("https://partner.backlog.jp/git");
        for (case, key, space, repository, ref_name, expected) in [
            (
                "exact",
                "site/prod.zip",
                ours,
                "APP/web",
                "refs/heads/main",
                true,
            ),
            (
                "exact, of any space",
                "site/prod.zip",
                None,
                "APP/web",
                "refs/heads/main",
                true,
            ),
            (
                "exact, another space",
                "site/prod.zip",
                theirs,
                "APP/web",
                "refs/heads/main",
                false,
            ),
            (
                "exact, no URL",
                "site/prod.zip",
                Some("x"),
                "APP/web",
                "refs/heads/main",
                false,
            ),
            (
                "exact, a glob's branch",
                "site/prod.zip",
                ours,
                "APP/web",
                "refs/heads/prod",
                false,
            ),
            (
                "exact, another repository",
                "site/prod.zip",
                ours,
                "APP/api",
                "refs/heads/main",
                false,
            ),
            (
                "a glob",
                "site/main.zip",
                ours,
                "APP/web",
                "refs/heads/main",
                true,
            ),
            (
                "another ref of it",
                "site/main.zip",
                ours,
                "APP/web",
                "refs/heads/dev",
                false,
            ),
            (
                "one glob",
                "site/v1.zip",
                ours,
                "APP/web",
                "refs/heads/v1",
                true,
            ),
            (
                "the other glob",
                "site/v1.zip",
                theirs,
                "APP/web",
                "refs/tags/v1",
                true,
            ),
            (
                "the other glob's ref in this space",
                "site/v1.zip",
                ours,
                "APP/web",
                "refs/tags/v1",
                false,
            ),
            (
                "exact in another bucket",
                "site/v1.zip",
                theirs,
                "APP/web",
                "refs/heads/main",
                false,
            ),
            (
                "nobody's key",
                "web.zip",
                ours,
                "APP/web",
                "refs/heads/main",
                false,
            ),
        ] {
            let to = Claimant {
                space,
                repository: &repository.parse().unwrap(),
                ref_name: &ref_name.parse().unwrap(),
            };
            assert_eq!(table.gives("sources", key, &to), expected, "{case}");
        }
    }

    #[test]
    fn credentials_have_a_source() {
        let secret = |name: &str| {
            Some(CredentialsSource::Secret {
                name: name.to_owned(),
            })
        };
        let env = |prefix: &str| {
            Some(CredentialsSource::Env {
                prefix: prefix.to_owned(),
            })
        };
        let arn = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:git-AbCdEf";
        for (case, text, expected) in [
            (
                "a secret",
                "secret:backlog-bridge/git",
                secret("backlog-bridge/git"),
            ),
            ("its ARN", &format!("secret:{arn}"), secret(arn)),
            ("the environment", "env:BACKLOG_2", env("BACKLOG_2")),
            ("no name", "secret:", None),
            ("no prefix", "env:", None),
            ("no variable", "env:2", None),
            ("a blank", "env:BACK LOG", None),
            ("a password", "taro:s3cret", None),
            ("nothing", "", None),
        ] {
            assert_eq!(text.parse::<CredentialsSource>().ok(), expected, "{case}");
        }
    }

    #[test]
    fn a_bucket_has_a_name_that_s3_takes() {
        let longest = "b".repeat(63);
        let too_long = "b".repeat(64);
        for (case, text, valid) in [
            ("plain", "sources", true),
            ("all it may hold", "my.sources-2", true),
            ("short", "abc", true),
            ("long", &longest, true),
            ("too short", "ab", false),
            ("too long", &too_long, false),
            ("upper case", "Sources", false),
            ("an underscore", "my_sources", false),
            ("a hyphen first", "-sources", false),
            ("a dot last", "sources.", false),
            ("two dots", "my..sources", false),
            ("an address", "192.168.5.4", false),
            ("Japanese", "倉庫倉庫", false),
        ] {
            assert_eq!(bucket_name(text).is_ok(), valid, "{case}");
        }
    }

    #[test]
    fn the_example_is_a_routing_table() {
        let text = include_str!("../routes.example.toml");
        let parse =
            |origin| RouteTable::parse("routes.example.toml", text, Some("sources"), origin);
        let table = parse(Origin::Deployed).unwrap_or_else(|error| panic!("{error}"));
        assert!(!table.routes().is_empty());
        assert_eq!(parse(Origin::CommandLine), Ok(table));
    }

    /// Three exact routes and one glob, over and over, each of another repository.
    fn many(routes: usize) -> String {
        let space =
            "[[space]]\nurl = \"https://example.backlog.com/git\"\ncredentials = \"secret:git\"\n";
        let route = |at: usize| {
            let (name, pattern, object) = match at % 4 {
                3 => (
                    "all",
                    "refs/heads/*",
                    "{project}/{repository}/{ref}.zip".into(),
                ),
                _ => (
                    "main",
                    "refs/heads/main",
                    format!("repository-{at}/main.zip"),
                ),
            };
            format!(
                "[[route]]\nname = \"{name}-{at}\"\nrepository = \"APP/repository-{at}\"\nref = \"{pattern}\"\nobject = \"{object}\"\n"
            )
        };
        space.to_owned() + &(0..routes).map(route).collect::<String>()
    }

    /// The shortest of five times, and the work it took.
    fn seconds<T>(work: impl Fn() -> T) -> (f64, T) {
        let time = || {
            let started = std::time::Instant::now();
            let done = work();
            (started.elapsed().as_secs_f64(), done)
        };
        let times = std::iter::repeat_with(time).take(5);
        times
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
            .expect("five times")
    }

    #[test]
    fn a_table_is_read_in_time_that_grows_as_the_table_does() {
        let (few, many) = (many(500), many(5_000));
        let (of_few, _) = seconds(|| table(&few));
        let (of_many, _) = seconds(|| table(&many));
        // Ten times as many routes took more than a hundred times as long when every line was counted from the start.
        assert!(of_many < 40.0 * of_few, "{of_few} s, then {of_many} s");
    }

    /// `cargo test --release --lib -- --ignored --nocapture ten_thousand`
    #[test]
    #[ignore = "a measurement, of a release build"]
    fn ten_thousand_routes_are_read_in_a_tenth_of_a_second() {
        let (few, many) = (many(1_000), many(10_000));
        let (of_few, _) = seconds(|| table(&few));
        let (of_many, _) = seconds(|| table(&many));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        println!(
            "1,000 routes: {of_few:.4} s; 10,000 routes, {} bytes: {of_many:.4} s, {:.1} times as long; peak memory: {}",
            many.len(),
            of_many / of_few,
            peak.unwrap_or("unknown").trim()
        );
        assert!(of_many <= 0.1 && of_many <= 15.0 * of_few);
    }

    proptest! {
        #[test]
        fn what_matches_is_routed_and_explained(short in "[a-z]{1,4}(/[a-z]{1,4})?", repository in "APP/(web|api)") {
            let table = two_spaces();
            let push = push(None, &repository, &format!("refs/heads/{short}"));
            let matching: Vec<_> = table.matching(&push).into_iter().map(Result::unwrap).collect();
            for to in &matching {
                prop_assert!(is_routed(&table, &to.bucket, to.key.as_str(), &push.repository, &push.ref_name));
            }
            let written = table.explain(&push.repository, &push.ref_name).into_iter().filter_map(|e| match e.outcome {
                Match::Writes { bucket, key } => Some((e.route, bucket, key)),
                _ => None,
            });
            let expected = matching.into_iter().map(|to| (to.route, to.bucket, to.key));
            prop_assert!(written.eq(expected));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let text = format!("[[space]]\nurl = \"https://x/git\"\n[[route]]\n{text}");
            let table = RouteTable::parse("routes.toml", &text, Some("sources"), Origin::Deployed);
            let _ = table.map(|table| table.clashes());
        }
    }
}
