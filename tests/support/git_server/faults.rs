//! What goes wrong when a test wants it, and what happens before a request is answered.

use std::{io, sync::Mutex, time::Duration};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::super::{
    cgi::{CHUNK, Stream},
    fault::{Fault, Op},
};
use super::{collect, lock};

/// What is planned for requests that have yet to come.
#[derive(Default)]
pub(super) struct Plans {
    faults: Mutex<Vec<Planned>>,
    hooks: Mutex<Vec<Hook>>,
}

struct Planned {
    /// Whose requests; `None`: all.
    repository: Option<String>,
    op: Op,
    fault: Fault,
    once: bool,
}

struct Hook {
    op: Op,
    left: usize,
    run: Box<dyn FnOnce() + Send>,
}

impl Plans {
    /// Of several faults for a kind, the first counts.
    pub(super) fn fault(&self, repository: Option<String>, op: Op, fault: Fault, once: bool) {
        lock(&self.faults).push(Planned {
            repository,
            op,
            fault,
            once,
        });
    }

    /// Before all others, for one request.
    pub(super) fn fault_first(&self, op: Op, fault: Fault) {
        let planned = Planned {
            repository: None,
            op,
            fault,
            once: true,
        };
        lock(&self.faults).insert(0, planned);
    }

    pub(super) fn clear_faults(&self) {
        lock(&self.faults).clear();
    }

    pub(super) fn before(&self, op: Op, nth: usize, run: impl FnOnce() + Send + 'static) {
        assert!(nth > 0, "the first request is number 1");
        let run = Box::new(run);
        lock(&self.hooks).push(Hook { op, left: nth, run });
    }

    /// A hook that panics is a 500, so that the test notices.
    pub(super) async fn run_hooks(&self, op: Op) -> io::Result<()> {
        let mut due = Vec::new();
        {
            let mut hooks = lock(&self.hooks);
            let mut index = 0;
            while index < hooks.len() {
                let hook = &mut hooks[index];
                if hook.op == op {
                    hook.left -= 1;
                }
                if hook.left == 0 {
                    due.push(hooks.remove(index).run);
                } else {
                    index += 1;
                }
            }
        }
        for run in due {
            tokio::task::spawn_blocking(run).await?;
        }
        Ok(())
    }

    pub(super) fn take_fault(&self, op: Op, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let is_meant = |planned: &Planned| {
            let repository = planned.repository.as_ref();
            planned.op == op
                && repository.is_none_or(|name| path.contains(&format!("/{name}.git/")))
        };
        let index = faults.iter().position(is_meant)?;
        if faults[index].once {
            Some(faults.remove(index).fault)
        } else {
            Some(faults[index].fault.clone())
        }
    }
}

/// The body that a fault makes of the right one.
pub(super) fn altered(body: Stream, fault: Fault) -> Stream {
    let (sender, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        // An error means that the client is gone.
        match fault {
            Fault::Drip(bytes, pause) => drip(body, bytes, pause, sender).await.ok(),
            Fault::CutAfter(bytes) => cut(body, bytes, sender).await.ok(),
            Fault::Endless(start, again) => endless(start, &again, sender).await.ok(),
            Fault::Response(alter) => {
                let all = collect(body).await.map(|all| alter(all.into()).into());
                sender.send(all).await.ok()
            }
            _ => pass(body, sender).await.ok(),
        }
    });
    stream
}

type Sender = mpsc::Sender<io::Result<Bytes>>;
type Sent = Result<(), mpsc::error::SendError<io::Result<Bytes>>>;

async fn drip(mut body: Stream, most: usize, pause: Duration, sender: Sender) -> Sent {
    while let Some(Ok(mut bytes)) = body.recv().await {
        while !bytes.is_empty() {
            let piece = bytes.split_to(most.min(bytes.len()));
            sender.send(Ok(piece)).await?;
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

async fn cut(mut body: Stream, mut left: usize, sender: Sender) -> Sent {
    while let Some(Ok(mut bytes)) = body.recv().await {
        bytes.truncate(left);
        left -= bytes.len();
        sender.send(Ok(bytes)).await?;
        if left == 0 {
            // So that what was sent is on its way before the connection goes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            break;
        }
    }
    sender
        .send(Err(io::ErrorKind::ConnectionReset.into()))
        .await
}

async fn endless(start: Vec<u8>, again: &[u8], sender: Sender) -> Sent {
    let again = Bytes::from(again.repeat(CHUNK / again.len()));
    sender.send(Ok(start.into())).await?;
    loop {
        sender.send(Ok(again.clone())).await?;
    }
}

async fn pass(mut body: Stream, sender: Sender) -> Sent {
    while let Some(bytes) = body.recv().await {
        sender.send(bytes).await?;
    }
    Ok(())
}
