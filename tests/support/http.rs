//! HTTP on loopback, for what stands in for AWS.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime};

/// An answer in full.
pub type Answer = Response<Full<Bytes>>;

/// A server that stops when it is dropped. It has a thread of its own, so that tests that block can talk to it.
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Answers every request once all of it is there.
    pub fn start<S, F>(name: &str, answer: S) -> Self
    where
        S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(accept(listener, answer));
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Such as `127.0.0.1:49152`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Such as `http://127.0.0.1:49152`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept<S, F>(listener: std::net::TcpListener, answer: S)
where
    S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        let answer = answer.clone();
        let service = service_fn(move |request: Request<_>| {
            let answer = answer.clone();
            async move {
                let (head, body) = request.into_parts();
                let body: hyper::body::Incoming = body;
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)).await)
            }
        });
        // A client that hangs up is no failure of the server.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// An answer that is JSON.
pub fn json(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(body.to_string().into()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status that HTTP knows");
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}
