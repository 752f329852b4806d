//! A conversation with a Git server: where its refs point, and what a commit holds.

use std::{
    io::{self, Read},
    sync::Arc,
};

use gix::{
    progress::Discard,
    protocol::{
        Command, Handshake, LsRefsCommand,
        command::Feature,
        fetch::{Arguments, Response},
        handshake::Ref,
        ls_refs::RefPrefixes,
        transport::{
            Protocol,
            client::{
                MessageKind, TransportWithoutIO, WriteMode,
                blocking_io::{ExtendedBufRead, Transport},
            },
            packetline::read::ProgressAction,
        },
    },
};

use super::{
    AGENT, Remote, Tip,
    capped::{Allowance, Pack},
    http::TimeLimit,
    wanted::Wanted,
};
use crate::{
    error::Error,
    progress::Progress,
    push::{CommitId, RefName},
};

/// What may follow a pack, in bytes: the end of the answer.
const DRAINED_BYTES: u64 = 64 * 1024;

/// A connection to a repository, after the handshake.
pub struct Connection {
    pub(super) remote: Remote,
    pub(super) transport: Box<dyn Transport + Send>,
    pub(super) handshake: Handshake,
    pub(super) time_limit: TimeLimit,
    pub(super) allowance: Allowance,
    /// The refs that the handshake showed, where it shows any: before protocol v2.
    pub(super) shown: Option<Wanted>,
}

impl Connection {
    /// Where this connection leads.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Where `name` points now; `None` if there is no such ref.
    ///
    /// # Errors
    ///
    /// [`Error`] if the server cannot be asked, or the ref leads to no commit.
    pub fn tip(&mut self, name: &RefName) -> Result<Option<Tip>, Error> {
        let refs = self.refs(&Wanted::name(name.as_str()))?;
        Ok(refs.into_iter().next().map(|(_, tip)| tip))
    }

    /// The refs that are wanted. Names that are not UTF-8 cannot be routed and are left out.
    ///
    /// # Errors
    ///
    /// [`Error`] if the server cannot be asked.
    pub fn refs(&mut self, wanted: &Wanted) -> Result<Vec<(String, Tip)>, Error> {
        let refs = self.list(wanted)?;
        let tip = |r: Ref| {
            let (name, object, peeled) = match r {
                Ref::Direct {
                    full_ref_name,
                    object,
                } => (full_ref_name, object, object),
                Ref::Peeled {
                    full_ref_name,
                    tag,
                    object,
                } => (full_ref_name, tag, object),
                Ref::Symbolic {
                    full_ref_name,
                    tag,
                    object,
                    ..
                } => (full_ref_name, tag.unwrap_or(object), object),
                Ref::Unborn { .. } => return None,
            };
            let name = String::from_utf8(name.into())
                .ok()
                .filter(|name| wanted.has(name.as_bytes()))?;
            Some((
                name,
                Tip {
                    object,
                    commit: peeled.into(),
                },
            ))
        };
        Ok(refs.into_iter().filter_map(tip).collect())
    }

    /// The branch that `HEAD` stands for, in full: the one that the repository's people begin with. `None` if it stands for
    /// none, or the server does not say.
    ///
    /// # Errors
    ///
    /// [`Error`] if the server cannot be asked.
    pub fn head(&mut self) -> Result<Option<String>, Error> {
        let refs = self.list(&Wanted::name("HEAD"))?;
        let target = refs.into_iter().find_map(|r| match r {
            Ref::Symbolic {
                full_ref_name,
                target,
                ..
            }
            | Ref::Unborn {
                full_ref_name,
                target,
            } if full_ref_name == "HEAD" => Some(target),
            _ => None,
        });
        Ok(target.and_then(|target| String::from_utf8(target.into()).ok()))
    }

    /// What the server lists of what is wanted, and maybe more.
    fn list(&mut self, wanted: &Wanted) -> Result<Vec<Ref>, Error> {
        // A process at the other end of a pipe goes on seeing the refs as it saw them first.
        let is_stale = self
            .transport
            .connection_persists_across_multiple_requests()
            || self.handshake.server_protocol_version != Protocol::V2;
        if is_stale && self.shown.as_ref() != Some(wanted) {
            *self = self.remote.connect_for(wanted)?;
        }
        self.shown = None;
        if self.handshake.server_protocol_version != Protocol::V2 {
            return Ok(self.handshake.refs.take().unwrap_or_default());
        }
        self.time_limit.set(Some(self.remote.time_for_refs()));
        self.allowance.renew_for(wanted, false);
        let mut prefixes = RefPrefixes::new();
        prefixes.extend(wanted.starts().map(Into::into));
        let agent = ("agent", Some(AGENT.into()));
        LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent)
            .invoke_blocking(&mut self.transport, &mut Discard, false)
            .map_err(|err| self.remote.error_of_refs(&err, &self.allowance))
    }

    /// Reads the last answer to its end, so that what is below serves another conversation. Blocking.
    pub(crate) fn finish(mut self) {
        // What begins a request makes sure that nothing is left of the answer before. It is never sent.
        let (mode, until) = (WriteMode::Binary, MessageKind::Flush);
        self.transport.request(mode, until, false).ok();
    }

    /// Whether the last list of refs was so long that some of those were left out whose names begin as was wanted.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.allowance.is_cut()
    }

    /// The version of the protocol that the server speaks with us.
    #[must_use]
    pub fn protocol_version(&self) -> u8 {
        match self.handshake.server_protocol_version {
            Protocol::V0 => 0,
            Protocol::V1 => 1,
            Protocol::V2 => 2,
        }
    }

    /// Whether the server can leave out of a pack what is in a commit that we have without its history.
    #[must_use]
    pub fn can_fetch_changes(&self) -> bool {
        let features = self.features();
        let has = |name: &str| features.iter().any(|(feature, _)| *feature == name);
        // Protocol v2 has thin packs always. Before it, what acknowledges a commit depends on the features, and only this
        // way of them is read here.
        let is_v2 = self.handshake.server_protocol_version == Protocol::V2;
        has("shallow") && (is_v2 || (has("thin-pack") && has("multi_ack_detailed")))
    }

    fn features(&self) -> Vec<Feature> {
        let version = self.handshake.server_protocol_version;
        let mut features = Command::Fetch.default_features(version, &self.handshake.capabilities);
        // The fetch needs no filter; and what is not asked for cannot surprise.
        features.retain(|(name, _)| *name != "filter");
        if self.handshake.capabilities.contains("agent") {
            features.push(("agent", Some(AGENT.into())));
        }
        features
    }

    /// Fetches `tip` without its history, and hands the pack to `receive` as it comes. `progress` is told of each byte.
    ///
    /// With `have`, a commit that we have without its history, the pack leaves out what is in that one, and its deltas may
    /// stand on it. A server that does not know the commit sends everything. Only where
    /// [`can_fetch_changes`](Self::can_fetch_changes).
    ///
    /// # Errors
    ///
    /// The outer [`Error`] if the server does not send a pack; the inner result is what `receive` returned.
    pub fn fetch<T>(
        &mut self,
        tip: &Tip,
        have: Option<CommitId>,
        progress: &Arc<Progress>,
        receive: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, Error> {
        let remote = self.remote.clone();
        let version = self.handshake.server_protocol_version;
        let features = self.features();
        let fail = |err: gix::Error| remote.error(&err);
        // What `gix` requires of a server before protocol v2 is more than this needs: with `done` at once nothing is
        // negotiated, and a pack may come without side-bands.
        let mut arguments = Arguments::new(version, features, false);
        arguments.want(tip.object);
        if let Some(have) = have {
            arguments.have(have.object_id());
            // Without this the server believes that we have all of its history too.
            arguments.shallow(have.object_id());
        }
        if arguments.can_use_deepen() {
            // With a commit to start from too: otherwise the server sends the history in between.
            arguments.deepen(1);
        }
        self.time_limit.set(remote.time_left());
        self.allowance.renew(progress);
        let mut reader = arguments
            .send(&mut self.transport, true)
            .map_err(|err| remote.error_after_hello(&gix::Error::from_error(err)))?;
        let response = Response::from_line_reader(version, &mut reader, true, false);
        let response = response.map_err(|err| remote.refusal(&err, &self.allowance))?;
        if !response.has_pack() {
            return Err(fail(gix::error::message("the server sent no pack").into()));
        }
        // With a handler set, what the reader yields is the bare pack.
        let allowance = &self.allowance;
        let heard = allowance.clone();
        reader.set_progress_handler(Some(Box::new(move |is_error, text| {
            if is_error {
                heard.says(text);
            }
            ProgressAction::Continue(())
        })));
        let mut pack = Pack {
            wire: &mut reader,
            allowance,
        };
        let received = receive(&mut pack);
        // The connection serves another request only once this answer is read to its end, which is a few bytes away. If it
        // is not, the connection is of no more use, and the next request says so.
        io::copy(&mut reader.take(DRAINED_BYTES), &mut io::sink()).ok();
        if let Some(said) = self.allowance.said() {
            return Err(Error::Fetch {
                repository: remote.repository,
                transient: true,
                source: said.into(),
            });
        }
        Ok(received)
    }
}
