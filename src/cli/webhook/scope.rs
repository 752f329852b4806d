//! Whose webhooks a command is about: the bridge, the projects, and the key that may change them.

use std::sync::Arc;

use backlog_bridge::{
    config::Config,
    registration::{Bridge, Hooks},
    route::{ApiKeySource, RouteTable, Space},
    secrets::{Password, Tokens, read_api_key},
};

use super::Options;
use crate::cli::{
    Common, Usage, ask,
    routes::nearest,
    setup::{setup, table},
};

/// A bridge, and where the tokens are that it takes.
pub(super) struct Place {
    pub(super) hooks: Hooks,
    pub(super) tokens: Option<Arc<Tokens>>,
    /// Where a person finds the token.
    pub(super) token_is: String,
    pub(super) table: Arc<RouteTable>,
}

impl Place {
    /// The bridge of a stack, or that behind a URL.
    pub(super) async fn find(
        url: Option<&str>,
        common: &Common,
        config: &Config,
    ) -> Result<Self, Usage> {
        if common.stack.is_some() {
            let setup = setup(common, config).await?;
            if let Some(stack) = &setup.stack {
                let secret = &stack.token_secret;
                return Ok(Self {
                    hooks: stack.hooks.parse()?,
                    token_is: format!(
                        "TOKEN is what the secret holds: aws secretsmanager get-secret-value --secret-id {secret} --query \
                         SecretString --output text"
                    ),
                    tokens: Some(Tokens::in_secret(secret.clone()).into()),
                    table: Arc::clone(&setup.table),
                });
            }
        }
        let url = url.ok_or_else(|| {
            Usage(
                "say where the bridge is: --stack NAME, or --url https://bridge.example.com/hooks with its token in WEBHOOK_TOKEN"
                    .into(),
            )
        })?;
        let hooks = url.parse::<Hooks>();
        Ok(Self {
            hooks: hooks
                .map_err(|err| Usage(format!("--url: {err}; WEBHOOK_TOKEN has the token")))?,
            tokens: config.webhook_token.clone(),
            token_is: "TOKEN is that of WEBHOOK_TOKEN".into(),
            table: table(common, config)?.into(),
        })
    }

    /// With its tokens as they are now.
    pub(super) async fn bridge(&self) -> Result<Bridge, Usage> {
        let tokens = match &self.tokens {
            Some(tokens) => Some(tokens.read().await?),
            None => None,
        };
        Ok(Bridge {
            hooks: self.hooks.clone(),
            tokens,
        })
    }

    /// The same where nothing can be done without a token.
    pub(super) async fn bridge_with_token(&self) -> Result<Bridge, Usage> {
        let bridge = self.bridge().await?;
        if bridge.tokens.is_none() {
            return Err(Usage(
                "set WEBHOOK_TOKEN to the token that the bridge takes, or to secret: and the name of its secret".into(),
            ));
        }
        Ok(bridge)
    }
}

/// Projects of one space.
pub(super) struct Scope<'a> {
    pub(super) space: &'a Space,
    /// The space as it is called in output.
    pub(super) url: String,
    pub(super) projects: Vec<String>,
}

impl<'a> Scope<'a> {
    /// The projects that were named, or all of the table.
    pub(super) fn of(
        table: &'a RouteTable,
        named: &[String],
        space: Option<&str>,
    ) -> Result<Self, Usage> {
        let spaces = match space {
            Some(name) => vec![space_named(table, name)?],
            None => table.spaces().iter().collect(),
        };
        let mut chosen = Vec::new();
        for of_table in &spaces {
            let mut projects: Vec<&str> = Vec::new();
            for route in table.routes() {
                let project = route.repository().project();
                if table.space_of(route) == *of_table && !projects.contains(&project) {
                    projects.push(project);
                }
            }
            if !named.is_empty() {
                projects.retain(|known| named.iter().any(|name| name.eq_ignore_ascii_case(known)));
            }
            if !projects.is_empty() {
                chosen.push((*of_table, projects));
            }
        }
        let is_known = |name: &&String| {
            let mut known = chosen.iter().flat_map(|(_, projects)| projects);
            known.any(|known| name.eq_ignore_ascii_case(known))
        };
        let unknown: Vec<_> = named.iter().filter(|name| !is_known(name)).collect();
        let space = match (&chosen[..], &spaces[..]) {
            ([], [space]) | ([(space, _)], _) => *space,
            _ => {
                let all: Vec<_> = spaces.iter().filter_map(|space| space.name()).collect();
                return Err(Usage(format!(
                    "an API key is of one space; say which one with --space: {}",
                    all.join(", ")
                )));
            }
        };
        // One whose last route is gone may still have a webhook.
        for name in &unknown {
            note!("warning: the routing table has no repository of {name}");
        }
        let projects = chosen.into_iter().flat_map(|(_, projects)| projects);
        let projects = projects.map(str::to_owned);
        Ok(Self {
            space,
            url: space.url().to_string(),
            projects: projects.chain(unknown.into_iter().cloned()).collect(),
        })
    }
}

fn space_named<'a>(table: &'a RouteTable, name: &str) -> Result<&'a Space, Usage> {
    let mut spaces = table.spaces().iter();
    let found = spaces.find(|space| space.name() == Some(name));
    found.ok_or_else(|| {
        let known = table.spaces().iter().filter_map(|space| space.name());
        let known: Vec<_> = known.collect();
        let meant = nearest(name, &known).map(|near| format!("; did you mean {near}?"));
        Usage(format!(
            "no space is named {name:?}{}",
            meant.unwrap_or_default()
        ))
    })
}

/// The administrator's own key that somebody said where to find. The one of the table is a robot's, and never taken.
pub(in crate::cli) async fn given_key(
    from: Option<&str>,
    config: &Config,
) -> Result<Option<Password>, Usage> {
    let Some(from) = from else {
        return Ok(config.admin_api_key.clone());
    };
    match from.split_once(':') {
        Some(("env", name)) if !name.is_empty() => {
            let key = std::env::var(name).ok().filter(|key| !key.is_empty());
            let key = key.ok_or_else(|| Usage(format!("set {name}, as --api-key-from says")))?;
            Ok(Some(key.into()))
        }
        Some(("secret", name)) if !name.is_empty() => {
            let name = name.to_owned();
            Ok(Some(read_api_key(&ApiKeySource::Secret { name }).await?))
        }
        // What stands there may be a key.
        _ => Err(Usage(
            "--api-key-from: expected env:VARIABLE or secret:NAME, and never the key itself".into(),
        )),
    }
}

/// An administrator's own key.
pub(super) async fn key(
    options: &Options,
    config: &Config,
    space: &Space,
) -> Result<Password, Usage> {
    if let Some(key) = given_key(options.api_key_from.as_deref(), config).await? {
        return Ok(key);
    }
    let question = format_args!(
        "API key of an administrator of {} (it is not shown, and kept nowhere):",
        space.url()
    );
    ask::secret(question).await?.ok_or_else(|| {
        Usage(
            "an administrator's API key is needed (Backlog: Personal settings, API), and there is no terminal to ask for it; set \
             BACKLOG_ADMIN_API_KEY, or say --api-key-from env:VARIABLE or --api-key-from secret:NAME"
                .into(),
        )
    })
}
