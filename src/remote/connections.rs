//! Connections to Git servers, which live on a thread of their own.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::Client;
use tokio::runtime::{self, Runtime};

use crate::network;

/// How long a host may take to let itself be connected to.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// How long nothing may come of an answer that was begun, or waited for.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(30);

/// Connections to a host, made when they are needed and kept for the next request. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<OnceLock<Kept>>);

/// A client, and the thread that its connections live on.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) client: Client,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Kept {
    /// It may be asking a name server which never answers; so nobody waits for its end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Connections {
    /// Whether there may be some already.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.get().is_some()
    }

    /// Those to the host of `url`. Blocking.
    pub(super) fn to(&self, url: &str) -> io::Result<&Kept> {
        if let Some(kept) = self.0.get() {
            return Ok(kept);
        }
        let thread = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let made = Kept {
            client: client(url).map_err(io::Error::other)?,
            runtime: Some(thread),
        };
        Ok(self.0.get_or_init(|| made))
    }

    /// Does `work` on their thread. They were made before.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let kept = self.0.get().expect("they were made before");
        let runtime = kept.runtime.as_ref().expect("until it is dropped");
        runtime.spawn(work);
    }
}

fn client(url: &str) -> Result<Client, reqwest::Error> {
    let client = Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(READ_WITHIN)
        .http1_title_case_headers()
        // A redirect would carry the password to whoever the server names.
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(network::authorities_for_git(url));
    let client = if network::is_proxy_off() {
        client.no_proxy()
    } else {
        client
    };
    client.build()
}
