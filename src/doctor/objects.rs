//! What is seen of buckets and objects.

use std::collections::BTreeSet;

use super::{
    git::Servers,
    seen::{Time, Unseen, all},
    verdict::{Bucket, Object, Tip},
};
use crate::{
    aws,
    bucket::{Address, S3},
    deliver::holder::Holder,
    push::RefName,
    route::{Destination, Route, RouteTable, Sweep},
    stack::Stack,
};

/// How many objects are looked at. Who has more names routes.
const MOST_OBJECTS: usize = 200;

/// An object of the table, and its route.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) to: Destination,
    pub(super) is_exact: bool,
    /// The pipeline that the table names.
    pub(super) pipeline: Option<String>,
    is_wanted: bool,
    is_paused: bool,
    tip: Tip,
}

/// The objects of the routes, by the refs that the servers show; and how many there are beyond those that are looked at.
pub(super) fn places(
    table: &RouteTable,
    routes: &[Route],
    servers: &Servers,
) -> (Vec<Place>, usize) {
    let mut places = Vec::new();
    for route in routes {
        let space = table.space_of(route);
        let url = space.url().to_string();
        let repository = servers
            .repositories
            .iter()
            .find(|found| found.space == url && found.name == *route.repository());
        let listing =
            repository.and_then(|repository| repository.listing.as_ref().ok()?.as_ref().ok());
        let is_exact = route.pattern().exact().is_some();
        let mut add = |name: &RefName, tip| {
            let to = route.destination(space, name);
            places.extend(to.ok().map(|to| Place {
                to,
                is_exact,
                pipeline: route.pipeline(name),
                is_wanted: route.sweep() == Sweep::All,
                is_paused: route.is_paused(),
                tip,
            }));
        };
        let mut refs = listing
            .map(|listing| listing.refs.iter())
            .into_iter()
            .flatten();
        match (route.pattern().exact(), listing) {
            (Some(name), None) => add(name, Tip::Unknown),
            (Some(name), Some(_)) => {
                let tip = refs.find(|(found, _)| found == name);
                add(name, tip.map_or(Tip::Gone, |(_, tip)| Tip::At(*tip)));
            }
            (None, _) => refs
                .filter(|(name, _)| route.pattern().matches(name))
                .for_each(|(name, tip)| add(name, Tip::At(*tip))),
        }
    }
    let more = places.len().saturating_sub(MOST_OBJECTS);
    places.truncate(MOST_OBJECTS);
    (places, more)
}

/// Looks at the buckets of the routes.
pub(super) async fn buckets(
    time: &Time,
    s3: &S3,
    routes: &[Route],
    stack: Option<&Stack>,
) -> Vec<Bucket> {
    let names: BTreeSet<_> = routes
        .iter()
        .map(|route| route.bucket().to_owned())
        .collect();
    let here = aws::region().await;
    let looks = names.into_iter().map(|name| {
        let (time, s3, here) = (time.clone(), s3.clone(), here.clone());
        // Of other buckets nobody knows which key the policy of the stack's owner allows.
        let allowed = stack.map(|stack| {
            let key = stack.parameter("BucketKmsKeyArn").unwrap_or_default();
            (
                key.to_owned(),
                stack.parameter("DeliverPolicyArn").is_some(),
            )
        });
        async move {
            let (versioning, events, region, key) = tokio::join!(
                time.within(s3.versioning(&name)),
                time.look(s3.sends_events(&name)),
                time.look(s3.region_of(&name)),
                time.look(s3.key_of(&name)),
            );
            let is_missing = matches!(&versioning, Some(Err(err)) if err.code == "NoSuchBucket");
            let versioning = time.look(async { versioning.unwrap_or(Ok(None)) }).await;
            Bucket {
                name,
                versioning,
                events,
                region,
                here,
                key,
                allowed,
                is_missing,
            }
        }
    });
    all(looks).await
}

/// Looks at the objects.
pub(super) async fn look(
    time: &Time,
    s3: &S3,
    table: &std::sync::Arc<RouteTable>,
    places: &[Place],
    stack: Option<&Stack>,
) -> Vec<Object> {
    let looks = places.iter().cloned().map(|place| {
        let (time, s3, table) = (time.clone(), s3.clone(), std::sync::Arc::clone(table));
        let forbidden = stack.and_then(|stack| forbidden(stack, &place.to));
        let route = place.to.route.clone();
        let sync = match stack {
            Some(stack) => format!("backlog-bridge sync {route} --stack {}", stack.name),
            None => format!("backlog-bridge sync {route} --aws"),
        };
        async move {
            let Place {
                to,
                is_wanted,
                is_paused,
                tip,
                ..
            } = place;
            let current = time.look(s3.current(Address::from(&to)));
            let current = Box::pin(current).await;
            let held =
                current.map(|current| current.map(|current| Holder::of(&current, &to, &table)));
            Object {
                route,
                ref_name: to.ref_name.to_string(),
                bucket: to.bucket.clone(),
                key: to.key.to_string(),
                tip,
                held,
                is_wanted,
                is_paused,
                forbidden,
                sync,
            }
        }
    });
    all(looks).await
}

/// Why the role that delivers may not write the object, by what the stack was deployed with; and what to do.
fn forbidden(stack: &Stack, to: &Destination) -> Option<String> {
    // What else it may do is in a policy of the stack's owner.
    if stack.parameter("DeliverPolicyArn").is_some() {
        return None;
    }
    let (bucket, key) = (&to.bucket, to.key.as_str());
    if *bucket != stack.bucket {
        let extra = stack.parameter("ExtraBuckets").unwrap_or_default();
        let is_listed = extra.split(',').any(|name| name.trim() == bucket);
        return (!is_listed).then(|| {
            format!(
                "the function may not write to the bucket {bucket} => deploy the stack with {bucket} in ExtraBuckets, or take the \
                 bucket {} in the route",
                stack.bucket
            )
        });
    }
    let keys = stack.parameter("ObjectKeys")?;
    (!fits(keys, key)).then(|| {
        format!("the function may not write {key}, since ObjectKeys is {keys} => change the route's object, or deploy the stack with another ObjectKeys")
    })
}

/// Whether a pattern of IAM takes a text: `*` stands for any characters, `?` for one.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last `*` is, and how much it stands for.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[read] => (at, read) = (at + 1, read + 1),
            _ => match &mut star {
                Some((begin, taken)) => {
                    *taken += 1;
                    (at, read) = (*begin + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// What is said of objects that are not looked at.
pub(super) fn unseen(more: usize) -> Unseen {
    Unseen::Needs(format!(
        "{more} more objects; name routes to look at theirs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_the_patterns_of_iam() {
        for (pattern, key, expected) in [
            ("*.zip", "web/main.zip", true),
            ("*.zip", "web/main.tar", false),
            ("bridge/*.zip", "bridge/a/b.zip", true),
            ("bridge/*.zip", "web/a.zip", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("*", "", true),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, key), expected, "{pattern} {key}");
        }
    }
}
