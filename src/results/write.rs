//! Carries the look at one ref out: reads Backlog, and writes comments.

use super::{
    Kind, Look, Marker, Step, Topic, Why, Write,
    refs::OfRef,
    run::Teller,
    space::Space,
    visit::{Visit, joined},
};
use crate::{
    error::{Error, chain},
    push::{CommitId, RepositoryName},
    route::RouteTable,
};

impl Teller {
    /// Tells Backlog of the runs of one ref.
    pub(super) async fn tell_of(
        &self,
        visit: &mut Visit<'_>,
        table: &RouteTable,
        (name, why): (&str, Why),
        OfRef { route, to, runs }: OfRef<'_>,
        is_cut: bool,
    ) -> Result<(), Error> {
        let space = table.space_of(route);
        let repository = &to.repository;
        visit.may_ask(&to.space, None)?;
        let api = self.space(space).await;
        let api = visit.learn(&to.space, None, api)?;
        visit.may_ask(&to.space, Some(repository))?;
        let project = repository.project().to_owned();
        let words = api.words(&project, space.results_detail()).await;
        let topic = Topic {
            pipeline: name.to_owned(),
            marker: Marker::new(
                &visit.place.account,
                &visit.place.region,
                name,
                to.ref_name.as_str(),
            ),
            ref_name: to.ref_name.short().to_owned(),
            is_branch: to.ref_name.as_str().starts_with("refs/heads/"),
            words: visit.learn(&to.space, Some(repository), words)?,
            project,
            runs,
            is_cut,
            results: table.results_of(route),
            issue: space.results_issue().cloned(),
        };
        let known = self.memory.of(&topic).await;
        let mut look = Look::new(&topic, why, known);
        let written = self.write(visit, &api, (&to.space, repository), &topic, &mut look);
        let written = Box::pin(written).await;
        for home in look.crowded() {
            visit.warnings.push(format!(
                "{home:?} has more comments than are read, so that none is added"
            ));
        }
        self.memory.learn(&topic, &look).await;
        written
    }

    async fn write(
        &self,
        visit: &mut Visit<'_>,
        api: &Space,
        (space, repository): (&str, &RepositoryName),
        topic: &Topic,
        look: &mut Look<'_>,
    ) -> Result<(), Error> {
        let mut faults = Vec::new();
        loop {
            let (home, done) = match look.next() {
                Step::Requests => {
                    let at = (space.to_owned(), repository.clone());
                    let requests = if let Some(requests) = visit.requests.get(&at) {
                        requests.clone()
                    } else {
                        let requests = api.requests(repository).await;
                        let requests = visit.learn(space, Some(repository), requests)?;
                        visit.requests.insert(at, requests.clone());
                        requests
                    };
                    look.saw_requests(requests);
                    continue;
                }
                Step::Comments { home, settled } => {
                    if settled {
                        // Whatever another process wrote was written before this one got its message.
                        let since = visit.times.began.elapsed();
                        tokio::time::sleep(self.lag.saturating_sub(since)).await;
                    }
                    let comments = api.comments(repository, &home, &topic.marker).await;
                    let done = comments.map(|(comments, is_cut)| {
                        look.saw_comments(&home, comments, is_cut, settled);
                    });
                    (home, done)
                }
                Step::Write(write) => {
                    let author = look.author(&write.home);
                    let written = self.carry_out(visit, api, (space, repository), author, &write);
                    let done = match written.await {
                        Ok(Some(id)) => {
                            visit.comments += 1;
                            look.wrote(&write, id);
                            self.memory.keep(topic, &write, id).await;
                            Ok(())
                        }
                        Ok(None) => {
                            look.saw_gone(&write.home, write.replaces.unwrap_or_default());
                            Ok(())
                        }
                        Err(err) => Err(err),
                    };
                    (write.home, done)
                }
                Step::Over => break,
            };
            match done {
                Ok(()) => {}
                // Whoever has a fault of its own is left in peace.
                Err(err) if err.is_transient() => return Err(err),
                Err(err) => {
                    look.saw_refused(&home);
                    faults.push(err);
                }
            }
        }
        joined(faults)
    }

    /// Writes a comment. Returns its number; `None` if the one that it replaces is no more.
    async fn carry_out(
        &self,
        visit: &mut Visit<'_>,
        api: &Space,
        (space, repository): (&str, &RepositoryName),
        author: Option<i64>,
        write: &Write,
    ) -> Result<Option<i64>, Error> {
        if let Some(id) = write.replaces {
            let changed = api.change(repository, &write.home, id, &write.text).await?;
            return Ok(changed.map(|()| id));
        }
        let mut notified = Vec::new();
        if let (Some(commit), Kind::Alert(_)) = (write.notifies, &write.kind) {
            let pusher = pusher(visit, api, (space, repository), commit).await?;
            notified.extend(pusher.or(author));
        }
        let added = api
            .add(repository, &write.home, &write.text, &notified)
            .await;
        added.map(Some)
    }
}

/// Who pushed a commit, if that can be seen. It is asked once for all requests.
async fn pusher(
    visit: &mut Visit<'_>,
    api: &Space,
    (space, repository): (&str, &RepositoryName),
    commit: CommitId,
) -> Result<Option<i64>, Error> {
    let at = (space.to_owned(), repository.clone(), commit);
    if let Some(pusher) = visit.pushers.get(&at) {
        return Ok(*pusher);
    }
    let pusher = match api.pusher(repository, commit).await {
        Err(err) if !err.is_transient() => {
            let why = chain(&err);
            visit
                .warnings
                .push(format!("it is not seen who pushed {commit}: {why}"));
            None
        }
        pusher => pusher?,
    };
    visit.pushers.insert(at, pusher);
    Ok(pusher)
}
