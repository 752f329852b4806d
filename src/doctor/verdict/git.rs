//! The Git server: whether it answers, takes the login, and has the repositories and refs of the table.

use crate::{
    doctor::{
        Check, Finding,
        seen::{Seen, Unseen},
    },
    error::{Error, Refused, Silent, chain},
    plain,
    push::{CommitId, RefName, RepositoryName},
    remote::LfsAnswer,
    route::RefPattern,
    space::SpaceUrl,
};

/// From how many seconds on a clock is wrong enough to be told.
const CLOCK_ODD: i64 = 2 * 60;

/// From how many seconds on AWS refuses what was signed. It takes 15 minutes.
const CLOCK_WRONG: i64 = 14 * 60;

/// How many names are told that there are in place of one.
const TOLD: usize = 5;

/// What a user name is on a Git server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doctor) enum Plan {
    /// The account's e-mail address: a space of backlog.com.
    Mail,
    /// A user id of the space: backlog.jp and backlogtool.com.
    UserId,
    /// Another server.
    Other,
}

impl Plan {
    pub(in crate::doctor) fn of(space: &SpaceUrl) -> Self {
        let url = space.to_string();
        match () {
            () if !space.is_backlog() => Self::Other,
            () if url.ends_with(".backlog.com/git") => Self::Mail,
            () => Self::UserId,
        }
    }
}

/// Where a login comes from, and what kind of name it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doctor) struct Credentials {
    pub(in crate::doctor) plan: Plan,
    /// Whether the user name is an e-mail address; `None` without a login.
    pub(in crate::doctor) is_mail: Option<bool>,
    /// How it is set anew.
    pub(in crate::doctor) set: String,
}

/// What the server's first answer shows.
#[derive(Debug)]
pub(in crate::doctor) struct Host {
    /// Such as `https://example.backlog.com`.
    pub(in crate::doctor) url: String,
    /// How far this machine's clock is ahead of the server's, in seconds, if the server says.
    pub(in crate::doctor) answer: Seen<Result<Option<i64>, Error>>,
}

impl Host {
    pub(in crate::doctor) fn findings(&self) -> Vec<Finding> {
        let host = self.url.as_str();
        let ahead = match &self.answer {
            Ok(Ok(ahead)) => *ahead,
            Ok(Err(err)) => return vec![unreachable(host, err)],
            Err(unseen) => return vec![Check::Reach.unknown(host, unseen)],
        };
        let reached = Check::Reach.ok(host, "it answers");
        [reached]
            .into_iter()
            .chain(ahead.map(|ahead| clock(host, ahead)))
            .collect()
    }

    pub(in crate::doctor) fn is_reached(&self) -> bool {
        matches!(self.answer, Ok(Ok(_)))
    }
}

fn unreachable(host: &str, err: &Error) -> Finding {
    match err {
        Error::Unreachable { advice, source, .. } => Check::Reach
            .error(host, format!("it cannot be reached: {source}"))
            .with(advice.as_ref()),
        err => Check::Reach.error(host, chain(err)),
    }
}

/// No verdict: nobody has seen yet what Backlog answers.
fn lfs(name: &str, answer: &Seen<Result<LfsAnswer, Error>>) -> Finding {
    match answer {
        Ok(Ok(answer)) if answer.is_lfs() => Check::Lfs.ok(name, "the server has LFS"),
        Ok(Ok(LfsAnswer { status, content_type })) => Check::Lfs.ok(
            name,
            format!("to an LFS batch of no file it answers {status} ({content_type}), so it has no LFS, or not for this login"),
        ),
        Ok(Err(err)) => Check::Lfs.unknown(name, &Unseen::Failed(chain(err))),
        Err(unseen) => Check::Lfs.unknown(name, unseen),
    }
}

fn clock(host: &str, ahead: i64) -> Finding {
    let minutes = (ahead.abs() + 30) / 60;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let off = format!("this machine's clock is {minutes} min {way} that of {host}");
    let set = "set the clock: sudo sntp -sS ntp.nict.jp (macOS), w32tm /resync (Windows), sudo timedatectl set-ntp true (Linux)";
    match ahead.abs() {
        0..CLOCK_ODD => Check::Clock.ok(host, "this machine's clock is right"),
        CLOCK_ODD..CLOCK_WRONG => Check::Clock.warning(host, off).with(set),
        _ => Check::Clock
            .error(
                host,
                format!("{off}; AWS takes nothing that is 15 minutes off, and certificates seem to be of another time"),
            )
            .with(set),
    }
}

/// What a route asks of its repository.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Wanted {
    pub(in crate::doctor) route: String,
    pub(in crate::doctor) pattern: RefPattern,
}

/// What a repository lists.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Listing {
    /// The refs that routes may take, and where they point.
    pub(in crate::doctor) refs: Vec<(RefName, CommitId)>,
    /// What else there is, in place of a ref that is not there.
    pub(in crate::doctor) others: Vec<String>,
    /// Whether refs were left out, since there are too many.
    pub(in crate::doctor) is_cut: bool,
    /// The version of the protocol.
    pub(in crate::doctor) version: u8,
    /// Whether it can send only what changed.
    pub(in crate::doctor) sends_changes: bool,
}

/// A repository, and what it says.
#[derive(Debug)]
pub(in crate::doctor) struct Repository {
    pub(in crate::doctor) name: RepositoryName,
    /// Of which space; the URL.
    pub(in crate::doctor) space: String,
    pub(in crate::doctor) credentials: Credentials,
    pub(in crate::doctor) wanted: Vec<Wanted>,
    /// Whether it is the first one that the login is tried with.
    pub(in crate::doctor) is_first: bool,
    pub(in crate::doctor) listing: Seen<Result<Listing, Error>>,
    /// The repositories of the project, if Backlog's API has told them.
    pub(in crate::doctor) known: Vec<String>,
    /// What it says of LFS, if it was asked.
    pub(in crate::doctor) lfs: Option<Seen<Result<LfsAnswer, Error>>>,
}

impl Repository {
    pub(in crate::doctor) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let name = self.name.as_str();
        let listing = match &self.listing {
            Ok(Ok(listing)) => listing,
            Ok(Err(err)) => {
                found.push(self.failed(err));
                found.extend(self.refs_unknown());
                return found;
            }
            Err(unseen) => {
                if self.is_first {
                    found.push(Check::GitLogin.unknown(&self.space, unseen));
                    let after = Unseen::After("the login comes first".into());
                    found.push(Check::Repository.unknown(name, &after));
                } else {
                    found.push(Check::Repository.unknown(name, unseen));
                }
                found.extend(self.refs_unknown());
                return found;
            }
        };
        if self.is_first {
            let how = match self.credentials.is_mail {
                Some(_) => "the login is taken",
                None => "it shows its repositories to everybody",
            };
            found.push(Check::GitLogin.ok(&self.space, how));
        }
        found.push(Check::Repository.ok(name, "it is there"));
        let refs = self
            .wanted
            .iter()
            .map(|wanted| self.of_route(wanted, listing));
        found.extend(refs);
        found.push(match listing {
            Listing { sends_changes: true, version: 2, .. } => {
                Check::Protocol.ok(name, "protocol version 2, and only what changed is sent")
            }
            Listing { sends_changes: true, version, .. } => {
                Check::Protocol.ok(name, format!("protocol version {version}, and only what changed is sent"))
            }
            Listing { version, .. } => Check::Protocol.warning(
                name,
                format!("protocol version {version} without what a small second delivery needs: each delivery fetches everything"),
            ),
        });
        found.extend(self.lfs.as_ref().map(|answer| lfs(name, answer)));
        found
    }

    /// The refs of a repository that lists none.
    fn refs_unknown(&self) -> impl Iterator<Item = Finding> {
        let after = Unseen::After(format!("{} comes first", self.name));
        self.wanted
            .iter()
            .map(move |wanted| Check::Ref.unknown(&wanted.route, &after))
    }

    fn failed(&self, err: &Error) -> Finding {
        let name = self.name.as_str();
        match err {
            Error::AuthFailed { refused: Refused::Login | Refused::NotAsked, .. } => self.login_refused(),
            Error::Credentials { reason, .. } => {
                Check::GitLogin.error(&self.space, format!("there is no login: {reason}"))
            }
            Error::AuthFailed { .. } => Check::Repository
                .error(name, "the login is taken, and this user may not read the repository (HTTP 403)")
                .with("add the user to the project in Backlog (Project settings, Members), not as a reporter or viewer"),
            Error::RepositoryNotFound { url, source } => {
                let near = self.near();
                let found = Check::Repository.error(
                    name,
                    format!("{url} is not there, or this user may not see it ({source})"),
                );
                found.with(near.unwrap_or_else(|| {
                    "check the route's repository and the space's url, and that the user is a member of the project".into()
                }))
            }
            Error::Unreachable { silent: Silent::Host | Silent::Proxy, .. } => {
                unreachable(&self.space, err)
            }
            err => Check::Repository.error(name, chain(err)),
        }
    }

    fn login_refused(&self) -> Finding {
        let Credentials { plan, is_mail, set } = &self.credentials;
        let two_factor = "with two-factor authentication the password is the one that Backlog generates for Git (Personal settings)";
        let (why, what) = match (is_mail, plan) {
            (None, _) => {
                return Check::GitLogin
                    .error(&self.space, "it wants a login (HTTP 401), and the space has no credentials")
                    .with("write credentials = \"env:BACKLOG\" below the space's url, and set BACKLOG_USERNAME and BACKLOG_PASSWORD");
            }
            (Some(false), Plan::Mail) => (
                "the user name is no e-mail address, and a space of backlog.com takes the account's e-mail address",
                "take the e-mail address for the user name",
            ),
            (Some(true), Plan::UserId) => (
                "the user name is an e-mail address, and this space takes the user id",
                "take the user id for the user name",
            ),
            (Some(true), _) => ("the user name is an e-mail address", two_factor),
            (Some(false), _) => ("the user name or the password is wrong", two_factor),
        };
        Check::GitLogin
            .error(
                &self.space,
                format!("the login was refused (HTTP 401); {why}"),
            )
            .with(format!("{what}: {set}"))
    }

    /// The repository that was probably meant.
    fn near(&self) -> Option<String> {
        let mut known: Vec<_> = self.known.iter().map(|name| plain::foreign(name)).collect();
        if known.is_empty() {
            return None;
        }
        let more = if known.len() > TOLD { ", …" } else { "" };
        known.truncate(TOLD);
        Some(format!("the project has {}{more}", known.join(", ")))
    }

    fn of_route(&self, wanted: &Wanted, listing: &Listing) -> Finding {
        let Wanted { route, pattern } = wanted;
        let taken = listing
            .refs
            .iter()
            .filter(|(name, _)| pattern.matches(name))
            .count();
        let (repository, pattern_text) = (&self.name, pattern.as_str());
        let mut others: Vec<_> = listing
            .others
            .iter()
            .map(|name| plain::foreign(name))
            .collect();
        let more = if others.len() > TOLD { ", …" } else { "" };
        others.truncate(TOLD);
        let has = if others.is_empty() {
            "the repository is empty".into()
        } else {
            format!("it has {}{more}", others.join(", "))
        };
        match (pattern.exact(), taken) {
            (Some(_), 0) => Check::Ref
                .error(route, format!("{repository} has no {pattern_text}; {has}"))
                .with("correct ref in the route, or push the branch"),
            (Some(name), _) => Check::Ref.ok(route, format!("{repository} has {name}")),
            (None, 0) => Check::Ref.warning(
                route,
                format!("{repository} has no ref that {pattern_text} takes; {has}"),
            ),
            (None, taken) if listing.is_cut => Check::Ref.warning(
                route,
                format!("{repository} has more refs that {pattern_text} takes than there is room for; {taken} were seen"),
            ).with("delete some, or let the glob begin with more than the others"),
            (None, taken) => Check::Ref.ok(
                route,
                format!("{} of {repository}", plain::count(taken, "ref", "refs")),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::tests::{lines, problems};

    fn repository(
        plan: Plan,
        is_mail: Option<bool>,
        listing: Result<Listing, Error>,
    ) -> Repository {
        Repository {
            name: "APP/web".parse().unwrap(),
            space: "https://x.backlog.com/git".into(),
            credentials: Credentials {
                plan,
                is_mail,
                set: "set BACKLOG_USERNAME".into(),
            },
            wanted: vec![Wanted {
                route: "web-main".into(),
                pattern: "refs/heads/main".parse().unwrap(),
            }],
            is_first: true,
            listing: Ok(listing),
            known: Vec::new(),
            lfs: None,
        }
    }

    fn listing(refs: &[&str]) -> Listing {
        let id: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
        Listing {
            refs: refs
                .iter()
                .map(|name| (name.parse().unwrap(), id))
                .collect(),
            others: Vec::new(),
            is_cut: false,
            version: 2,
            sends_changes: true,
        }
    }

    fn refused(refused: Refused) -> Error {
        Error::AuthFailed {
            repository: "APP/web".parse().unwrap(),
            advice: "",
            refused,
            source: "401".into(),
        }
    }

    fn host(answer: Result<Option<i64>, Error>) -> Host {
        Host {
            url: "https://x.backlog.com".into(),
            answer: Ok(answer),
        }
    }

    #[test]
    fn a_server_is_reached_at_the_right_time() {
        let silent = Error::Unreachable {
            url: "https://x.backlog.com".into(),
            advice: "check the network".into(),
            silent: Silent::Host,
            source: "dns error".into(),
        };
        for (answer, expected) in [
            (Ok(Some(-3)), &[][..]),
            (Ok(None), &[]),
            (
                Ok(Some(300)),
                &[
                    "warning clock https://x.backlog.com: this machine's clock is 5 min ahead of that of https://x.backlog.com => set the clock: sudo sntp",
                ],
            ),
            (
                Ok(Some(-3600)),
                &[
                    "error clock https://x.backlog.com: this machine's clock is 60 min behind that of https://x.backlog.com; AWS takes nothing that is 15 minutes off",
                ],
            ),
            (
                Err(silent),
                &[
                    "error reach https://x.backlog.com: it cannot be reached: dns error => check the network",
                ],
            ),
        ] {
            let found = problems(&host(answer).findings());
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (line, expected) in found.iter().zip(expected) {
                assert!(line.starts_with(expected), "{line}");
            }
        }
    }

    #[test]
    fn a_login_that_is_refused_is_told_with_what_its_space_takes() {
        for (plan, is_mail, expected) in [
            (
                Plan::Mail,
                Some(false),
                "the login was refused (HTTP 401); the user name is no e-mail address, and a space of backlog.com takes the account's e-mail address => take the e-mail address for the user name: set BACKLOG_USERNAME",
            ),
            (
                Plan::Mail,
                Some(true),
                "the login was refused (HTTP 401); the user name is an e-mail address => with two-factor authentication the password is the one that Backlog generates for Git (Personal settings): set BACKLOG_USERNAME",
            ),
            (
                Plan::UserId,
                Some(true),
                "the login was refused (HTTP 401); the user name is an e-mail address, and this space takes the user id => take the user id for the user name: set BACKLOG_USERNAME",
            ),
            (
                Plan::UserId,
                Some(false),
                "the login was refused (HTTP 401); the user name or the password is wrong => with two-factor",
            ),
            (
                Plan::Other,
                Some(false),
                "the login was refused (HTTP 401); the user name or the password is wrong => with two-factor",
            ),
            (
                Plan::Mail,
                None,
                "it wants a login (HTTP 401), and the space has no credentials => write credentials = \"env:BACKLOG\"",
            ),
        ] {
            let found = repository(plan, is_mail, Err(refused(Refused::Login))).findings();
            let told = lines(&found);
            let expected = format!("error git_login https://x.backlog.com/git: {expected}");
            assert!(told[0].starts_with(&expected), "{told:?}");
            // What follows from it is not told again.
            assert!(found[1].follows && told.len() == 2, "{told:?}");
        }
    }

    #[test]
    fn what_is_said_of_lfs_is_told() {
        let answer = |status, content_type: &str| LfsAnswer {
            status,
            content_type: content_type.into(),
        };
        for (answer, expected) in [
            (
                answer(200, "application/vnd.git-lfs+json; charset=utf-8"),
                "ok lfs APP/web: the server has LFS",
            ),
            (
                answer(404, "text/html"),
                "ok lfs APP/web: to an LFS batch of no file it answers 404 (text/html), so it has no LFS, or not for this login",
            ),
        ] {
            let mut repository =
                repository(Plan::Mail, Some(true), Ok(listing(&["refs/heads/main"])));
            repository.lfs = Some(Ok(Ok(answer)));
            let found = lines(&repository.findings());
            assert_eq!(found.last().map(String::as_str), Some(expected));
        }
    }

    #[test]
    fn a_repository_and_its_refs_are_told() {
        let not_found = || Error::RepositoryNotFound {
            url: "https://x/git/APP/web.git".into(),
            source: "404".into(),
        };
        let long_ids = Error::Fetch {
            repository: "APP/web".parse().unwrap(),
            transient: false,
            source: "its object ids are sha256; only sha1 is supported".into(),
        };
        let mail = |listing| repository(Plan::Mail, Some(true), listing);
        let mut near = mail(Err(not_found()));
        near.known = vec!["web-site".into(), "api".into()];
        let mut glob = mail(Ok(listing(&[])));
        glob.wanted[0].pattern = "refs/heads/release/*".parse().unwrap();
        let there = &["refs/heads/main"][..];
        for (case, repository, expected) in [
            ("well", mail(Ok(listing(there))), None),
            (
                "403",
                mail(Err(refused(Refused::Access))),
                Some(
                    "error repository APP/web: the login is taken, and this user may not read the repository (HTTP 403) => add the user",
                ),
            ),
            (
                "404",
                mail(Err(not_found())),
                Some(
                    "error repository APP/web: https://x/git/APP/web.git is not there, or this user may not see it (404) => check the route's repository",
                ),
            ),
            (
                "near",
                near,
                Some(
                    "error repository APP/web: https://x/git/APP/web.git is not there, or this user may not see it (404) => the project has web-site, api",
                ),
            ),
            (
                "sha256",
                mail(Err(long_ids)),
                Some(
                    "error repository APP/web: cannot fetch APP/web: its object ids are sha256; only sha1 is supported",
                ),
            ),
            (
                "no ref",
                mail(Ok(Listing {
                    others: vec!["refs/heads/master".into()],
                    ..listing(&[])
                })),
                Some(
                    "error ref web-main: APP/web has no refs/heads/main; it has refs/heads/master => correct ref in the route, or push the branch",
                ),
            ),
            (
                "empty",
                mail(Ok(listing(&[]))),
                Some(
                    "error ref web-main: APP/web has no refs/heads/main; the repository is empty => correct",
                ),
            ),
            (
                "no ref of a glob",
                glob,
                Some(
                    "warning ref web-main: APP/web has no ref that refs/heads/release/* takes; the repository is empty",
                ),
            ),
            (
                "old protocol",
                mail(Ok(Listing {
                    version: 0,
                    sends_changes: false,
                    ..listing(there)
                })),
                Some(
                    "warning protocol APP/web: protocol version 0 without what a small second delivery needs: each delivery fetches everything",
                ),
            ),
        ] {
            let told: Vec<_> = repository.findings();
            let told: Vec<_> = told
                .into_iter()
                .filter(|finding| !finding.follows)
                .collect();
            let told = problems(&told);
            assert_eq!(
                told.len(),
                usize::from(expected.is_some()),
                "{case}: {told:?}"
            );
            if let Some(expected) = expected {
                assert!(told[0].starts_with(expected), "{case}: {told:?}");
            }
        }
    }
}
