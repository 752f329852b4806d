//! What a version says of itself, as user metadata: which commit it is, and what `CodePipeline` shows of it.

use std::collections::HashMap;

use gix::ObjectId;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use time::OffsetDateTime;

use crate::{
    push::{CommitId, RefName, RepositoryName},
    snapshot::About,
};

/// What user metadata may take in all, in bytes: names and values.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const METADATA_BYTES: usize = 2048;

/// What names may take of it, in bytes after encoding. The rest is for ids and the space; what is left gets the summary, then the
/// author, then the subject.
const MAX_NAME_BYTES: usize = 1400;

/// User metadata is ASCII; everything else is written as `%XX`. So is a space: at the end of a header, HTTP drops it.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// How much of a subject, a ref and an author stands in the summary, each, in bytes.
const SUMMARY_PART_BYTES: usize = 200;

const COMMIT: &str = "git-commit";
const TREE: &str = "git-tree";
const REF: &str = "git-ref";
const REPOSITORY: &str = "git-repository";
const SPACE: &str = "git-space";
const DELIVERY_ID: &str = "delivery-id";
const COMMIT_TIME: &str = "git-commit-time";
const PREVIOUS: &str = "git-previous";
const SUBJECT: &str = "git-subject";
const AUTHOR: &str = "git-author";
const AUTHOR_TIME: &str = "git-author-time";
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
    /// The name of the commit's author, if it says so; maybe only the beginning.
    pub author: Option<String>,
    /// The first line of the commit's message, likewise.
    pub subject: Option<String>,
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
    /// What the commit says of itself.
    pub about: &'a About,
    /// Where the commit's page is, if there is one.
    pub url: Option<String>,
    /// Which delivery this is.
    pub delivery_id: &'a str,
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
            author: text(AUTHOR),
            subject: text(SUBJECT),
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
        let about = self.about;
        let [time, author_time] =
            [about.time, about.author_time].map(|time| time.map(|time| time.to_string()));
        let previous = self.previous.map(|commit| commit.to_string());
        for (name, value) in [(COMMIT_TIME, time), (PREVIOUS, previous)] {
            metadata.extend(value.map(|value| (name.to_owned(), value)));
        }
        let used = |(name, value): (&String, &String)| name.len() + value.len();
        let mut left = METADATA_BYTES - metadata.iter().map(used).sum::<usize>();
        let author = encode(&about.author);
        let subject = encode(&about.subject);
        for (name, value) in [
            (SUMMARY, Some(self.summary(left - SUMMARY.len()))),
            (AUTHOR_TIME, author_time),
            (AUTHOR, Some(author)),
            (SUBJECT, Some(subject)),
        ] {
            let mut value = value.unwrap_or_default();
            let room = left.saturating_sub(name.len());
            cut(&mut value, room);
            if !value.is_empty() {
                left -= name.len() + value.len();
                metadata.insert(name.to_owned(), value);
            }
        }
        Ok(metadata)
    }

    /// What a page of AWS shows beside the revision, in ASCII, whatever language the commit is in.
    fn summary(&self, room: usize) -> String {
        let About {
            subject,
            author,
            time,
            ..
        } = self.about;
        let mut parts = vec![format!("{:.8}", self.commit.to_string())];
        let short = |text: &str| text[..text.len().min(SUMMARY_PART_BYTES)].to_owned();
        if is_plain(subject) {
            parts.push(short(subject));
        } else {
            let ref_name = self.ref_name.as_str();
            let ref_name = ref_name.strip_prefix("refs/heads/").unwrap_or(ref_name);
            let names = [ref_name, author].into_iter().filter(|name| is_plain(name));
            parts.extend(names.map(short));
            let date = time.and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
            parts.extend(date.map(|date| date.date().to_string()));
        }
        let summary = parts.join(" ");
        // Half of an address is none.
        match &self.url {
            Some(url) if summary.len() + 1 + url.len() <= room => format!("{summary} {url}"),
            _ => summary,
        }
    }
}

/// Whether a text can be read as it is where only ASCII can be.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    !text.is_empty() && text.trim() == text && text.bytes().all(is_plain)
}

/// Cuts an encoded text to so many bytes, at a character of what it says.
fn cut(text: &mut String, bytes: usize) {
    if text.len() <= bytes {
        return;
    }
    // A byte that is no continuation of another, or an escape of one that is none.
    let begins = |at: usize| {
        let escape = text[at..].strip_prefix('%').and_then(|rest| rest.get(..2));
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_inside = |back: usize| at >= back && text.as_bytes()[at - back] == b'%';
        byte.is_none_or(|byte| byte & 0xc0 != 0x80) && !is_inside(1) && !is_inside(2)
    };
    let end = (0..=bytes).rev().find(|at| begins(*at));
    text.truncate(end.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(subject: &str, author: &str) -> About {
        About {
            subject: subject.into(),
            author: author.into(),
            author_time: Some(1_700_000_000),
            time: Some(i64::MIN),
        }
    }

    fn label<'a>(
        repository: &'a RepositoryName,
        ref_name: &'a RefName,
        about: &'a About,
    ) -> Label<'a> {
        let id = "00112233445566778899aabbccddeeff00112233";
        Label {
            space: "https://example.backlog.com/git",
            repository,
            ref_name,
            commit: id.parse().unwrap(),
            tree: ObjectId::from_hex(id.as_bytes()).unwrap(),
            about,
            url: None,
            delivery_id: "5d1b9f4e",
            previous: Some(id.parse().unwrap()),
        }
    }

    fn size(metadata: &HashMap<String, String>) -> usize {
        let sizes = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len());
        sizes.sum()
    }

    fn decoded(metadata: &HashMap<String, String>, name: &str) -> String {
        let text = metadata.get(name).map_or("", String::as_str);
        percent_decode_str(text).decode_utf8().unwrap().into_owned()
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
            let metadata = label(
                &repository,
                &ref_name,
                &about("Fix the ログイン form", "山田"),
            )
            .metadata()
            .unwrap();
            assert!(metadata.values().all(|value| value.is_ascii()), "{case}");
            let size = size(&metadata);
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
    fn a_commit_can_be_read_whatever_language_it_is_in() {
        let url = "https://example.backlog.com/git/APP/web/commit/00112233";
        for (case, ref_name, subject, author, expected) in [
            (
                "ASCII",
                "refs/heads/main",
                "Fix the login form",
                "Taro",
                "00112233 Fix the login form",
            ),
            (
                "a question",
                "refs/heads/main",
                "Why?",
                "Taro",
                "00112233 Why?",
            ),
            (
                "Japanese",
                "refs/heads/main",
                "ログイン画面の不具合を修正 #APP-12",
                "山田 太郎",
                "00112233 main 2023-11-14",
            ),
            (
                "some of it",
                "refs/tags/v1",
                "fix: ログイン (login)",
                "Taro Yamada",
                "00112233 refs/tags/v1 Taro Yamada 2023-11-14",
            ),
            (
                "a Japanese branch",
                "refs/heads/機能",
                "修正",
                "Taro",
                "00112233 Taro 2023-11-14",
            ),
            (
                "all of it",
                "refs/heads/機能",
                "修正",
                "山田",
                "00112233 2023-11-14",
            ),
            (
                "nothing said",
                "refs/heads/main",
                "",
                "",
                "00112233 main 2023-11-14",
            ),
            (
                "a tab",
                "refs/heads/main",
                "a\tb",
                "",
                "00112233 main 2023-11-14",
            ),
        ] {
            let (repository, ref_name) = ("APP/web".parse().unwrap(), ref_name.parse().unwrap());
            let about = About {
                time: Some(1_700_000_000),
                ..about(subject, author)
            };
            let label = label(&repository, &ref_name, &about);
            let metadata = label.metadata().unwrap();
            assert_eq!(metadata[SUMMARY], expected, "{case}");
            assert_eq!(decoded(&metadata, SUBJECT), subject, "{case}");
            assert_eq!(decoded(&metadata, AUTHOR), author, "{case}");
            assert_eq!(metadata[AUTHOR_TIME], "1700000000", "{case}");
            let label = Label {
                url: Some(url.into()),
                ..label
            };
            let metadata = label.metadata().unwrap();
            assert_eq!(metadata[SUMMARY], format!("{expected} {url}"), "{case}");
        }
    }

    #[test]
    fn what_has_no_room_is_cut_at_a_character_the_subject_first() {
        let repository = "APP/web".parse().unwrap();
        let short: RefName = "refs/heads/main".parse().unwrap();
        let long: RefName = format!("refs/heads/{}", "r".repeat(1_000)).parse().unwrap();
        let whole = "名".repeat(300);
        for (case, ref_name, subject, author, all_of_author) in [
            ("300 characters", &short, &*whole, "山田", true),
            ("ASCII", &short, &*"x".repeat(5_000), "山田", true),
            (
                "escapes that are none",
                &short,
                &*"%E5".repeat(500),
                "山田",
                true,
            ),
            ("a long name of a branch", &long, &*whole, "山田 太郎", true),
            (
                "a long author too",
                &long,
                &*whole,
                &*"田".repeat(200),
                false,
            ),
        ] {
            let about = about(subject, author);
            let metadata = label(&repository, ref_name, &about).metadata().unwrap();
            assert!(size(&metadata) <= METADATA_BYTES, "{case}");
            assert!(metadata.values().all(|value| value.is_ascii()), "{case}");
            let (found, by) = (decoded(&metadata, SUBJECT), decoded(&metadata, AUTHOR));
            assert!(subject.starts_with(&found), "{case}: {found}");
            assert!(author.starts_with(&by), "{case}: {by}");
            assert_eq!(by == author, all_of_author, "{case}: {by}");
            // No room for one more character is left.
            let left = METADATA_BYTES - size(&metadata);
            assert!(left < SUBJECT.len() + 9, "{case}: {left}");
            assert!(metadata[SUMMARY].starts_with("00112233 "), "{case}");
        }
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
            let nothing = About::default();
            let label = Label {
                space: &mark,
                ..label(&repository, &ref_name, &nothing)
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
        let nothing = About::default();
        assert!(label(&repository, &ref_name, &nothing).metadata().is_err());
    }
}
