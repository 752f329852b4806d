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
    route::{CredentialsSource, Origin, Preferred, RouteTable},
    secrets::Logins,
    stack::Stack,
    table::{LiveTable, Reading},
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
    /// The deployed bridge that the table is of, if it is.
    pub(super) stack: Option<Stack>,
    source: Source,
    preferred: Preferred,
    limits: Limits,
    sweep_at_once: usize,
    replaces_unrouted: bool,
    embedded: Option<EmbeddedS3>,
}

/// Where the table is read again.
enum Source {
    File {
        file: PathBuf,
        /// What it held.
        bytes: Vec<u8>,
        bucket: Option<String>,
    },
    Deployed(Arc<LiveTable>),
}

impl Setup {
    /// What delivers. The table is read again when its source changes.
    pub(super) fn bridge(&self) -> Deliverer {
        let table = match &self.source {
            Source::File {
                file,
                bytes,
                bucket,
            } => {
                let table = LiveTable::in_file(file.clone(), bucket.clone());
                let table = table.preferring(self.preferred);
                Arc::new(table.knowing(bytes, Arc::clone(&self.table)))
            }
            Source::Deployed(table) => Arc::clone(table),
        };
        Deliverer {
            s3: self.s3.clone(),
            table,
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
        Worker {
            bridge: self.bridge(),
            at_once: self.sweep_at_once,
        }
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

/// The table with the environment's login in place of a secret, and a line that says so.
pub(super) fn preferring(table: RouteTable, config: &Config) -> RouteTable {
    if let [space] = table.spaces()
        && let CredentialsSource::Secret { name } = space.credentials()
        && config.preferred.login
    {
        note!(
            "login: BACKLOG_USERNAME and BACKLOG_PASSWORD, which are set, and not the secret {name}"
        );
    }
    table.preferring(config.preferred)
}

/// The text of a routing table, and what the file holds.
pub(super) fn read(file: &Path) -> Result<(String, Vec<u8>), Usage> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|err| {
        Usage(if err.kind() == std::io::ErrorKind::NotFound {
            format!(
                "there is no routing table {name}; write one with `backlog-bridge init`, or name another file \
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

/// What a deployed bridge has, to look at from here.
async fn deployed(stack: Stack, config: &Config) -> Result<Setup, Usage> {
    let s3 = S3::from_environment().await;
    let table = LiveTable::in_s3(s3.clone(), stack.table.clone(), stack.bucket.clone());
    let table = Arc::new(table.preferring(config.preferred));
    let known = match table.read().await {
        Reading::Newest(known) => known,
        Reading::Never => {
            return Err(Usage(format!(
                "the stack {name} has no routing table yet; store one with `backlog-bridge routes push --stack {name}`",
                name = stack.name
            )));
        }
        Reading::Spoiled { fault, .. } | Reading::Unread { fault, .. } => {
            return Err(fault.error().into());
        }
    };
    Ok(Setup {
        s3,
        table: known,
        stack: Some(stack),
        source: Source::Deployed(table),
        preferred: config.preferred,
        limits: config.limits,
        sweep_at_once: config.sweep_at_once,
        replaces_unrouted: false,
        embedded: None,
    })
}

fn bucket(common: &Common, config: &Config) -> Option<String> {
    let embedded = (!common.aws).then(|| EMBEDDED_BUCKET.to_owned());
    config.source_bucket.clone().or(embedded)
}

pub(super) async fn setup(common: &Common, config: &Config) -> Result<Setup, Usage> {
    if let Some(stack) = common.stack().await? {
        return deployed(stack, config).await;
    }
    let (table, bytes) = table_and_bytes(common, config)?;
    let table = preferring(table, config);
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
        stack: None,
        source: Source::File {
            file: common.routes.clone(),
            bytes,
            bucket: bucket(common, config),
        },
        preferred: config.preferred,
        limits: config.limits,
        sweep_at_once: config.sweep_at_once,
        // A bucket on AWS may be another bridge's, too.
        replaces_unrouted: !common.aws || common.replace,
        embedded,
    })
}
