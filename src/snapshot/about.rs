//! What a commit says of itself besides its tree: for people, in Unicode.

use encoding_rs::{Encoding, UTF_8};
use gix::{
    ObjectId,
    bstr::ByteSlice,
    objs::{
        CommitRefIter,
        commit::{MessageRef, ref_iter::Token},
    },
};

/// What a commit says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The first line of the message, or what Git takes for it.
    pub subject: String,
    /// The author's name.
    pub author: String,
    /// When the author made it, in seconds of Unix time; `None` if it does not say so in a way that Git understands.
    pub author_time: Option<i64>,
    /// When it was committed, by the committer's clock, likewise.
    pub time: Option<i64>,
}

impl About {
    /// Reads the lines that every commit begins with, and goes on where the message begins. What is in between is of no use,
    /// and may be millions of lines. With it comes the tree.
    pub(super) fn read(commit: &[u8]) -> Result<(ObjectId, Self), gix::Error> {
        let (mut tree, mut author, mut encoding) = (None, &b""[..], UTF_8);
        let mut about = Self::default();
        let mut tokens = CommitRefIter::from_bytes(commit, gix::hash::Kind::Sha1);
        while let Some(token) = tokens.next() {
            match token? {
                Token::Tree { id } => tree = Some(id),
                Token::Author { signature } => {
                    author = signature.name.trim().as_bytes();
                    about.author_time = signature.time().ok().map(|time| time.seconds);
                }
                Token::Committer { signature } => {
                    about.time = signature.time().ok().map(|time| time.seconds);
                    // It stands next, if it is there.
                    if let Some(Ok(Token::Encoding(label))) = tokens.next() {
                        encoding = Encoding::for_label(label).unwrap_or(UTF_8);
                    }
                    break;
                }
                _ => {}
            }
        }
        let (Some(tree), Some((_, message))) = (tree, commit.split_once_str("\n\n")) else {
            return Err(gix::error::message("it has no tree, or no message").into());
        };
        let decode = |text: &[u8]| encoding.decode_without_bom_handling(text).0.into_owned();
        about.author = decode(author);
        about.subject = decode(&MessageRef::from_bytes(message).summary());
        Ok((tree, about))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_in_its_encoding() {
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let (sjis, _, _) = encoding_rs::SHIFT_JIS.encode("山田 太郎");
        let (subject, _, _) = encoding_rs::SHIFT_JIS.encode("ログイン画面の修正");
        let utf8 = "山田 太郎".as_bytes();
        for (case, author, header, message, expected) in [
            (
                "UTF-8",
                utf8,
                "",
                "ログイン画面の修正\n\n本文".as_bytes(),
                "ログイン画面の修正",
            ),
            (
                "Shift_JIS",
                &sjis,
                "encoding Shift_JIS\n",
                &subject,
                "ログイン画面の修正",
            ),
            (
                "an encoding that nobody knows",
                utf8,
                "encoding x\n",
                b"fix",
                "fix",
            ),
            ("in lines", utf8, "", b"one\ntwo\n\nthree", "one two"),
            (
                "a signature between",
                utf8,
                "gpgsig a\n b\n",
                b"fix\n",
                "fix",
            ),
            ("nothing", utf8, "", b"", ""),
        ] {
            let mut commit = format!("tree {tree}\nauthor ").into_bytes();
            commit.extend_from_slice(author);
            commit.extend_from_slice(
                b" <a@b> 1700000001 +0900\ncommitter C <c@d> 1700000002 +0000\n",
            );
            commit.extend_from_slice(header.as_bytes());
            commit.push(b'\n');
            commit.extend_from_slice(message);
            let (found, about) = About::read(&commit).unwrap();
            assert_eq!(found.to_string(), tree, "{case}");
            let expected = About {
                subject: expected.into(),
                author: "山田 太郎".into(),
                author_time: Some(1_700_000_001),
                time: Some(1_700_000_002),
            };
            assert_eq!(about, expected, "{case}");
        }
    }
}
