//! The time that S3 has, as its answers say it. A machine's own clock may be wrong, and several machines write one object.

use std::{
    sync::{Arc, OnceLock},
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

/// Hears the time of one answer, whether that is a good one or an error.
#[derive(Debug, Default, Clone)]
pub(super) struct Clock(Arc<OnceLock<i64>>);

impl Clock {
    /// The time of the first answer, or this machine's, in seconds of Unix time.
    pub(super) fn time(&self) -> i64 {
        let own = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs().cast_signed())
        };
        self.0.get().copied().unwrap_or_else(own)
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
            self.0.set(date.secs()).ok();
        }
        Ok(())
    }
}
