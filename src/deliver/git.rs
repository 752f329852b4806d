//! The Git server of a delivery: a connection that goes to a blocking thread and back.

use std::time::Instant;

use crate::{
    error::Error,
    plain,
    push::{RefName, RepositoryName},
    remote::{Connection, Remote, Tip, Wanted},
    route::CredentialsSource,
    secrets::Logins,
};

/// What a server lists.
pub(super) struct Refs {
    pub(super) found: Vec<(String, Tip)>,
    /// Whether some were left out, since there are so many.
    pub(super) is_cut: bool,
}

/// A repository's server, with the login that it takes. The connection goes to a blocking thread and back for each use.
pub(super) struct Git<'a> {
    logins: &'a Logins,
    credentials: &'a CredentialsSource,
    pub(super) remote: Remote,
    connection: Option<Connection>,
}

impl<'a> Git<'a> {
    /// Finds the login for the repository at `url`. Nothing is asked of its server yet.
    pub(super) async fn open(
        logins: &'a Logins,
        credentials: &'a CredentialsSource,
        repository: &RepositoryName,
        url: &str,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        let login = logins.login(credentials, repository, url).await?;
        Ok(Self {
            logins,
            credentials,
            remote: Remote {
                url: url.to_owned(),
                repository: repository.clone(),
                login,
                deadline,
            },
            connection: None,
        })
    }

    /// Where the ref points.
    pub(super) async fn tip(&mut self, ref_name: &RefName) -> Result<Option<Tip>, Error> {
        let refs = self.refs(Wanted::name(ref_name.as_str())).await?;
        Ok(refs.found.into_iter().next().map(|(_, tip)| tip))
    }

    /// The refs that are wanted, and where they point.
    pub(super) async fn refs(&mut self, wanted: Wanted) -> Result<Refs, Error> {
        let expected = wanted.clone();
        let list = move |connection: &mut Connection| {
            let found = connection.refs(&wanted)?;
            let is_cut = connection.is_cut();
            Ok(Refs { found, is_cut })
        };
        self.ask(&expected, list).await
    }

    /// That there is no such ref, and what the repository has instead.
    pub(super) async fn ref_not_found(&mut self, ref_name: &RefName) -> Error {
        const SHOWN: usize = 5;
        let refs = match self.refs(Wanted::prefix("refs/")).await {
            Ok(refs) => refs.found,
            Err(err) => return err,
        };
        let mut names: Vec<_> = refs.iter().map(|(name, _)| plain::foreign(name)).collect();
        let hint = if names.is_empty() {
            "the repository is empty, push a commit first".into()
        } else {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            names.truncate(SHOWN);
            format!("it has {}{more}", names.join(", "))
        };
        Error::RefNotFound {
            repository: self.remote.repository.clone(),
            ref_name: ref_name.clone(),
            hint,
        }
    }

    /// Forgets the connection: what may be left of an answer is of no interest.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// A request that changes nothing and is cheap. A server may close a connection that was quiet during the upload, so
    /// one that was used before is replaced once.
    async fn ask<T: Send + 'static>(
        &mut self,
        wanted: &Wanted,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let reused = self.connection.is_some();
        match self.run(wanted, work.clone()).await {
            Err(err) if reused && err.is_transient() => self.run(wanted, work).await,
            result => result,
        }
    }

    /// Does `work`; once more if the login was refused and has been changed since it was read.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        wanted: &Wanted,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        loop {
            let result = self.attempt(wanted, work.clone()).await;
            if result.is_ok() {
                self.logins.accepted(self.credentials);
            }
            let Err(Error::AuthFailed { refused, .. }) = &result else {
                return result;
            };
            let Remote {
                repository,
                url,
                login,
                ..
            } = &self.remote;
            let (login, refused) = (login.clone(), *refused);
            let changed =
                self.logins
                    .after_refusal(self.credentials, repository, url, login, refused);
            match changed.await? {
                Some(login) => self.remote.login = Some(login),
                None => return result,
            }
        }
    }

    async fn attempt<T: Send + 'static>(
        &mut self,
        wanted: &Wanted,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (remote, connection) = (self.remote.clone(), self.connection.take());
        let wanted = wanted.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = match connection {
                Some(connection) => connection,
                None => remote.connect_for(&wanted)?,
            };
            let result = work(&mut connection)?;
            Ok::<_, Error>((connection, result))
        });
        let (connection, result) = task.await.expect("the work does not panic")?;
        self.connection = Some(connection);
        Ok(result)
    }
}
