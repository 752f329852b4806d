//! The Lambda function behind the queue of results: what became of runs is told in Backlog.

use std::{
    process::ExitCode,
    time::{Instant, SystemTime},
};

use backlog_bridge::{
    bucket::S3,
    config::ResultsConfig,
    error::{Error, chain},
    queue::Sqs,
    results::{Place, Teller, Times, batch},
    table::LiveTable,
    telemetry,
    worker::batch::parse,
};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

fn refuse(err: &Error) -> Diagnostic {
    tracing::error!("{}", chain(err));
    Diagnostic {
        error_type: err.kind().into(),
        error_message: chain(err),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match ResultsConfig::from_vars(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(err) => return telemetry::refuse_to_start(&err),
    };
    telemetry::start_in_lambda(config.log_level);
    let s3 = S3::from_environment().await;
    let queue = &Sqs::from_environment(config.queue_url).await;
    // The template keeps the table in the source bucket.
    let bucket = config.routes.bucket.clone();
    let table = LiveTable::in_s3(s3.clone(), config.routes, bucket);
    let teller = &Teller::new(s3, table, config.alarm_topic, config.comment_lag);
    let service = service_fn(async |event: LambdaEvent<Value>| {
        let began = Instant::now();
        let LambdaEvent { payload, context } = event;
        let event = parse(payload).map_err(|err| refuse(&err))?;
        let left = context.deadline().duration_since(SystemTime::now());
        let times = Times::new(began, left.unwrap_or_default());
        // arn:aws:lambda:region:account:function:name
        let mut parts = context.invoked_function_arn.split(':').skip(3);
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let place = Place {
            region: part(),
            account: part(),
        };
        let batch = batch(teller, &event, queue, &place, &context.request_id, times);
        Ok::<_, Diagnostic>(Box::pin(batch).await)
    });
    telemetry::ended(lambda_runtime::run(service).await)
}
