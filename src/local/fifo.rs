//! A FIFO queue by the rules of SQS, without its wire: what has a group stays in order, a group waits for its message that
//! somebody has, and a message that nobody deletes in time comes again. Pure over the time that it is told.
//!
//! Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html>

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// The queue. Its messages stay in the order in which they came until they are deleted.
#[derive(Debug)]
pub struct Fifo<B> {
    visibility: Duration,
    max_receives: Option<u32>,
    messages: Vec<Waiting<B>>,
    /// How many messages it took, ever.
    taken: u64,
}

/// A message as the queue has it.
#[derive(Debug)]
struct Waiting<B> {
    number: u64,
    body: B,
    group: String,
    sent: Instant,
    first_received: Option<Instant>,
    receives: u32,
    /// Until when somebody has it.
    held: Option<Instant>,
}

/// A message as whoever received it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<B> {
    /// What to name it by, until its time is up.
    pub receipt: Receipt,
    /// What it says.
    pub body: B,
    /// Its group.
    pub group: String,
    /// When the queue took it.
    pub sent: Instant,
    /// When it was first received.
    pub first_received: Instant,
    /// How often it was received, with this time.
    pub receives: u32,
}

/// The right to decide about a message. It ends with the time that the message may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message.
    pub message: u64,
    /// Which time it was received.
    pub receives: u32,
}

/// The message is not held on this receipt any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

impl<B: Clone> Fifo<B> {
    /// An empty queue. A message may be held for `visibility`; one that was received `max_receives` times is given up when
    /// its turn comes again.
    #[must_use]
    pub fn new(visibility: Duration, max_receives: Option<u32>) -> Self {
        Self {
            visibility,
            max_receives,
            messages: Vec::new(),
            taken: 0,
        }
    }

    /// Takes a message.
    pub fn send(&mut self, body: B, group: String, now: Instant) {
        self.taken += 1;
        self.messages.push(Waiting {
            number: self.taken,
            body,
            group,
            sent: now,
            first_received: None,
            receives: 0,
            held: None,
        });
    }

    /// Hands out up to `most` messages, the oldest first, none of a group that has one with somebody, for `visibility` or
    /// as long as the queue says. With them come the bodies of those that are given up.
    pub fn receive(
        &mut self,
        most: usize,
        visibility: Option<Duration>,
        now: Instant,
    ) -> (Vec<Lease<B>>, Vec<B>) {
        self.receive_of(most, visibility, now, |_| true)
    }

    /// The same, of those messages that `wants` wants; those of a group must be wanted alike.
    pub fn receive_of(
        &mut self,
        most: usize,
        visibility: Option<Duration>,
        now: Instant,
        wants: impl Fn(&B) -> bool,
    ) -> (Vec<Lease<B>>, Vec<B>) {
        let until = now + visibility.unwrap_or(self.visibility);
        let held = self.messages.iter().filter(|stored| stored.is_held(now));
        let locked: HashSet<String> = held.map(|stored| stored.group.clone()).collect();
        let is_over = |receives| self.max_receives.is_some_and(|most| receives >= most);
        let (mut received, mut given_up) = (Vec::new(), Vec::new());
        self.messages.retain_mut(|stored| {
            let is_next = received.len() < most && !locked.contains(&stored.group);
            if !is_next || !wants(&stored.body) {
                return true;
            }
            if is_over(stored.receives) {
                given_up.push(stored.body.clone());
                return false;
            }
            received.push(stored.hand_out(until, now));
            true
        });
        (received, given_up)
    }

    /// Hands out with a message those that wait behind it in its group, up to the first that is not `alike` or was not received
    /// as often.
    pub fn receive_behind(
        &mut self,
        first: &Lease<B>,
        now: Instant,
        alike: impl Fn(&B) -> bool,
    ) -> Vec<Lease<B>> {
        let (of_group, until) = (&first.group, now + self.visibility);
        let behind = self.messages.iter_mut();
        let behind = behind
            .filter(|stored| stored.group == *of_group && stored.number > first.receipt.message);
        let wanted = behind.take_while(|stored| {
            !stored.is_held(now) && stored.receives + 1 == first.receives && alike(&stored.body)
        });
        wanted.map(|stored| stored.hand_out(until, now)).collect()
    }

    /// Forgets a message. One that is gone already is gone.
    ///
    /// # Errors
    ///
    /// [`Expired`] if it may be somebody else's by now.
    pub fn delete(&mut self, receipt: Receipt, now: Instant) -> Result<(), Expired> {
        let numbers = |stored: &Waiting<B>| stored.number == receipt.message;
        let Some(index) = self.messages.iter().position(numbers) else {
            return Ok(());
        };
        if !self.messages[index].is_held_on(receipt, now) {
            return Err(Expired);
        }
        self.messages.remove(index);
        Ok(())
    }

    /// Lets a message come again after `visibility` from now, neither before nor after.
    ///
    /// # Errors
    ///
    /// [`Expired`] if it is gone, or may be somebody else's by now.
    pub fn change_visibility(
        &mut self,
        receipt: Receipt,
        visibility: Duration,
        now: Instant,
    ) -> Result<(), Expired> {
        let mut messages = self.messages.iter_mut();
        let held = messages.find(|stored| stored.is_held_on(receipt, now));
        held.ok_or(Expired)?.held = Some(now + visibility);
        Ok(())
    }

    /// The same, and forgets all but the first time that the message was received.
    ///
    /// # Errors
    ///
    /// As [`Fifo::change_visibility`].
    pub fn retry(&mut self, receipt: Receipt, rest: Duration, now: Instant) -> Result<(), Expired> {
        self.change_visibility(receipt, rest, now)?;
        let mut messages = self.messages.iter_mut();
        let stored = messages.find(|stored| stored.number == receipt.message);
        stored.ok_or(Expired)?.receives = 1;
        Ok(())
    }

    /// How many messages there are, with those that somebody has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages somebody has.
    #[must_use]
    pub fn in_flight(&self, now: Instant) -> usize {
        let held = self.messages.iter().filter(|stored| stored.is_held(now));
        held.count()
    }

    /// When the next message comes again by itself.
    #[must_use]
    pub fn next_return(&self, now: Instant) -> Option<Instant> {
        let held = self.messages.iter().filter_map(|stored| stored.held);
        held.filter(|until| *until > now).min()
    }

    /// The groups of those that nobody has.
    pub fn waiting(&self, now: Instant) -> impl Iterator<Item = &str> {
        let free = self
            .messages
            .iter()
            .filter(move |stored| !stored.is_held(now));
        free.map(|stored| stored.group.as_str())
    }

    /// What is in it, the oldest first.
    pub fn bodies(&self) -> impl Iterator<Item = &B> {
        self.messages.iter().map(|stored| &stored.body)
    }
}

impl<B: Clone> Waiting<B> {
    fn is_held(&self, now: Instant) -> bool {
        self.held.is_some_and(|until| now < until)
    }

    fn is_held_on(&self, receipt: Receipt, now: Instant) -> bool {
        let is_this = (self.number, self.receives) == (receipt.message, receipt.receives);
        is_this && self.is_held(now)
    }

    fn hand_out(&mut self, until: Instant, now: Instant) -> Lease<B> {
        self.receives += 1;
        self.held = Some(until);
        Lease {
            receipt: Receipt {
                message: self.number,
                receives: self.receives,
            },
            body: self.body.clone(),
            group: self.group.clone(),
            sent: self.sent,
            first_received: *self.first_received.get_or_insert(now),
            receives: self.receives,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Duration = Duration::from_secs(30);

    fn bodies(received: &(Vec<Lease<&'static str>>, Vec<&'static str>)) -> Vec<&'static str> {
        received.0.iter().map(|message| message.body).collect()
    }

    #[test]
    fn a_group_waits_for_its_message_that_somebody_has() {
        let (mut queue, now) = (Fifo::new(HELD, None), Instant::now());
        for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
            queue.send(body, group.into(), now);
        }
        let first = queue.receive(1, None, now);
        assert_eq!(bodies(&first), ["a1"]);
        let other = queue.receive(10, None, now);
        assert_eq!(bodies(&other), ["b1"], "group a waits");
        assert_eq!(queue.in_flight(now), 2);
        queue.delete(first.0[0].receipt, now).unwrap();
        let rest = queue.receive(10, None, now);
        assert_eq!(bodies(&rest), ["a2", "a3"], "more of a group at once");
        queue
            .change_visibility(rest.0[0].receipt, Duration::ZERO, now)
            .unwrap();
        assert_eq!(
            bodies(&queue.receive(10, None, now)),
            [""; 0],
            "a3 is still with somebody"
        );
        let later = now + HELD;
        assert_eq!(bodies(&queue.receive(10, None, later)), ["a2", "b1", "a3"]);
    }

    #[test]
    fn what_is_alike_comes_along_in_order_up_to_the_first_that_is_not() {
        let (mut queue, now) = (Fifo::new(HELD, Some(3)), Instant::now());
        for (body, group) in [
            ("a1", "a"),
            ("b1", "b"),
            ("a2", "a"),
            ("a3", "a"),
            ("x", "a"),
            ("a4", "a"),
        ] {
            queue.send(body, group.into(), now);
        }
        let alike = |body: &&str| body.starts_with('a');
        let behind = |queue: &mut Fifo<&'static str>, first: &Lease<_>, now| {
            let behind = queue.receive_behind(first, now, alike).into_iter();
            behind.map(|lease| lease.body).collect::<Vec<_>>()
        };
        let first = queue.receive(1, None, now).0.remove(0);
        assert_eq!(behind(&mut queue, &first, now), ["a2", "a3"]);
        let other = queue.receive(10, None, now);
        assert_eq!(bodies(&other), ["b1"], "all of them are held");
        queue.delete(other.0[0].receipt, now).unwrap();
        // They come again together; what came meanwhile has been tried less often.
        queue.send("a5", "a".into(), now);
        let later = now + HELD;
        let first = queue.receive(1, None, later).0.remove(0);
        assert_eq!((first.body, first.receives), ("a1", 2));
        assert_eq!(behind(&mut queue, &first, later), ["a2", "a3"]);
        queue.delete(first.receipt, later).unwrap();
        let last = later + HELD;
        let first = queue.receive(1, None, last).0.remove(0);
        assert_eq!(
            (first.body, behind(&mut queue, &first, last)),
            ("a2", vec!["a3"])
        );
    }

    #[test]
    fn a_message_that_nobody_deletes_comes_again_until_it_is_given_up() {
        let (mut queue, now) = (Fifo::new(HELD, Some(2)), Instant::now());
        queue.send("a", "g".into(), now);
        let first = queue.receive(1, None, now).0.remove(0);
        assert_eq!(queue.next_return(now), Some(now + HELD));
        let again = now + HELD;
        assert_eq!(queue.next_return(again), None);
        let second = queue.receive(1, None, again).0.remove(0);
        assert_eq!((first.receives, second.receives), (1, 2));
        assert_eq!((second.sent, second.first_received), (now, now));
        assert_eq!(queue.delete(first.receipt, again), Err(Expired));
        let hold = queue.change_visibility(first.receipt, HELD, again);
        assert_eq!(hold, Err(Expired));
        assert_eq!(queue.len(), 1);
        let (received, given_up) = queue.receive(1, None, again + HELD);
        assert_eq!((received, given_up), (vec![], vec!["a"]));
        assert!(queue.is_empty());
        assert_eq!(queue.delete(second.receipt, again), Ok(()), "gone is gone");
    }

    #[test]
    fn what_is_tried_again_is_never_given_up() {
        let (mut queue, mut now) = (Fifo::new(HELD, Some(2)), Instant::now());
        queue.send("a", "g".into(), now);
        for tries in [1, 2, 2, 2, 2] {
            let (mut received, given_up) = queue.receive(1, None, now);
            let message = received.pop().expect("it comes again");
            assert_eq!((message.receives, given_up.len()), (tries, 0));
            queue.retry(message.receipt, HELD, now).unwrap();
            assert!(queue.receive(1, None, now).0.is_empty());
            now += HELD;
        }
    }

    #[test]
    fn whoever_has_a_message_says_when_it_comes_again() {
        let (mut queue, now) = (Fifo::new(HELD, None), Instant::now());
        queue.send("a", "g".into(), now);
        let message = queue.receive(1, None, now).0.remove(0);
        let rest = Duration::from_secs(10);
        queue.change_visibility(message.receipt, rest, now).unwrap();
        let early = now + Duration::from_millis(9_999);
        assert_eq!(bodies(&queue.receive(1, None, early)), [""; 0]);
        assert_eq!(bodies(&queue.receive(1, Some(rest), now + rest)), ["a"]);
        assert_eq!(queue.next_return(now + rest), Some(now + rest + rest));
    }
}
