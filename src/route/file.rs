//! Reads a routing table from TOML, and says all that is wrong with it at once.

use std::{cmp::Reverse, collections::HashMap, fmt, str::FromStr};

use toml::de::DeTable;

use super::{
    CredentialsSource, KeyTemplate, Lines, NewField, Origin, RefPattern, Route, RouteTable, Space,
    Sweep, bucket_name,
    entry::Entry,
    faults::{Faults, RouteTableError},
};
use crate::{
    push::{RefName, RepositoryName},
    space::{Scheme, SpaceUrl},
};

/// The size of the largest routing table, in bytes.
pub const MAX_TABLE_BYTES: usize = 4 * 1024 * 1024;

/// The fields of a `[[space]]`.
pub(super) const SPACE: &[&str] = &[
    "url",
    "credentials",
    "name",
    "api_key",
    "language",
    "results",
    "results_issue",
    "results_detail",
];

/// Those that it needs.
pub(super) const SPACE_NEEDS: &[&str] = &["url"];

/// The fields of a `[[route]]`.
pub(super) const ROUTE: &[&str] = &[
    "name",
    "space",
    "repository",
    "ref",
    "object",
    "bucket",
    "sweep",
    "paused",
    "pipeline",
    "results",
];

/// The fields that [`super::TABLE_FORMAT`] 1 does not have, and the first format that has them.
const NEWER: &[(&str, u32)] = &[
    ("api_key", 2),
    ("language", 2),
    ("paused", 2),
    ("results", 2),
    ("results_issue", 2),
    ("results_detail", 2),
    ("pipeline", 2),
];

/// Those that it needs.
pub(super) const ROUTE_NEEDS: &[&str] = &["repository", "ref", "object"];

/// Which space a route means by a name.
struct SpaceNames<'a> {
    count: usize,
    indices: HashMap<&'a str, usize>,
}

impl<'a> SpaceNames<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let named = entries.iter().enumerate();
        Self {
            count: entries.len(),
            indices: named
                .filter_map(|(index, entry)| Some((entry.get("name")?.get_ref().as_str(), index)))
                .collect(),
        }
    }
}

/// See [`RouteTable::parse`].
pub(super) fn read(
    file: &str,
    text: &str,
    default_bucket: Option<&str>,
    origin: Origin,
) -> Result<RouteTable, RouteTableError> {
    let mut reader = Reader {
        text,
        faults: Faults::of(text),
    };
    let table = reader.table(default_bucket, origin);
    reader.faults.or(file, table)
}

/// Keeps reading after a fault.
struct Reader<'a> {
    text: &'a str,
    faults: Faults,
}

impl Reader<'_> {
    /// `None` only after a fault.
    fn table(&mut self, default_bucket: Option<&str>, origin: Origin) -> Option<RouteTable> {
        if self.text.len() > MAX_TABLE_BYTES {
            let fault = format!(
                "expected a table of at most {MAX_TABLE_BYTES} bytes, found {} bytes; leave out comments and names, \
                 or let one glob take the refs of several routes",
                self.text.len()
            );
            self.faults.add(0..0, fault);
            return None;
        }
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.faults.add_toml(error, 0..0);
        }
        self.faults.is_whole = errors.is_empty();
        let (mut spaces, mut routes) = (Vec::new(), Vec::new());
        let faults = &mut self.faults;
        for (key, value) in root.into_inner() {
            match &**key.get_ref() {
                "space" => spaces = Entry::all(faults, "[[space]]", SPACE, SPACE_NEEDS, value),
                "route" => routes = Entry::all(faults, "[[route]]", ROUTE, ROUTE_NEEDS, value),
                other => faults.add(
                    key.span(),
                    format!("expected [[space]] or [[route]], found {other:?}"),
                ),
            }
        }
        if routes.is_empty() {
            self.faults.missing(0..0, "expected at least one [[route]]");
        }
        self.check_space_names(&spaces);
        let newest = self.newest(spaces.iter().chain(&routes));
        let names = SpaceNames::of(&spaces);
        let spaces = spaces.iter().map(|entry| self.space(entry, origin));
        let spaces: Vec<_> = spaces.collect();
        let routes: Vec<_> = routes
            .iter()
            .map(|entry| {
                let route = self.route(entry, &names, default_bucket)?;
                Some((entry, route))
            })
            .collect();
        self.check_names(routes.iter().flatten());
        let routes = routes.into_iter().map(|route| Some(route?.1));
        Some(RouteTable::new(
            spaces.into_iter().collect::<Option<_>>()?,
            routes.collect::<Option<_>>()?,
            newest,
        ))
    }

    /// Of the fields that not every bridge knows, the one that needs the newest.
    fn newest<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Option<NewField> {
        let fields = entries.flat_map(|entry| {
            NEWER.iter().filter_map(|&(name, format)| {
                let line = self.faults.line(&entry.get(name)?.span());
                Some(NewField { name, format, line })
            })
        });
        // Of several the first.
        fields.min_by_key(|field| (Reverse(field.format), field.line))
    }

    /// One space needs no name, several need one each.
    fn check_space_names(&mut self, entries: &[Entry]) {
        if entries.is_empty() {
            self.faults.missing(0..0, "expected at least one [[space]]");
        }
        let mut lines = HashMap::new();
        for entry in entries {
            match entry.get("name") {
                Some(name) => {
                    self.faults.check_label(name);
                    let line = self.faults.line(&name.span());
                    if let Some(other) = lines.insert(name.get_ref(), line) {
                        let name = name.get_ref();
                        let fault = format!(
                            "expected a name of its own, found {name:?} as on line {other}"
                        );
                        self.faults.add_on(line, fault);
                    }
                }
                None if entries.len() > 1 => self.faults.missing(
                    entry.span("url"),
                    "expected a `name` for the space, as there are several",
                ),
                None => {}
            }
        }
    }

    fn space(&mut self, entry: &Entry, origin: Origin) -> Option<Space> {
        let credentials = match entry.get("credentials") {
            Some(credentials) => self.faults.parsed(credentials),
            None => Some(CredentialsSource::Anonymous),
        };
        let api_key = entry.get("api_key").map(|key| self.faults.parsed(key));
        let language = entry.get("language");
        let language = language.map(|language| self.faults.parsed(language));
        let results = self.optional(entry, "results");
        let results_issue = self.optional(entry, "results_issue");
        let results_detail = self.flag(entry, "results_detail");
        let text = entry.get("url")?;
        let url: SpaceUrl = self.faults.parsed(text)?;
        let has_credentials = ["credentials", "api_key"].map(|name| entry.get(name).is_some());
        let has_credentials = has_credentials.contains(&true);
        if let Some(expected) = refusal(&url, has_credentials, origin) {
            let fault = format!("{expected}, found {:?}", text.get_ref());
            self.faults.add(text.span(), fault);
        }
        Some(Space {
            name: entry.get("name").map(|name| name.get_ref().clone()),
            url,
            credentials: credentials?,
            api_key: match api_key {
                Some(api_key) => Some(api_key?),
                None => None,
            },
            language: match language {
                Some(language) => Some(language?),
                None => None,
            },
            results: results?.unwrap_or_default(),
            results_issue: results_issue?,
            results_detail: results_detail?,
            line: self.faults.line(&text.span()),
        })
    }

    fn route(
        &mut self,
        entry: &Entry,
        spaces: &SpaceNames<'_>,
        default_bucket: Option<&str>,
    ) -> Option<Route> {
        if let Some(name) = entry.get("name") {
            self.faults.check_label(name);
        }
        let space = self.space_index(entry, spaces);
        let repository: Option<RepositoryName> = self.field(entry, "repository");
        let pattern: Option<RefPattern> = self.field(entry, "ref");
        let object: Option<KeyTemplate> = self.field(entry, "object");
        let bucket = self.bucket(entry, default_bucket);
        let sweep = entry.get("sweep").map(|sweep| self.faults.parsed(sweep));
        let paused = self.flag(entry, "paused");
        let pipeline = self.optional(entry, "pipeline");
        let results = self.optional(entry, "results");
        if let Some(object) = &object {
            self.check_key(entry, repository.as_ref(), pattern.as_ref(), object);
        }
        let (repository, pattern, object) = (repository?, pattern?, object?);
        let line = |name| self.faults.line(&entry.span(name));
        Some(Route {
            name: match entry.get("name") {
                Some(name) => name.get_ref().clone(),
                None => format!("{repository} {pattern}"),
            },
            space: space?,
            bucket: bucket?,
            sweep: match sweep {
                Some(sweep) => sweep?,
                None if pattern.exact().is_some() => Sweep::All,
                None => Sweep::Existing,
            },
            is_paused: paused?,
            pipeline: pipeline?,
            results: results?,
            lines: Lines {
                repository: line("repository"),
                pattern: line("ref"),
                object: line("object"),
            },
            repository,
            pattern,
            object,
        })
    }

    fn space_index(&mut self, entry: &Entry, spaces: &SpaceNames<'_>) -> Option<usize> {
        let Some(name) = entry.get("space") else {
            if spaces.count > 1 {
                let fault = "expected a `space` for the route, as there are several";
                self.faults.missing(entry.span("repository"), fault);
            }
            return (spaces.count == 1).then_some(0);
        };
        let index = spaces.indices.get(name.get_ref().as_str()).copied();
        if index.is_none() {
            let fault = format!(
                "expected the name of a [[space]], found {:?}",
                name.get_ref()
            );
            self.faults.missing(name.span(), fault);
        }
        index
    }

    fn bucket(&mut self, entry: &Entry, default: Option<&str>) -> Option<String> {
        let (name, span, origin) = match (entry.get("bucket"), default) {
            (Some(bucket), _) => (bucket.get_ref().as_str(), bucket.span(), ""),
            (None, Some(default)) => (default, entry.span("object"), " in SOURCE_BUCKET"),
            (None, None) => {
                let fault = "expected a `bucket` for the route, as SOURCE_BUCKET is not set";
                self.faults.missing(entry.span("object"), fault);
                return None;
            }
        };
        bucket_name(name)
            .map_err(|error| self.faults.add(span, format!("{error}{origin}")))
            .ok()
    }

    /// The one key of an exact route is known. A glob's are not, but some templates make a valid key of no ref at all. What
    /// cannot be read of the route is taken for something short.
    fn check_key(
        &mut self,
        entry: &Entry,
        repository: Option<&RepositoryName>,
        pattern: Option<&RefPattern>,
        object: &KeyTemplate,
    ) {
        let span = entry.span("object");
        let exact = pattern.map(RefPattern::exact);
        if exact == Some(None) && !object.tells_refs_apart() {
            let found = object.to_string();
            let fault = format!("expected {{ref}} in the object key of a glob, found {found:?}");
            self.faults.add(span, fault);
            return;
        }
        let some_ref: RefName = "refs/heads/x".parse().expect("a valid ref name");
        let some_repository: RepositoryName = "X/x".parse().expect("a valid name");
        let (repository, ref_name) = (
            repository.unwrap_or(&some_repository),
            exact.flatten().unwrap_or(&some_ref),
        );
        if let Err(error) = object.expand(repository, ref_name) {
            self.faults.add(span, error);
        }
    }

    fn check_names<'r>(&mut self, routes: impl Iterator<Item = &'r (&'r Entry, Route)>) {
        let mut names = HashMap::new();
        for (entry, route) in routes {
            let name = &route.name;
            let own = entry.get("name").map_or("repository", |_| "name");
            let line = self.faults.line(&entry.span(own));
            if let Some(other) = names.insert(name, line) {
                let fault =
                    format!("expected a `name` of its own, found {name:?} as on line {other}");
                self.faults.add_on(line, fault);
            }
        }
    }

    /// A field that may be left out; `None` only after a fault.
    #[expect(clippy::option_option, reason = "the outer one is a fault's")]
    fn optional<T: FromStr<Err: fmt::Display>>(
        &mut self,
        entry: &Entry,
        name: &str,
    ) -> Option<Option<T>> {
        match entry.get(name) {
            Some(text) => self.faults.parsed(text).map(Some),
            None => Some(None),
        }
    }

    /// True or false, and false where it is left out; `None` only after a fault.
    fn flag(&mut self, entry: &Entry, name: &str) -> Option<bool> {
        let Some(text) = entry.get(name) else {
            return Some(false);
        };
        let flag = text.get_ref().parse().ok();
        if flag.is_none() {
            let fault = format!("expected true or false, found {:?}", text.get_ref());
            self.faults.add(text.span(), fault);
        }
        flag
    }

    fn field<T: FromStr<Err: fmt::Display>>(&mut self, entry: &Entry, name: &str) -> Option<T> {
        self.faults.parsed(entry.get(name)?)
    }
}

/// Why a space's URL is not one to fetch from, if it is not.
fn refusal(url: &SpaceUrl, credentials: bool, origin: Origin) -> Option<&'static str> {
    if url.scheme() == Scheme::Https {
        None
    } else if origin == Origin::Deployed {
        Some("expected an https URL")
    } else if url.scheme() == Scheme::Http && !url.is_loopback() {
        Some("expected an https URL, or http to this machine")
    } else if credentials {
        Some("expected an https URL, as there are credentials")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: &str = "[[space]]\nurl = \"https://example.backlog.com/git\"\n";

    fn read_deployed(text: &str) -> Result<RouteTable, RouteTableError> {
        read("routes.toml", text, Some("sources"), Origin::Deployed)
    }

    /// What is refused in one route that starts on line 3.
    fn faults(route: &str) -> String {
        match read_deployed(&format!("{SPACE}[[route]]\n{route}")) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_fault_in_a_route_has_its_line() {
        let long = format!("object = \"{}\"", "k".repeat(1025));
        for (case, line, expected) in [
            ("no fault", "", ""),
            (
                "a short ref",
                "ref = \"main\"",
                "routes.toml:5: expected a full ref name as refs/heads/main, found \"main\"",
            ),
            (
                "a short glob",
                "ref = \"release/*\"",
                "routes.toml:5: expected a full ref name with `*` as refs/heads/release/*, found \"release/*\"",
            ),
            (
                "no project",
                "repository = \"web\"",
                "routes.toml:4: expected a repository as PROJECT/repository, found \"web\"",
            ),
            (
                "an unknown placeholder",
                "object = \"{branch}.zip\"",
                "routes.toml:6: expected an object key in which braces stand around project, repository or ref only, found \"{branch}.zip\"",
            ),
            (
                "no key",
                "object = \"\"",
                "routes.toml:6: expected an object key, found nothing",
            ),
            (
                "a long key",
                &long,
                "routes.toml:6: expected an object key of at most 1024 bytes, found 1025 bytes",
            ),
            (
                "the table's own key",
                "object = \"config/{repository}\"\nrepository = \"APP/routes.toml\"",
                "routes.toml:6: config/routes.toml is the routing table; expected another object key",
            ),
            (
                "a glob to one object",
                "ref = \"refs/heads/*\"",
                "routes.toml:6: expected {ref} in the object key of a glob, found \"web.zip\"",
            ),
            (
                "a glob to no object",
                "ref = \"refs/heads/*\"\nobject = \"/{ref}\"",
                "routes.toml:6: expected an object key without `/` at the start, `.` and `..` between slashes, and control characters, found \"/x\"",
            ),
            (
                "a bucket",
                "bucket = \"Sources\"",
                "routes.toml:7: expected a bucket name of 3 to 63 lower-case letters, digits, dots and hyphens, found \"Sources\"",
            ),
            (
                "a sweep",
                "sweep = \"none\"",
                "routes.toml:7: expected \"all\" or \"existing\", found \"none\"",
            ),
            (
                "a space",
                "space = \"other\"",
                "routes.toml:7: expected the name of a [[space]], found \"other\"",
            ),
            (
                "a pipeline",
                "pipeline = \"web/main\"",
                "routes.toml:7: expected a pipeline's name of 1 to 100 letters, digits and .@-_, or {ref}, found \"web/main\"",
            ),
            (
                "results",
                "results = \"all\"",
                "routes.toml:7: expected \"none\", \"alert\" or \"pull_request\", found \"all\"",
            ),
            (
                "an empty name",
                "name = \"\"",
                "routes.toml:7: expected a name of visible characters, found \"\"",
            ),
            (
                "a name on two lines",
                "name = \"a\\nb\"",
                "routes.toml:7: expected a name of visible characters, found \"a\\nb\"",
            ),
            (
                "an unknown field",
                "branch = \"main\"",
                "routes.toml:7: unknown field `branch`, expected one of `name`, `space`, `repository`, `ref`, `object`, `bucket`, `sweep`, `paused`, `pipeline`, `results`",
            ),
            (
                "a number",
                "bucket = 3",
                "routes.toml:7: invalid type: integer `3`, expected a string",
            ),
        ] {
            let mut lines = vec![
                "repository = \"APP/web\"",
                "ref = \"refs/heads/main\"",
                "object = \"web.zip\"",
            ];
            for line in line.lines() {
                let field = line.split('=').next();
                match lines
                    .iter()
                    .position(|other| other.split('=').next() == field)
                {
                    Some(at) => lines[at] = line,
                    None => lines.push(line),
                }
            }
            assert_eq!(faults(&lines.join("\n")), expected, "{case}");
        }
        assert_eq!(
            faults("repository = \"APP/web\"\nref = \"refs/heads/main\""),
            "routes.toml:3: missing field `object`"
        );
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text = r#"
            [[space]]
            url = "https://taro:s3cret@example.backlog.com/git"
            credentials = "s3cret"

            [[route]]
            repository = "web"
            ref = "main"
            object = "web.zip"

            [[route]]
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "{x}.zip"
            sweep = "some"
        "#;
        assert_eq!(
            read_deployed(text).unwrap_err().to_string(),
            "routes.toml:3: expected a URL without user name and password; `credentials` says where they are\n\
             routes.toml:4: expected credentials as \"secret:NAME\" or \"env:PREFIX\"\n\
             routes.toml:7: expected a repository as PROJECT/repository, found \"web\"\n\
             routes.toml:8: expected a full ref name as refs/heads/main, found \"main\"\n\
             routes.toml:14: expected an object key in which braces stand around project, repository or ref only, found \"{x}.zip\"\n\
             routes.toml:15: expected \"all\" or \"existing\", found \"some\""
        );
    }

    #[test]
    fn faults_of_every_kind_are_named_together_in_the_order_of_the_file() {
        let text = "[[space]]\nurl = \"https://a.backlog.com\"\n\
            [[route]]\nrepository = \"x\"\nref = \"main\"\nobject = \"\"\nfoo = 1\nbucket = 3\n\
            [[route]]\nrepository = \"APP/web\"\nobjekt = \"web.zip\"\nref = \"refs/heads/*\"\nsweep = \"no\"\n";
        assert_eq!(
            read_deployed(text).unwrap_err().to_string(),
            "routes.toml:2: expected https://a.backlog.com/git, where Backlog keeps the repositories of this space\n\
             routes.toml:4: expected a repository as PROJECT/repository, found \"x\"\n\
             routes.toml:5: expected a full ref name as refs/heads/main, found \"main\"\n\
             routes.toml:6: expected an object key, found nothing\n\
             routes.toml:7: unknown field `foo`, expected one of `name`, `space`, `repository`, `ref`, `object`, `bucket`, `sweep`, `paused`, `pipeline`, `results`\n\
             routes.toml:8: invalid type: integer `3`, expected a string\n\
             routes.toml:9: missing field `object`\n\
             routes.toml:11: unknown field `objekt`, expected one of `name`, `space`, `repository`, `ref`, `object`, `bucket`, `sweep`, `paused`, `pipeline`, `results`\n\
             routes.toml:13: expected \"all\" or \"existing\", found \"no\""
        );
        // Where it is no TOML, what is there is judged, and nothing is missed.
        let error =
            read_deployed("[[space]]\nurl = https://a\n[[route]]\nref = \"main\"\n").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("routes.toml:2: ")
                && text.contains("routes.toml:4: expected a full ref name"),
            "{text}"
        );
        assert!(!text.contains("missing field"), "{text}");
    }

    #[test]
    fn of_very_many_faults_the_first_are_named() {
        let text = format!(
            "{SPACE}{}",
            "[[route]]\nref = \"main\"\nobject = \"\"\n".repeat(10)
        );
        let text = read_deployed(&text).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 21, "{text}");
        assert!(
            text.ends_with("\nroutes.toml: and 10 more faults"),
            "{text}"
        );
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        for (case, text, expected) in [
            (
                "nothing",
                "",
                "routes.toml:1: expected at least one [[route]]\nroutes.toml:1: expected at least one [[space]]",
            ),
            (
                "another table",
                "[[spaces]]\nurl = \"\"\n",
                "routes.toml:1: expected [[space]] or [[route]], found \"spaces\"\n\
                 routes.toml:1: expected at least one [[route]]\nroutes.toml:1: expected at least one [[space]]",
            ),
            (
                "one bracket",
                "[space]\nurl = \"https://example.backlog.com/git\"",
                "routes.toml:1: expected [[space]]\nroutes.toml:1: expected at least one [[route]]",
            ),
            (
                "no tables",
                "space = 3\nroute = [\"x\"]",
                "routes.toml:1: expected [[space]]\nroutes.toml:2: expected [[route]]",
            ),
            (
                "two typos",
                "[[space]]\nurll = \"\"\n[[route]]\nbranch = \"\"",
                "routes.toml:1: missing field `url`\n\
                 routes.toml:2: unknown field `urll`, expected one of `url`, `credentials`, `name`, `api_key`, `language`, `results`, `results_issue`, `results_detail`\n\
                 routes.toml:3: missing field `object`\n\
                 routes.toml:3: missing field `ref`\n\
                 routes.toml:3: missing field `repository`\n\
                 routes.toml:4: unknown field `branch`, expected one of `name`, `space`, `repository`, `ref`, `object`, `bucket`, `sweep`, `paused`, `pipeline`, `results`",
            ),
            (
                "a field twice",
                "[[space]]\nurl = \"a\"\nurl = \"b\"",
                "routes.toml:2: expected the URL of a space as https://example.backlog.com/git, found \"a\"\n\
                 routes.toml:3: duplicate key",
            ),
            (
                "not TOML",
                "# routes\n{\"route\": []}",
                "routes.toml:2: invalid key-value pair, expected key",
            ),
        ] {
            assert_eq!(
                read_deployed(text).unwrap_err().to_string(),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn a_space_is_reached_safely() {
        let refused = |origin, space: &str| {
            let route = "repository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"k\"";
            let text = format!("[[space]]\n{space}\n[[route]]\n{route}");
            read("routes.toml", &text, Some("sources"), origin)
                .err()
                .map(|error| error.to_string())
        };
        for (case, space, deployed, command_line) in [
            (
                "https",
                "url = \"https://example.backlog.com/git\"",
                true,
                true,
            ),
            (
                "https with credentials",
                "url = \"https://example.backlog.com/git\"\ncredentials = \"env:BACKLOG\"",
                true,
                true,
            ),
            (
                "http to this machine",
                "url = \"http://127.0.0.1:3000/git\"",
                false,
                true,
            ),
            ("a folder", "url = \"file:///srv/git\"", false, true),
            (
                "http",
                "url = \"http://example.backlog.com/git\"",
                false,
                false,
            ),
            (
                "http with credentials",
                "url = \"http://localhost/git\"\ncredentials = \"env:BACKLOG\"",
                false,
                false,
            ),
            (
                "a folder with credentials",
                "url = \"file:///srv/git\"\ncredentials = \"env:BACKLOG\"",
                false,
                false,
            ),
        ] {
            assert_eq!(
                refused(Origin::Deployed, space).is_none(),
                deployed,
                "{case}"
            );
            assert_eq!(
                refused(Origin::CommandLine, space).is_none(),
                command_line,
                "{case}"
            );
        }
        assert_eq!(
            refused(Origin::Deployed, "url = \"http://localhost\"").as_deref(),
            Some("routes.toml:2: expected an https URL, found \"http://localhost\"")
        );
    }

    #[test]
    fn a_space_may_have_an_api_key_and_a_language() {
        use super::super::{ApiKeySource, Language, Preferred};
        let route = "[[route]]\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"k\"";
        let table = |fields: &str| read_deployed(&format!("{SPACE}{fields}\n{route}"));
        let space = |fields: &str| table(fields).unwrap().spaces()[0].clone();
        let secret = ApiKeySource::Secret {
            name: "backlog-bridge/api".into(),
        };
        let env = |prefix: &str| ApiKeySource::Env {
            prefix: prefix.into(),
        };
        let with = space("api_key = \"secret:backlog-bridge/api\"\nlanguage = \"ja\"");
        assert_eq!(with.api_key(), Some(&secret));
        assert_eq!(with.language(), Some(Language::Japanese));
        let with = space("api_key = \"env:ROBOT\"\nlanguage = \"en\"");
        assert_eq!(with.api_key(), Some(&env("ROBOT")));
        assert_eq!(with.language(), Some(Language::English));
        let without = space("");
        assert_eq!((without.api_key(), without.language()), (None, None));
        for (field, expected) in [
            (
                "api_key = \"s3cret\"",
                "routes.toml:3: expected an API key as \"secret:NAME\" or \"env:PREFIX\"",
            ),
            (
                "api_key = \"\"",
                "routes.toml:3: expected an API key as \"secret:NAME\" or \"env:PREFIX\"",
            ),
            (
                "api_key = 3",
                "routes.toml:3: invalid type: integer `3`, expected a string",
            ),
            (
                "language = \"jp\"",
                "routes.toml:3: expected \"ja\" or \"en\", found \"jp\"",
            ),
        ] {
            assert_eq!(table(field).unwrap_err().to_string(), expected);
        }

        // On a developer's machine, variables count in place of secrets, and of nothing else.
        let both = Preferred {
            login: true,
            api_key: true,
        };
        let fields = "credentials = \"secret:git\"\napi_key = \"secret:api\"";
        let table = table(fields).unwrap();
        let stays = table.clone().preferring(Preferred::default());
        assert_eq!(stays, table);
        let taken = table.preferring(both);
        let login = CredentialsSource::Env {
            prefix: "BACKLOG".into(),
        };
        assert_eq!(taken.spaces()[0].credentials(), &login);
        assert_eq!(taken.spaces()[0].api_key(), Some(&env("BACKLOG")));
        let other = space("credentials = \"env:ROBOT\"\napi_key = \"env:ROBOT\"");
        let mut spaces = [other.clone()];
        both.apply(&mut spaces);
        assert_eq!(spaces[0], other);
        let secrets = space(fields);
        let mut spaces = [secrets.clone(), other.clone()];
        both.apply(&mut spaces);
        assert_eq!(spaces, [secrets, other], "two spaces have two logins");
    }

    #[test]
    fn several_spaces_have_names_that_routes_say() {
        let text = r#"
            [[space]]
            url = "https://a.backlog.com/git"
            [[space]]
            name = "b"
            url = "https://b.backlog.com/git"
            [[space]]
            name = "b"
            url = "https://b.backlog.jp/git"
            [[route]]
            repository = "APP/web"
            ref = "refs/heads/main"
            object = "web.zip"
        "#;
        assert_eq!(
            read_deployed(text).unwrap_err().to_string(),
            "routes.toml:3: expected a `name` for the space, as there are several\n\
             routes.toml:8: expected a name of its own, found \"b\" as on line 5\n\
             routes.toml:11: expected a `space` for the route, as there are several"
        );
    }

    #[test]
    fn every_route_has_a_name_of_its_own() {
        let route = |name: &str, pattern: &str| {
            format!(
                "[[route]]\n{name}repository = \"APP/web\"\nref = \"{pattern}\"\nobject = \"{{ref}}\"\n"
            )
        };
        let main = "refs/heads/main";
        for (case, routes, fault) in [
            (
                "two names",
                route("name = \"a\"\n", main) + &route("name = \"b\"\n", main),
                None,
            ),
            (
                "two names by default",
                route("", main) + &route("", "refs/heads/dev"),
                None,
            ),
            (
                "one name",
                route("name = \"a\"\n", main) + &route("name = \"a\"\n", "refs/heads/dev"),
                Some("routes.toml:9: expected a `name` of its own, found \"a\" as on line 4"),
            ),
            (
                "one name by default",
                route("", main) + &route("", main),
                Some(
                    "routes.toml:8: expected a `name` of its own, found \"APP/web refs/heads/main\" as on line 4",
                ),
            ),
        ] {
            let error = read_deployed(&format!("{SPACE}{routes}"))
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), fault, "{case}");
        }
    }

    #[test]
    fn a_route_without_a_bucket_needs_the_default() {
        let text = format!(
            "{SPACE}[[route]]\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"k\""
        );
        let fault = |default| {
            let read = read("routes.toml", &text, default, Origin::Deployed);
            read.err().map(|error| error.to_string())
        };
        assert_eq!(fault(Some("sources")), None);
        assert_eq!(
            fault(None).as_deref(),
            Some("routes.toml:6: expected a `bucket` for the route, as SOURCE_BUCKET is not set")
        );
        assert!(
            fault(Some("S"))
                .unwrap()
                .ends_with("found \"S\" in SOURCE_BUCKET")
        );
    }

    #[test]
    fn a_table_may_have_four_mebibytes() {
        let routes = "[[route]]\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"k\"\n";
        let table = format!("{SPACE}{routes}");
        let of = |bytes| format!("{table}{}", "#".repeat(bytes - table.len()));
        assert!(read_deployed(&of(4_194_304)).is_ok());
        assert_eq!(
            read_deployed(&of(4_194_305)).unwrap_err().to_string(),
            "routes.toml:1: expected a table of at most 4194304 bytes, found 4194305 bytes; leave out comments and names, \
             or let one glob take the refs of several routes"
        );
    }

    #[test]
    fn a_table_without_routes_is_refused() {
        for (case, text, expected) in [
            (
                "no route",
                SPACE.to_owned(),
                "routes.toml:1: expected at least one [[route]]",
            ),
            (
                "an empty list",
                format!("route = []\n{SPACE}"),
                "routes.toml:1: expected at least one [[route]]",
            ),
        ] {
            let error = read_deployed(&text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{case}");
        }
    }
}
