//! What connects a deployed bridge to a space: a login that was tried, and what the routing table says of it.

mod pipeline;
mod results;

use std::time::{Duration, Instant};

pub use self::{
    pipeline::{branches_commands, deploy_command},
    results::{results_commands, results_lines},
};
use crate::{
    archive,
    bucket::{Current, S3},
    error::Error,
    push::{CommitId, RefName, RepositoryName},
    remote::{Connections, Heard, Remote, Tip, Wanted},
    route::{CredentialsSource, Destination, RouteTable, Space},
    secrets::Login,
    space::SpaceUrl,
    stack::Stack,
};

/// How long a repository may take to show its refs.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// How much of the end of an archive is read, in bytes, until the list of its entries is all there. That of 100,000 files has
/// some 12 MB.
const ENDS: [u64; 3] = [64 << 10, 1 << 20, 32 << 20];

/// What a repository shows to whoever asks with a login.
#[derive(Debug)]
pub struct Sight {
    /// The branch that `HEAD` stands for, in full.
    pub head: Option<String>,
    /// The refs that were asked for, by their full names.
    pub refs: Vec<(String, Tip)>,
}

impl Sight {
    /// Where a ref points; `None` if it is not there, or was not asked for.
    #[must_use]
    pub fn tip(&self, name: &RefName) -> Option<Tip> {
        let found = self.refs.iter().find(|(own, _)| own == name.as_str());
        found.map(|(_, tip)| *tip)
    }
}

/// Looks at a repository with a login, or without one.
///
/// # Errors
///
/// [`Error`] if the login is refused, or the server cannot be asked.
///
/// # Panics
///
/// If the work itself does, which is a fault of the program.
pub async fn look(
    space: &SpaceUrl,
    repository: &RepositoryName,
    login: Option<&Login>,
    wanted: Wanted,
) -> Result<Sight, Error> {
    let remote = Remote {
        url: repository.url_in(space),
        repository: repository.clone(),
        login: login.cloned(),
        deadline: Some(Instant::now() + LOOK_WITHIN),
        heard: Heard::default(),
        connections: Connections::default(),
    };
    let look = move || {
        let mut connection = remote.connect_for(&wanted)?;
        let refs = connection.refs(&wanted)?;
        let head = connection.head()?;
        Ok(Sight { head, refs })
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.expect("the work does not panic")
}

/// The current version of an object, if it holds this commit of the destination's ref.
///
/// # Errors
///
/// [`Error`] if S3 cannot be asked, or keeps no versions.
pub async fn delivered(
    s3: &S3,
    to: &Destination,
    commit: CommitId,
) -> Result<Option<Current>, Error> {
    let current = s3.head(to.into()).await?.current;
    Ok(current.filter(|current| {
        let holds = current.holds.as_ref();
        holds.is_some_and(|holds| {
            holds.commit == commit
                && holds.repository == to.repository.as_str()
                && holds.ref_name == to.ref_name.as_str()
        })
    }))
}

/// Whether an archive that was delivered has a file; `None` if that cannot be seen without reading too much of it.
///
/// # Errors
///
/// [`Error::Bucket`] if S3 cannot be asked.
///
/// # Panics
///
/// If the work itself does, which is a fault of the program.
pub async fn has_file(
    s3: &S3,
    to: &Destination,
    current: &Current,
    path: &'static str,
) -> Result<Option<bool>, Error> {
    for most in ENDS {
        let Ok(file) = tempfile::tempfile() else {
            return Ok(None);
        };
        let Ok(copy) = file.try_clone() else {
            return Ok(None);
        };
        s3.get_end(to.into(), current, most, copy).await?;
        let look = tokio::task::spawn_blocking(move || archive::has(file, path));
        let has = look.await.expect("the work does not panic");
        if let Ok(has) = has {
            return Ok(Some(has));
        }
        if most >= current.bytes {
            break;
        }
    }
    Ok(None)
}

/// What to do about a refused login, as far as its user name shows; a part of a sentence that begins with a semicolon.
#[must_use]
pub fn refused_login_advice(space: &SpaceUrl, login: &Login) -> String {
    if space.wants_email_address() && !login.username.contains('@') {
        return format!(
            "; {:?} is no e-mail address, and that is what the user name is on this space",
            login.username
        );
    }
    String::new()
}

/// A space whose login the bridge will not find, and what the line of the table should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// The line, from 1, and what stands there; `None` if nothing says where the login is.
    pub found: Option<(usize, String)>,
    /// Where the space's URL is, from 1.
    pub url_line: usize,
    /// What it should say.
    pub expected: String,
}

/// The spaces of a table whose logins are not where the stack's functions may read them.
#[must_use]
pub fn misplaced(text: &str, table: &RouteTable, stack: &Stack) -> Vec<Misplaced> {
    let is_misplaced = |space: &&Space| match space.credentials() {
        CredentialsSource::Anonymous => false,
        CredentialsSource::Env { .. } => true,
        CredentialsSource::Secret { name } => !stack.reads_secret(name),
    };
    let spaces = table.spaces().iter().filter(is_misplaced);
    let lines: Vec<_> = text.lines().enumerate().collect();
    let misplaced = spaces.map(|space| {
        let is_header = |line: &str| line.trim_start().starts_with("[[");
        let at = space.line() - 1;
        let begin = lines[..at].iter().rposition(|(_, line)| is_header(line));
        let end = lines[at..].iter().position(|(_, line)| is_header(line));
        let of_space = &lines[begin.unwrap_or(0)..end.map_or(lines.len(), |end| at + end)];
        let found = of_space.iter().find(|(_, line)| {
            let rest = line.trim_start().strip_prefix("credentials");
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        Misplaced {
            found: found.map(|(at, line)| (at + 1, (*line).trim().to_owned())),
            url_line: space.line(),
            expected: format!("credentials = \"secret:{}\"", stack.git_secret),
        }
    });
    misplaced.collect()
}
