//! The secrets: whether they are there, may be read by the functions, and hold what they should.

use crate::{
    doctor::{Check, Finding, seen::Seen},
    secrets::Held,
};

/// A login of the table: which secret it is in, and what that holds.
#[derive(Debug)]
pub(in crate::doctor) struct GitLogin {
    pub(in crate::doctor) secret: String,
    /// The stack, its own secret, and whether the functions may read this one; if there is a stack.
    pub(in crate::doctor) stack: Option<(String, String, bool)>,
    pub(in crate::doctor) held: Seen<Held<()>>,
}

pub(in crate::doctor) fn git_secret(login: &GitLogin) -> Finding {
    let GitLogin {
        secret,
        stack,
        held,
    } = login;
    if let Some((_, own, false)) = stack {
        return Check::GitSecret
            .error(secret, format!("the functions may not read the secret that the routing table names; theirs is {own}"))
            .with(format!("write credentials = \"secret:{own}\" in the table, or deploy the stack with the secret's ARN in ExtraGitSecrets"));
    }
    let fill = match stack {
        Some((stack, ..)) => format!("backlog-bridge connect --stack {stack}"),
        None => format!(
            "store {{\"username\":\"…\",\"password\":\"…\"}}: aws secretsmanager put-secret-value --secret-id {secret} --secret-string file:///dev/stdin"
        ),
    };
    match held {
        Ok(Held::Filled(())) => Check::GitSecret.ok(secret, "the Git login is filled in"),
        Ok(Held::Empty) => Check::GitSecret
            .error(
                secret,
                "the Git login is not filled in: user name and password are empty",
            )
            .with(fill),
        Ok(Held::Other) => Check::GitSecret
            .error(
                secret,
                "it does not hold {\"username\":\"…\",\"password\":\"…\"} with both filled in",
            )
            .with(fill),
        Ok(other) => gone(Check::GitSecret, secret, other),
        Err(unseen) => Check::GitSecret.unknown(secret, unseen),
    }
}

/// The webhook's token.
pub(in crate::doctor) fn token_secret(secret: &str, stack: &str, held: &Seen<Held<()>>) -> Finding {
    match held {
        Ok(Held::Filled(())) => Check::TokenSecret.ok(secret, "the webhook's token is there"),
        Ok(Held::Empty | Held::Other) => Check::TokenSecret
            .error(secret, "it holds no token of at least 16 letters, digits, `-`, `.`, `_` and `~`, so every webhook is answered with 503")
            .with(format!("backlog-bridge webhook rotate --stack {stack}")),
        Ok(other) => gone(Check::TokenSecret, secret, other),
        Err(unseen) => Check::TokenSecret.unknown(secret, unseen),
    }
}

fn gone(check: Check, secret: &str, held: &Held<()>) -> Finding {
    match held {
        Held::Deleted => check
            .error(
                secret,
                "the secret is scheduled for deletion, and nobody can read it",
            )
            .with(format!(
                "aws secretsmanager restore-secret --secret-id {secret}"
            )),
        _ => check
            .error(
                secret,
                "there is no such secret in this account and region, or it has no value",
            )
            .with("aws secretsmanager list-secrets --query 'SecretList[].Name'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{seen::Unseen, verdict::tests::line};

    #[test]
    fn secrets_are_told() {
        let login = |may, held| GitLogin {
            secret: "s".into(),
            stack: Some(("bridge".into(), "own".into(), may)),
            held,
        };
        for (login, expected) in [
            (login(true, Ok(Held::Filled(()))), "ok git_secret s"),
            (
                login(true, Ok(Held::Empty)),
                "error git_secret s: the Git login is not filled in: user name and password are empty => backlog-bridge connect --stack bridge",
            ),
            (
                login(true, Ok(Held::Other)),
                "error git_secret s: it does not hold {\"username\"",
            ),
            (
                login(true, Ok(Held::Deleted)),
                "error git_secret s: the secret is scheduled for deletion, and nobody can read it => aws secretsmanager restore-secret --secret-id s",
            ),
            (
                login(true, Ok(Held::Missing)),
                "error git_secret s: there is no such secret",
            ),
            (
                login(false, Ok(Held::Filled(()))),
                "error git_secret s: the functions may not read the secret that the routing table names; theirs is own => write credentials = \"secret:own\"",
            ),
            (
                login(
                    true,
                    Err(Unseen::Denied("secretsmanager:GetSecretValue".into())),
                ),
                "? git_secret s: not checked: needs secretsmanager:GetSecretValue",
            ),
        ] {
            let line = line(&git_secret(&login));
            assert!(line.starts_with(expected), "{line}");
        }
        for (held, expected) in [
            (Held::Filled(()), "ok token_secret t"),
            (
                Held::Empty,
                "error token_secret t: it holds no token of at least 16",
            ),
            (
                Held::Other,
                "error token_secret t: it holds no token of at least 16",
            ),
            (
                Held::Deleted,
                "error token_secret t: the secret is scheduled for deletion",
            ),
        ] {
            let line = line(&token_secret("t", "bridge", &Ok(held)));
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
