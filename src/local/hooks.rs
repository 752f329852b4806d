//! The HTTP listener of a laptop, in place of API Gateway.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
    service::service_fn,
};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{
    queue::LocalQueue,
    server::{Patience, serve},
};
use crate::{
    queue::Job,
    receive::{self, Received, Receiver},
    webhook::MAX_BODY_BYTES,
};

/// How long a body may take to arrive, as behind API Gateway.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// Anybody may connect, and say nothing. A proxy or a webhook needs few connections, and says at once what it wants.
const PATIENCE: Patience = Patience {
    connections: 64,
    head: Duration::from_secs(10),
};

/// Takes webhooks on `listener` until `stop` is ready, and puts their jobs on `queue`. `tell` is told what became of each,
/// under which request id, and how long it took.
pub async fn serve_hooks(
    listener: TcpListener,
    receiver: Arc<Receiver>,
    queue: LocalQueue,
    tell: impl Fn(&Received, &str, Duration) + Clone + Send + Sync + 'static,
    stop: impl Future<Output = ()>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (receiver, queue, tell) = (Arc::clone(&receiver), queue.clone(), tell.clone());
        async move {
            let started = Instant::now();
            let request_id = Uuid::new_v4().to_string();
            let outcome = Box::pin(receive(&receiver, &queue, request, &request_id)).await;
            tell(&outcome, &request_id, started.elapsed());
            let answer = outcome.answer();
            Response::builder()
                .status(answer.status)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::<Bytes>::from(answer.body))
        }
    });
    serve(listener, service, PATIENCE, stop).await;
}

/// Says on `listener` whether the bridge takes webhooks: `GET /` is answered 200, or 503 while it stops or has no routing
/// table that it could use. There is no body, and nothing else to be had.
pub async fn serve_health(listener: TcpListener, receiver: Arc<Receiver>, queue: LocalQueue) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (receiver, queue) = (Arc::clone(&receiver), queue.clone());
        async move {
            let status = match (request.method(), request.uri().path()) {
                (&Method::GET | &Method::HEAD, "/") => {
                    let reading = receiver.table.read().await;
                    let is_well = !queue.is_stopping() && reading.last_good().is_some();
                    if is_well { 200 } else { 503 }
                }
                (_, "/") => 405,
                _ => 404,
            };
            Response::builder()
                .status(status)
                .body(Empty::<Bytes>::new())
        }
    });
    serve(listener, service, PATIENCE, std::future::pending()).await;
}

async fn receive(
    receiver: &Receiver,
    queue: &LocalQueue,
    request: Request<Incoming>,
    request_id: &str,
) -> Received {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get(AUTHORIZATION);
    let request = receive::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        authorization: authorization.and_then(|value| value.to_str().ok()),
        source_ip: None,
    };
    let enqueue = async |jobs: Vec<Job>| queue.send(jobs);
    Box::pin(receiver.receive(request, read(body), request_id, None, enqueue)).await
}

/// The body, or the first part of one that is too long; `None` if it does not arrive.
async fn read(body: Incoming) -> Option<Cow<'static, [u8]>> {
    let body = Limited::new(body, MAX_BODY_BYTES + 1).collect();
    match tokio::time::timeout(BODY_WITHIN, body).await.ok()? {
        Ok(body) => Some(Cow::Owned(body.to_bytes().into())),
        // One byte more than is accepted tells that it is too long.
        Err(err) if err.is::<http_body_util::LengthLimitError>() => {
            Some(Cow::Owned(vec![0; MAX_BODY_BYTES + 1]))
        }
        Err(_) => None,
    }
}
