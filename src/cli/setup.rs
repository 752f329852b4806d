//! What the subcommands need before they begin: the routing table, and an S3.

use std::path::Path;

use backlog_bridge::{
    bucket::S3,
    config::Config,
    deliver::Bridge,
    local::EmbeddedS3,
    route::{Origin, RouteTable},
};

use super::{Common, Usage};

/// The bucket of routes that name none, where the embedded S3 has no `SOURCE_BUCKET`.
const EMBEDDED_BUCKET: &str = "sources";

const DEFAULT_STORE: &str = "backlog-bridge-store";

/// A bridge, and the embedded S3 that it may deliver into: that one stops when this is dropped.
pub(super) struct Setup {
    pub(super) bridge: Bridge,
    _embedded: Option<EmbeddedS3>,
}

pub(super) fn table(common: &Common, config: &Config) -> Result<RouteTable, Usage> {
    let file = &common.routes;
    let text = std::fs::read_to_string(file).map_err(|err| {
        Usage(format!(
            "cannot read the routing table {}: {err}; write one (see routes.example.toml) or name it with --routes FILE",
            file.display()
        ))
    })?;
    parse(&file.display().to_string(), &text, common, config)
}

pub(super) fn parse(
    file: &str,
    text: &str,
    common: &Common,
    config: &Config,
) -> Result<RouteTable, Usage> {
    let bucket = config
        .source_bucket
        .as_deref()
        .or((!common.aws).then_some(EMBEDDED_BUCKET));
    Ok(RouteTable::parse(file, text, bucket, Origin::CommandLine)?)
}

pub(super) async fn setup(common: &Common, config: &Config) -> Result<Setup, Usage> {
    let table = table(common, config)?;
    if common.aws {
        let bridge = Bridge {
            s3: S3::from_environment().await,
            table,
            limits: config.limits,
        };
        return Ok(Setup {
            bridge,
            _embedded: None,
        });
    }
    embedded(
        common.store.as_deref().unwrap_or(Path::new(DEFAULT_STORE)),
        table,
        config,
    )
    .await
}

pub(super) async fn embedded(
    dir: &Path,
    table: RouteTable,
    config: &Config,
) -> Result<Setup, Usage> {
    let embedded = EmbeddedS3::start(dir).await?;
    let s3 = S3::at(
        &embedded.endpoint(),
        embedded.access_key(),
        embedded.secret_key(),
    );
    let bridge = Bridge {
        s3,
        table,
        limits: config.limits,
    };
    Ok(Setup {
        bridge,
        _embedded: Some(embedded),
    })
}
