//! A repository, a bucket, and a bridge between them: mostly, `main` of `APP/web` is delivered to one object.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use backlog_bridge::{
    bucket::S3,
    deliver::{
        Deliverer, Delivery, Success,
        step::{Hints, SecondLook},
    },
    error::chain,
    limits::Limits,
    route::{Destination, Origin, RouteTable},
    table::LiveTable,
};

use super::{
    BUCKET, KEY, MAIN,
    git_server::GitServer,
    oracle::{assert_readable_by_others, assert_zip_equals, expected_entries, read_zip},
    s3::{ACCESS_KEY, SECRET_KEY, StoredVersion, TestS3},
    upstream::{Repository, Upstream},
};

pub struct World {
    pub upstream: Upstream,
    pub repository: Repository,
    pub s3: TestS3,
    pub bridge: Deliverer,
    /// What a look at the tip is.
    pub second_look: SecondLook,
    /// Where the bridge reads its table.
    table_file: PathBuf,
    table: RouteTable,
}

impl World {
    /// On a repository that is read from disk.
    pub async fn new() -> Self {
        Self::with_routes(&[(MAIN, KEY)]).await
    }

    /// The same, with other `routes`: a pattern of refs and an object's key each.
    pub async fn with_routes(routes: &[(&str, &str)]) -> Self {
        let upstream = Upstream::new();
        let text = table_on_disk(&upstream, routes);
        Self::of(upstream, &text).await
    }

    /// On a server with TLS, which the process must trust.
    pub async fn with_server() -> (Self, GitServer) {
        let upstream = Upstream::new();
        let server = GitServer::start(upstream.root(), None);
        let text = table(&server.space_url(), &[(MAIN, KEY)]);
        (Self::of(upstream, &text).await, server)
    }

    async fn of(upstream: Upstream, text: &str) -> Self {
        let repository = upstream.repository("APP/web");
        let table_file = upstream.root().join("routes.toml");
        let table = store(&table_file, text);
        let s3 = TestS3::start().await;
        let bridge = Deliverer {
            s3: S3::at(s3.endpoint(), ACCESS_KEY, SECRET_KEY),
            table: LiveTable::in_file(table_file.clone(), Some(BUCKET.into())).into(),
            logins: Arc::default(),
            limits: Limits::default(),
            replaces_unrouted: true,
            tips: Arc::default(),
            listings: Arc::default(),
            silences: Arc::default(),
        };
        Self {
            upstream,
            repository,
            s3,
            second_look: SecondLook::Needed,
            bridge,
            table_file,
            table,
        }
    }

    /// Other routes from now on, on disk as before.
    pub fn set_routes(&mut self, routes: &[(&str, &str)]) {
        self.table = store(&self.table_file, &table_on_disk(&self.upstream, routes));
    }

    /// The repositories are at another URL from now on.
    pub fn move_space(&mut self, url: &str) {
        self.table = store(&self.table_file, &table(url, &[(MAIN, KEY)]));
    }

    /// A bridge like this one in another process.
    pub fn rival(&self) -> Deliverer {
        Deliverer {
            s3: self.bridge.s3.clone(),
            table: LiveTable::in_file(self.table_file.clone(), Some(BUCKET.into())).into(),
            logins: Arc::default(),
            limits: self.bridge.limits,
            replaces_unrouted: true,
            tips: Arc::default(),
            listings: Arc::default(),
            silences: Arc::default(),
        }
    }

    /// Runs a test on a server with TLS, in a process that must trust it.
    pub fn on_a_server(test: impl AsyncFnOnce(Self, GitServer)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (world, server) = Self::with_server().await;
            test(world, server).await;
        });
    }

    pub fn destination(&self) -> Destination {
        self.destination_of(MAIN)
    }

    pub fn destination_of(&self, ref_name: &str) -> Destination {
        let (repository, ref_name) = ("APP/web".parse().unwrap(), ref_name.parse().unwrap());
        let table = &self.table;
        let mut routes = table.routes().iter();
        let route = routes.find(|route| route.takes(&repository, &ref_name));
        let route = route.expect("a route of this ref");
        route.destination(table.space_of(route), &ref_name).unwrap()
    }

    pub async fn deliver(&self) -> Delivery {
        self.deliver_hinted(None).await
    }

    pub async fn deliver_hinted(&self, hints: Option<Hints>) -> Delivery {
        let to = self.destination();
        let (second_look, progress) = (self.second_look.clone(), Arc::default());
        self.bridge
            .deliver(&to, hints, second_look, &progress)
            .await
    }

    /// Delivers, for what is asked about it in the same line.
    pub async fn delivered(self) -> Delivered {
        let delivery = self.deliver().await;
        Delivered {
            world: self,
            delivery,
        }
    }

    /// Commits files on `main` and delivers.
    pub async fn deliver_change(self, files: &[(&str, &str)]) -> Delivered {
        let files: Vec<_> = files
            .iter()
            .map(|&(path, text)| (path, text.into()))
            .collect();
        self.repository.commit_on(MAIN, &files);
        self.delivered().await
    }

    /// Delivers the tip, which must become a new version, and compares that with what git says of the tip.
    pub async fn publish(&self, case: &str) -> Delivery {
        let delivery = self.deliver().await;
        match &delivery.result {
            Ok(Success::Published) => {}
            Ok(other) => panic!("{case}: {other:?}"),
            Err(err) => panic!("{case}: {}", chain(err)),
        }
        self.assert_newest_is_the_tip(case);
        delivery
    }

    /// Like [`publish`](Self::publish), and only what changed may be fetched.
    pub async fn publish_the_change(&self, case: &str) -> Delivery {
        let delivery = self.publish(case).await;
        assert_eq!(delivery.full_fetch, None, "{case}");
        delivery
    }

    pub fn assert_newest_is_the_tip(&self, case: &str) {
        let tip = self.repository.resolve(MAIN).expect(case);
        let newest = self.newest();
        assert_eq!(newest.metadata["git-commit"], tip, "{case}");
        let tree = self.repository.resolve(&format!("{tip}^{{tree}}"));
        assert_eq!(Some(&newest.metadata["git-tree"]), tree.as_ref(), "{case}");
        let expected = expected_entries(&self.repository, &tip);
        assert_zip_equals(&newest.bytes.unwrap(), &expected, &tip);
    }

    /// Lets every zip reader of this machine read the newest version.
    pub fn assert_newest_is_readable_by_others(&self) {
        let zip = self.newest().bytes.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &zip).unwrap();
        let tip = self.repository.resolve(MAIN).unwrap();
        let count = expected_entries(&self.repository, &tip).len();
        let readers = assert_readable_by_others(file.path(), count);
        println!("read by {readers:?}");
    }

    /// All versions, the newest first.
    pub fn versions(&self) -> Vec<StoredVersion> {
        self.s3.versions(BUCKET, KEY)
    }

    /// What each version holds, the newest first.
    pub fn commits(&self) -> Vec<String> {
        let versions = self.versions();
        let commits = versions
            .iter()
            .map(|version| &version.metadata["git-commit"]);
        commits.cloned().collect()
    }

    pub fn newest(&self) -> StoredVersion {
        self.s3.newest(BUCKET, KEY).unwrap()
    }

    /// Makes a new version of the newest one, with other bytes or metadata, as nobody should.
    pub async fn tamper(&self, with: impl FnOnce(&mut StoredVersion)) {
        let mut version = self.newest();
        with(&mut version);
        let client = self.s3.client();
        let mut put = client.put_object().bucket(BUCKET).key(KEY);
        for (name, value) in version.metadata {
            put = put.metadata(name, value);
        }
        let bytes = version.bytes.unwrap();
        put.body(bytes.into()).send().await.unwrap();
    }
}

/// Commits these files on `main` of a new repository, and delivers it.
pub async fn deliver(files: &[(&str, &str)]) -> Delivered {
    World::new().await.deliver_change(files).await
}

/// What became of a delivery, and the world in which it was.
pub struct Delivered {
    pub world: World,
    pub delivery: Delivery,
}

impl Delivered {
    /// The tip became a new version.
    pub fn published(self) -> Self {
        let it = self.ended(Success::Published);
        it.world.assert_newest_is_the_tip("published");
        it
    }

    /// # Panics
    ///
    /// If it did not end so.
    pub fn ended(self, expected: Success) -> Self {
        assert_eq!(outcome(&self.delivery), expected);
        self
    }

    /// The object's newest version holds these files and nothing else.
    pub fn holds(self, files: &[(&str, &str)]) -> Self {
        let zip = read_zip(&self.world.newest().bytes.unwrap()).unwrap();
        let members = zip.members.iter();
        let found: BTreeMap<_, _> = members
            .map(|file| (text(&file.name), text(&file.content)))
            .collect();
        let expected = files.iter().map(|&(name, content)| (name, content));
        assert_eq!(found, expected.collect());
        self
    }

    /// The object has so many versions.
    pub fn of_versions(self, count: usize) -> Self {
        assert_eq!(self.world.versions().len(), count);
        self
    }

    /// Delivers once more.
    pub async fn again(self) -> Self {
        self.world.delivered().await
    }
}

/// How a delivery ended.
///
/// # Panics
///
/// If it failed.
pub fn outcome(delivery: &Delivery) -> Success {
    let result = delivery.result.as_ref();
    *result.unwrap_or_else(|err| panic!("{}", chain(err)))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn table_on_disk(upstream: &Upstream, routes: &[(&str, &str)]) -> String {
    table(&format!("file://{}", upstream.root().display()), routes)
}

/// Routes of `APP/web`: a pattern of refs and an object's key each.
fn table(url: &str, routes: &[(&str, &str)]) -> String {
    let mut text = format!("[[space]]\nurl = \"{url}\"\n");
    for (ref_name, key) in routes {
        write!(
            text,
            "[[route]]\nname = \"{ref_name}\"\nrepository = \"APP/web\"\nref = \"{ref_name}\"\nobject = \"{key}\"\n"
        )
        .unwrap();
    }
    text
}

fn store(file: &Path, text: &str) -> RouteTable {
    std::fs::write(file, text).unwrap();
    let table = RouteTable::parse("routes.toml", text, Some(BUCKET), Origin::CommandLine);
    table.unwrap()
}
