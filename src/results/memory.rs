//! What a process knows of its own comments: a list of Backlog may lag behind, and what somebody removed is not to come back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{Comment, Home, Kind, Known, Look, Topic, Write};

/// For how long a list may not show what this process wrote.
const FRESH: Duration = Duration::from_mins(1);

/// How many comments are kept in memory.
const KEPT: usize = 10_000;

/// A comment of ours: what the status comment of its topic ends with, where it is, and what it is.
type Own = (String, Home, Kind);

/// The comments that are known, and when this process wrote them, if it did.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<Own, (Known, Option<Instant>)>>);

impl Memory {
    /// What this process knows of a topic's comments.
    pub(super) async fn of(&self, topic: &Topic) -> Vec<(Home, Known)> {
        let known = self.0.lock().await;
        let marker = topic.marker.line(&Kind::Status);
        let own = known.iter().filter(|((of, ..), _)| *of == marker);
        own.map(|((_, home, _), (known, wrote))| {
            let is_fresh = wrote.is_some_and(|wrote| wrote.elapsed() < FRESH);
            let known = Known {
                is_fresh,
                ..known.clone()
            };
            (home.clone(), known)
        })
        .collect()
    }

    /// Notes what was written.
    pub(super) async fn keep(&self, topic: &Topic, write: &Write, id: i64) {
        let comment = Comment {
            id,
            kind: write.kind.clone(),
            text: write.text.clone(),
            updated: None,
        };
        self.know(
            topic,
            &write.home,
            comment,
            write.replaces.is_none().then(Instant::now),
        )
        .await;
    }

    /// Notes what is there, so that it is known what somebody removes.
    pub(super) async fn learn(&self, topic: &Topic, look: &Look<'_>) {
        for (home, comment) in look.there() {
            self.know(topic, home, comment.clone(), None).await;
        }
    }

    async fn know(&self, topic: &Topic, home: &Home, comment: Comment, wrote: Option<Instant>) {
        let mut all = self.0.lock().await;
        if all.len() > KEPT {
            all.clear();
        }
        let at = (
            topic.marker.line(&Kind::Status),
            home.clone(),
            comment.kind.clone(),
        );
        let wrote = wrote.or_else(|| {
            all.get(&at)
                .filter(|(known, _)| known.comment.id == comment.id)?
                .1
        });
        let run = topic
            .runs
            .first()
            .map_or_else(String::new, |run| run.id.clone());
        let known = Known {
            comment,
            run,
            is_fresh: false,
        };
        all.insert(at, (known, wrote));
    }
}
