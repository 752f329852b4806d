//! How large a repository may be, and how slow its server.

/// How large a repository may be: what is larger is refused before it takes memory or disk. And how slow its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `MAX_ENTRIES`: how many files, links and submodules one commit's tree may hold. Default: 200,000.
    pub entries: u32,
    /// `MAX_TREE_BYTES`: how large all files of the tree may be together, unpacked, in bytes. Default: 2 GiB.
    pub tree_bytes: u64,
    /// `MAX_BLOB_BYTES`: how large one file may be, unpacked, in bytes. Default: 128 MiB.
    pub blob_bytes: u64,
    /// `MAX_PACK_BYTES`: how much the Git server may send in one fetch, in bytes. Default: 1 GiB.
    pub pack_bytes: u64,
    /// `LOW_SPEED_BYTES`: how many bytes a second of a pack the Git server must send from the first one on. Default: 1,000.
    pub low_speed_bytes: u64,
    /// `LOW_SPEED_SECONDS`: for how long it may send fewer, in seconds; 0: as long as it likes. Default: 60.
    pub low_speed_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            entries: 200_000,
            tree_bytes: 2 * 1024 * MIB,
            blob_bytes: 128 * MIB,
            pack_bytes: 1024 * MIB,
            low_speed_bytes: 1_000,
            low_speed_seconds: 60,
        }
    }
}

/// Something is larger than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({found}) is more than {variable} allows ({limit})")]
pub struct Exceeded {
    /// What is too large.
    pub what: &'static str,
    /// How large it is, in bytes or pieces; or was, when the counting was given up.
    pub found: u64,
    /// The variable that says how large it may be.
    pub variable: &'static str,
    /// The variable's value, or what follows from it.
    pub limit: u64,
}

/// Compares a size with its limit.
///
/// # Errors
///
/// [`Exceeded`] if it is larger.
pub(crate) fn within(
    what: &'static str,
    found: u64,
    variable: &'static str,
    limit: u64,
) -> Result<(), Exceeded> {
    if found <= limit {
        return Ok(());
    }
    Err(Exceeded {
        what,
        found,
        variable,
        limit,
    })
}
