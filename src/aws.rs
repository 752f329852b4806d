//! What the AWS clients share: region, credentials and endpoints, as the SDK finds them.

use aws_config::{BehaviorVersion, SdkConfig};
use tokio::sync::OnceCell;

/// Environment, profile, instance role; honours `AWS_ENDPOINT_URL` and its like. Looked up once, and only when a client is
/// first needed: away from AWS the search itself takes seconds.
pub(crate) async fn sdk_config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG
        .get_or_init(|| Box::pin(aws_config::load_defaults(BehaviorVersion::latest())))
        .await
}
