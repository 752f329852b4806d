//! `webhook test`: what the bridge answers to a webhook.

use backlog_bridge::{
    error::chain,
    plain,
    push::RefName,
    registration::{Answer, deliver},
    route::{Route, RouteTable},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::Place;
use crate::cli::{Ended, Usage, routes::chosen};

/// What the button in Backlog's settings sends.
pub(in crate::cli) const TEST_DELIVERY: &str =
    include_str!("../../../events/project-test-delivery-push.json");

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    url: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn run(
    route: Option<String>,
    ref_name: Option<String>,
    place: &Place,
    as_json: bool,
) -> Result<Ended, Usage> {
    let body = match &route {
        Some(name) => push(&place.table, name, ref_name)?,
        None => TEST_DELIVERY.to_owned(),
    };
    let bridge = place.bridge_with_token().await?;
    let tokens = bridge.tokens.clone();
    let token = tokens.expect("it was looked for").current;
    let url = bridge.hooks.masked();
    let answered = deliver(&bridge, &token, body).await;
    let mut line = Line {
        route: route.as_deref(),
        url: &url,
        result: "failed",
        status: None,
        answer: None,
        error: None,
    };
    match &answered {
        Ok(answer) => {
            line.status = Some(answer.status);
            line.answer = serde_json::from_str(&answer.text).ok();
            line.error = fault(answer, line.answer.as_ref(), route.is_some());
        }
        Err(err) => line.error = Some(chain(err)),
    }
    if line.error.is_none() {
        line.result = "well";
    }
    if as_json {
        let line = serde_json::to_string(&line).expect("plain data");
        say!("{}", plain::json(&line));
    } else if line.error.is_none() {
        let answer = line.answer.as_ref().map(Value::to_string);
        say!(
            "{url}: well: {}",
            plain::foreign(&answer.unwrap_or_default())
        );
    }
    if let Some(error) = &line.error {
        note!("{url}: failed: {error}");
        return Ok(Ended::WithFailures);
    }
    note!(
        "this was posted from here, and not by Backlog; whether Backlog posts, the next push shows"
    );
    Ok(Ended::Well)
}

/// A push of a ref as Backlog tells of one that brings no commit: nobody waits for a commit that is not there, and the bridge
/// looks where the ref points.
fn push(table: &RouteTable, name: &str, ref_name: Option<String>) -> Result<String, Usage> {
    let names = [name.to_owned()];
    let route: &Route = chosen(table, &names)?[0];
    let ref_name: RefName = match (ref_name, route.pattern().exact()) {
        (Some(name), _) => name.parse()?,
        (None, Some(exact)) => exact.clone(),
        (None, None) => {
            return Err(Usage(format!(
                "the route {name} takes many refs ({}); name one with --ref",
                route.pattern()
            )));
        }
    };
    if !route.takes(route.repository(), &ref_name) {
        return Err(Usage(format!(
            "the route {name} takes {}, and not {ref_name}",
            route.pattern()
        )));
    }
    let repository = route.repository();
    let body = json!({
        "id": 1, "type": 12, "created": "2000-01-01T00:00:00Z",
        "project": {"id": 1, "projectKey": repository.project()},
        "content": {
            "change_type": "create", "ref": ref_name.as_str(),
            "repository": {"id": 1, "name": repository.repository(), "description": null},
            "revision_type": "commit", "revision_count": 0, "revisions": [],
        },
        "notifications": [],
    });
    Ok(body.to_string())
}

/// What is wrong with an answer, if anything is.
pub(in crate::cli) fn fault(
    answer: &Answer,
    body: Option<&Value>,
    is_push: bool,
) -> Option<String> {
    let said = || plain::foreign(&answer.text);
    match answer.status {
        202 if body.is_some_and(|body| body["accepted"].is_array()) => None,
        200 if body.is_some_and(|body| body["ignored"].is_string()) => {
            is_push.then(|| format!("the bridge ignores it: {}", said()))
        }
        404 => Some(
            "404: the token or the path is not the bridge's; or ALLOWED_IPS lets in only Backlog's addresses, then this answer is \
             right from here"
                .into(),
        ),
        503 => Some(format!(
            "503: the bridge cannot take it now, its log says why: {}",
            said()
        )),
        300..400 => Some(format!("{}: a redirect, which Backlog would not follow", answer.status)),
        status => Some(format!("{status}: that is not what the bridge answers: {}", said())),
    }
}
