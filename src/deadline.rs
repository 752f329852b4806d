//! Work that must be over in time.

use std::time::Instant;

use crate::{
    error::Error,
    progress::{Progress, Stage},
};

/// The result of `work`, or [`Error::Deadline`] with its stage if it is not there in time.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    stage: Stage,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    let in_time = tokio::time::timeout_at(deadline.into(), work);
    in_time.await.unwrap_or(Err(Error::Deadline { stage }))
}

/// The same by the deadline of `progress`, and with the stage that it is in by then. Blocking work is told to end.
pub(crate) async fn in_time<T>(
    progress: &Progress,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = progress.deadline() else {
        return work.await;
    };
    let in_time = tokio::time::timeout_at(deadline.into(), work);
    in_time.await.unwrap_or_else(|_| {
        progress.stop();
        let stage = progress.stage();
        Err(Error::Deadline { stage })
    })
}
