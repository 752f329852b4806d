//! Whose turn it is in a sweep: of each host so many at once, and nobody of a host that asks for patience. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How many are asked at once in all, so that many hosts do not take more threads than a Lambda function has.
const AT_ONCE_IN_ALL: usize = 48;

/// How long a host is left alone that asks for patience and does not say for how long.
const REST: Duration = Duration::from_secs(5);

/// Of a host that asks for more, the rest is left to the next sweep.
const MAX_REST: Duration = Duration::from_mins(5);

/// How often in a row a host may ask for patience before the rest of it is left to the next sweep.
const MAX_RESTS: u32 = 5;

/// What is to be asked, host by host.
#[derive(Debug)]
pub(super) struct Hosts<T> {
    hosts: Vec<Host<T>>,
}

#[derive(Debug)]
struct Host<T> {
    waiting: VecDeque<T>,
    running: usize,
    at_once: usize,
    /// Until when it is left alone.
    rests: Option<Instant>,
    /// How often in a row it asked for patience.
    times: u32,
}

/// Something that is asked now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn<T> {
    pub(super) host: usize,
    pub(super) what: T,
}

impl<T> Hosts<T> {
    /// Each of `all` with its host, of which so many are asked at once.
    pub(super) fn new(all: impl IntoIterator<Item = (String, T)>, at_once: usize) -> Self {
        let mut hosts: BTreeMap<String, VecDeque<T>> = BTreeMap::new();
        for (host, what) in all {
            hosts.entry(host).or_default().push_back(what);
        }
        let hosts = hosts.into_values().map(|waiting| Host {
            waiting,
            running: 0,
            at_once,
            rests: None,
            times: 0,
        });
        Self {
            hosts: hosts.collect(),
        }
    }

    /// What is asked next, if anything may be: of the host of which the fewest are asked.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn<T>> {
        if self.running() >= AT_ONCE_IN_ALL {
            return None;
        }
        let hosts = self.hosts.iter_mut().enumerate();
        let open = hosts.filter(|(_, host)| {
            let rests = host.rests.is_some_and(|until| now < until);
            !rests && host.running < host.at_once && !host.waiting.is_empty()
        });
        let (at, host) = open.min_by_key(|(_, host)| host.running)?;
        let what = host.waiting.pop_front()?;
        host.running += 1;
        Some(Turn { host: at, what })
    }

    /// When the next host may be asked that rests now, if one has something left.
    pub(super) fn rested(&self, now: Instant) -> Option<Instant> {
        let left = self.hosts.iter().filter(|host| !host.waiting.is_empty());
        let resting = left.filter_map(|host| host.rests);
        resting.filter(|until| now < *until).min()
    }

    /// Takes note that a host answered.
    pub(super) fn answered(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.running -= 1;
        host.times = 0;
    }

    /// Puts back what is asked once more, after all others of its host.
    pub(super) fn later(&mut self, turn: Turn<T>) {
        let host = &mut self.hosts[turn.host];
        host.running -= 1;
        host.waiting.push_back(turn.what);
    }

    /// Takes note that a host asks for patience. It is left alone, and asked for less at once from then on. What is given up,
    /// if it asked too often or for too long: how many.
    pub(super) fn rest(
        &mut self,
        turn: Turn<T>,
        wait: Option<Duration>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Option<usize> {
        let host = &mut self.hosts[turn.host];
        host.running -= 1;
        host.waiting.push_front(turn.what);
        // Those that were asked with it say the same.
        let is_known = host.rests.is_some_and(|until| now < until);
        if !is_known {
            host.times += 1;
            host.at_once = (host.at_once / 2).max(1);
        }
        let wait = wait.unwrap_or(REST * host.times);
        let until = host.rests.max(now.checked_add(wait));
        host.rests = until;
        let is_too_long =
            wait > MAX_REST || deadline.is_some_and(|deadline| until >= Some(deadline));
        (is_too_long || host.times > MAX_RESTS).then(|| host.waiting.drain(..).count())
    }

    /// How many are asked now.
    pub(super) fn running(&self) -> usize {
        self.hosts.iter().map(|host| host.running).sum()
    }

    /// How many have had no answer.
    pub(super) fn left(&self) -> usize {
        let waiting = self.hosts.iter().map(|host| host.waiting.len());
        waiting.sum::<usize>() + self.running()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(counts: &[(&'static str, usize)], at_once: usize) -> Hosts<(&'static str, usize)> {
        let all = counts
            .iter()
            .flat_map(|&(host, count)| (0..count).map(move |nth| (host.to_owned(), (host, nth))));
        Hosts::new(all, at_once)
    }

    fn taken(
        hosts: &mut Hosts<(&'static str, usize)>,
        now: Instant,
    ) -> Vec<Turn<(&'static str, usize)>> {
        std::iter::from_fn(|| hosts.next(now)).collect()
    }

    #[test]
    fn each_host_is_asked_for_so_many_and_none_waits_for_another() {
        let now = Instant::now();
        let mut hosts = hosts(&[("a", 100), ("b", 1), ("c", 3)], 2);
        let turns = taken(&mut hosts, now);
        let asked: Vec<_> = turns.iter().map(|turn| turn.what).collect();
        assert_eq!(asked, [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1)]);
        assert_eq!((hosts.running(), hosts.left()), (5, 104));
        hosts.answered(turns[0].host);
        assert_eq!(hosts.next(now).map(|turn| turn.what), Some(("a", 2)));
        assert_eq!(hosts.next(now), None);
    }

    #[test]
    fn there_is_an_end_to_how_many_are_asked_in_all() {
        let mut many: Hosts<usize> = Hosts::new(
            ["a", "b", "c", "d", "e"]
                .map(|host| vec![(host.to_owned(), 0); 40])
                .concat(),
            16,
        );
        let turns = std::iter::from_fn(|| many.next(Instant::now()));
        assert_eq!(turns.count(), AT_ONCE_IN_ALL);
    }

    #[test]
    fn what_comes_later_comes_last() {
        let now = Instant::now();
        let mut hosts = hosts(&[("a", 3)], 1);
        let turn = hosts.next(now).unwrap();
        hosts.later(turn);
        let mut order = Vec::new();
        while let Some(turn) = hosts.next(now) {
            order.push(turn.what.1);
            hosts.answered(turn.host);
        }
        assert_eq!((order, hosts.left()), (vec![1, 2, 0], 0));
    }

    #[test]
    fn a_host_that_asks_for_patience_is_left_alone_and_asked_for_less() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut hosts = hosts(&[("a", 20), ("b", 1)], 6);
        let turns = taken(&mut hosts, begin);
        let secs = |seconds| Some(Duration::from_secs(seconds));
        // All that were asked at the same time say so, and it counts once.
        for turn in turns {
            if turn.what.0 == "b" {
                hosts.answered(turn.host);
            } else {
                assert_eq!(hosts.rest(turn, secs(7), None, at(1)), None);
            }
        }
        assert_eq!(hosts.next(at(7)), None);
        assert_eq!((hosts.rested(at(7)), hosts.left()), (Some(at(8)), 20));
        assert_eq!(taken(&mut hosts, at(8)).len(), 3);
    }

    #[test]
    fn a_host_is_given_up_that_only_asks_for_patience() {
        let begin = Instant::now();
        for (wait, deadline, most) in [
            (Some(1), None, 6),
            (None, None, 6),
            (Some(60), Some(60), 1),
            (Some(301), None, 1),
            (Some(u64::MAX), None, 1),
        ] {
            let mut hosts = hosts(&[("a", 20)], 6);
            let deadline = deadline.map(|seconds| begin + Duration::from_secs(seconds));
            let (mut now, mut times) = (begin, 0);
            let given_up = loop {
                let turn = hosts.next(now).expect("it rested");
                times += 1;
                if let Some(given_up) =
                    hosts.rest(turn, wait.map(Duration::from_secs), deadline, now)
                {
                    break given_up;
                }
                now = hosts.rested(now).unwrap_or(now);
            };
            assert_eq!((times, given_up, hosts.left()), (most, 20, 0), "{wait:?}");
        }
        // An answer in between begins anew.
        let mut hosts = hosts(&[("a", 100)], 1);
        let mut now = begin;
        for _ in 0..20 {
            let turn = hosts.next(now).unwrap();
            assert_eq!(hosts.rest(turn, None, None, now), None);
            now = hosts.rested(now).unwrap_or(now);
            let turn = hosts.next(now).unwrap();
            hosts.answered(turn.host);
        }
    }
}
