//! What the subcommands need before they begin: the routing table, and an S3.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use backlog_bridge::{
    bucket::S3,
    config::Config,
    deliver::Deliverer,
    limits::Limits,
    local::EmbeddedS3,
    plain,
    route::{Origin, RouteTable},
    secrets::Logins,
    table::LiveTable,
    worker::Worker,
};

use super::{Common, Usage};

/// The bucket of routes that name none, where the embedded S3 has no `SOURCE_BUCKET`.
const EMBEDDED_BUCKET: &str = "sources";

const DEFAULT_STORE: &str = "backlog-bridge-store";

/// A routing table and an S3; the embedded one stops when this is dropped.
pub(super) struct Setup {
    pub(super) s3: S3,
    /// The table as it was at the start.
    pub(super) table: Arc<RouteTable>,
    /// What its file held.
    bytes: Vec<u8>,
    file: PathBuf,
    bucket: Option<String>,
    limits: Limits,
    replaces_unrouted: bool,
    embedded: Option<EmbeddedS3>,
}

impl Setup {
    /// What delivers. The table is read again when its file changes.
    pub(super) fn bridge(&self) -> Deliverer {
        let table = LiveTable::in_file(self.file.clone(), self.bucket.clone());
        Deliverer {
            s3: self.s3.clone(),
            table: Arc::new(table.knowing(&self.bytes, Arc::clone(&self.table))),
            logins: Arc::<Logins>::default(),
            limits: self.limits,
            replaces_unrouted: self.replaces_unrouted,
            tips: Arc::default(),
            listings: Arc::default(),
            silences: Arc::default(),
        }
    }

    /// The same, for many deliveries at the same time.
    pub(super) fn bridge_for_many(&self) -> Deliverer {
        Deliverer {
            logins: Arc::new(Logins::careful()),
            ..self.bridge()
        }
    }

    /// Waits until the folder is gone that objects go to, should that happen.
    pub(super) async fn store_gone(&self) -> Usage {
        match &self.embedded {
            Some(embedded) => embedded.gone().await.into(),
            None => std::future::pending().await,
        }
    }

    /// For jobs.
    pub(super) fn worker(&self) -> Worker {
        let bridge = self.bridge();
        Worker { bridge }
    }
}

/// Reads the routing table.
pub(super) fn table(common: &Common, config: &Config) -> Result<RouteTable, Usage> {
    Ok(table_and_bytes(common, config)?.0)
}

fn table_and_bytes(common: &Common, config: &Config) -> Result<(RouteTable, Vec<u8>), Usage> {
    let (text, bytes) = read(&common.routes)?;
    let bucket = bucket(common, config);
    let name = common.routes.display().to_string();
    let bucket = bucket.as_deref();
    let table = RouteTable::parse(&name, &text, bucket, Origin::CommandLine)?;
    Ok((table, bytes))
}

/// The text of a routing table, and what the file holds.
pub(super) fn read(file: &Path) -> Result<(String, Vec<u8>), Usage> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|err| {
        Usage(if err.kind() == std::io::ErrorKind::NotFound {
            format!(
                "there is no routing table {name}; begin with `backlog-bridge routes example > {name}`, or name another file \
                 with --routes FILE"
            )
        } else {
            format!("cannot read the routing table {name}: {err}")
        })
    })?;
    let text = plain::utf8(bytes.clone())
        .map_err(|why| Usage(format!("cannot read the routing table {name}: {why}")))?;
    Ok((text, bytes))
}

fn bucket(common: &Common, config: &Config) -> Option<String> {
    let embedded = (!common.aws).then(|| EMBEDDED_BUCKET.to_owned());
    config.source_bucket.clone().or(embedded)
}

pub(super) async fn setup(common: &Common, config: &Config) -> Result<Setup, Usage> {
    let (table, bytes) = table_and_bytes(common, config)?;
    let (s3, embedded) = if common.aws {
        (S3::from_environment().await, None)
    } else {
        let store = common.store.as_deref();
        let embedded = EmbeddedS3::start(store.unwrap_or(Path::new(DEFAULT_STORE))).await?;
        let s3 = S3::at(
            &embedded.endpoint(),
            embedded.access_key(),
            embedded.secret_key(),
        );
        (s3, Some(embedded))
    };
    Ok(Setup {
        s3,
        table: table.into(),
        bytes,
        file: common.routes.clone(),
        bucket: bucket(common, config),
        limits: config.limits,
        // A bucket on AWS may be another bridge's, too.
        replaces_unrouted: !common.aws || common.replace,
        embedded,
    })
}
