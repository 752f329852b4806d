//! What the AWS clients share: region, credentials and endpoints, as the SDK finds them.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, timeout::TimeoutConfig};
use tokio::sync::OnceCell;

/// Environment, profile, instance role; honours `AWS_ENDPOINT_URL` and its like. Looked up once, and only when a client is
/// first needed: away from AWS the search itself takes seconds.
pub(crate) async fn sdk_config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG
        .get_or_init(|| Box::pin(aws_config::load_defaults(BehaviorVersion::latest())))
        .await
}

/// For services whose answers are small: by itself the SDK limits no more than the time to connect, and waits for ever on one
/// that took the request and is silent.
pub(crate) fn small_answers() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(8))
        .build()
}
