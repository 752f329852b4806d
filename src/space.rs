//! Where a Backlog space keeps its Git repositories: one URL, and below it `<project key>/<repository>.git`.

mod typed;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use base64::Engine;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// How the hosts of Backlog's spaces end. They have repositories below `/git` only.
const BACKLOG: [&str; 3] = [".backlog.com", ".backlog.jp", ".backlogtool.com"];

/// What is written as `%XX` in a segment of a URL's path: all that may not stand for itself.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@');

/// The longest URL that stands in metadata as it is, in bytes.
const LONGEST_MARK: usize = 200;

/// The URL above a space's repositories, such as `https://example.backlog.com/git`.
///
/// Two of them are equal if they name the same place: the host's case, the scheme's own port and a slash at the end do
/// not count. The path does, byte for byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpaceUrl {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    path: String,
}

/// How a Git server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over verified TLS.
    Https,
    /// Plain HTTP, for a server on the same machine only.
    Http,
    /// A folder of repositories on the same machine.
    File,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::File => "file",
        }
    }

    fn own_port(self) -> Option<u16> {
        match self {
            Self::Https => Some(443),
            Self::Http => Some(80),
            Self::File => None,
        }
    }
}

/// Text that is not the URL of a space. A text that may hold a password or a key is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpaceUrl {
    /// A user name or a password is in the URL.
    #[error("expected a URL without user name and password; `credentials` says where they are")]
    UserInfo,
    /// A query or a fragment is in the URL.
    #[error("expected a URL without `?` and `#`")]
    Query,
    /// A space of Backlog, but not the place where it keeps repositories.
    #[error("expected https://{0}/git, where Backlog keeps the repositories of this space")]
    NotGit(String),
    /// Anything else.
    #[error("expected the URL of a space as https://example.backlog.com/git, found {0:?}")]
    Shape(String),
}

impl SpaceUrl {
    /// How the space is reached.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What names the space in an object's metadata: the URL; or its hash where it would take the room of others.
    #[must_use]
    pub fn mark(&self) -> String {
        let url = self.to_string();
        // An escape would be escaped once more there, and take three times its room.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
        if url.len() <= LONGEST_MARK && url.bytes().all(is_plain) {
            return url;
        }
        let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(url));
        format!("sha256:{digest}")
    }

    /// Whether it is a space of Backlog, which shows commits below its repositories' URLs.
    #[must_use]
    pub fn is_backlog(&self) -> bool {
        BACKLOG.iter().any(|end| self.host.ends_with(end))
    }

    /// The URL of Backlog's API for the space, such as `https://example.backlog.com/api/v2`: beside `git`, below whatever path
    /// stands before that. `None` if it is not reached over TLS, unless it is on this machine.
    #[must_use]
    pub fn api_url(&self) -> Option<String> {
        let is_fit = match self.scheme {
            Scheme::Https => true,
            Scheme::Http => self.is_loopback(),
            Scheme::File => false,
        };
        let space = self.to_string();
        let above = space.strip_suffix("/git").unwrap_or(&space);
        is_fit.then(|| format!("{above}/api/v2"))
    }

    /// Whether the host is this machine: `localhost`, `127.0.0.0/8` or `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || address.parse().is_ok_and(|a: Ipv4Addr| a.is_loopback())
            || address.parse().is_ok_and(|a: Ipv6Addr| a.is_loopback())
    }

    /// The URL of a repository: `{space}/{project}/{repository}.git`.
    pub(crate) fn repository_url(&self, project: &str, repository: &str) -> String {
        // gix takes the path of a `file:` URL as it stands.
        let segment = |name: &str| match self.scheme {
            Scheme::File => name.to_owned(),
            Scheme::Https | Scheme::Http => utf8_percent_encode(name, ENCODED).to_string(),
        };
        format!("{self}/{}/{}.git", segment(project), segment(repository))
    }

    /// Takes the URL of a repository apart into space, project key and repository.
    pub(crate) fn split_repository_url(url: &str) -> Option<(Self, String, String)> {
        let path = url.trim_end_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let (path, repository) = path.rsplit_once('/')?;
        let (space, project) = path.rsplit_once('/')?;
        let space: Self = space.parse().ok()?;
        let name = |segment: &str| match space.scheme {
            Scheme::File => Some(segment.to_owned()),
            Scheme::Https | Scheme::Http => percent_decode_str(segment)
                .decode_utf8()
                .ok()
                .map(Into::into),
        };
        let (project, repository) = (name(project)?, name(repository)?);
        Some((space, project, repository))
    }
}

impl FromStr for SpaceUrl {
    type Err = InvalidSpaceUrl;

    fn from_str(text: &str) -> Result<Self, InvalidSpaceUrl> {
        let invalid = || InvalidSpaceUrl::Shape(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidSpaceUrl::UserInfo);
        }
        // A folder may be called so.
        let is_file = scheme.eq_ignore_ascii_case(Scheme::File.as_str());
        if !is_file && rest.contains(['?', '#']) {
            return Err(InvalidSpaceUrl::Query);
        }
        let scheme = [Scheme::Https, Scheme::Http, Scheme::File]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
            .ok_or_else(invalid)?;
        let (host, port) = split_port(authority).ok_or_else(invalid)?;
        let path = path.trim_end_matches('/');
        let plain_host = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.[]:".contains(&b));
        let is_odd = |c: char| c.is_control() || c == '\\' || (c.is_whitespace() && !is_file);
        let plain_path = !path.contains(is_odd)
            && path
                .split('/')
                .all(|segment| segment != "." && segment != "..");
        if !plain_host || !plain_path || host.is_empty() != (scheme == Scheme::File) {
            return Err(invalid());
        }
        let host = host.to_ascii_lowercase();
        let of_backlog = BACKLOG.iter().any(|domain| host.ends_with(domain));
        if of_backlog && path != "/git" {
            return Err(InvalidSpaceUrl::NotGit(host));
        }
        Ok(Self {
            scheme,
            host,
            port: port.filter(|port| Some(*port) != scheme.own_port()),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for SpaceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for SpaceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `host:port` or `host`; the host may be an IPv6 address in brackets. `None` if the port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_url_is_plain() {
        for (case, text, expected) in [
            (
                "as Backlog has it",
                "https://example.backlog.com/git",
                Some("https://example.backlog.com/git"),
            ),
            (
                "a slash at the end",
                "https://example.backlog.com/git/",
                Some("https://example.backlog.com/git"),
            ),
            (
                "the host's case",
                "HTTPS://Git.Example.com/Git",
                Some("https://git.example.com/Git"),
            ),
            ("Backlog's front page", "https://example.backlog.com", None),
            ("a project", "https://example.backlog.jp/git/APP", None),
            ("another case", "https://example.backlogtool.com/Git", None),
            (
                "https' own port",
                "https://example.backlog.com:443/git",
                Some("https://example.backlog.com/git"),
            ),
            (
                "another port",
                "https://localhost:8443",
                Some("https://localhost:8443"),
            ),
            (
                "IPv6",
                "http://[::1]:3000/git",
                Some("http://[::1]:3000/git"),
            ),
            (
                "IPv6 without a port",
                "http://[::1]/git",
                Some("http://[::1]/git"),
            ),
            ("a folder", "file:///srv/git", Some("file:///srv/git")),
            ("no scheme", "example.backlog.com/git", None),
            ("ssh", "ssh://example.backlog.com/git", None),
            ("no host", "https:///git", None),
            ("a file on another host", "file://server/git", None),
            (
                "a port that is none",
                "https://example.backlog.com:git/",
                None,
            ),
            ("a space", "https://example.backlog.com/g it", None),
            ("a line break", "https://example.backlog.com/git\n", None),
            (
                "the folder above",
                "https://example.backlog.com/git/../x",
                None,
            ),
            (
                "user and password",
                "https://taro:s3cret@example.backlog.com/git",
                None,
            ),
            (
                "a query",
                "https://example.backlog.com/git?apiKey=s3cret",
                None,
            ),
            ("a fragment", "https://example.backlog.com/git#s3cret", None),
        ] {
            let url = text.parse::<SpaceUrl>();
            assert_eq!(
                url.as_ref().ok().map(ToString::to_string).as_deref(),
                expected,
                "{case}"
            );
            if let Err(error) = url {
                assert!(!error.to_string().contains("s3cret"), "{case}: {error}");
            }
        }
    }

    #[test]
    fn the_api_is_beside_the_repositories() {
        for (space, expected) in [
            (
                "https://example.backlog.com/git",
                Some("https://example.backlog.com/api/v2"),
            ),
            (
                "https://example.backlog.jp/git",
                Some("https://example.backlog.jp/api/v2"),
            ),
            (
                "https://example.backlogtool.com/git/",
                Some("https://example.backlogtool.com/api/v2"),
            ),
            (
                "https://git.example.com:8443/backlog/git",
                Some("https://git.example.com:8443/backlog/api/v2"),
            ),
            (
                "https://git.example.com",
                Some("https://git.example.com/api/v2"),
            ),
            (
                "http://localhost:3000/git",
                Some("http://localhost:3000/api/v2"),
            ),
            ("http://git.example.com/git", None),
            ("file:///srv/git", None),
        ] {
            let space: SpaceUrl = space.parse().unwrap();
            assert_eq!(space.api_url().as_deref(), expected, "{space}");
        }
    }

    #[test]
    fn loopback_is_this_machine() {
        for (url, expected) in [
            ("http://localhost:3000", true),
            ("http://LOCALHOST", true),
            ("http://127.0.0.1:3000/git", true),
            ("http://127.8.9.1", true),
            ("http://[::1]:3000", true),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1", false),
            ("http://[::2]", false),
        ] {
            assert_eq!(
                url.parse::<SpaceUrl>().unwrap().is_loopback(),
                expected,
                "{url}"
            );
        }
    }
}
