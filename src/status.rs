//! Where each object stands: what it holds, where its ref points, and whether that is as it should be. Nothing is delivered.

mod standing;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::{
    deliver::{Deliverer, too_many, wanted},
    error::{Error, chain},
    outcome::Fault,
    plain,
    push::{CommitId, RefName, RepositoryName},
    remote::Connections,
    route::{Route, RouteTable, Space},
};

/// How many repositories, and how many objects, are asked at once.
const AT_ONCE: usize = 16;

/// Where an object stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds the tip.
    Current,
    /// It holds another commit of the ref.
    Behind,
    /// It holds a later commit than the tip, which is delivered after a second look.
    Held,
    /// There is no object.
    NeverDelivered,
    /// The ref is gone, and the object stays.
    BranchGone,
    /// It holds something else than a delivery of this ref.
    Foreign,
    /// Its route is paused.
    Paused,
    /// The Git server or S3 cannot be asked.
    Unknown,
}

/// In words for people.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Held => "held",
            Self::NeverDelivered => "never delivered",
            Self::BranchGone => "branch gone",
            Self::Foreign => "foreign",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        })
    }
}

/// Where one object stands. Its fields and their names are a contract; what is not known is absent.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The route's name.
    pub route: String,
    /// The repository.
    pub repository: String,
    /// The ref; the refs of a glob, where they cannot be had.
    #[serde(rename = "ref")]
    pub ref_name: String,
    /// Where the ref points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tip: Option<String>,
    /// The commit that the object holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Where it stands, in a word.
    pub state: State,
    /// When the version that it holds was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why, where the word does not say it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_key: Option<String>,
    /// The object's current version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The pipeline that watches the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// What became of its newest execution, as CodePipeline says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_status: Option<String>,
    /// Whether somebody has to look at it.
    #[serde(skip)]
    pub is_wrong: bool,
    /// What would stand in a delivery's way.
    #[serde(skip)]
    fault: Option<Fault>,
    /// What a delivery would replace, where people should know.
    #[serde(skip)]
    replaces: Option<String>,
}

/// Where objects stand, in the order of the table, and by the name of the ref within a route.
#[derive(Debug, Default)]
pub struct Statuses {
    /// One for each.
    pub all: Vec<Status>,
    /// What could not be looked at, one sentence each.
    pub warnings: Vec<String>,
}

/// The refs of one repository, or why they cannot be had.
type Refs = Result<BTreeMap<RefName, CommitId>, Error>;

/// A ref of a route, and where it points as far as that is known.
struct Asked<'a> {
    route: &'a Route,
    ref_name: RefName,
    tip: Result<Option<CommitId>, &'a Error>,
}

impl Statuses {
    /// Looks at the objects of `routes`; of `only` one ref, if there is one. Each repository is asked once, each object once.
    pub async fn look(
        bridge: &Deliverer,
        table: &RouteTable,
        routes: &[&Route],
        only: Option<&RefName>,
    ) -> Self {
        let refs = refs(bridge, table, routes).await;
        let keys = stream::iter(routes)
            .map(async |route| keys(bridge, route).await)
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut warnings = Vec::new();
        let (mut asked, mut unknown) = (Vec::new(), Vec::new());
        for (route, keys) in routes.iter().zip(keys) {
            let keys = keys.unwrap_or_else(|err| {
                warnings.push(format!(
                    "{}: objects of refs that are gone are left out; allow s3:ListBucket to see them: {}",
                    route.name(),
                    chain(&err)
                ));
                Vec::new()
            });
            let url = route.repository().url_in(table.space_of(route).url());
            let before = asked.len();
            asked.extend(of_route(route, &refs[&url], &keys, only));
            // A glob of which nothing is known still is a line.
            if let (true, Err(err)) = (asked.len() == before && route.is_glob(), &refs[&url]) {
                unknown.push((
                    before,
                    Status::unknown(route, route.pattern().as_str(), err),
                ));
            }
        }
        let all = stream::iter(&asked).map(async |asked| asked.look(bridge, table).await);
        let mut all: Vec<_> = all.buffered(AT_ONCE).collect().await;
        for (at, status) in unknown.into_iter().rev() {
            all.insert(at, status);
        }
        Self { all, warnings }
    }

    /// The refs of a glob that have an object, whether the Git server has them or not.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn refs_with_objects(
        bridge: &Deliverer,
        route: &Route,
    ) -> Result<Vec<RefName>, Error> {
        let keys = keys(bridge, route).await?;
        let refs = keys.iter().map(|key| route.refs_of(key));
        Ok(refs.filter_map(|refs| refs.into_iter().next()).collect())
    }

    /// Whether somebody has to look at one.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.all.iter().any(|status| status.is_wrong)
    }
}

/// The refs of all repositories, by their URLs.
async fn refs(bridge: &Deliverer, table: &RouteTable, routes: &[&Route]) -> HashMap<String, Refs> {
    let mut groups: BTreeMap<String, (&Space, &RepositoryName, Vec<&Route>)> = BTreeMap::new();
    for &route in routes {
        let space = table.space_of(route);
        let url = route.repository().url_in(space.url());
        let group = groups.entry(url);
        let group = group.or_insert_with(|| (space, route.repository(), Vec::new()));
        group.2.push(route);
    }
    let all = stream::iter(groups).map(async |(url, (space, repository, routes))| {
        let wanted = wanted(routes);
        let own = Connections::default();
        let refs = bridge.refs(space, repository, wanted, None, true, own);
        let refs = Box::pin(refs).await;
        let refs = refs.and_then(|refs| {
            let found = refs.found.into_iter();
            let found = found.map(|(name, tip)| (name, tip.commit)).collect();
            if refs.is_cut {
                Err(too_many(repository))
            } else {
                Ok(found)
            }
        });
        (url, refs)
    });
    all.buffer_unordered(AT_ONCE).collect().await
}

/// The keys of a glob's objects. An exact route has one, which is known.
async fn keys(bridge: &Deliverer, route: &Route) -> Result<Vec<String>, Error> {
    if !route.is_glob() {
        return Ok(Vec::new());
    }
    bridge.s3.keys(route.bucket(), &route.key_start()).await
}

/// The refs of a route that are on the Git server or have an object.
fn of_route<'a>(
    route: &'a Route,
    refs: &'a Refs,
    keys: &[String],
    only: Option<&RefName>,
) -> Vec<Asked<'a>> {
    let mut names: HashSet<RefName> = route.pattern().exact().into_iter().cloned().collect();
    if let Ok(refs) = refs {
        let taken = refs.keys().filter(|name| route.pattern().matches(name));
        names.extend(taken.cloned());
    }
    // Of a branch and a tag that lead to one object, the one that is there.
    let mut keys: Vec<_> = keys.iter().map(|key| route.refs_of(key)).collect();
    keys.retain(|leading| !leading.iter().any(|name| names.contains(name)));
    names.extend(
        keys.into_iter()
            .filter_map(|leading| leading.into_iter().next()),
    );
    let mut names: Vec<_> = names.into_iter().collect();
    names.retain(|name| only.is_none_or(|only| only == name));
    names.sort_unstable();
    let asked = names.into_iter().map(|ref_name| Asked {
        tip: refs.as_ref().map(|refs| refs.get(&ref_name).copied()),
        route,
        ref_name,
    });
    asked.collect()
}

impl Asked<'_> {
    async fn look(&self, bridge: &Deliverer, table: &RouteTable) -> Status {
        let Self {
            route, ref_name, ..
        } = self;
        let mut status = Status::of(route, ref_name.as_str());
        status.pipeline = route.pipeline(ref_name);
        if let Ok(tip) = self.tip {
            status.tip = tip.map(|tip| tip.to_string());
        }
        let to = match route.destination(table.space_of(route), ref_name) {
            Ok(to) => to,
            Err(err) => return status.failed(&err.into()),
        };
        status.bucket = Some(to.bucket.clone());
        status.object_key = Some(to.key.to_string());
        let current = match bridge.s3.head((&to).into()).await {
            Ok(head) => head.current,
            Err(err) => return status.failed(&err),
        };
        if let Some(current) = &current {
            status.version_id.clone_from(&current.version_id);
            status.since = current.written.and_then(plain::time);
        }
        let replaces_unrouted = bridge.replaces_unrouted;
        status.judge(self, current.as_ref(), &to, table, replaces_unrouted);
        status
    }
}

impl Status {
    fn of(route: &Route, ref_name: &str) -> Self {
        Self {
            route: route.name().to_owned(),
            repository: route.repository().to_string(),
            ref_name: ref_name.to_owned(),
            tip: None,
            commit: None,
            state: State::Unknown,
            since: None,
            reason: None,
            bucket: None,
            object_key: None,
            version_id: None,
            pipeline: None,
            pipeline_status: None,
            is_wrong: false,
            fault: None,
            replaces: None,
        }
    }

    fn unknown(route: &Route, refs: &str, err: &Error) -> Self {
        Self {
            reason: Some(plain::message(chain(err))),
            fault: Some(err.into()),
            is_wrong: !route.is_paused(),
            state: if route.is_paused() {
                State::Paused
            } else {
                State::Unknown
            },
            ..Self::of(route, refs)
        }
    }

    fn failed(self, err: &Error) -> Self {
        Self {
            reason: Some(plain::message(chain(err))),
            is_wrong: true,
            fault: Some(err.into()),
            ..self
        }
    }
}
