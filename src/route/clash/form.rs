//! What the keys of a route look like: a text with stars, in which the short name of a ref begins and ends.

use std::collections::BTreeSet;

use crate::{
    push::RefName,
    route::{ObjectKey, Route},
};

/// Refs whose names are shortened in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Namespace {
    Heads,
    Tags,
    Other,
}

impl Namespace {
    const ALL: [Self; 3] = [Self::Heads, Self::Tags, Self::Other];

    /// What [`RefName::short`] leaves out.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Heads => "refs/heads/",
            Self::Tags => "refs/tags/",
            Self::Other => "refs/",
        }
    }
}

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Char(char),
    /// Any characters, or none.
    Star,
    /// A short ref name begins here. Takes no character.
    Begin(Namespace),
    /// It ends here.
    End,
}

/// All keys that a route makes of the refs of one namespace, or the one key of an exact route.
pub(super) struct Form<'t> {
    /// Where the route is in the table.
    pub(super) at: usize,
    pub(super) route: &'t Route,
    /// The namespace of a glob's refs; `None` if the route is exact.
    pub(super) names: Option<Namespace>,
    /// What of the glob is left for a short name.
    pub(super) short: Vec<Token>,
    /// The texts around each `{ref}` of the template.
    pub(super) frame: Vec<String>,
    /// How all keys begin.
    pub(super) beginning: String,
    /// How all keys end.
    pub(super) ending: String,
}

impl<'t> Form<'t> {
    pub(super) fn all_of(at: usize, route: &'t Route) -> Vec<Self> {
        if let Some(exact) = route.pattern.exact() {
            let key = route.key(exact).map(|key| key.to_string());
            let form = |key: String| Self {
                at,
                route,
                names: None,
                short: Vec::new(),
                frame: Vec::new(),
                ending: key.clone(),
                beginning: key,
            };
            return key.map(form).into_iter().collect();
        }
        let frame = route.object.around_ref(&route.repository);
        let form = |names, short| {
            let mut form = Self {
                at,
                route,
                names: Some(names),
                short,
                frame: frame.clone(),
                beginning: String::new(),
                ending: String::new(),
            };
            let key = form.tokens(false);
            form.beginning = fixed(key.iter());
            form.ending = fixed(key.iter().rev()).chars().rev().collect();
            form
        };
        Namespace::ALL
            .into_iter()
            .flat_map(|names| {
                let rests = rests(route.pattern.as_str(), names.prefix());
                rests.into_iter().map(move |short| (names, short))
            })
            .filter(|(names, short)| *names != Namespace::Other || !is_of_another(short))
            .map(|(names, short)| form(names, short))
            .collect()
    }

    /// A beginning stands before what goes on from it; of equal beginnings the exact keys come first.
    pub(super) fn order(&self) -> (&str, &str, bool, usize) {
        let glob = self.names.is_some();
        (&self.route.bucket, &self.beginning, glob, self.at)
    }

    pub(super) fn goes_on(&self, other: &Self) -> bool {
        self.route.bucket == other.route.bucket && self.beginning.starts_with(&other.beginning)
    }

    pub(super) fn begins_as(&self, other: &Self) -> bool {
        self.route.bucket == other.route.bucket && self.beginning == other.beginning
    }

    /// All keys; or of each only the ref's short name, once.
    pub(super) fn tokens(&self, short_only: bool) -> Vec<Token> {
        let name = || {
            let begin = self.names.map(Token::Begin);
            begin
                .into_iter()
                .chain(self.short.iter().copied())
                .chain([Token::End])
        };
        if short_only {
            return name().collect();
        }
        let mut tokens = Vec::new();
        for (index, text) in self.frame.iter().enumerate() {
            if index > 0 {
                tokens.extend(name());
            }
            tokens.extend(text.chars().map(Token::Char));
        }
        tokens
    }

    pub(super) fn full_name(&self, short: &str) -> Option<RefName> {
        format!("{}{short}", self.names?.prefix()).parse().ok()
    }

    /// The one ref that can lead to this key. Whether it does, and whether the glob takes it, is another question.
    pub(super) fn ref_of(&self, key: &ObjectKey) -> Option<RefName> {
        let key = key.as_str();
        let around: usize = self.frame.iter().map(String::len).sum();
        let filled = key.len().checked_sub(around)?;
        let bytes = filled.checked_div(self.frame.len() - 1)?;
        let start = self.frame[0].len();
        self.full_name(key.get(start..start + bytes)?)
    }
}

/// The characters up to the first star.
fn fixed<'a>(tokens: impl Iterator<Item = &'a Token>) -> String {
    tokens
        .take_while(|token| **token != Token::Star)
        .filter_map(|token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        })
        .collect()
}

/// Whether names that begin so are shortened as branches or tags are.
fn is_of_another(short: &[Token]) -> bool {
    let beginning = fixed(short.iter());
    ["heads/", "tags/"]
        .iter()
        .any(|other| beginning.starts_with(other))
}

/// What may follow `prefix` in a name that the glob takes. There is more than one answer if the prefix can end within
/// a star or behind it.
fn rests(glob: &str, prefix: &str) -> Vec<Vec<Token>> {
    let tokens: Vec<_> = glob
        .chars()
        .map(|c| {
            if c == '*' {
                Token::Star
            } else {
                Token::Char(c)
            }
        })
        .collect();
    let mut places = BTreeSet::from([0]);
    for c in prefix.chars() {
        let mut next = BTreeSet::new();
        let mut here: Vec<_> = places.into_iter().collect();
        while let Some(at) = here.pop() {
            match tokens.get(at) {
                Some(Token::Star) => {
                    next.insert(at);
                    here.push(at + 1);
                }
                Some(Token::Char(own)) if *own == c => {
                    next.insert(at + 1);
                }
                _ => {}
            }
        }
        places = next;
    }
    places.into_iter().map(|at| tokens[at..].to_vec()).collect()
}
