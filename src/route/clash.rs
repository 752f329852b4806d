//! Routes whose object keys can be equal: found by a walk over both at once, proved by two refs that lead to one key.
//!
//! A glob's keys are told by its template, in which the short name of a ref is filled in. What the glob takes of branches,
//! of tags and of all other refs is looked at apart, as their names are shortened differently.

mod form;
mod meet;

use std::{collections::HashSet, fmt};

use self::{
    form::{Form, Token},
    meet::{Meeting, meet},
};
use super::{KeyTemplate, ObjectKey, Route, RouteTable};
use crate::{
    push::{RefName, RepositoryName},
    space::SpaceUrl,
};

/// How many steps the search for clashes takes at most.
pub const MAX_COMPARISONS: usize = 1_000_000;

/// How many clashes are named at most: whoever made so many has one mistake to mend, not all of them.
pub const MAX_CLASHES: usize = 1_000;

/// What two stars at once stand for, where any character will do.
const FILLER: char = 'x';

/// The routes of a table that can meet in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clashes {
    /// By line.
    pub found: Vec<Clash>,
    /// Whether all keys were compared. If not, [`MAX_COMPARISONS`] or [`MAX_CLASHES`] was reached.
    pub complete: bool,
}

/// Two refs that are delivered to one object although space, repository or ref differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// One of them: that of the later line.
    pub later: Delivered,
    /// The other. A glob over branches and tags may clash with itself: then both are of one route.
    pub earlier: Delivered,
    /// The object's bucket.
    pub bucket: String,
    /// The object's key.
    pub key: ObjectKey,
    /// Whether such a table should not be stored: one repository would take another's object, an exact route could never
    /// be delivered, or one route alone clashes with itself. Else it is worth a warning.
    pub refused: bool,
}

/// A ref that a route delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The route's name.
    pub route: String,
    /// The line of its `object`, from 1.
    pub line: usize,
    /// Its `object`.
    pub object: KeyTemplate,
    /// The URL of its space.
    pub space: SpaceUrl,
    /// Its repository.
    pub repository: RepositoryName,
    /// A ref that it takes.
    pub ref_name: RefName,
}

impl RouteTable {
    /// The routes that can meet in one object. Each clash is proved by two refs.
    ///
    /// Where a template holds `{ref}` more than once and the other route has another template, not every clash is found.
    #[must_use]
    pub fn clashes(&self) -> Clashes {
        let mut search = Search {
            table: self,
            left: MAX_COMPARISONS,
            met: HashSet::new(),
            found: Vec::new(),
        };
        let complete = search.all().is_ok();
        let mut found = search.found;
        found.sort_by_key(|clash| (clash.later.line, clash.earlier.line));
        Clashes { found, complete }
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            later,
            earlier,
            bucket,
            key,
            refused,
        } = self;
        let object = &later.object;
        if *refused {
            write!(f, "expected an object of its own, found \"{object}\" to be")?;
        } else {
            write!(f, "\"{object}\" is")?;
        }
        write!(f, " s3://{bucket}/{key} for ")?;
        let spaces = later.space != earlier.space;
        later.write(f, spaces)?;
        f.write_str(", as ")?;
        if later.route == earlier.route {
            return write!(f, "for {}", earlier.ref_name);
        }
        write!(f, "\"{}\" of line {} is for ", earlier.object, earlier.line)?;
        earlier.write(f, spaces)
    }
}

impl Delivered {
    fn write(&self, f: &mut fmt::Formatter<'_>, with_space: bool) -> fmt::Result {
        if with_space {
            write!(f, "{} ", self.space)?;
        }
        write!(f, "{} {}", self.repository, self.ref_name)
    }
}

/// The search has taken all the steps it may.
#[derive(Debug)]
struct Spent;

struct Search<'t> {
    table: &'t RouteTable,
    /// The steps that are left.
    left: usize,
    /// The routes that are known to clash, by their places in the table.
    met: HashSet<(usize, usize)>,
    found: Vec<Clash>,
}

impl<'t> Search<'t> {
    /// Sorted by how their keys begin, the forms that another one can meet stand behind it in one row.
    fn all(&mut self) -> Result<(), Spent> {
        let mut forms: Vec<_> = self
            .table
            .routes
            .iter()
            .enumerate()
            .flat_map(|(at, route)| Form::all_of(at, route))
            .collect();
        forms.sort_by(|one, other| one.order().cmp(&other.order()));
        // Those with stars whose beginning the form at hand begins with, and the exact keys that it begins with in full.
        let (mut open, mut exact): (Vec<&Form<'_>>, Vec<&Form<'_>>) = (Vec::new(), Vec::new());
        for form in &forms {
            while open.last().is_some_and(|last| !form.goes_on(last)) {
                open.pop();
            }
            if exact.last().is_some_and(|last| !form.begins_as(last)) {
                exact.clear();
            }
            for other in &open {
                self.compare(form, other)?;
            }
            for other in &exact {
                let clash = self.compare(form, other)?;
                // All of them have this key. One is enough to say so.
                if clash && form.names.is_none() {
                    break;
                }
            }
            match form.names {
                Some(_) => open.push(form),
                None => exact.push(form),
            }
        }
        Ok(())
    }

    /// Says whether the routes of the two are known to clash now.
    fn compare(&mut self, one: &Form<'t>, other: &Form<'t>) -> Result<bool, Spent> {
        let pair = (one.at.min(other.at), one.at.max(other.at));
        if self.met.contains(&pair) {
            return Ok(true);
        }
        self.left = self.left.checked_sub(1).ok_or(Spent)?;
        let clash = match (one.route.pattern.exact(), other.route.pattern.exact()) {
            (Some(exact), _) => self.meet_exact(one, exact, other),
            (_, Some(exact)) => self.meet_exact(other, exact, one),
            (None, None) => self.meet_globs(one, other)?,
        };
        let Some(clash) = clash else {
            return Ok(false);
        };
        self.met.insert(pair);
        self.found.push(clash);
        if self.found.len() < MAX_CLASHES {
            Ok(true)
        } else {
            Err(Spent)
        }
    }

    fn meet_exact(&self, one: &Form<'t>, exact: &RefName, other: &Form<'t>) -> Option<Clash> {
        let key = one.route.key(exact).ok()?;
        let ref_name = match other.route.pattern.exact() {
            Some(exact) => exact.clone(),
            None => other.ref_of(&key)?,
        };
        self.proved((one, exact), (other, &ref_name))
    }

    fn meet_globs(&mut self, one: &Form<'t>, other: &Form<'t>) -> Result<Option<Clash>, Spent> {
        if !one.ending.ends_with(&other.ending) && !other.ending.ends_with(&one.ending) {
            return Ok(None);
        }
        // Then two refs lead to one key only if their short names are equal.
        let same_frame = one.frame == other.frame;
        let same_refs = one.names == other.names && self.same_repository(one.route, other.route);
        if same_frame && same_refs {
            return Ok(None);
        }
        let tokens = |form: &Form<'_>| form.tokens(same_frame);
        let (mut own, others) = (tokens(one), tokens(other));
        let Some(meeting) = meet(&own, &others, &mut self.left)? else {
            return Ok(None);
        };
        if let Some(clash) = self.prove(one, other, &meeting) {
            return Ok(Some(clash));
        }
        // The shortest key may be one that proves nothing, such as that of one ref by both routes. With this text in it
        // the two refs cannot be equal: it does not fit onto itself when it is moved by as much as the two refs are.
        let moved = one.frame[0].chars().count();
        let moved = moved.abs_diff(other.frame[0].chars().count()).max(1);
        let text: Vec<_> = std::iter::repeat_n(FILLER, moved).chain(['y']).collect();
        let stars = (0..own.len()).filter(|at| own[*at] == Token::Star);
        for star in stars.collect::<Vec<_>>() {
            let plain = own.clone();
            let text = text.iter().map(|c| Token::Char(*c));
            own.splice(star..star, std::iter::once(Token::Star).chain(text));
            let meeting = meet(&own, &others, &mut self.left)?;
            let clash = meeting.and_then(|meeting| self.prove(one, other, &meeting));
            if clash.is_some() {
                return Ok(clash);
            }
            own = plain;
        }
        Ok(None)
    }

    fn prove(&self, one: &Form<'t>, other: &Form<'t>, meeting: &Meeting) -> Option<Clash> {
        let sides = [(one, other), (other, one)];
        let mut candidates =
            sides
                .into_iter()
                .zip(&meeting.names)
                .flat_map(|((form, against), names)| {
                    names.iter().map(move |name| (form, against, name))
                });
        candidates.find_map(|(form, against, name)| {
            let ref_name = form.full_name(name)?;
            let key = form.route.key(&ref_name).ok()?;
            self.proved((form, &ref_name), (against, &against.ref_of(&key)?))
        })
    }

    /// A clash, if the two refs really lead to one key: asked of what deliveries ask.
    fn proved(&self, one: (&Form<'t>, &RefName), other: (&Form<'t>, &RefName)) -> Option<Clash> {
        let order = |(form, ref_name): &(&Form<'t>, &RefName)| {
            (
                form.route.lines.object,
                form.at,
                ref_name.as_str().to_owned(),
            )
        };
        let (later, earlier) = if order(&one) < order(&other) {
            (other, one)
        } else {
            (one, other)
        };
        let (route, other) = (later.0.route, earlier.0.route);
        let key = route.key(later.1).ok()?;
        let meet = route.bucket == other.bucket
            && route.pattern.matches(later.1)
            && other.pattern.matches(earlier.1)
            && other.key(earlier.1).is_ok_and(|own| own == key);
        let same_repository = self.same_repository(route, other);
        let differ = !same_repository || later.1 != earlier.1;
        (meet && differ).then(|| Clash {
            later: self.delivered(route, later.1),
            earlier: self.delivered(other, earlier.1),
            bucket: route.bucket.clone(),
            key,
            refused: !same_repository
                || later.0.at == earlier.0.at
                || (route.pattern.exact().is_some() && other.pattern.exact().is_some()),
        })
    }

    fn same_repository(&self, one: &Route, other: &Route) -> bool {
        one.repository == other.repository
            && self.table.space_of(one).url == self.table.space_of(other).url
    }

    fn delivered(&self, route: &Route, ref_name: &RefName) -> Delivered {
        Delivered {
            route: route.name.clone(),
            line: route.lines.object,
            object: route.object.clone(),
            space: self.table.space_of(route).url.clone(),
            repository: route.repository.clone(),
            ref_name: ref_name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::route::{Origin, RefPattern};

    /// A table of routes of `space repository ref object`, one a line. Line 1 is that of the first route.
    fn table(routes: &[&str]) -> RouteTable {
        let mut text = String::new();
        for route in routes {
            let [space, repository, pattern, object] = route.split(' ').collect::<Vec<_>>()[..]
            else {
                panic!("four words: {route}");
            };
            let name = text.len();
            write!(
                text,
                "[[route]]\nname = \"{name}\"\nspace = \"{space}\"\nrepository = \"{repository}\"\n\
                 ref = \"{pattern}\"\nobject = \"{object}\"\n"
            )
            .unwrap();
        }
        for space in ["ours", "theirs"] {
            write!(
                text,
                "[[space]]\nname = \"{space}\"\nurl = \"https://{space}.backlog.com/git\"\n"
            )
            .unwrap();
        }
        RouteTable::parse("routes.toml", &text, Some("sources"), Origin::Deployed)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Numbers of two routes, the key, and their refs.
    fn clashes(table: &RouteTable) -> Vec<String> {
        let Clashes { found, complete } = table.clashes();
        assert!(complete);
        for clash in &found {
            assert_proved(table, clash);
        }
        let route = |side: &Delivered| format!("{} {}", (side.line - 1) / 6, side.ref_name);
        found
            .iter()
            .map(|clash| {
                let word = if clash.refused { "refused" } else { "warned" };
                let (later, earlier) = (route(&clash.later), route(&clash.earlier));
                format!("{word}: {}: {later}, {earlier}", clash.key)
            })
            .collect()
    }

    fn assert_proved(table: &RouteTable, clash: &Clash) {
        for side in [&clash.later, &clash.earlier] {
            let route = table.route(&side.route).unwrap();
            assert!(route.takes(&side.repository, &side.ref_name), "{clash}");
            assert_eq!(*table.space_of(route).url(), side.space);
            let to = route
                .destination(table.space_of(route), &side.ref_name)
                .unwrap();
            assert_eq!((&to.bucket, &to.key), (&clash.bucket, &clash.key));
        }
        let of = |side: &Delivered| {
            let space = side.space.to_string();
            (space, side.repository.clone(), side.ref_name.clone())
        };
        assert_ne!(of(&clash.later), of(&clash.earlier), "{clash}");
    }

    #[test]
    fn keys_that_can_meet_are_found() {
        let web = "ours APP/web";
        let api = "ours APP/api";
        for (case, routes, expected) in [
            (
                "two objects",
                [
                    format!("{web} refs/heads/main a.zip"),
                    format!("{api} refs/heads/main b.zip"),
                ],
                "",
            ),
            (
                "one object, one ref",
                [
                    format!("{web} refs/heads/main a.zip"),
                    format!("{web} refs/heads/main a.zip"),
                ],
                "",
            ),
            (
                "one object, two refs",
                [
                    format!("{web} refs/heads/main web.zip"),
                    format!("{web} refs/heads/dev {{repository}}.zip"),
                ],
                "refused: web.zip: 1 refs/heads/dev, 0 refs/heads/main",
            ),
            (
                "one object, two repositories",
                [
                    format!("{web} refs/heads/main main.zip"),
                    format!("{api} refs/heads/main {{ref}}.zip"),
                ],
                "refused: main.zip: 1 refs/heads/main, 0 refs/heads/main",
            ),
            (
                "one object, two spaces",
                [
                    format!("{web} refs/heads/main APP/web/main.zip"),
                    "theirs APP/web refs/heads/* {project}/{repository}/{ref}.zip".to_owned(),
                ],
                "refused: APP/web/main.zip: 1 refs/heads/main, 0 refs/heads/main",
            ),
            (
                "a glob that takes the exact route's ref to its object",
                [
                    format!("{web} refs/heads/main web/main.zip"),
                    format!("{web} refs/heads/* web/{{ref}}.zip"),
                ],
                "",
            ),
            (
                "a glob that takes the tag of that name there",
                [
                    format!("{web} refs/heads/main web/main.zip"),
                    format!("{web} refs/tags/* web/{{ref}}.zip"),
                ],
                "warned: web/main.zip: 1 refs/tags/main, 0 refs/heads/main",
            ),
            (
                "a glob that takes another branch there",
                [
                    format!("{web} refs/heads/main web/prod.zip"),
                    format!("{web} refs/heads/* web/{{ref}}.zip"),
                ],
                "warned: web/prod.zip: 1 refs/heads/prod, 0 refs/heads/main",
            ),
            (
                "a glob that does not take such a branch",
                [
                    format!("{web} refs/heads/main web/prod.zip"),
                    format!("{web} refs/heads/p*t web/{{ref}}.zip"),
                ],
                "",
            ),
            (
                "a glob of another repository",
                [
                    format!("{web} refs/heads/* site/{{ref}}.zip"),
                    format!("{api} refs/heads/main site/prod.zip"),
                ],
                "refused: site/prod.zip: 1 refs/heads/main, 0 refs/heads/prod",
            ),
            (
                "a key that no ref name makes",
                [
                    format!("{web} refs/heads/* site/{{ref}}.zip"),
                    format!("{api} refs/heads/main site/a..b.zip"),
                ],
                "",
            ),
            (
                "one template for two repositories",
                [
                    format!("{web} refs/heads/* {{project}}/{{repository}}/{{ref}}.zip"),
                    format!("{api} refs/heads/* {{project}}/{{repository}}/{{ref}}.zip"),
                ],
                "",
            ),
            (
                "names that go on as refs may",
                [
                    format!("{web} refs/heads/* {{repository}}-{{ref}}.zip"),
                    "ours APP/web-api refs/heads/* {repository}-{ref}.zip".to_owned(),
                ],
                "refused: web-api-x.zip: 1 refs/heads/x, 0 refs/heads/api-x",
            ),
            (
                "branches and tags",
                [
                    format!("{web} refs/heads/* {{ref}}.zip"),
                    format!("{web} refs/tags/* {{ref}}.zip"),
                ],
                "warned: x.zip: 1 refs/tags/x, 0 refs/heads/x",
            ),
            (
                "branches and tags that are named otherwise",
                [
                    format!("{web} refs/heads/release/* {{ref}}.zip"),
                    format!("{web} refs/tags/v* {{ref}}.zip"),
                ],
                "",
            ),
            (
                "two globs that lead each ref to one key",
                [
                    format!("{web} refs/heads/a* {{ref}}.zip"),
                    format!("{web} refs/heads/*b {{ref}}.zip"),
                ],
                "",
            ),
            (
                "the same of two repositories",
                [
                    format!("{web} refs/heads/a* {{ref}}.zip"),
                    format!("{api} refs/heads/*b {{ref}}.zip"),
                ],
                "refused: ab.zip: 1 refs/heads/ab, 0 refs/heads/ab",
            ),
            (
                "two globs that lead each ref to two keys, and two refs to one",
                [
                    format!("{web} refs/heads/* {{ref}}.zip"),
                    format!("{web} refs/heads/* all/{{ref}}.zip"),
                ],
                "warned: all/x.zip: 1 refs/heads/x, 0 refs/heads/all/x",
            ),
            (
                "first one ref, then two",
                [
                    format!("{web} refs/heads/* a{{ref}}"),
                    format!("{web} refs/heads/* {{ref}}a"),
                ],
                "warned: axya: 1 refs/heads/axy, 0 refs/heads/xya",
            ),
            (
                "two folders",
                [
                    format!("{web} refs/heads/*/x {{ref}}.zip"),
                    format!("{api} refs/heads/y/* {{ref}}.zip"),
                ],
                "refused: y/x.zip: 1 refs/heads/y/x, 0 refs/heads/y/x",
            ),
            (
                "a name that would end in .lock",
                [
                    format!("{web} refs/heads/*.loc* {{ref}}"),
                    format!("{api} refs/heads/*k {{ref}}"),
                ],
                "refused: x.locxk: 1 refs/heads/x.locxk, 0 refs/heads/x.locxk",
            ),
            (
                "the routing table's key would be the shortest",
                [
                    format!("{web} refs/heads/routes* config/{{ref}}.toml"),
                    format!("{api} refs/heads/routes* config/{{ref}}.toml"),
                ],
                "refused: config/routesxy.toml: 1 refs/heads/routesxy, 0 refs/heads/routesxy",
            ),
            (
                "a ref twice",
                [
                    format!("{web} refs/heads/* {{ref}}/{{ref}}.zip"),
                    format!("{api} refs/heads/x* {{ref}}/{{ref}}.zip"),
                ],
                "refused: x/x.zip: 1 refs/heads/x, 0 refs/heads/x",
            ),
            (
                "a ref twice and once",
                [
                    format!("{web} refs/heads/a* {{ref}}-{{ref}}.zip"),
                    format!("{api} refs/heads/* a-b/{{ref}}.zip"),
                ],
                "refused: a-b/x-a-b/x.zip: 1 refs/heads/x-a-b/x, 0 refs/heads/a-b/x",
            ),
            (
                "a ref twice and an exact key",
                [
                    format!("{web} refs/heads/* {{ref}}-{{ref}}.zip"),
                    format!("{api} refs/heads/main ab-ab.zip"),
                ],
                "refused: ab-ab.zip: 1 refs/heads/main, 0 refs/heads/ab",
            ),
            (
                "a ref twice and an exact key that holds two",
                [
                    format!("{web} refs/heads/* {{ref}}-{{ref}}.zip"),
                    format!("{api} refs/heads/main ab-ac.zip"),
                ],
                "",
            ),
            (
                "other refs",
                [
                    format!("{web} refs/pull/* {{ref}}.zip"),
                    format!("{web} refs/heads/*/3/head {{ref}}.zip"),
                ],
                "warned: pull/3/head.zip: 1 refs/heads/pull/3/head, 0 refs/pull/3/head",
            ),
            (
                "Japanese",
                [
                    format!("{web} refs/heads/機* {{ref}}.zip"),
                    format!("{api} refs/heads/*能 {{ref}}.zip"),
                ],
                "refused: 機能.zip: 1 refs/heads/機能, 0 refs/heads/機能",
            ),
        ] {
            let routes = routes.each_ref().map(String::as_str);
            assert_eq!(clashes(&table(&routes)).join("\n"), expected, "{case}");
        }
    }

    #[test]
    fn a_glob_over_branches_and_tags_clashes_with_itself() {
        for (case, pattern, expected) in [
            (
                "every ref",
                "refs/*",
                "refused: x.zip: 0 refs/tags/x, 0 refs/heads/x",
            ),
            (
                "a star in the middle",
                "refs/*/v*",
                "refused: x/v.zip: 0 refs/tags/x/v, 0 refs/heads/x/v",
            ),
            (
                "within the namespace's name",
                "refs/t*/v*",
                "refused: t/v.zip: 0 refs/tags/t/v, 0 refs/t/v",
            ),
            ("branches", "refs/heads/*", ""),
            ("neither", "refs/pull/*", ""),
            ("tags alone", "refs/tags/v*", ""),
        ] {
            let route = format!("ours APP/web {pattern} {{ref}}.zip");
            assert_eq!(clashes(&table(&[&route])).join("\n"), expected, "{case}");
        }
    }

    #[test]
    fn every_pair_is_named_once() {
        let found = clashes(&table(&[
            "ours APP/a refs/* {ref}.zip",
            "ours APP/b refs/* {ref}.zip",
            "ours APP/c refs/heads/main main.zip",
            "ours APP/d refs/heads/main main.zip",
        ]));
        let pairs: Vec<_> = found
            .iter()
            .map(|clash| {
                clash
                    .split(' ')
                    .filter(|word| word.len() == 1)
                    .collect::<String>()
            })
            .collect();
        assert_eq!(
            pairs,
            ["00", "10", "11", "20", "21", "30", "31", "32"],
            "{found:?}"
        );
    }

    #[test]
    fn a_check_that_would_take_too_long_stops() {
        let routes: Vec<_> = (0..3_000)
            .map(|at| format!("ours APP/web-{at} refs/heads/* {{ref}}/{at}.zip"))
            .collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        let Clashes { found, complete } = table(&routes).clashes();
        assert!(!complete);
        assert_eq!(found, []);

        let same = |at| format!("ours APP/web-{at} refs/heads/* {{ref}}.zip");
        let routes: Vec<_> = (0..100).map(same).collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        let Clashes { found, complete } = table(&routes).clashes();
        assert_eq!((found.len(), complete), (MAX_CLASHES, false));
    }

    /// All short names of up to five characters.
    fn short_names() -> Vec<String> {
        let mut names = vec![String::new()];
        let mut last = names.clone();
        for _ in 0..5 {
            last = last
                .iter()
                .flat_map(|name| ["a", "b", "/"].map(|c| format!("{name}{c}")))
                .collect();
            names.extend(last.iter().cloned());
        }
        names
    }

    /// Whether two short names lead to one key: tries all.
    fn oracle(table: &RouteTable, names: &[RefName]) -> bool {
        let mut keys = std::collections::HashMap::new();
        table.routes().iter().any(|route| {
            let taken = names.iter().filter(|name| route.pattern.matches(name));
            let taken = taken.filter_map(|name| Some((route.key(name).ok()?, name)));
            taken.collect::<Vec<_>>().into_iter().any(|(key, name)| {
                let own = (&route.repository, name);
                *keys.entry(key).or_insert(own) != own
            })
        })
    }

    /// `repository ref object`: ref and object as two regular expressions say, where they are valid.
    fn route(pattern: &str, object: &str) -> impl Strategy<Value = String> {
        let pattern = proptest::string::string_regex(pattern).unwrap();
        let object = proptest::string::string_regex(object).unwrap();
        let pattern = pattern.prop_filter("no pattern", |text| text.parse::<RefPattern>().is_ok());
        let object = object.prop_filter("no object", |text| {
            let key = text.replace("{ref}", "x").parse::<ObjectKey>();
            key.is_ok() && text.parse::<KeyTemplate>().is_ok()
        });
        let route = ("APP/(a|b)", pattern, object);
        route.prop_map(|(repository, pattern, object)| {
            format!("ours {repository} {pattern} {object}")
        })
    }

    fn table_of(routes: &[String]) -> RouteTable {
        table(&routes.iter().map(String::as_str).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn what_the_oracle_finds_is_found(
            routes in prop::collection::vec(
                route("refs/(heads/|tags/|\\*/|)[ab*/]{0,2}\\*[ab*/]{0,2}", "[ab/]{0,2}\\{ref\\}[ab/]{0,2}"),
                1..4,
            ),
        ) {
            let table = table_of(&routes);
            let names: Vec<RefName> = ["refs/heads/", "refs/tags/", "refs/"]
                .iter()
                .flat_map(|prefix| short_names().into_iter().map(move |name| format!("{prefix}{name}")))
                .filter_map(|name| name.parse().ok())
                .collect();
            let found = clashes(&table);
            if oracle(&table, &names) {
                prop_assert!(!found.is_empty(), "{routes:?}");
            }
        }

        /// Each is proved in `clashes`.
        #[test]
        fn no_clash_is_made_up(
            routes in prop::collection::vec(
                route(
                    "refs/(heads/|tags/|)(main|[ab.*/@k]{0,4}\\*[ab.*/{lock]{0,4})",
                    "[ab./@k]{0,3}(\\{ref\\}[ab./@k]{0,2}){1,3}",
                ),
                1..5,
            ),
        ) {
            clashes(&table_of(&routes));
        }
    }
}
