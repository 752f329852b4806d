//! The HTTP in front of the embedded S3: on loopback, on any free port, with keys that are made up at every start.

use std::{error::Error, future::Future, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use uuid::Uuid;

use super::{error::StoreError, s3::Operations, store::Store};

/// How long requests that are under way have to end once the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait after a connection could not be accepted, such as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running S3. Dropping it stops it soon; [`EmbeddedS3::stop`] waits until it has.
pub struct EmbeddedS3 {
    endpoint: String,
    access_key: String,
    secret_key: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl EmbeddedS3 {
    /// Opens the store in `dir` and serves it on loopback.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be opened, or no port be had. Its text says what a person can do.
    pub async fn start(dir: &Path) -> Result<Self, StoreError> {
        let store = Arc::new(Store::open(dir)?);
        let listening = |source| StoreError::Listen { source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let access_key = Uuid::new_v4().simple().to_string();
        let secret_key = Uuid::new_v4().simple().to_string();
        let service = service(store, &access_key, &secret_key);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is dropped means stop too.
            let _ = stopped.await;
        };
        Ok(Self {
            endpoint: format!("http://{address}"),
            access_key,
            secret_key,
            stop,
            server: tokio::spawn(serve(listener, service, stopped)),
        })
    }

    /// Where clients find it, such as `http://127.0.0.1:49152`. They must use path-style addresses.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// The access key id that clients sign with.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key that clients sign with.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Takes no more connections, lets requests that are under way end for up to 5 seconds, and lets go of the directory.
    pub async fn stop(self) {
        drop(self.stop);
        // It has nothing to say; a panic in it was reported where it happened.
        let _ = self.server.await;
    }
}

/// S3 over `store` as an HTTP service, for those who hold this pair of keys.
#[must_use]
pub fn service(store: Arc<Store>, access_key: &str, secret_key: &str) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Operations { store });
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    builder.build()
}

/// Serves `service` on `listener` until `stop` is ready; then as [`EmbeddedS3::stop`].
///
/// An error of the service cuts the connection: its client sees no answer.
pub async fn serve<S, B>(listener: TcpListener, service: S, stop: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (closing, close) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            // Or the ended ones would be kept until the end.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Or the end of an answer waits for 40 ms until the client has acknowledged what came before. A stream that
                // does not take this is gone, which shows soon enough.
                stream.set_nodelay(true).ok();
                let service = service.clone();
                let mut close = close.clone();
                connections.spawn(async move {
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection);
                    // Whether a client went away or the service cut the connection: there is nobody left to tell.
                    let _ = tokio::select! {
                        ended = &mut connection => ended,
                        _ = close.changed() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    drop(closing);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_WITHIN, ended).await.is_err() {
        connections.shutdown().await;
    }
}
