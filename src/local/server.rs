//! The HTTP in front of the embedded S3: on loopback, on any free port, with keys that are made up at every start.

use std::{
    collections::VecDeque,
    error::Error,
    future::Future,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};
use uuid::Uuid;

use super::{error::StoreError, s3::Operations, store::Store};

/// How long requests that are under way have to end once the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether the store is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait after a connection could not be accepted, such as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running S3. Dropping it stops it soon; [`EmbeddedS3::stop`] waits until it has.
pub struct EmbeddedS3 {
    endpoint: String,
    access_key: String,
    secret_key: String,
    store: Arc<Store>,
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
        let service = service(Arc::clone(&store), &access_key, &secret_key);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is dropped means stop too.
            let _ = stopped.await;
        };
        Ok(Self {
            endpoint: format!("http://{address}"),
            access_key,
            secret_key,
            store,
            stop,
            server: tokio::spawn(serve(listener, service, Patience::OWN, stopped)),
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

    /// Waits until the store is gone that this serves: deleted, moved, or another one in its place. Then it stores nothing
    /// any more.
    pub async fn gone(&self) -> StoreError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let store = Arc::clone(&self.store);
            let look = tokio::task::spawn_blocking(move || store.is_ours());
            if let Ok(Err(gone @ StoreError::Gone { .. })) = look.await {
                return gone;
            }
        }
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
    let mut builder = S3ServiceBuilder::new(Operations {
        store,
        uploads: Arc::default(),
    });
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    builder.build()
}

/// How many connections a listener keeps at most that do not ask for anything now, and how long a request's head may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Connections. For one more, the oldest goes.
    pub connections: usize,
    /// From the connection's start, or from the end of the last request, to the end of the next request's head.
    pub head: Duration,
}

impl Patience {
    /// Of a listener on loopback that nobody else is told of.
    pub const OWN: Self = Self {
        connections: usize::MAX,
        head: Duration::from_mins(1),
    };
}

/// Serves `service` on `listener` until `stop` is ready; then as [`EmbeddedS3::stop`].
///
/// An error of the service cuts the connection: its client sees no answer.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    patience: Patience,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (closing, close) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut known: VecDeque<Connection> = VecDeque::new();
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
                if connections.len() >= patience.connections {
                    make_room(&mut known);
                }
                let asked = Arc::new(AtomicUsize::new(0));
                let (service, running) = (service.clone(), Arc::clone(&asked));
                let service = service_fn(move |request| {
                    let turn = Running::begin(&running);
                    let answer = service.call(request);
                    async move {
                        let answer = answer.await;
                        drop(turn);
                        answer
                    }
                });
                let mut close = close.clone();
                let task = connections.spawn(async move {
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(patience.head)
                        // A client that has said all may wait for the answer with one end closed.
                        .half_close(true)
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
                if patience.connections < usize::MAX {
                    known.push_back(Connection { task, asked });
                }
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

/// A connection, and how many requests it has under way.
struct Connection {
    task: AbortHandle,
    asked: Arc<AtomicUsize>,
}

/// Ends the oldest connection that does not ask for anything now.
fn make_room(known: &mut VecDeque<Connection>) {
    known.retain(|connection| !connection.task.is_finished());
    let idle = known
        .iter()
        .position(|connection| connection.asked.load(Relaxed) == 0);
    if let Some(oldest) = idle.and_then(|index| known.remove(index)) {
        oldest.task.abort();
    }
}

/// A request under way, however it ends.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(asked: &Arc<AtomicUsize>) -> Self {
        asked.fetch_add(1, Relaxed);
        Self(Arc::clone(asked))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
