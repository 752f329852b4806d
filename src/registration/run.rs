//! Carries out what is planned for the webhooks of a project.

use super::{Act, Aim, Bridge, Step, TokenState, plan};
use crate::{
    backlog::{ApiError, Backlog, OPENED, PUSHED, Webhook, WebhookChange},
    secrets::Password,
};

/// What people see in Backlog.
const NAME: &str = "backlog-bridge";
const DESCRIPTION: &str = "Git pushes go to AWS. Managed by backlog-bridge.";

/// What became of one webhook.
#[derive(Debug)]
pub struct Registered {
    /// The webhook, if it is there or was.
    pub id: Option<i64>,
    /// The token that it brings now, or brought.
    pub token: Option<TokenState>,
    /// What was done, or would be; or was to be done, if it failed.
    pub act: Act,
    /// Why it was not done.
    pub failed: Option<ApiError>,
}

impl Registered {
    /// Nothing, as the webhooks cannot be seen.
    #[must_use]
    pub fn failed(err: ApiError) -> Self {
        Self {
            id: None,
            token: None,
            act: Act::Leave,
            failed: Some(err),
        }
    }
}

/// Brings the webhooks of a project to what they should be, or says what would be done. One that fails stops no other.
///
/// # Errors
///
/// [`ApiError`] if they cannot be listed, and so nothing was done.
pub async fn bring(
    api: &Backlog,
    project: &str,
    bridge: &Bridge,
    aim: Aim,
    dry_run: bool,
) -> Result<Vec<Registered>, ApiError> {
    let steps = plan(bridge, &api.webhooks(project).await?, aim);
    let mut done = Vec::new();
    for step in steps {
        let mut registered = Registered {
            id: step.id,
            token: step.token,
            act: step.act.clone(),
            failed: None,
        };
        if !dry_run {
            match carry_out(api, project, bridge, &step).await {
                Ok(Some(webhook)) => {
                    registered.id = Some(webhook.id);
                    registered.token = webhook
                        .hook_url
                        .as_ref()
                        .and_then(|url| bridge.token_of(url))
                        .or(Some(TokenState::Current));
                }
                Ok(None) => {}
                Err(err) => registered.failed = Some(err),
            }
        }
        done.push(registered);
    }
    Ok(done)
}

/// The webhook as it is now, if it was changed.
async fn carry_out(
    api: &Backlog,
    project: &str,
    bridge: &Bridge,
    step: &Step,
) -> Result<Option<Webhook>, ApiError> {
    let url = bridge
        .tokens
        .as_ref()
        .map(|tokens| bridge.hooks.with(&tokens.current));
    let err = match ask(api, project, url.as_ref(), step).await {
        Err(err) if err.may_be_done() => err,
        result => return result,
    };
    // It may be done, though nobody said so. A second request could make a second webhook; a look makes none.
    let Ok(now) = api.webhooks(project).await else {
        return Err(err);
    };
    let brings_current = |webhook: &Webhook| {
        let url = webhook.hook_url.as_ref();
        url.and_then(|url| bridge.token_of(url)) == Some(TokenState::Current)
    };
    let there = now.iter().find(|webhook| Some(webhook.id) == step.id);
    let found = match (&step.act, there) {
        (Act::Add, _) => now
            .iter()
            .find(|webhook| brings_current(webhook) && webhook.posts_pushes()),
        (Act::Change { url, types }, Some(webhook)) => {
            let has_url = !url || brings_current(webhook);
            let has_types = types.is_none() || webhook.posts_pushes();
            Some(webhook).filter(|_| has_url && has_types)
        }
        (Act::Remove, None) => return Ok(None),
        _ => None,
    };
    found.cloned().map(Some).ok_or(err)
}

/// The repositories of a project whose own webhook, which the API cannot change, leads to this bridge.
///
/// # Errors
///
/// [`ApiError`] if they cannot be listed.
pub async fn set_by_hand(
    api: &Backlog,
    project: &str,
    bridge: &Bridge,
) -> Result<Vec<(String, TokenState)>, ApiError> {
    let repositories = api.repositories(project).await?.into_iter();
    let found = repositories.filter_map(|repository| {
        let token = bridge.token_of(repository.hook_url.as_ref()?)?;
        Some((repository.name.unwrap_or_default(), token))
    });
    Ok(found.collect())
}

async fn ask(
    api: &Backlog,
    project: &str,
    hook_url: Option<&Password>,
    step: &Step,
) -> Result<Option<Webhook>, ApiError> {
    match (&step.act, step.id) {
        (Act::Add, _) => {
            let webhook = WebhookChange {
                name: Some(NAME),
                description: Some(DESCRIPTION),
                hook_url,
                all_event: Some(false),
                activity_type_ids: Some(&[PUSHED, OPENED]),
            };
            api.add_webhook(project, &webhook).await.map(Some)
        }
        (Act::Change { url, types }, Some(id)) => {
            let change = WebhookChange {
                hook_url: hook_url.filter(|_| *url),
                activity_type_ids: types.as_deref(),
                ..WebhookChange::default()
            };
            api.change_webhook(project, id, &change).await.map(Some)
        }
        (Act::Remove, Some(id)) => api.remove_webhook(project, id).await.map(|()| None),
        _ => Ok(None),
    }
}
