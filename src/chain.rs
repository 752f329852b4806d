//! How an error is printed.

use std::error::Error;

/// The error and its causes in one line. A cause that only repeats what was said is left out.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        let more = more.trim();
        if !more.is_empty() && !text.contains(more) {
            text.push_str(": ");
            text.push_str(more);
        }
        source = cause.source();
    }
    text
}
