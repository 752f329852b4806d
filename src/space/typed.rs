//! What people type, or copy from a web browser, where a space is asked for.

use super::{BACKLOG, InvalidSpaceUrl, SpaceUrl};

/// The hosts of plans on which people have user ids. On all others the e-mail address is the user name.
const CLASSIC: [&str; 2] = [".backlog.jp", ".backlogtool.com"];

impl SpaceUrl {
    /// The space of a host, such as `example.backlog.com`, or of the address of any of its pages; with the repository, such
    /// as `APP/web`, if the address names one. A server that is not Backlog's is named by the whole URL.
    ///
    /// # Errors
    ///
    /// [`InvalidSpaceUrl`].
    pub fn from_typed(text: &str) -> Result<(Self, Option<String>), InvalidSpaceUrl> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, page) = rest.split_at(end);
        let host = authority.split(':').next().unwrap_or_default();
        let host = host.to_ascii_lowercase();
        if !BACKLOG.iter().any(|domain| host.ends_with(domain)) || scheme == "file" {
            // Without a scheme, a word would be a host.
            if text.contains("://") {
                return Ok((text.parse()?, None));
            }
            return Err(InvalidSpaceUrl::Shape(text.to_owned()));
        }
        let space = format!("https://{authority}/git").parse()?;
        let page = page.split(['?', '#']).next().unwrap_or_default();
        let mut parts = page.split('/').skip(1);
        let repository = match (parts.next(), parts.next(), parts.next()) {
            (Some("git"), Some(project), Some(name)) if !project.is_empty() => {
                let name = name.strip_suffix(".git").unwrap_or(name);
                (!name.is_empty()).then(|| format!("{project}/{name}"))
            }
            _ => None,
        };
        Ok((space, repository))
    }

    /// Whether the user name for Git is surely an e-mail address here.
    #[must_use]
    pub fn wants_email_address(&self) -> bool {
        self.is_backlog() && !CLASSIC.iter().any(|end| self.host.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_known_by_whatever_people_copy() {
        const SPACE: &str = "https://example.backlog.com/git";
        for (text, expected) in [
            ("example.backlog.com", Some((SPACE, None))),
            (" https://example.backlog.com \n", Some((SPACE, None))),
            ("http://Example.backlog.com/", Some((SPACE, None))),
            ("https://example.backlog.com/git/", Some((SPACE, None))),
            (
                "https://example.backlog.com/dashboard?tab=1#x",
                Some((SPACE, None)),
            ),
            (
                "https://example.backlog.com/projects/APP",
                Some((SPACE, None)),
            ),
            ("https://example.backlog.com/git/APP", Some((SPACE, None))),
            (
                "https://example.backlog.com/git/APP/web.git",
                Some((SPACE, Some("APP/web"))),
            ),
            (
                "example.backlog.com/git/APP/web/tree/main",
                Some((SPACE, Some("APP/web"))),
            ),
            (
                "example.backlog.jp",
                Some(("https://example.backlog.jp/git", None)),
            ),
            (
                "example.backlogtool.com/wiki/APP",
                Some(("https://example.backlogtool.com/git", None)),
            ),
            (
                "https://git.example.com/backlog/git",
                Some(("https://git.example.com/backlog/git", None)),
            ),
            ("file:///srv/git", Some(("file:///srv/git", None))),
            ("example", None),
            ("", None),
            ("git.example.com", None),
            ("example@example.git.backlog.com:/APP/web.git", None),
            ("https://taro:s3cret@example.backlog.com", None),
        ] {
            let typed = SpaceUrl::from_typed(text);
            let found = typed.as_ref().ok();
            let found = found.map(|(url, name)| (url.to_string(), name.as_deref()));
            let expected = expected.map(|(url, name)| (url.to_owned(), name));
            assert_eq!(found, expected, "{text:?}");
            if let Err(error) = typed {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
        }
    }

    #[test]
    fn only_new_plans_have_addresses_for_names() {
        for (url, expected) in [
            ("https://example.backlog.com/git", true),
            ("https://example.backlog.jp/git", false),
            ("https://example.backlogtool.com/git", false),
            ("https://git.example.com/git", false),
        ] {
            let space: SpaceUrl = url.parse().unwrap();
            assert_eq!(space.wants_email_address(), expected, "{url}");
        }
    }
}
