//! The time that S3 has, as its answers say it. A machine's own clock may be wrong, and several machines write one object.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};

/// Hears the time of the last answer to a request, whether that is a good one or an error.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<AtomicI64>);

/// Nothing was heard yet.
const SILENT: i64 = i64::MIN;

impl Clock {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(SILENT)))
    }

    /// That time, or this machine's, in seconds of Unix time.
    pub(super) fn time(&self) -> i64 {
        let heard = self.0.load(Relaxed);
        if heard != SILENT {
            return heard;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs().cast_signed())
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date {
            self.0.store(date.secs(), Relaxed);
        }
        Ok(())
    }
}
