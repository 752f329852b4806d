//! A walk over two such texts at once, which finds a key that both make.

use std::collections::HashSet;

use super::{
    FILLER, Spent,
    form::{Namespace, Token},
};

/// A key that two forms share, as far as stars and the rules for ref names go.
pub(super) struct Meeting {
    /// The short names in it by each of the two. They are equal only if the key is really one of that form.
    pub(super) names: [Vec<String>; 2],
}

/// A place in both forms at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Position {
    at: [usize; 2],
    names: [Name; 2],
}

struct Step {
    to: Position,
    from: usize,
    taken: Option<char>,
}

/// Walks through both forms at once, and takes only characters that both take. Nearly the shortest way is found first.
pub(super) fn meet(
    one: &[Token],
    other: &[Token],
    left: &mut usize,
) -> Result<Option<Meeting>, Spent> {
    let forms = [one, other];
    let start = Position {
        at: [0, 0],
        names: [Name::Outside; 2],
    };
    let mut steps = vec![Step {
        to: start,
        from: 0,
        taken: None,
    }];
    let mut seen = HashSet::from([start]);
    let mut here = 0;
    while here < steps.len() {
        *left = left.checked_sub(1).ok_or(Spent)?;
        let place = steps[here].to;
        if place.at == [one.len(), other.len()] {
            return Ok(Some(Meeting::of(forms, &steps, here)));
        }
        for (to, taken) in place.next(forms) {
            if seen.insert(to) {
                let from = here;
                steps.push(Step { to, from, taken });
            }
        }
        here += 1;
    }
    Ok(None)
}

impl Position {
    fn next(self, forms: [&[Token]; 2]) -> Vec<(Self, Option<char>)> {
        let tokens = [0, 1].map(|side| forms[side].get(self.at[side]).copied());
        // Marks first, and one at a time: their order makes no difference.
        for side in [0, 1] {
            let name = match tokens[side] {
                Some(Token::Begin(names)) => Some(Name::first(names)),
                Some(Token::End) => self.names[side].may_end().then_some(Name::Outside),
                _ => continue,
            };
            let mut to = self;
            to.at[side] += 1;
            let with_name = name.map(|name| {
                to.names[side] = name;
                (to, None)
            });
            return with_name.into_iter().collect();
        }
        let mut next = Vec::new();
        for side in [0, 1] {
            if tokens[side] == Some(Token::Star) {
                let mut to = self;
                to.at[side] += 1;
                next.push((to, None));
            }
        }
        let taken = match tokens {
            [Some(Token::Char(one)), Some(Token::Char(other))] if one != other => None,
            [Some(Token::Char(c)), Some(_)] | [Some(_), Some(Token::Char(c))] => Some(c),
            [Some(_), Some(_)] => Some(FILLER),
            _ => None,
        };
        next.extend(taken.and_then(|c| Some((self.take(c, tokens)?, Some(c)))));
        next
    }

    fn take(mut self, c: char, tokens: [Option<Token>; 2]) -> Option<Self> {
        for side in [0, 1] {
            self.names[side] = self.names[side].then(c)?;
            if tokens[side] != Some(Token::Star) {
                self.at[side] += 1;
            }
        }
        Some(self)
    }
}

impl Meeting {
    fn of(forms: [&[Token]; 2], steps: &[Step], end: usize) -> Self {
        let mut way = vec![end];
        while let Some(at) = way.last().copied().filter(|at| *at != 0) {
            way.push(steps[at].from);
        }
        let mut names = [Vec::new(), Vec::new()];
        for at in way.into_iter().rev().skip(1) {
            let Step { to, from, taken } = &steps[at];
            let before = steps[*from].to;
            for side in [0, 1] {
                let token = forms[side].get(before.at[side]);
                if before.at[side] != to.at[side] && matches!(token, Some(Token::Begin(_))) {
                    names[side].push(String::new());
                }
                if let (Some(c), Some(name)) = (taken, names[side].last_mut())
                    && before.names[side] != Name::Outside
                {
                    name.push(*c);
                }
            }
        }
        Self { names }
    }
}

/// How far a short ref name has come: as much as the rules for ref names ask for.
///
/// Source: <https://git-scm.com/docs/git-check-ref-format>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    /// Not in a name.
    Outside,
    /// After `refs/`, where a branch or a tag would be another namespace's.
    Root,
    /// In `heads/`, behind so many letters.
    Heads(u8),
    /// The same of `tags/`.
    Tags(u8),
    /// After a slash.
    Start,
    Plain,
    At,
    Dot,
    DotL,
    DotLo,
    DotLoc,
    DotLock,
}

impl Name {
    fn first(names: Namespace) -> Self {
        match names {
            Namespace::Heads | Namespace::Tags => Self::Start,
            Namespace::Other => Self::Root,
        }
    }

    fn may_end(self) -> bool {
        !matches!(self, Self::Root | Self::Start | Self::Dot | Self::DotLock)
    }

    /// `None` if no name goes on like this.
    fn then(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Outside, _) => Self::Outside,
            (_, '\0'..=' ' | '\x7f' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
            | (Self::Root | Self::Start, '/' | '.')
            | (Self::DotLock | Self::Heads(5) | Self::Tags(4), '/')
            | (Self::Dot, '.')
            | (Self::At, '{') => return None,
            (_, '/') => Self::Start,
            (_, '.') => Self::Dot,
            (_, '@') => Self::At,
            (Self::Dot, 'l') => Self::DotL,
            (Self::DotL, 'o') => Self::DotLo,
            (Self::DotLo, 'c') => Self::DotLoc,
            (Self::DotLoc, 'k') => Self::DotLock,
            (Self::Root, 'h') => Self::Heads(1),
            (Self::Root, 't') => Self::Tags(1),
            (Self::Heads(letters), _) if "heads".chars().nth(letters.into()) == Some(c) => {
                Self::Heads(letters + 1)
            }
            (Self::Tags(letters), _) if "tags".chars().nth(letters.into()) == Some(c) => {
                Self::Tags(letters + 1)
            }
            _ => Self::Plain,
        })
    }
}
