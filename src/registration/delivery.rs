//! A webhook that is posted from here, as Backlog would post it.

use std::time::Duration;

use hyper::header::CONTENT_TYPE;

use super::Bridge;
use crate::{
    error::Source,
    network::{self, Distrust},
    plain,
    secrets::Token,
};

/// How long the bridge may take, in all. A function that has to start first takes a few seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How much of an answer is read, in bytes.
const ANSWER_BYTES: usize = 4096;

/// What the bridge answers.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The body, as far as it is read.
    pub text: String,
}

/// Nothing was answered. The text holds no token.
#[derive(Debug, thiserror::Error)]
#[error("cannot post to {url}; {advice}")]
pub struct DeliveryError {
    url: String,
    advice: String,
    source: Source,
}

/// Posts a body to the bridge, with a token.
///
/// # Errors
///
/// [`DeliveryError`] if there is no answer.
pub async fn deliver(
    bridge: &Bridge,
    token: &Token,
    body: String,
) -> Result<Answer, DeliveryError> {
    let fail = |err: reqwest::Error| {
        let (url, shown) = (bridge.hooks.to_string(), bridge.hooks.masked());
        if let Some(Distrust { why, advice }) = Distrust::of(&err, "SSL_CERT_FILE") {
            return DeliveryError {
                url: shown,
                advice,
                source: why.into(),
            };
        }
        // The error itself would show the URL with the token.
        let said = network::last_cause(&err).map(|said| plain::foreign(&said));
        let said = said.unwrap_or_else(|| "no answer came in time".into());
        DeliveryError {
            url: shown,
            advice: network::proxy_of(&url).map_or_else(
                || "check the URL of the bridge and the network".into(),
                |proxy| network::through(&proxy, &said),
            ),
            source: said.into(),
        }
    };
    let url = bridge.hooks.with(token);
    let client = network::http_client(&bridge.hooks.to_string())
        .timeout(ANSWER_WITHIN)
        .build()
        .map_err(fail)?;
    let request = client
        .post(url.reveal())
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    let mut answer = request.send().await.map_err(fail)?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(fail)? {
        text.extend_from_slice(&chunk);
        if text.len() > 2 * ANSWER_BYTES {
            break;
        }
    }
    // Many servers repeat the path of what they do not know, and with it the token. What is cut off comes after that is hidden.
    let text = String::from_utf8_lossy(&text).replace(token.reveal().reveal(), "TOKEN");
    Ok(Answer {
        status: answer.status().as_u16(),
        text: text.chars().take(ANSWER_BYTES).collect(),
    })
}
