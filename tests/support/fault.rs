//! What a Git server can do wrong, and what else a test does to its answers.

use std::{fmt, sync::Arc, time::Duration};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `GET info/refs`: the capabilities, and before protocol v2 the refs too.
    Handshake,
    /// Protocol v2's `ls-refs`.
    LsRefs,
    /// A pack is asked for.
    Fetch,
    /// A pack is sent.
    Push,
    /// Anything else.
    Other,
}

type Alter = Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>;

/// One thing that goes wrong with an answer.
#[derive(Clone)]
pub enum Fault {
    /// This status, and nothing of git.
    Status(u16),
    /// A status of 429, and how long to wait, in the words of HTTP.
    Busy(&'static str),
    /// A redirect to the same path and query below another `https://host:port`.
    Redirect(String),
    /// No answer, ever.
    Hang,
    /// A late answer.
    Delay(Duration),
    /// So many bytes of the body, a pause, and so on.
    Drip(usize, Duration),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// A body that begins like this and then says the same for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// Another body; made by [`Fault::response`].
    Response(Alter),
}

impl Fault {
    /// Another response body, made from the right one.
    pub fn response(alter: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Response(Arc::new(alter))
    }

    /// Another pack inside an otherwise right response, made from the right one.
    pub fn pack(alter: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::response(move |response| map_pack(&response, &alter))
    }

    /// A list of refs that holds one ref, whatever the repository has.
    pub fn tip(ref_name: &str, id: &str) -> Self {
        let line = format!("{id} {ref_name}\n");
        let list = format!("{:04x}{line}0000", line.len() + 4);
        Self::response(move |_| list.clone().into())
    }

    /// A response to a fetch that is nothing but a pack, whatever was asked for.
    pub fn pack_instead(pack: &[u8]) -> Self {
        let response = [b"000dpackfile\n", &bands(1, pack)[..], b"0000"].concat();
        Self::response(move |_| response.clone())
    }
}

/// Bytes in packet lines of a side band.
pub fn bands(band: u8, bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 1_000 + 5);
    for chunk in bytes.chunks(65_515) {
        lines.extend_from_slice(format!("{:04x}", chunk.len() + 5).as_bytes());
        lines.push(band);
        lines.extend_from_slice(chunk);
    }
    lines
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "Status({status})"),
            Self::Busy(after) => write!(f, "Busy({after})"),
            Self::Redirect(base) => write!(f, "Redirect({base})"),
            Self::Hang => write!(f, "Hang"),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::Drip(bytes, pause) => write!(f, "Drip({bytes}, {pause:?})"),
            Self::CutAfter(bytes) => write!(f, "CutAfter({bytes})"),
            Self::Endless(..) => write!(f, "Endless(..)"),
            Self::Response(_) => write!(f, "Response(..)"),
        }
    }
}

/// The pack inside a response to a fetch: what its packet lines carry in side band 1.
pub fn pack_of(response: &[u8]) -> Vec<u8> {
    let bands = packet_lines(response).filter(|line| is_pack(line));
    bands.flat_map(|line| &line[5..]).copied().collect()
}

/// Makes the trailing SHA-1 of an altered pack right again.
pub fn repair_checksum(pack: &mut Vec<u8>) {
    pack.truncate(pack.len() - 20);
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(pack);
    let checksum = hasher.try_finalize().expect("no collision in a test");
    pack.extend_from_slice(checksum.as_slice());
}

fn map_pack(response: &[u8], alter: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut altered = Vec::with_capacity(response.len());
    let mut pack = Some(pack_of(response));
    for line in packet_lines(response) {
        if !is_pack(line) {
            altered.extend_from_slice(line);
        } else if let Some(pack) = pack.take() {
            altered.extend_from_slice(&bands(1, &alter(pack)));
        }
    }
    altered
}

fn is_pack(line: &[u8]) -> bool {
    line.get(4) == Some(&1)
}

/// Packet lines with their four digits; the special ones, which stand for no data, are nothing else.
fn packet_lines(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let digits = std::str::from_utf8(bytes.get(..4)?).ok()?;
        let length = usize::from_str_radix(digits, 16).ok()?.max(4);
        let (line, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(line)
    })
}
