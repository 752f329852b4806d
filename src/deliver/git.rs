//! The Git server of a delivery: a connection that goes to a blocking thread and back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Deliverer, Silences, silences::PATIENT};
use crate::{
    error::{CHECK_NETWORK, Error, Silent},
    plain,
    push::{RefName, RepositoryName},
    remote::{self, Connection, Connections, Heard, Remote, Tip, Wanted},
    route::CredentialsSource,
    secrets::Logins,
};

/// How long the end of an answer is waited for.
const END_WITHIN: Duration = Duration::from_millis(250);

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
    silences: &'a Arc<Silences>,
    /// Whether nobody waits for the turn.
    is_patient: bool,
    is_one_of_many: bool,
    /// Whether the login was looked up.
    has_login: bool,
    pub(super) remote: Remote,
    connection: Option<Connection>,
}

impl<'a> Git<'a> {
    /// The server of the repository at `url`. Nobody is asked anything yet.
    pub(super) fn new(
        bridge: &'a Deliverer,
        credentials: &'a CredentialsSource,
        repository: &RepositoryName,
        url: &str,
        deadline: Option<Instant>,
        is_patient: bool,
    ) -> Self {
        let (logins, silences) = (&*bridge.logins, &bridge.silences);
        Self {
            logins,
            credentials,
            silences,
            is_patient,
            is_one_of_many: false,
            has_login: false,
            remote: Remote {
                url: url.to_owned(),
                repository: repository.clone(),
                login: None,
                deadline,
                heard: Heard::default(),
                connections: Connections::default(),
            },
            connection: None,
        }
    }

    /// Looks the login up, unless that was done. Whoever uses the server need not; it can be done beside something else.
    pub(super) async fn log_in(&mut self) -> Result<(), Error> {
        if !self.has_login {
            let Remote {
                repository, url, ..
            } = &self.remote;
            let login = self.logins.login(self.credentials, repository, url);
            self.remote.login = login.await?;
            self.has_login = true;
        }
        Ok(())
    }

    /// The same, among many that ask at the same time, over connections that all of them use.
    pub(super) fn among_many(mut self, connections: Connections) -> Self {
        self.is_one_of_many = true;
        self.remote.connections = connections;
        self
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
        self.remote.connections = Connections::default();
    }

    /// Lets the last answer come to its end, so that its connection serves the next conversation. Its end is a few bytes away,
    /// or not worth the wait.
    pub(super) async fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            let finish = tokio::task::spawn_blocking(|| connection.finish());
            tokio::time::timeout(END_WITHIN, finish).await.ok();
        }
    }

    /// Takes note that a pack took long, or that it was not waited for any longer.
    pub(super) fn was_slow(&self, is_given_up: bool) {
        let had_time = is_given_up && self.is_patient;
        let url = &self.remote.url;
        self.silences
            .was(Silent::Pack, url, had_time, Instant::now());
    }

    /// Takes note that a pack came as fast as others.
    pub(super) fn was_fast(&self) {
        self.silences.is_fast(&self.remote.url);
    }

    /// A request that changes nothing and is cheap, so that an answer begins soon. A server may close a connection that was
    /// quiet during the upload, or between two repositories, so one that was used before is replaced once.
    async fn ask<T: Send + 'static>(
        &mut self,
        wanted: &Wanted,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let reused = self.connection.is_some();
        let shared = self.remote.connections.are_kept();
        match self.run_within(true, wanted, work.clone()).await {
            Err(err) if reused && err.is_transient() => self.run_within(true, wanted, work).await,
            Err(Error::Fetch {
                transient: true, ..
            }) if shared => self.run_within(true, wanted, work).await,
            result => result,
        }
    }

    /// Does `work`, of which an answer may come late: a server may have to count objects first.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        wanted: &Wanted,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.run_within(false, wanted, work).await
    }

    /// Does `work`; once more if the login was refused and has been changed since it was read.
    async fn run_within<T: Send + 'static>(
        &mut self,
        is_soon: bool,
        wanted: &Wanted,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.log_in().await?;
        let turn = self
            .logins
            .turn(self.credentials, self.is_one_of_many)
            .await;
        if turn.is_some() {
            // Somebody may have learned meanwhile that it is a wrong one.
            self.has_login = false;
            self.log_in().await?;
        }
        loop {
            let result = self.attempt(is_soon, wanted, work.clone()).await;
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
        is_soon: bool,
        wanted: &Wanted,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (remote, connection) = (self.remote.clone(), self.connection.take());
        let (wanted, silences) = (wanted.clone(), self.silences);
        let is_patient = self.is_patient;
        // A connection that was there already may have been closed meanwhile, which says nothing of the server.
        let is_new = connection.is_none();
        let patience = if is_new {
            silences.ask(&remote.url, is_patient, Instant::now())?
        } else {
            PATIENT
        };
        let (url, heard) = (remote.url.clone(), remote.heard.clone());
        let began = Instant::now();
        let learner = Arc::clone(silences);
        let task = tokio::task::spawn_blocking(move || {
            let url = remote.url.clone();
            let done = connection
                .map_or_else(|| remote.connect_for(&wanted), Ok)
                .and_then(|mut connection| {
                    let result = work(&mut connection)?;
                    Ok((connection, result))
                });
            // Whoever waited for it may be gone: the others want to know all the same. That our own time was over, or that an
            // old connection was closed, says nothing of the server.
            let says_nothing = match &done {
                Err(Error::Unreachable { silent, .. }) if *silent == Silent::Host => !is_new,
                Err(Error::Unreachable { .. }) => began.elapsed() < PATIENT,
                _ => false,
            };
            if !says_nothing {
                learner.learn(&url, &done, is_patient, Instant::now());
            }
            done
        });
        let done = tokio::select! {
            done = task => done.expect("the work does not panic"),
            () = heard.nothing_for(patience), if is_soon => {
                // There may be nobody at all.
                let silent = if is_new && !remote::answers(&url).await {
                    Silent::Host
                } else {
                    Silent::Repository
                };
                let source = format!("no answer came for {} s", patience.as_secs()).into();
                let silence = Err(Error::Unreachable {
                    url,
                    advice: CHECK_NETWORK,
                    silent,
                    source,
                });
                silences.learn(&self.remote.url, &silence, is_patient, Instant::now());
                silence
            }
        };
        let (connection, result) = done.inspect_err(|_| self.disconnect())?;
        self.connection = Some(connection);
        Ok(result)
    }
}
