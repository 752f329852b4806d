//! The Lambda function behind API Gateway: a webhook becomes jobs on the queue.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use backlog_bridge::{
    bucket::S3,
    config::ReceiveConfig,
    queue::{Job, Sqs},
    receive::{Receiver, handle},
    table::LiveTable,
    telemetry,
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

/// How long before the invocation's deadline the answer is given.
const MARGIN: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match ReceiveConfig::from_vars(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(err) => return telemetry::refuse_to_start(&err),
    };
    telemetry::start_in_lambda(config.log_level);
    let s3 = S3::from_environment().await;
    let queue = &Sqs::from_environment(config.queue_url).await;
    // Which object a route writes is of no interest here, but that no two routes write the same one. The template keeps the
    // table in the source bucket.
    let default_bucket = config.routes.bucket.clone();
    let results = match config.results_queue_url {
        Some(url) => Some(Sqs::from_environment(url).await),
        None => None,
    };
    let receiver = &Receiver {
        tokens: Arc::new(config.webhook_token),
        allowed_ips: config.allowed_ips,
        table: Arc::new(LiveTable::in_s3(s3, config.routes, default_bucket)),
        results,
    };
    let service = service_fn(async |event: LambdaEvent<Value>| {
        let LambdaEvent { payload, context } = event;
        let left = context.deadline().duration_since(SystemTime::now());
        let deadline = Instant::now() + left.unwrap_or_default().saturating_sub(MARGIN);
        let enqueue = async |jobs: Vec<Job>| queue.send_all(&jobs).await;
        Ok::<_, Error>(handle(receiver, payload, &context.request_id, deadline, enqueue).await)
    });
    telemetry::ended(lambda_runtime::run(service).await)
}
