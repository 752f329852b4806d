//! A route that is being made: what is proposed for it, and what it looks like in a table.

use std::fmt::Write;

use super::{RefPattern, RouteTable};
use crate::{push::RepositoryName, space::SpaceUrl};

/// How a table begins that is made here.
const HEAD: &str = "\
# The routing table: which branch or tag of which repository becomes which object in S3. `backlog-bridge routes example`
# explains every field; `backlog-bridge routes check` reads this file as the bridge will.
";

/// One route, and the space that its repository is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The space.
    pub space: SpaceUrl,
    /// Where its login comes from, such as `secret:backlog-bridge/git`; `None` if it is read without one.
    pub credentials: Option<String>,
    /// The route's name.
    pub name: String,
    /// The repository.
    pub repository: RepositoryName,
    /// The refs that it takes.
    pub pattern: RefPattern,
    /// The object that it writes, or a template.
    pub object: String,
}

impl Draft {
    /// A name for a route: the repository and the branch, such as `web-main`.
    #[must_use]
    pub fn name_for(repository: &RepositoryName, pattern: &RefPattern) -> String {
        let short = short(pattern);
        let parts = short.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'));
        let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
        let of_ref = if parts.is_empty() {
            "all".to_owned()
        } else {
            parts.join("-")
        };
        format!("{}-{of_ref}", repository.repository())
    }

    /// The object of a route: `web/main.zip` for one ref, and for a glob what keeps its refs apart.
    #[must_use]
    pub fn object_for(repository: &RepositoryName, pattern: &RefPattern) -> String {
        match pattern.exact() {
            Some(name) => format!("{}/{}.zip", repository.repository(), name.short()),
            None => "{repository}/{ref}.zip".into(),
        }
    }

    /// A whole table with this route alone.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{HEAD}\n[[space]]\n{}",
            field("url", &self.space.to_string())
        );
        if let Some(credentials) = &self.credentials {
            text += &field("credentials", credentials);
        }
        text + &self.route(None)
    }

    /// A table's text with this route at its end.
    ///
    /// # Errors
    ///
    /// Why it cannot be added, if the table has not the route's space.
    pub fn added_to(&self, text: &str, table: &RouteTable) -> Result<String, String> {
        let space = table
            .spaces()
            .iter()
            .find(|space| *space.url() == self.space);
        let Some(space) = space else {
            return Err(format!(
                "the table has no space {}; write a second [[space]], give each a `name`, and say in every route which one it \
                 means",
                self.space
            ));
        };
        Ok(format!("{}\n{}", text.trim_end(), self.route(space.name())))
    }

    fn route(&self, space: Option<&str>) -> String {
        let mut text = format!("\n[[route]]\n{}", field("name", &self.name));
        if let Some(space) = space {
            text += &field("space", space);
        }
        text += &field("repository", self.repository.as_str());
        text += &field("ref", self.pattern.as_str());
        text + &field("object", &self.object)
    }
}

/// The pattern without `refs/heads/` or `refs/tags/`.
fn short(pattern: &RefPattern) -> &str {
    let text = pattern.as_str();
    let below = |folder| text.strip_prefix(folder);
    below("refs/heads/")
        .or_else(|| below("refs/tags/"))
        .unwrap_or(text)
}

fn field(name: &str, value: &str) -> String {
    let mut line = String::new();
    writeln!(line, "{name} = {}", toml::Value::from(value)).expect("a string takes all");
    line
}

#[cfg(test)]
mod tests {
    use super::{super::Origin, *};

    fn draft(pattern: &str) -> Draft {
        let repository: RepositoryName = "APP/web".parse().unwrap();
        let pattern: RefPattern = pattern.parse().unwrap();
        Draft {
            space: "https://example.backlog.com/git".parse().unwrap(),
            credentials: Some("secret:backlog-bridge/git".into()),
            name: Draft::name_for(&repository, &pattern),
            object: Draft::object_for(&repository, &pattern),
            repository,
            pattern,
        }
    }

    fn read(text: &str) -> RouteTable {
        RouteTable::parse("routes.toml", text, Some("sources"), Origin::Deployed)
            .unwrap_or_else(|err| panic!("{err}\n{text}"))
    }

    #[test]
    fn what_is_proposed_reads_well() {
        for (pattern, name, object) in [
            ("refs/heads/main", "web-main", "web/main.zip"),
            ("refs/heads/機能", "web-機能", "web/機能.zip"),
            ("refs/tags/v1.0", "web-v1.0", "web/v1.0.zip"),
            (
                "refs/heads/release/*",
                "web-release",
                "{repository}/{ref}.zip",
            ),
            ("refs/heads/*", "web-all", "{repository}/{ref}.zip"),
        ] {
            let draft = draft(pattern);
            assert_eq!((&*draft.name, &*draft.object), (name, object), "{pattern}");
            let table = read(&draft.table());
            let route = &table.routes()[0];
            assert_eq!(
                (route.name(), route.pattern().as_str()),
                (name, pattern),
                "{pattern}"
            );
            assert!(
                table
                    .doubts(Origin::Deployed)
                    .iter()
                    .all(|doubt| !doubt.refused)
            );
        }
    }

    #[test]
    fn a_route_is_added_to_the_space_that_it_is_in() {
        let first = draft("refs/heads/main");
        let text = first.table();
        let added = draft("refs/tags/v*").added_to(&text, &read(&text)).unwrap();
        assert!(added.starts_with(text.trim_end()), "{added}");
        assert_eq!(read(&added).routes().len(), 2);

        let named = text.replace("[[space]]", "[[space]]\nname = \"here\"");
        let added = draft("refs/tags/v*")
            .added_to(&named, &read(&named))
            .unwrap();
        assert!(added.contains("space = \"here\""), "{added}");
        assert_eq!(read(&added).routes().len(), 2);

        let mut other = draft("refs/tags/v*");
        other.space = "https://other.backlog.com/git".parse().unwrap();
        let why = other.added_to(&text, &read(&text)).unwrap_err();
        assert!(why.contains("https://other.backlog.com/git"), "{why}");
    }

    #[test]
    fn whatever_a_name_holds_is_written_so_that_it_is_read_back() {
        let mut odd = draft("refs/heads/main");
        odd.repository = "APP/we\"b".parse().unwrap();
        assert_eq!(
            read(&odd.table()).routes()[0].repository().as_str(),
            "APP/we\"b"
        );
    }
}
