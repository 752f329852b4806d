//! The Lambda function behind the queue: jobs become deliveries, and the sweep finds what no webhook told of.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Instant, SystemTime},
};

use backlog_bridge::{
    bucket::S3,
    config::DeliverConfig,
    deliver::Deliverer,
    error::{Error, chain},
    outcome::{Report, Subject},
    queue::Sqs,
    secrets::Logins,
    table::LiveTable,
    telemetry,
    worker::{Worker, batch},
};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

/// An invocation that fails as a whole is told of here: what the runtime says of it reaches no log.
fn refuse(err: &Error) -> Diagnostic {
    Report::failed(Subject::default(), err).log(&());
    Diagnostic {
        error_type: err.kind().into(),
        error_message: chain(err),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match DeliverConfig::from_vars(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(err) => return telemetry::refuse_to_start(&err),
    };
    telemetry::start_in_lambda(config.log_level);
    let s3 = S3::from_environment().await;
    let queue = &Sqs::from_environment(config.queue_url).await;
    let worker = &Worker {
        bridge: Deliverer {
            s3: s3.clone(),
            table: Arc::new(LiveTable::in_s3(s3, config.routes, config.source_bucket)),
            logins: Arc::new(Logins::default()),
            limits: config.limits,
            replaces_unrouted: true,
            tips: Arc::default(),
            listings: Arc::default(),
            silences: Arc::default(),
        },
        at_once: config.sweep_at_once,
    };
    let margin = config.deadline_margin;
    let service = service_fn(async |event: LambdaEvent<Value>| {
        let LambdaEvent { payload, context } = event;
        let event = batch::parse(payload).map_err(|err| refuse(&err))?;
        let left = context.deadline().duration_since(SystemTime::now());
        let left = left.unwrap_or_default();
        let Some(time) = left.checked_sub(margin) else {
            return Err(refuse(&Error::NoTime { left, margin }));
        };
        let deadline = Instant::now() + time;
        let batch = worker.batch(&event, queue, &context.request_id, deadline);
        Ok::<_, Diagnostic>(Box::pin(batch).await)
    });
    telemetry::ended(lambda_runtime::run(service).await)
}
