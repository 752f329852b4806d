//! What the AWS clients share: region, credentials and endpoints, as the SDK finds them; and what a failed request means.

mod call;
mod failure;
mod login;

use std::{path::Path, time::Duration};

use aws_config::{
    BehaviorVersion, SdkConfig,
    default_provider::credentials::DefaultCredentialsChain,
    environment::EnvironmentVariableRegionProvider,
    imds,
    meta::region::RegionProviderChain,
    profile::{ProfileFileRegionProvider, ProfileSet},
    provider_config::ProviderConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use tokio::sync::OnceCell;

pub use self::call::CallError;
pub(crate) use self::{
    call::{get, json, query},
    failure::{ERROR_MESSAGE, Failure, Service, status},
};
use crate::network;

/// Environment, profile, instance role; honours `AWS_ENDPOINT_URL` and its like. Looked up once, and only when a client is
/// first needed: away from AWS the search itself takes seconds.
pub(crate) async fn sdk_config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG.get_or_init(|| Box::pin(find_config())).await
}

/// The region, if one is named.
pub(crate) async fn region() -> Option<String> {
    sdk_config().await.region().map(ToString::to_string)
}

async fn find_config() -> SdkConfig {
    let profiles = login::profiles().await;
    let http = http_client(profiles.as_ref().ok());
    let provider = ProviderConfig::default().with_http_client(http.clone());
    // By itself the SDK asks four times, for the region and for credentials, whether this is a machine of EC2: where nobody
    // answers, that takes many seconds.
    let imds = imds::Client::builder()
        .configure(&provider)
        .max_attempts(1)
        .connect_timeout(IMDS_WITHIN)
        .read_timeout(IMDS_WITHIN)
        .build();
    let on_ec2 = imds::region::ImdsRegionProvider::builder()
        .configure(&provider)
        .imds_client(imds.clone())
        .build();
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::default())
        .or_else(on_ec2);
    let region = region.region().await;
    let credentials = DefaultCredentialsChain::builder()
        .configure(provider)
        .imds_client(imds)
        .region(region.clone())
        .build()
        .await;
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(region)
        .credentials_provider(credentials)
        .load()
        .await;
    login::look(&config, &profiles);
    config
}

/// How long a machine of EC2 may take to say who it is.
const IMDS_WITHIN: Duration = Duration::from_secs(1);

/// The SDK's HTTP client, which trusts what the AWS CLI trusts too, and goes past a proxy wherever `NO_PROXY` says so.
fn http_client(profiles: Option<&ProfileSet>) -> SharedHttpClient {
    let of_profile = || profiles?.get("ca_bundle").map(str::to_owned);
    let bundle = login::variable("AWS_CA_BUNDLE").or_else(of_profile);
    // A file that cannot be read is named where a certificate is refused.
    let pem = bundle.and_then(|path| network::read_authorities(Path::new(&path)).ok());
    let mut authorities = TrustStore::default();
    if let Some(pem) = pem.filter(|pem| network::has_authorities(pem)) {
        authorities.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(authorities).build();
    let tls = tls.expect("nothing in it can be wrong");
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        let proxy = if network::is_proxy_off() {
            ProxyConfig::disabled()
        } else {
            ProxyConfig::from_env()
        };
        connector.set_proxy_config(Some(proxy));
        connector.build()
    })
}

/// For services whose answers are small: by itself the SDK limits no more than the time to connect, and waits for ever on one
/// that took the request and is silent.
pub(crate) fn small_answers() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(8))
        .build()
}
