//! What a version says of itself, as user metadata: which commit it is, and what `CodePipeline` shows of it.

use std::collections::HashMap;

use gix::{ObjectId, bstr::BStr};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::push::{CommitId, RefName, RepositoryName};

/// What user metadata may take in all, in bytes: names and values.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const METADATA_BYTES: usize = 2048;

/// What names may take of it, in bytes after encoding; the rest is for ids, and the summary gets what is left.
const MAX_NAME_BYTES: usize = 1400;

/// User metadata is ASCII; everything else is written as `%XX`. So is a space: at the end of a header, HTTP drops it.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

const COMMIT: &str = "git-commit";
const TREE: &str = "git-tree";
const REF: &str = "git-ref";
const REPOSITORY: &str = "git-repository";
const SPACE: &str = "git-space";
const DELIVERY_ID: &str = "delivery-id";
const COMMIT_TIME: &str = "git-commit-time";
const PREVIOUS: &str = "git-previous";
/// `CodePipeline` shows it beside the source revision.
const SUMMARY: &str = "codepipeline-artifact-revision-summary";

/// What a version of ours says of itself. The names are as somebody wrote them, maybe long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The commit.
    pub commit: CommitId,
    /// The commit's tree, if it says so.
    pub tree: Option<ObjectId>,
    /// The space's mark, if it says so. Those of version 0.1 do not.
    pub space: Option<String>,
    /// The repository, such as `APP/web`.
    pub repository: String,
    /// The ref, such as `refs/heads/main`.
    pub ref_name: String,
    /// Which delivery wrote it.
    pub delivery_id: String,
    /// When the commit was made, by its committer's clock, in seconds of Unix time, if it says so. Those of version 0.1 do not.
    pub commit_time: Option<i64>,
    /// The commit of the version before, if that was one of the same ref and it says so.
    pub previous: Option<CommitId>,
}

/// What a new version says of itself.
#[derive(Debug)]
pub struct Label<'a> {
    /// The space's mark.
    pub space: &'a str,
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The ref.
    pub ref_name: &'a RefName,
    /// The commit.
    pub commit: CommitId,
    /// The commit's tree.
    pub tree: ObjectId,
    /// The first line of the commit's message.
    pub summary: &'a BStr,
    /// Which delivery this is.
    pub delivery_id: &'a str,
    /// When the commit was made, by its committer's clock, in seconds of Unix time, if the commit says so.
    pub commit_time: Option<i64>,
    /// The commit of the version that this one replaces, if that is one of the same ref.
    pub previous: Option<CommitId>,
}

impl Holding {
    pub(super) fn from_metadata(metadata: &HashMap<String, String>) -> Option<Self> {
        let text = |name: &str| {
            Some(
                percent_decode_str(metadata.get(name)?)
                    .decode_utf8()
                    .ok()?
                    .into_owned(),
            )
        };
        Some(Self {
            commit: metadata.get(COMMIT)?.parse().ok()?,
            tree: metadata
                .get(TREE)
                .and_then(|id| ObjectId::from_hex(id.as_bytes()).ok()),
            space: text(SPACE),
            repository: text(REPOSITORY)?,
            ref_name: text(REF)?,
            delivery_id: text(DELIVERY_ID)?,
            commit_time: metadata.get(COMMIT_TIME).and_then(|time| time.parse().ok()),
            previous: metadata.get(PREVIOUS).and_then(|id| id.parse().ok()),
        })
    }
}

impl Label<'_> {
    pub(super) fn metadata(&self) -> Result<HashMap<String, String>, String> {
        let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let (repository, ref_name) = (
            encode(self.repository.as_str()),
            encode(self.ref_name.as_str()),
        );
        let names = repository.len() + ref_name.len();
        if names > MAX_NAME_BYTES {
            return Err(format!(
                "the repository's and the ref's name take {names} bytes of metadata, {MAX_NAME_BYTES} are there"
            ));
        }
        let mut metadata = HashMap::from([
            (COMMIT.to_owned(), self.commit.to_string()),
            (TREE.to_owned(), self.tree.to_string()),
            (REF.to_owned(), ref_name),
            (REPOSITORY.to_owned(), repository),
            (SPACE.to_owned(), encode(self.space)),
            (DELIVERY_ID.to_owned(), self.delivery_id.to_owned()),
        ]);
        let time = self.commit_time.map(|time| time.to_string());
        let previous = self.previous.map(|commit| commit.to_string());
        for (name, value) in [(COMMIT_TIME, time), (PREVIOUS, previous)] {
            metadata.extend(value.map(|value| (name.to_owned(), value)));
        }
        let used: usize = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let mut summary = ascii(&format!("{:.8} {}", self.commit.to_string(), self.summary));
        summary.truncate(METADATA_BYTES - used - SUMMARY.len());
        metadata.insert(SUMMARY.to_owned(), summary);
        Ok(metadata)
    }
}

/// The text with each run of other characters as one `?`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let plain = c == ' ' || c.is_ascii_graphic();
        if plain || !out.ends_with('?') {
            out.push(if plain { c } else { '?' });
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label<'a>(
        repository: &'a RepositoryName,
        ref_name: &'a RefName,
        summary: &'a str,
    ) -> Label<'a> {
        let id = "00112233445566778899aabbccddeeff00112233";
        Label {
            space: "https://example.backlog.com/git",
            repository,
            ref_name,
            commit: id.parse().unwrap(),
            tree: ObjectId::from_hex(id.as_bytes()).unwrap(),
            summary: summary.into(),
            delivery_id: "5d1b9f4e",
            commit_time: Some(i64::MIN),
            previous: Some(id.parse().unwrap()),
        }
    }

    #[test]
    fn metadata_survives_the_trip() {
        let long = format!("refs/heads/{}", "ブ".repeat(80));
        for (case, repository, ref_name) in [
            ("plain", "APP/web", "refs/heads/main"),
            (
                "slashes and an at sign",
                "APP/web@2",
                "refs/heads/release/1@2",
            ),
            ("Japanese", "開発/画面", "refs/heads/機能/ログイン"),
            ("spaces at the ends", " APP/web ", "refs/heads/main"),
            ("an escape stays an escape", "APP/a%2Fb", "refs/heads/a%2Fb"),
            ("250 bytes", "APP/web", long.as_str()),
        ] {
            let (repository, ref_name) = (repository.parse().unwrap(), ref_name.parse().unwrap());
            let metadata = label(&repository, &ref_name, "Fix the ログイン form")
                .metadata()
                .unwrap();
            assert!(metadata.values().all(|value| value.is_ascii()), "{case}");
            let size: usize = metadata
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            assert!(size <= METADATA_BYTES, "{case}: {size}");
            for name in [&metadata[REPOSITORY], &metadata[REF]] {
                assert_eq!(name, name.trim(), "{case}");
            }
            let holding = Holding::from_metadata(&metadata).unwrap();
            assert_eq!(
                holding.space.as_deref(),
                Some("https://example.backlog.com/git")
            );
            assert_eq!(holding.repository, repository.as_str(), "{case}");
            assert_eq!(holding.ref_name, ref_name.as_str(), "{case}");
            let tree = holding.tree.map(|tree| tree.to_string());
            assert_eq!(tree.as_ref(), Some(&metadata[TREE]), "{case}");
            assert_eq!(holding.commit_time, Some(i64::MIN), "{case}");
            assert_eq!(holding.previous, Some(holding.commit), "{case}");
        }
    }

    #[test]
    fn a_summary_is_ascii_and_fits() {
        let (repository, ref_name) = (
            "APP/web".parse().unwrap(),
            "refs/heads/main".parse().unwrap(),
        );
        let metadata = label(&repository, &ref_name, "Fix the ログイン form")
            .metadata()
            .unwrap();
        assert_eq!(metadata[SUMMARY], "00112233 Fix the ? form");
        let metadata = label(&repository, &ref_name, &"x".repeat(5000))
            .metadata()
            .unwrap();
        let size: usize = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert_eq!(size, METADATA_BYTES);
    }

    #[test]
    fn the_longest_space_leaves_room_beside_the_longest_names() {
        let ref_name = format!("refs/heads/{}", "r".repeat(239)).parse().unwrap();
        let repository = "APP/web".parse().unwrap();
        for (case, path) in [
            ("plain", "p".repeat(160)),
            ("escapes", "%41".repeat(56)),
            ("far too long", "p".repeat(1000)),
        ] {
            let url: crate::space::SpaceUrl =
                format!("https://example.test/{path}").parse().unwrap();
            let mark = url.mark();
            let label = Label {
                space: &mark,
                ..label(&repository, &ref_name, "")
            };
            let metadata = label.metadata().unwrap();
            let room = METADATA_BYTES - MAX_NAME_BYTES - 171 - SUMMARY.len() - SPACE.len();
            assert!(
                metadata[SPACE].len() <= room.min(200),
                "{case}: {}",
                metadata[SPACE]
            );
            assert_eq!(
                Holding::from_metadata(&metadata).unwrap().space,
                Some(mark),
                "{case}"
            );
        }
    }

    #[test]
    fn names_that_leave_no_room_are_refused() {
        let ref_name = format!("refs/heads/{}", "名".repeat(200)).parse().unwrap();
        let repository = "APP/web".parse().unwrap();
        assert!(label(&repository, &ref_name, "").metadata().is_err());
    }
}
