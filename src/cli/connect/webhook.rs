//! The webhook: whether the bridge takes one, and its registration with the projects of the table.

use backlog_bridge::{
    backlog::{ApiError, Backlog, Fault},
    config::Config,
    error::chain,
    plain,
    registration::{self, Act, Aim, Bridge, Registered},
    route::Space,
    secrets::{Password, Tokens},
};

use super::{Became, Connection, Steps, Usage, ask};
use crate::cli::webhook::{scope::given_key, test};

impl Connection<'_> {
    /// Sees to it that pushes are told to the bridge.
    pub(super) async fn webhook(&self, config: &Config, steps: &mut Steps) -> Result<(), Usage> {
        let stack = self.stack;
        let tokens = Tokens::in_secret(stack.token_secret.clone());
        let tokens = match Box::pin(tokens.read()).await {
            Ok(tokens) => tokens,
            Err(err) => {
                steps.tell("webhook", Became::Failed, &chain(&err));
                return Ok(());
            }
        };
        let bridge = Bridge {
            hooks: stack.hooks.parse()?,
            tokens: Some(tokens),
        };
        Box::pin(self.take(&bridge, steps)).await;
        for space in self.table.spaces() {
            let projects = self.projects(space);
            if projects.is_empty() || space.url().api_url().is_none() {
                continue;
            }
            let is_only = self.table.spaces().len() == 1;
            let Some(key) = Box::pin(self.key(config, space, is_only)).await? else {
                self.by_hand(&bridge, space, &projects, steps);
                continue;
            };
            let api = match Backlog::new(space.url(), &key) {
                Ok(api) => api,
                Err(err) => {
                    steps.tell("webhook", Became::Failed, &chain(&err));
                    continue;
                }
            };
            Box::pin(self.register(&api, &bridge, space, &projects, steps)).await;
        }
        Ok(())
    }

    fn projects(&self, space: &Space) -> Vec<String> {
        let mut projects = Vec::new();
        for route in self.table.routes() {
            let project = route.repository().project().to_owned();
            if self.table.space_of(route) == space && !projects.contains(&project) {
                projects.push(project);
            }
        }
        projects
    }

    /// Posts what the button in Backlog's settings sends.
    async fn take(&self, bridge: &Bridge, steps: &mut Steps) {
        let Some(tokens) = &bridge.tokens else {
            return;
        };
        let url = bridge.hooks.masked();
        let posted = registration::deliver(bridge, &tokens.current, test::TEST_DELIVERY.to_owned());
        let fault = match Box::pin(posted).await {
            Ok(answer) => {
                let body = serde_json::from_str(&answer.text).ok();
                test::fault(&answer, body.as_ref(), false)
            }
            Err(err) => Some(chain(&err)),
        };
        let message = match fault {
            None => format!("{url} takes a test that was posted from here"),
            // From here it is shut then, as from everywhere else.
            Some(_) if self.stack.parameter("AllowedIps").is_some() => {
                format!("{url} takes posts from AllowedIps alone, so it cannot be tested from here")
            }
            Some(why) => {
                steps.tell("receive", Became::Failed, &format!("{url}: {why}"));
                return;
            }
        };
        steps.tell("receive", Became::Well, &message);
    }

    /// An administrator's key, if there is one: it is used once, and kept nowhere.
    async fn key(
        &self,
        config: &Config,
        space: &Space,
        is_only: bool,
    ) -> Result<Option<Password>, Usage> {
        // A key is of one space, and no other one may see it.
        if is_only {
            let from = self.options.api_key_from.as_deref();
            if let Some(key) = given_key(from, config).await? {
                return Ok(Some(key));
            }
        }
        if !self.asks {
            return Ok(None);
        }
        let question = format_args!(
            "API key of an administrator of {}, to register the webhook (not shown, and kept nowhere; Enter: by hand):",
            space.url()
        );
        let key = ask::hidden(question).await?;
        Ok((!key.reveal().is_empty()).then_some(key))
    }

    async fn register(
        &self,
        api: &Backlog,
        bridge: &Bridge,
        space: &Space,
        projects: &[String],
        steps: &mut Steps,
    ) {
        let user = match api.myself().await {
            Ok(user) => user,
            Err(err) => {
                steps.tell("webhook", Became::Failed, &chain(&err));
                return;
            }
        };
        let role = user.role().unwrap_or("of a role that is not known");
        let name = user.name.or(user.user_id).unwrap_or_default();
        let by = format!("with the key of {}, {role}", plain::foreign(&name));
        for project in projects {
            let is_dry = self.options.dry_run;
            let aim = Aim::Registered { prune: false };
            match registration::bring(api, project, bridge, aim, is_dry).await {
                Ok(all) => {
                    for one in all {
                        match one.failed {
                            Some(err) => self.failed(&err, bridge, space, project, steps),
                            None => self.registered(&one, bridge, project, &by, steps),
                        }
                    }
                }
                Err(err) => self.failed(&err, bridge, space, project, steps),
            }
        }
    }

    fn registered(
        &self,
        one: &Registered,
        bridge: &Bridge,
        project: &str,
        by: &str,
        steps: &mut Steps,
    ) {
        let url = bridge.hooks.masked();
        let would = if self.options.dry_run {
            "would be "
        } else {
            ""
        };
        let id = one.id.map(|id| format!(" {id}")).unwrap_or_default();
        let (became, message) = match one.act {
            Act::Add => (
                Became::Done,
                format!("{project}: {would}registered for Git pushes, {url}, {by}"),
            ),
            Act::Change { .. } => (
                Became::Done,
                format!("{project}: webhook{id} {would}changed to {url} and Git pushes, {by}"),
            ),
            Act::Leave => {
                note!(
                    "{project}: webhook{id} is a further one of this bridge; `backlog-bridge webhook add --prune --stack {}` \
                     removes it",
                    self.stack.name
                );
                return;
            }
            Act::Keep | Act::Remove => (
                Became::Well,
                format!("{project}: webhook{id} tells {url} of Git pushes"),
            ),
        };
        steps.tell("webhook", became, &message);
    }

    fn failed(
        &self,
        err: &ApiError,
        bridge: &Bridge,
        space: &Space,
        project: &str,
        steps: &mut Steps,
    ) {
        if err.fault == Fault::Role {
            note!("{project}: {}", chain(err));
            self.by_hand(bridge, space, &[project.to_owned()], steps);
        } else {
            let message = format!("{project}: {}", chain(err));
            steps.tell("webhook", Became::Failed, &message);
        }
    }

    /// What a person does who has the role for it.
    fn by_hand(&self, bridge: &Bridge, space: &Space, projects: &[String], steps: &mut Steps) {
        let command = match space.name() {
            Some(name) => format!(" --space {name}"),
            None => String::new(),
        };
        let message = format!(
            "an administrator of {} registers it, either with\n  backlog-bridge webhook add{command} --stack {}\nor by hand: Project \
             settings, Integrations, Webhooks, Add webhook, event \"Git pushed\", with the URL\n  {}\nin which TOKEN is what \
             this shows\n  aws secretsmanager get-secret-value --secret-id {} --query SecretString --output text",
            projects.join(", "),
            self.stack.name,
            bridge.hooks.masked(),
            self.stack.token_secret
        );
        steps.tell("webhook", Became::ByHand, &message);
    }
}
