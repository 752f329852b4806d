//! The webhooks of this bridge as they are registered with Backlog: what a project has, what it should have, and the calls in
//! between. Webhooks of anybody else are never touched. [`plan`] decides and does nothing.

mod delivery;
mod run;

use std::{fmt, net::IpAddr, str::FromStr};

use percent_encoding::percent_decode_str;
use reqwest::Url;

pub use self::{
    delivery::{Answer, DeliveryError, deliver},
    run::{Registered, bring, set_by_hand},
};
use crate::{
    backlog::{OPENED, PUSHED, Webhook},
    secrets::{Password, Token, TokenPair},
};

/// How the path ends that webhooks are posted to, before the token.
const HOOKS: &str = "/hooks";

/// Where webhooks are posted to, such as `https://bridge.example.com/hooks`: without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks(Url);

/// A text that is no such place. It is not repeated: it may hold a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHooks {
    /// A token is in it.
    #[error("expected the URL up to /hooks, without the token")]
    Token,
    /// It is reached without TLS.
    #[error("expected an https URL, since the token would be read on its way")]
    Plain,
    /// Anything else.
    #[error(
        "expected the URL of the bridge up to /hooks, as https://bridge.example.com/hooks, without user name, `?` and `#`"
    )]
    Shape,
}

impl FromStr for Hooks {
    type Err = InvalidHooks;

    fn from_str(text: &str) -> Result<Self, InvalidHooks> {
        let mut url: Url = text.trim().parse().map_err(|_| InvalidHooks::Shape)?;
        let path = url.path().trim_end_matches('/').to_owned();
        if path.contains("/hooks/") || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidHooks::Token);
        }
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        if !path.ends_with(HOOKS) || !has_host || url.query().or(url.fragment()).is_some() {
            return Err(InvalidHooks::Shape);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(InvalidHooks::Plain),
            _ => return Err(InvalidHooks::Shape),
        }
        url.set_path(&path);
        Ok(Self(url))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hooks {
    /// The URL that Backlog posts to, as people may see it.
    #[must_use]
    pub fn masked(&self) -> String {
        format!("{self}/TOKEN")
    }

    /// The URL that Backlog posts to.
    fn with(&self, token: &Token) -> Password {
        format!("{self}/{}", token.reveal().reveal()).into()
    }

    /// The token in a URL that leads here, which may be empty; `None` if it leads to another place.
    fn token_in(&self, url: &str) -> Option<String> {
        let url: Url = url.trim().parse().ok()?;
        let below = url.path().strip_prefix(self.0.path())?;
        let token = match below.trim_end_matches('/') {
            "" => url.password().unwrap_or_default(),
            below => below.strip_prefix('/')?,
        };
        let is_here = url.origin() == self.0.origin() && !token.contains('/');
        is_here.then(|| percent_decode_str(token).decode_utf8_lossy().into_owned())
    }
}

/// A bridge as Backlog meets it.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Where webhooks are posted to.
    pub hooks: Hooks,
    /// The tokens that it takes, if they are known here.
    pub tokens: Option<TokenPair>,
}

/// Which token a webhook brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// The newest.
    Current,
    /// The one before, which is valid too.
    Previous,
    /// Another one, or nobody knows.
    Unknown,
}

impl TokenState {
    /// As programs read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Unknown => "unknown",
        }
    }
}

impl Bridge {
    /// Which token a URL brings here; `None` if it is not this bridge's.
    #[must_use]
    pub fn token_of(&self, url: &Password) -> Option<TokenState> {
        let token = self.hooks.token_in(url.reveal())?;
        let is = |known: &Token| known.is(&token);
        let tokens = self.tokens.as_ref();
        Some(if tokens.is_some_and(|known| is(&known.current)) {
            TokenState::Current
        } else if tokens.is_some_and(|known| known.previous.as_ref().is_some_and(is)) {
            TokenState::Previous
        } else {
            TokenState::Unknown
        })
    }
}

/// What a project should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// One webhook of this bridge that brings the current token and posts pushes. With `prune`, no second one.
    Registered {
        /// Whether others of this bridge are removed.
        prune: bool,
    },
    /// The current token in all webhooks of this bridge.
    Turned,
    /// No webhook of this bridge.
    Gone,
    /// What it has.
    AsItIs,
}

/// What is done about one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A new one.
    Add,
    /// It gets another URL, or other activities, or both.
    Change {
        /// Whether it gets the URL with the current token.
        url: bool,
        /// All activities that it posts from now on, if they change.
        types: Option<Vec<i64>>,
    },
    /// It is taken away.
    Remove,
    /// Nothing: it is as it should be.
    Keep,
    /// Nothing, though it is not as it should be.
    Leave,
}

/// One webhook of this bridge, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The webhook, if it is there.
    pub id: Option<i64>,
    /// The token that it brings now.
    pub token: Option<TokenState>,
    /// What is done.
    pub act: Act,
}

/// What brings a project's webhooks to what they should be, a step for each that is of this bridge. Where there is none, one
/// step without a webhook.
#[must_use]
pub fn plan(bridge: &Bridge, webhooks: &[Webhook], aim: Aim) -> Vec<Step> {
    let own = webhooks.iter().filter_map(|webhook| {
        let token = bridge.token_of(webhook.hook_url.as_ref()?)?;
        Some((webhook, token))
    });
    let mut own: Vec<_> = own.collect();
    own.sort_by_key(|(webhook, _)| webhook.id);
    if own.is_empty() {
        let act = match aim {
            Aim::Registered { .. } => Act::Add,
            Aim::Gone => Act::Keep,
            Aim::Turned | Aim::AsItIs => Act::Leave,
        };
        let (id, token) = (None, None);
        return vec![Step { id, token, act }];
    }
    let steps = own
        .into_iter()
        .enumerate()
        .map(|(place, (webhook, token))| {
            let is_first = place == 0;
            let is_current = token == TokenState::Current;
            let act = match aim {
                Aim::Gone => Act::Remove,
                Aim::Registered { prune: true } if !is_first => Act::Remove,
                Aim::Registered { prune: false } if !is_first => Act::Leave,
                Aim::Registered { .. } if is_current && with_all(webhook).is_none() => Act::Keep,
                Aim::Registered { .. } => Act::Change {
                    url: !is_current,
                    types: with_all(webhook),
                },
                Aim::Turned if is_current => Act::Keep,
                Aim::Turned => Act::Change {
                    url: true,
                    types: None,
                },
                Aim::AsItIs if is_first && is_current && webhook.posts_pushes() => Act::Keep,
                Aim::AsItIs => Act::Leave,
            };
            Step {
                id: Some(webhook.id),
                token: Some(token),
                act,
            }
        });
    steps.collect()
}

/// What a webhook posts, with pushes and with the pull requests that results are told in, if it does not post both.
fn with_all(webhook: &Webhook) -> Option<Vec<i64>> {
    let lacks = [
        (!webhook.posts_pushes()).then_some(PUSHED),
        (!webhook.posts_opened()).then_some(OPENED),
    ];
    let lacks: Vec<i64> = lacks.into_iter().flatten().collect();
    let types = webhook.activity_type_ids.iter().flatten().copied();
    (!lacks.is_empty()).then(|| types.chain(lacks).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: &str = "current-token-0123456789";
    const PREVIOUS: &str = "previous-token-0123456789";

    fn bridge(hooks: &str) -> Bridge {
        Bridge {
            hooks: hooks.parse().unwrap(),
            tokens: Some(TokenPair {
                current: CURRENT.parse().unwrap(),
                previous: Some(PREVIOUS.parse().unwrap()),
            }),
        }
    }

    fn webhook(id: i64, url: &str, types: &[i64]) -> Webhook {
        let json = serde_json::json!({"id": id, "hookUrl": url, "allEvent": false, "activityTypeIds": types});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_place_for_webhooks_holds_no_token() {
        for (text, expected) in [
            ("https://a.example/hooks", Ok("https://a.example/hooks")),
            (
                "https://A.example:443/prod/hooks/",
                Ok("https://a.example/prod/hooks"),
            ),
            (
                "http://127.0.0.1:8080/hooks",
                Ok("http://127.0.0.1:8080/hooks"),
            ),
            ("http://[::1]:8080/hooks", Ok("http://[::1]:8080/hooks")),
            ("http://localhost/hooks", Ok("http://localhost/hooks")),
            ("http://a.example/hooks", Err(InvalidHooks::Plain)),
            ("http://127.0.0.1.example/hooks", Err(InvalidHooks::Plain)),
            ("https://a.example/hooks/s3cret", Err(InvalidHooks::Token)),
            (
                "https://backlog:s3cret@a.example/hooks",
                Err(InvalidHooks::Token),
            ),
            ("https://s3cret@a.example/hooks", Err(InvalidHooks::Token)),
            ("https://a.example/", Err(InvalidHooks::Shape)),
            ("https://a.example/webhooks", Err(InvalidHooks::Shape)),
            ("https://a.example/hooks?s3cret", Err(InvalidHooks::Shape)),
            ("https://a.example/hooks#s3cret", Err(InvalidHooks::Shape)),
            ("ftp://a.example/hooks", Err(InvalidHooks::Shape)),
            ("a.example/hooks", Err(InvalidHooks::Shape)),
        ] {
            let found = text.parse::<Hooks>();
            if let Err(err) = found {
                assert!(!err.to_string().contains("s3cret"));
            }
            let found = found.map(|hooks| hooks.to_string());
            assert_eq!(found.as_deref().map_err(|err| *err), expected, "{text}");
        }
    }

    #[test]
    fn ours_is_what_leads_to_the_same_place() {
        let bridge = bridge("https://bridge.example/prod/hooks");
        let at = |path: &str| format!("https://bridge.example{path}");
        for (url, expected) in [
            (
                at(&format!("/prod/hooks/{CURRENT}")),
                Some(TokenState::Current),
            ),
            (
                at(&format!("/prod/hooks/{CURRENT}/")),
                Some(TokenState::Current),
            ),
            (
                at(&format!("/prod/hooks/{PREVIOUS}")),
                Some(TokenState::Previous),
            ),
            (at("/prod/hooks/another"), Some(TokenState::Unknown)),
            (at("/prod/hooks"), Some(TokenState::Unknown)),
            (
                format!("https://BRIDGE.example:443/prod/hooks/{CURRENT}"),
                Some(TokenState::Current),
            ),
            (
                format!("https://backlog:{CURRENT}@bridge.example/prod/hooks"),
                Some(TokenState::Current),
            ),
            (
                format!(
                    "https://backlog:{}@bridge.example/prod/hooks",
                    CURRENT.replace('-', "%2D")
                ),
                Some(TokenState::Current),
            ),
            (
                at(&format!("/prod/hooks/{}", CURRENT.replace('c', "%63"))),
                Some(TokenState::Current),
            ),
            // Another bridge behind the same host, and others.
            (at(&format!("/test/hooks/{CURRENT}")), None),
            (at(&format!("/hooks/{CURRENT}")), None),
            (at(&format!("/prod/hooks2/{CURRENT}")), None),
            (at(&format!("/prod/hooks/{CURRENT}/more")), None),
            (
                format!("https://bridge.example:8443/prod/hooks/{CURRENT}"),
                None,
            ),
            (format!("http://bridge.example/prod/hooks/{CURRENT}"), None),
            (
                format!("https://bridge.example.org/prod/hooks/{CURRENT}"),
                None,
            ),
            ("no URL".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(bridge.token_of(&url.clone().into()), expected, "{url}");
        }
        let unknown = Bridge {
            tokens: None,
            ..bridge
        };
        let url = at(&format!("/prod/hooks/{CURRENT}")).into();
        assert_eq!(unknown.token_of(&url), Some(TokenState::Unknown));
        assert!(
            !format!("{unknown:?} {:?}", self::bridge("https://a.example/hooks"))
                .contains("token-0")
        );
    }

    #[test]
    fn a_plan_touches_what_is_ours_and_keeps_the_oldest() {
        let own = |token: &str| format!("https://a.example/hooks/{token}");
        let foreign = webhook(
            1,
            "https://other.example/hooks/current-token-0123456789",
            &[12],
        );
        let url = |types| Act::Change { url: true, types };
        let add = Aim::Registered { prune: false };
        let prune = Aim::Registered { prune: true };
        let good = webhook(5, &own(CURRENT), &[1, 12, 18]);
        let old = webhook(4, &own(PREVIOUS), &[12, 18]);
        let lost = webhook(9, &own("whatever"), &[1, 2]);
        let silent = webhook(6, &own(CURRENT), &[]);
        let mut all = webhook(7, &own(CURRENT), &[]);
        all.all_event = Some(true);
        for (case, aim, webhooks, expected) in [
            ("none", add, vec![&foreign], vec![(None, Act::Add)]),
            (
                "well",
                add,
                vec![&foreign, &good],
                vec![(Some(5), Act::Keep)],
            ),
            ("of all", add, vec![&all], vec![(Some(7), Act::Keep)]),
            ("an old token", add, vec![&old], vec![(Some(4), url(None))]),
            (
                "all wrong",
                add,
                vec![&lost],
                vec![(Some(9), url(Some(vec![1, 2, 12, 18])))],
            ),
            (
                "no pushes",
                add,
                vec![&silent],
                vec![(
                    Some(6),
                    Act::Change {
                        url: false,
                        types: Some(vec![12, 18]),
                    },
                )],
            ),
            (
                "two",
                add,
                vec![&lost, &good, &foreign],
                vec![(Some(5), Act::Keep), (Some(9), Act::Leave)],
            ),
            (
                "two, pruned",
                prune,
                vec![&lost, &good],
                vec![(Some(5), Act::Keep), (Some(9), Act::Remove)],
            ),
            (
                "turned",
                Aim::Turned,
                vec![&lost, &good, &foreign],
                vec![(Some(5), Act::Keep), (Some(9), url(None))],
            ),
            (
                "turned, none",
                Aim::Turned,
                vec![&foreign],
                vec![(None, Act::Leave)],
            ),
            (
                "gone",
                Aim::Gone,
                vec![&lost, &good, &foreign],
                vec![(Some(5), Act::Remove), (Some(9), Act::Remove)],
            ),
            (
                "gone already",
                Aim::Gone,
                vec![&foreign],
                vec![(None, Act::Keep)],
            ),
            (
                "listed",
                Aim::AsItIs,
                vec![&lost, &old],
                vec![(Some(4), Act::Leave), (Some(9), Act::Leave)],
            ),
            (
                "listed well",
                Aim::AsItIs,
                vec![&good],
                vec![(Some(5), Act::Keep)],
            ),
        ] {
            let webhooks: Vec<_> = webhooks.into_iter().cloned().collect();
            let steps = plan(&bridge("https://a.example/hooks"), &webhooks, aim);
            let found: Vec<_> = steps.into_iter().map(|step| (step.id, step.act)).collect();
            assert_eq!(found, expected, "{case}");
        }
    }
}
