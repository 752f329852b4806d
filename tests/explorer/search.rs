//! The search itself: breadth first, so that a violation comes with a shortest way to it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use crate::story::Violation;

/// A move, and what it leads to.
pub(crate) type Step<M> = (<M as Model>::Move, Result<<M as Model>::State, Violation>);

/// A world that can be searched.
pub(crate) trait Model: Sized {
    type State: Copy + Eq + std::hash::Hash;
    type Move: Copy;

    fn first(&self) -> Self::State;

    /// Everything that can happen next. Nothing, if all is over.
    fn moves(&mut self, state: &Self::State, out: &mut Vec<Step<Self>>);

    /// What must be true once nothing more can happen.
    fn at_the_end(&mut self, state: &Self::State) -> Result<(), Violation>;

    /// A move in words.
    fn tell(&self, what: Self::Move) -> String;
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// Steps of the longest run. There is one, so every run ends.
    pub(crate) longest: usize,
    /// What must not be, and the shortest way to it.
    pub(crate) violation: Option<(Violation, Vec<String>)>,
}

/// A hash that is quick in a debug build too. The map compares whole states, so that a poor one costs only time.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut all = [0; 8];
            all[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(all));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u16(&mut self, two: u16) {
        self.write_u64(two.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }
}

/// Visits every state that can be reached.
pub(crate) fn explore<M: Model>(mut world: M) -> Found {
    let first = world.first();
    let mut numbers: HashMap<M::State, u32, BuildHasherDefault<Quick>> = HashMap::default();
    numbers.insert(first, 0);
    let mut parents: Vec<(u32, Option<M::Move>)> = vec![(0, None)];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut open: VecDeque<(u32, M::State)> = VecDeque::from([(0, first)]);
    let mut moves = Vec::new();
    let found = |states, transitions, longest, violation| Found {
        states,
        transitions,
        longest,
        violation,
    };
    while let Some((number, state)) = open.pop_front() {
        world.moves(&state, &mut moves);
        if moves.is_empty()
            && let Err(violation) = world.at_the_end(&state)
        {
            let way = way(&world, &parents, number);
            return found(numbers.len(), edges.len(), 0, Some((violation, way)));
        }
        for (what, after) in moves.drain(..) {
            let next = match after {
                Ok(next) => next,
                Err(violation) => {
                    let mut way = way(&world, &parents, number);
                    way.push(world.tell(what));
                    return found(numbers.len(), edges.len(), 0, Some((violation, way)));
                }
            };
            let fresh = u32::try_from(parents.len()).expect("fewer states");
            let known = *numbers.entry(next).or_insert(fresh);
            if known == fresh {
                parents.push((number, Some(what)));
                open.push_back((fresh, next));
            }
            edges.push((number, known));
        }
    }
    let longest = longest(numbers.len(), &edges);
    let endless = longest.is_none().then(|| {
        let text = "a run comes back to where it was".into();
        (
            Violation {
                invariant: "end",
                text,
            },
            Vec::new(),
        )
    });
    let longest = longest.unwrap_or_default();
    found(numbers.len(), edges.len(), longest, endless)
}

fn way<M: Model>(world: &M, parents: &[(u32, Option<M::Move>)], mut number: u32) -> Vec<String> {
    let mut way = Vec::new();
    while number != 0 {
        let (parent, what) = parents[number as usize];
        way.extend(what.map(|what| world.tell(what)));
        number = parent;
    }
    way.reverse();
    way
}

/// The length of the longest run; `None` if there is a circle.
fn longest(states: usize, edges: &[(u32, u32)]) -> Option<usize> {
    let mut incoming = vec![0_u32; states];
    let mut starts = vec![0_usize; states + 1];
    for &(from, to) in edges {
        incoming[to as usize] += 1;
        starts[from as usize + 1] += 1;
    }
    for state in 0..states {
        starts[state + 1] += starts[state];
    }
    // The edges are in the order of the states that they leave.
    let mut depth = vec![0_usize; states];
    let mut ready = vec![0_usize];
    let mut done = 0;
    while let Some(state) = ready.pop() {
        done += 1;
        for &(_, to) in &edges[starts[state]..starts[state + 1]] {
            let to = to as usize;
            depth[to] = depth[to].max(depth[state] + 1);
            incoming[to] -= 1;
            if incoming[to] == 0 {
                ready.push(to);
            }
        }
    }
    (done == states).then(|| depth.into_iter().max().unwrap_or_default())
}
