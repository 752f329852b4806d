//! What is odd in a table that reads well: some of it cannot work, some probably does not do what was meant. A bridge that
//! runs takes such a table all the same, as it may have been stored before anybody looked for this.

use super::{
    ApiKeySource, CredentialsSource, Origin, ROUTES_KEY, Results, Route, RouteTable, Space,
};

/// The space of the examples.
const EXAMPLE: &str = "https://example.backlog.";

/// How a key has to end that the functions may write, letter by letter.
const ENDING: &str = ".zip";

/// Something that is odd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// Where it is in the file, from 1.
    pub line: usize,
    /// What it is, and what is right.
    pub text: String,
    /// Whether it cannot work.
    pub refused: bool,
}

impl RouteTable {
    /// What is odd, in the order of the file. `origin` says where the table is to work.
    #[must_use]
    pub fn doubts(&self, origin: Origin) -> Vec<Doubt> {
        let spaces = self.spaces.iter();
        let spaces = spaces.flat_map(|space| {
            let routes = self.routes.iter();
            let mut own = routes.filter(|route| self.space_of(route) == space);
            let tells = own.any(|route| self.results_of(route) != Results::None);
            space.doubts(origin, tells)
        });
        let routes = self.routes.iter();
        let routes = routes.flat_map(|route| {
            let tells = self.results_of(route) != Results::None;
            route.doubts(self.space_of(route), tells)
        });
        let mut doubts: Vec<_> = spaces.chain(routes).collect();
        doubts.sort();
        doubts
    }
}

impl Space {
    /// `tells`: whether results are told of any of its routes.
    fn doubts(&self, origin: Origin, tells: bool) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        let mut doubt = |text, refused| {
            doubts.push(Doubt {
                line: self.line,
                text,
                refused,
            });
        };
        let url = &self.url;
        if url.to_string().starts_with(EXAMPLE) {
            doubt(
                format!("{url} is the space of the examples; write the URL of yours"),
                false,
            );
        }
        if let CredentialsSource::Env { prefix } = &self.credentials
            && origin == Origin::Deployed
        {
            let text = format!(
                "{url} reads its login from {prefix}_USERNAME and {prefix}_PASSWORD, which the deployed functions do not have; \
                 expected credentials as \"secret:NAME\""
            );
            doubt(text, true);
        }
        match &self.api_key {
            None if tells => {
                let text = format!("{url} has no api_key, without which no results are told");
                doubt(text, false);
            }
            Some(ApiKeySource::Env { prefix }) if tells && origin == Origin::Deployed => {
                let text = format!(
                    "{url} reads its key from {prefix}_API_KEY, which the deployed functions do not have; expected api_key as \
                     \"secret:NAME\""
                );
                doubt(text, false);
            }
            _ => {}
        }
        doubts
    }
}

impl Route {
    /// `tells`: whether results are told of it.
    fn doubts(&self, space: &Space, tells: bool) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        let mut doubt = |line, text, refused| {
            doubts.push(Doubt {
                line,
                text,
                refused,
            });
        };
        let (on_backlog, repository) = (space.url.is_backlog(), &self.repository);
        if let Some(name) = repository.as_str().strip_suffix(".git") {
            let text = format!(
                "expected the repository without .git, as {name:?}: it is fetched from {}",
                repository.url_in(&space.url)
            );
            doubt(self.lines.repository, text, on_backlog);
        }
        if on_backlog
            && repository
                .project()
                .contains(|c: char| c.is_ascii_lowercase())
        {
            let text = format!(
                "Backlog writes project keys in capital letters; expected {}/{}",
                repository.project().to_ascii_uppercase(),
                repository.repository()
            );
            doubt(self.lines.repository, text, false);
        }
        if has_blank_end(repository.project()) || has_blank_end(repository.repository()) {
            let text = format!(
                "the repository {:?} has a blank at an end of a name",
                repository.as_str()
            );
            doubt(self.lines.repository, text, false);
        }
        for (near, meant) in [("refs/head/", "refs/heads/"), ("refs/tag/", "refs/tags/")] {
            if let Some(name) = self.pattern.as_str().strip_prefix(near) {
                let text = format!("no branch and no tag is below {near}; expected {meant}{name}");
                doubt(self.lines.pattern, text, false);
            }
        }
        if tells && self.pipelines().is_none() {
            let text = "the route says no pipeline, so nothing is told of its results".to_owned();
            doubt(self.lines.repository, text, false);
        }
        let template = self.object.to_string();
        // What a glob makes of its refs is not known here.
        let key = self.pattern.exact().and_then(|exact| self.key(exact).ok());
        let key = key.as_ref().map_or(&*template, |key| key.as_str());
        for what in key_doubts(key) {
            doubt(
                self.lines.object,
                format!("the object key {key:?} {what}"),
                false,
            );
        }
        doubts
    }
}

/// What is odd in an object key. S3 takes all of it.
fn key_doubts(key: &str) -> Vec<&'static str> {
    let stem = |part: &'_ str| part.strip_suffix(ENDING).unwrap_or(part).to_owned();
    let (table, _) = ROUTES_KEY.split_once('/').unwrap_or_default();
    let is_beside_table = key
        .split_once('/')
        .is_some_and(|(folder, _)| folder == table);
    [
        (
            !key.ends_with(ENDING),
            "does not end in .zip, and the deployed functions write nothing else, unless ObjectKeys of the stack says so",
        ),
        (
            key.contains("//") || key.ends_with('/'),
            "has a slash with no name before or behind it",
        ),
        (
            key.split('/').any(|part| has_blank_end(part) || has_blank_end(&stem(part))),
            "has a blank at an end of a name",
        ),
        (key.contains('\\'), "has a backslash, which is no slash in S3"),
        (is_beside_table, "is beside the routing table, where the bridge keeps what is its own"),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then_some(what))
    .collect()
}

fn has_blank_end(name: &str) -> bool {
    name.trim() != name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(space: &str, route: &str, origin: Origin) -> Vec<String> {
        let text = format!("[[space]]\n{space}\n[[route]]\n{route}");
        let table = RouteTable::parse("routes.toml", &text, Some("sources"), origin);
        let table = table.unwrap_or_else(|err| panic!("{err}"));
        let doubts = table.doubts(origin).into_iter();
        doubts
            .map(
                |Doubt {
                     line,
                     text,
                     refused,
                 }| {
                    let word = if refused { "refused" } else { "odd" };
                    format!("{line} {word}: {text}")
                },
            )
            .collect()
    }

    #[test]
    fn what_cannot_work_or_was_hardly_meant_has_its_line() {
        let backlog = "url = \"https://a.backlog.com/git\"\ncredentials = \"env:A\"";
        let elsewhere = "url = \"https://git.example.com\"";
        for (case, space, repository, ref_name, object, expected) in [
            (
                "nothing odd",
                backlog,
                "APP/web",
                "refs/heads/main",
                "web/main.zip",
                &[][..],
            ),
            (
                "a glob",
                backlog,
                "APP/web",
                "refs/heads/*",
                "{project}/{ref}.zip",
                &[],
            ),
            (
                "nothing odd elsewhere",
                elsewhere,
                "app/web",
                "refs/pull/1/head",
                "web.zip",
                &[],
            ),
            (
                ".git",
                backlog,
                "APP/web.git",
                "refs/heads/main",
                "web.zip",
                &[
                    "5 refused: expected the repository without .git, as \"APP/web\": it is fetched from \
                   https://a.backlog.com/git/APP/web.git.git",
                ],
            ),
            (
                ".git elsewhere",
                elsewhere,
                "app/web.git",
                "refs/heads/main",
                "web.zip",
                &[
                    "4 odd: expected the repository without .git, as \"app/web\": it is fetched from \
                   https://git.example.com/app/web.git.git",
                ],
            ),
            (
                "small letters and a blank",
                backlog,
                "app/web ",
                "refs/heads/main",
                "web.zip",
                &[
                    "5 odd: Backlog writes project keys in capital letters; expected APP/web ",
                    "5 odd: the repository \"app/web \" has a blank at an end of a name",
                ],
            ),
            (
                "one letter less",
                backlog,
                "APP/web",
                "refs/head/*",
                "{ref}.zip",
                &["6 odd: no branch and no tag is below refs/head/; expected refs/heads/*"],
            ),
            (
                "no zip",
                backlog,
                "APP/web",
                "refs/heads/main",
                "web/{ref}",
                &[
                    "7 odd: the object key \"web/main\" does not end in .zip, and the deployed functions write nothing else, \
                   unless ObjectKeys of the stack says so",
                ],
            ),
            (
                "slashes",
                backlog,
                "APP/web",
                "refs/heads/*",
                "web//{ref}.zip",
                &[
                    "7 odd: the object key \"web//{ref}.zip\" has a slash with no name before or behind it",
                ],
            ),
            (
                "a blank before the ending",
                backlog,
                "APP/web",
                "refs/heads/main",
                "web/main .zip",
                &["7 odd: the object key \"web/main .zip\" has a blank at an end of a name"],
            ),
            (
                "a backslash beside the table",
                backlog,
                "APP/web",
                "refs/heads/main",
                "config/a\\\\b.zip",
                &[
                    "7 odd: the object key \"config/a\\\\b.zip\" has a backslash, which is no slash in S3",
                    "7 odd: the object key \"config/a\\\\b.zip\" is beside the routing table, where the bridge keeps what is its own",
                ],
            ),
            (
                "the examples' space",
                "url = \"https://example.backlog.jp/git\"",
                "APP/web",
                "refs/heads/main",
                "web.zip",
                &[
                    "2 odd: https://example.backlog.jp/git is the space of the examples; write the URL of yours",
                ],
            ),
        ] {
            let route = format!(
                "repository = \"{repository}\"\nref = \"{ref_name}\"\nobject = \"{object}\""
            );
            assert_eq!(
                doubts(space, &route, Origin::CommandLine),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn what_the_functions_do_not_have_is_refused_there_alone() {
        let space = "url = \"https://a.backlog.com/git\"\ncredentials = \"env:A\"";
        let route = "repository = \"APP/web\"\nref = \"refs/heads/main\"\nobject = \"web.zip\"";
        assert_eq!(doubts(space, route, Origin::CommandLine), [""; 0]);
        let [doubt] = &doubts(space, route, Origin::Deployed)[..] else {
            panic!("one doubt");
        };
        assert!(doubt.starts_with(
            "2 refused: https://a.backlog.com/git reads its login from A_USERNAME and A_PASSWORD"
        ));
    }

    #[test]
    fn results_that_cannot_be_told_have_their_line() {
        let of = |space: &str, route: &str, origin: Origin| {
            let space = format!("url = \"https://a.backlog.com/git\"\n{space}");
            let route = format!(
                "repository = \"APP/web\"\nref = \"refs/heads/main\"\nobject = \"web.zip\"\n{route}"
            );
            doubts(&space, &route, origin)
        };
        let (key, pipeline) = ("api_key = \"secret:api\"", "pipeline = \"web\"");
        let no_key =
            "2 odd: https://a.backlog.com/git has no api_key, without which no results are told";
        let no_pipeline = "the route says no pipeline, so nothing is told of its results";
        let none: [&str; 0] = [];
        let here = Origin::CommandLine;
        assert_eq!(of("", pipeline, here), none);
        assert_eq!(of(key, "", here), none, "it switches nothing on");
        assert_eq!(of("results = \"alert\"", pipeline, here), [no_key]);
        let both = format!("{key}\nresults = \"alert\"");
        assert_eq!(of(&both, pipeline, here), none);
        assert_eq!(of(&both, "results = \"none\"", here), none);
        assert_eq!(of(&both, "", here), [format!("6 odd: {no_pipeline}")]);
        assert_eq!(
            of("", "results = \"pull_request\"", here),
            [no_key.to_owned(), format!("5 odd: {no_pipeline}")]
        );
        let env = "api_key = \"env:A\"\nresults = \"alert\"";
        assert_eq!(of(env, pipeline, here), none);
        assert_eq!(
            of(env, pipeline, Origin::Deployed),
            [
                "2 odd: https://a.backlog.com/git reads its key from A_API_KEY, which the deployed functions do not have; expected \
              api_key as \"secret:NAME\""
            ]
        );
    }
}
