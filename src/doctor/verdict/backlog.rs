//! Backlog: whose key it is, whether the projects are as they must be, and whether their pushes are told.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    backlog::{self, Fault, User},
    doctor::{
        Check, Finding,
        seen::{Refusal, Seen, Unseen},
    },
    plain,
    registration::TokenState,
};

/// The highest number of a role that may use Git.
const LAST_ROLE_WITH_GIT: i64 = 2;

/// How long a webhook and its line in the log may take.
const ON_THE_WAY: time::Duration = time::Duration::minutes(3);

/// A space, as the owner of a key sees it.
#[derive(Debug)]
pub(in crate::doctor) struct Space {
    pub(in crate::doctor) host: String,
    pub(in crate::doctor) me: Seen<Result<User, Refusal>>,
    pub(in crate::doctor) projects: Vec<Project>,
}

/// A project of the table.
#[derive(Debug)]
pub(in crate::doctor) struct Project {
    pub(in crate::doctor) key: String,
    pub(in crate::doctor) about: Seen<Result<backlog::Project, Refusal>>,
    /// What posts to somebody, if it is known where this bridge is.
    pub(in crate::doctor) hooks: Option<Seen<Result<Vec<Hook>, Refusal>>>,
    /// The repositories of the table.
    pub(in crate::doctor) repositories: Vec<String>,
    /// Of them, those with a Git webhook of their own to this bridge.
    pub(in crate::doctor) git_hooks: Vec<String>,
    /// How webhooks are put right.
    pub(in crate::doctor) add: String,
    /// The newest push, and whether it was told; `None` where that cannot be known.
    pub(in crate::doctor) arrival: Option<Seen<Arrival>>,
}

/// A webhook of a project.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Hook {
    pub(in crate::doctor) id: i64,
    /// Whether it posts to this bridge.
    pub(in crate::doctor) is_ours: bool,
    pub(in crate::doctor) is_tls: bool,
    pub(in crate::doctor) posts_pushes: bool,
    pub(in crate::doctor) posts_all: bool,
    /// What it posts.
    pub(in crate::doctor) types: Vec<i64>,
    pub(in crate::doctor) token: Seen<TokenState>,
}

/// The newest push to a repository of the table.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Arrival {
    /// Its repository, ref and time; `None` if nobody has pushed since the bridge is there.
    pub(in crate::doctor) push: Option<(String, String, OffsetDateTime)>,
    /// Whether `receive` has a line of it.
    pub(in crate::doctor) arrived: bool,
    /// What time it is.
    pub(in crate::doctor) now: OffsetDateTime,
}

impl Space {
    pub(in crate::doctor) fn findings(&self) -> Vec<Finding> {
        let host = self.host.as_str();
        let mut found = Vec::new();
        match &self.me {
            Ok(Ok(me)) => {
                let name = plain::foreign(me.name.as_deref().unwrap_or("somebody"));
                let role = role(me.role_type);
                found.push(Check::ApiKey.ok(host, format!("the key is that of {name}, {role}")));
                found.push(match me.role_type {
                    Some(number) if number > LAST_ROLE_WITH_GIT => Check::Role
                        .error(host, format!("{name} is a {role}, and such a user has no Git and no API of pull requests"))
                        .with("make it a normal user of the space, or take the key of one"),
                    _ => Check::Role.ok(host, format!("{name} is {role}")),
                });
                found.extend(self.projects.iter().flat_map(Project::findings));
                return found;
            }
            Ok(Err(refusal)) => found.push(match refusal.fault {
                Fault::WrongKey
                | Fault::TwoFactor
                | Fault::Address
                | Fault::NoApi
                | Fault::Refused
                | Fault::Role
                | Fault::NotThere => Check::ApiKey.error(host, &refusal.text),
                // The Git server is the same host, and told of.
                Fault::Unreachable => {
                    Check::ApiKey.unknown(host, &Unseen::After(refusal.text.clone()))
                }
                _ => Check::ApiKey.unknown(host, &Unseen::Failed(refusal.text.clone())),
            }),
            Err(unseen) => found.push(Check::ApiKey.unknown(host, unseen)),
        }
        let after = Unseen::After("the API key comes first".into());
        for Project { key, hooks, .. } in &self.projects {
            found.push(Check::Project.unknown(key, &after));
            found.extend(hooks.as_ref().map(|_| Check::Webhook.unknown(key, &after)));
        }
        found
    }
}

fn role(number: Option<i64>) -> &'static str {
    match number {
        Some(1) => "administrator",
        Some(2) => "normal user",
        Some(3) => "reporter",
        Some(4) => "viewer",
        Some(5) => "guest reporter",
        Some(6) => "guest viewer",
        _ => "of an unknown role",
    }
}

impl Project {
    fn findings(&self) -> Vec<Finding> {
        let key = self.key.as_str();
        let mut found = Vec::new();
        match &self.about {
            Ok(Ok(about)) => found.push(match (about.archived, about.use_git) {
                (Some(true), _) => Check::Project
                    .error(key, "the project is archived, so nobody can push to it")
                    .with("take its routes out of the table, or bring the project back (Project settings)"),
                (_, Some(false)) => Check::Project
                    .error(key, "Git is switched off in the project")
                    .with("switch it on: Project settings, General, Use Git"),
                _ => Check::Project.ok(key, "it is there, and has Git"),
            }),
            Ok(Err(refusal)) => {
                found.push(match refusal.fault {
                    Fault::NotThere => Check::Project
                        .error(key, "there is no such project, or the key's owner is no member of it")
                        .with("check the route's repository, or add the user to the project (Project settings, Members)"),
                    Fault::Role => Check::Project.unknown(key, &Unseen::Denied("a member of the project".into())),
                    _ => Check::Project.unknown(key, &Unseen::Failed(refusal.text.clone())),
                });
                let after = Unseen::After("the project comes first".into());
                found.extend(self.hooks.as_ref().map(|_| Check::Webhook.unknown(key, &after)));
                return found;
            }
            Err(unseen) => found.push(Check::Project.unknown(key, unseen)),
        }
        if let Some(hooks) = &self.hooks {
            found.push(match hooks {
                Ok(Ok(hooks)) => self.webhook(hooks),
                Ok(Err(refusal)) => Check::Webhook.unknown(
                    key,
                    &match refusal.fault {
                        Fault::Role => Unseen::Denied(
                            "the key of an administrator of the project: BACKLOG_ADMIN_API_KEY"
                                .into(),
                        ),
                        _ => Unseen::Failed(refusal.text.clone()),
                    },
                ),
                Err(unseen) => Check::Webhook.unknown(key, unseen),
            });
            for repository in &self.git_hooks {
                let twice = matches!(hooks, Ok(Ok(hooks)) if hooks.iter().any(|hook| hook.is_ours && hook.posts_pushes));
                let how = if twice {
                    "both its own Git webhook and that of the project post to this bridge; one is enough"
                } else {
                    "its own Git webhook posts to this bridge"
                };
                found.push(Check::GitWebhook.ok(repository, how));
            }
        }
        found.extend(self.arrival.as_ref().map(|arrival| match arrival {
            Ok(arrival) => self.arrived(arrival),
            Err(unseen) => Check::Arrival.unknown(key, unseen),
        }));
        found
    }

    fn webhook(&self, hooks: &[Hook]) -> Finding {
        let key = self.key.as_str();
        let ours: Vec<_> = hooks.iter().filter(|hook| hook.is_ours).collect();
        let faults = ours.iter().map(|hook| (*hook, hook.fault()));
        let (well, wrong): (Vec<_>, Vec<_>) = faults.partition(|(_, fault)| fault.is_none());
        let ids = || {
            ours.iter()
                .map(|hook| hook.id.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (well.first(), wrong.first()) {
            (Some(_), _) if ours.len() > 1 => Check::Webhook
                .warning(key, format!("{} webhooks post to this bridge (numbers {}); one is enough", ours.len(), ids()))
                .with(format!("{} --prune", self.add)),
            (Some((hook, _)), _) => match &hook.token {
                Ok(TokenState::Previous) => Check::Webhook
                    .warning(key, "the webhook has the token from before; it is refused after the next change")
                    .with(&self.add),
                Ok(_) if hook.posts_all => {
                    Check::Webhook.ok(key, "the webhook posts every activity of the project, pushes among them")
                }
                Ok(_) => Check::Webhook.ok(key, "the webhook posts pushes to this bridge"),
                Err(unseen) => Check::Webhook.ok(
                    key,
                    format!("the webhook posts pushes to this bridge; its token was not compared: {unseen}"),
                ),
            },
            (None, Some((_, fault))) => Check::Webhook
                .error(key, fault.clone().unwrap_or_default())
                .with(&self.add),
            (None, None) => {
                let untold: Vec<_> = self
                    .repositories
                    .iter()
                    .filter(|repository| !self.git_hooks.contains(repository))
                    .map(String::as_str)
                    .collect();
                if untold.is_empty() {
                    return Check::Webhook.ok(key, "every repository has a Git webhook of its own to this bridge");
                }
                let others = match hooks.len() {
                    0 => "it has none".into(),
                    1 => "it has one to somebody else, which is left alone".into(),
                    others => format!("it has {others} to others, which are left alone"),
                };
                Check::Webhook
                    .error(key, format!("no webhook of the project posts to this bridge; {others}"))
                    .with(&self.add)
            }
        }
    }

    fn arrived(&self, arrival: &Arrival) -> Finding {
        let key = self.key.as_str();
        let Some((repository, ref_name, at)) = &arrival.push else {
            return Check::Arrival.ok(key, "nobody has pushed since the bridge is there");
        };
        let push = format!(
            "the push to {} {} at {}",
            plain::foreign(repository),
            plain::foreign(ref_name),
            clock(*at)
        );
        if arrival.arrived {
            return Check::Arrival.ok(key, format!("{push} was told"));
        }
        if arrival.now - *at < ON_THE_WAY {
            return Check::Arrival.unknown(
                key,
                &Unseen::Needs(format!("{push} is too young; ask again in some minutes")),
            );
        }
        Check::Arrival
            .error(key, format!("no webhook came of {push}; the sweep alone delivers"))
            .with(
                "look at what Backlog sent (Project settings, Integrations, Webhook, the webhook's history): no entry means that \
                 it is not for pushes; an entry without an answer, that its URL is wrong",
            )
    }
}

impl Hook {
    fn fault(&self) -> Option<String> {
        if !self.posts_pushes {
            let types: Vec<_> = self.types.iter().map(ToString::to_string).collect();
            return Some(format!(
                "there is a webhook to this bridge, but not for Git pushes (types {})",
                types.join(", ")
            ));
        }
        if !self.is_tls {
            return Some(
                "the webhook posts to this bridge over http, where no API of AWS answers".into(),
            );
        }
        matches!(self.token, Ok(TokenState::Unknown)).then(|| {
            "the webhook posts to this bridge with a token that is not the bridge's, and is answered with 404".into()
        })
    }
}

fn clock(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::tests::{lines, problems};

    fn user(role: i64) -> User {
        User {
            id: 1,
            user_id: None,
            name: Some("Robot".into()),
            role_type: Some(role),
        }
    }

    fn refusal(fault: Fault) -> Refusal {
        Refusal {
            fault,
            text: "as Backlog says".into(),
        }
    }

    fn about(archived: bool, use_git: bool) -> backlog::Project {
        backlog::Project {
            id: 1,
            project_key: Some("APP".into()),
            name: None,
            use_git: Some(use_git),
            archived: Some(archived),
            text_formatting_rule: None,
        }
    }

    fn hook(id: i64) -> Hook {
        Hook {
            id,
            is_ours: true,
            is_tls: true,
            posts_pushes: true,
            posts_all: false,
            types: vec![12],
            token: Ok(TokenState::Current),
        }
    }

    fn project(hooks: Result<Vec<Hook>, Refusal>) -> Project {
        Project {
            key: "APP".into(),
            about: Ok(Ok(about(false, true))),
            hooks: Some(Ok(hooks)),
            repositories: vec!["APP/web".into()],
            git_hooks: Vec::new(),
            add: "webhook add APP".into(),
            arrival: None,
        }
    }

    fn space(me: Result<User, Refusal>, projects: Vec<Project>) -> Space {
        Space {
            host: "x.backlog.com".into(),
            me: Ok(me),
            projects,
        }
    }

    #[test]
    fn whose_key_it_is_is_told() {
        for (me, expected) in [
            (Ok(user(2)), None),
            (
                Ok(user(3)),
                Some(
                    "error role x.backlog.com: Robot is a reporter, and such a user has no Git and no API of pull requests => make it a normal user",
                ),
            ),
            (
                Err(refusal(Fault::WrongKey)),
                Some("error api_key x.backlog.com: as Backlog says"),
            ),
            (
                Err(refusal(Fault::TwoFactor)),
                Some("error api_key x.backlog.com: as Backlog says"),
            ),
            (
                Err(refusal(Fault::Address)),
                Some("error api_key x.backlog.com: as Backlog says"),
            ),
            (
                Err(refusal(Fault::Server)),
                Some("? api_key x.backlog.com: not checked: as Backlog says"),
            ),
        ] {
            let found = problems(&space(me, Vec::new()).findings());
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(
                expected.is_none_or(|expected| found[0].starts_with(expected)),
                "{found:?}"
            );
        }
        // What needs the key is not told again.
        let found = space(Err(refusal(Fault::WrongKey)), vec![project(Ok(Vec::new()))]).findings();
        assert_eq!(found.iter().filter(|finding| !finding.follows).count(), 1);
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
    fn a_project_and_its_webhook_are_told() {
        let with = |hooks| project(Ok(hooks));
        let mut archived = with(vec![hook(1)]);
        archived.about = Ok(Ok(about(true, true)));
        let mut no_git = with(vec![hook(1)]);
        no_git.about = Ok(Ok(about(false, false)));
        let mut stranger = with(vec![hook(1)]);
        stranger.about = Ok(Err(refusal(Fault::NotThere)));
        let mut by_repository = with(Vec::new());
        by_repository.git_hooks = vec!["APP/web".into()];
        let foreign = Hook {
            is_ours: false,
            ..hook(7)
        };
        for (case, project, expected) in [
            ("well", with(vec![hook(1)]), None),
            (
                "all events",
                with(vec![Hook {
                    posts_all: true,
                    ..hook(1)
                }]),
                None,
            ),
            (
                "ours beside another",
                with(vec![foreign.clone(), hook(1)]),
                None,
            ),
            ("a Git webhook", by_repository, None),
            (
                "archived",
                archived,
                Some(
                    "error project APP: the project is archived, so nobody can push to it => take its routes out",
                ),
            ),
            (
                "no Git",
                no_git,
                Some("error project APP: Git is switched off in the project => switch it on"),
            ),
            (
                "no member",
                stranger,
                Some(
                    "error project APP: there is no such project, or the key's owner is no member of it => check",
                ),
            ),
            (
                "none",
                with(Vec::new()),
                Some(
                    "error webhook APP: no webhook of the project posts to this bridge; it has none => webhook add APP",
                ),
            ),
            (
                "another's",
                with(vec![foreign]),
                Some(
                    "error webhook APP: no webhook of the project posts to this bridge; it has one to somebody else, which is left alone => webhook add APP",
                ),
            ),
            (
                "two",
                with(vec![hook(1), hook(2)]),
                Some(
                    "warning webhook APP: 2 webhooks post to this bridge (numbers 1, 2); one is enough => webhook add APP --prune",
                ),
            ),
            (
                "other types",
                with(vec![Hook {
                    posts_pushes: false,
                    types: vec![1, 2, 3],
                    ..hook(1)
                }]),
                Some(
                    "error webhook APP: there is a webhook to this bridge, but not for Git pushes (types 1, 2, 3) => webhook add APP",
                ),
            ),
            (
                "http",
                with(vec![Hook {
                    is_tls: false,
                    ..hook(1)
                }]),
                Some("error webhook APP: the webhook posts to this bridge over http"),
            ),
            (
                "an unknown token",
                with(vec![Hook {
                    token: Ok(TokenState::Unknown),
                    ..hook(1)
                }]),
                Some(
                    "error webhook APP: the webhook posts to this bridge with a token that is not the bridge's, and is answered with 404 => webhook add APP",
                ),
            ),
            (
                "the previous token",
                with(vec![Hook {
                    token: Ok(TokenState::Previous),
                    ..hook(1)
                }]),
                Some("warning webhook APP: the webhook has the token from before"),
            ),
            (
                "no administrator",
                project(Err(refusal(Fault::Role))),
                Some(
                    "? webhook APP: not checked: needs the key of an administrator of the project: BACKLOG_ADMIN_API_KEY",
                ),
            ),
        ] {
            let found = space(Ok(user(1)), vec![project]).findings();
            let found: Vec<_> = found
                .into_iter()
                .filter(|finding| !finding.follows)
                .collect();
            let found = problems(&found);
            assert_eq!(
                found.len(),
                usize::from(expected.is_some()),
                "{case}: {found:?}"
            );
            assert!(
                expected.is_none_or(|expected| found[0].starts_with(expected)),
                "{case}: {found:?}"
            );
        }
    }

    #[test]
    fn a_push_that_nothing_told_of_is_told() {
        let at = OffsetDateTime::from_unix_timestamp(1_774_000_000).unwrap();
        let arrival = |minutes, arrived| Arrival {
            push: Some(("APP/web".into(), "refs/heads/main".into(), at)),
            arrived,
            now: at + time::Duration::minutes(minutes),
        };
        let quiet = Arrival {
            push: None,
            ..arrival(9, false)
        };
        for (arrival, expected) in [
            (quiet, "ok arrival APP: nobody has pushed since"),
            (
                arrival(9, true),
                "ok arrival APP: the push to APP/web refs/heads/main at 2026-03-20T09:46:40Z was told",
            ),
            (
                arrival(1, false),
                "? arrival APP: not checked: the push to APP/web refs/heads/main at 2026-03-20T09:46:40Z is too young",
            ),
            (
                arrival(9, false),
                "error arrival APP: no webhook came of the push to APP/web refs/heads/main at 2026-03-20T09:46:40Z; the sweep alone delivers => look at what Backlog sent",
            ),
        ] {
            let mut project = project(Ok(vec![hook(1)]));
            project.arrival = Some(Ok(arrival));
            let found = lines(&project.findings());
            assert!(found.last().unwrap().starts_with(expected), "{found:?}");
        }
    }
}
