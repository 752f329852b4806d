//! Buckets and objects: whether they are as `CodePipeline` needs them, and hold what their refs are at.

use super::address;
use crate::{
    deliver::holder::Holder,
    doctor::{
        Check, Finding,
        seen::{Seen, Unseen},
    },
    plain,
    push::CommitId,
};

/// How many digits of a commit are told.
const SHOWN_DIGITS: usize = 8;

/// A bucket of the table.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Bucket {
    pub(in crate::doctor) name: String,
    /// `Enabled`, `Suspended`, or `None` if it never was on.
    pub(in crate::doctor) versioning: Seen<Option<String>>,
    pub(in crate::doctor) events: Seen<bool>,
    pub(in crate::doctor) region: Seen<String>,
    /// The region that is asked.
    pub(in crate::doctor) here: Option<String>,
    /// The KMS key of one's own, if it has one.
    pub(in crate::doctor) key: Seen<Option<String>>,
    /// What the stack lets the functions use: the key of the parameter, and whether there is a policy with more. `None` without a
    /// stack.
    pub(in crate::doctor) allowed: Option<(String, bool)>,
    pub(in crate::doctor) is_missing: bool,
}

impl Bucket {
    pub(in crate::doctor) fn findings(&self) -> Vec<Finding> {
        let name = self.name.as_str();
        if self.is_missing {
            return vec![
                Check::Versioning
                    .error(name, "there is no such bucket")
                    .with("check the route's bucket, and SOURCE_BUCKET: aws s3 ls"),
            ];
        }
        let region = match (&self.region, &self.here) {
            (Ok(region), Some(here)) if region != here => Check::Region
                .error(
                    name,
                    format!("the bucket is in {region}, and what is asked is {here}: a pipeline reads buckets of its own region alone"),
                )
                .with(format!("take a bucket in {here}, or deploy bridge and pipelines in the other one: AWS_REGION={region}")),
            (Ok(region), _) => Check::Region.ok(name, format!("it is in {region}")),
            (Err(unseen), _) => Check::Region.unknown(name, unseen),
        };
        let is_elsewhere = region.verdict == crate::doctor::Verdict::Error;
        // Who asks in the wrong region is sent away.
        let unknown = |check: Check, unseen: &Unseen| match unseen {
            Unseen::Failed(_) if is_elsewhere => {
                check.unknown(name, &Unseen::After("the region comes first".into()))
            }
            unseen => check.unknown(name, unseen),
        };
        let versioning = match &self.versioning {
            Ok(Some(status)) if status == "Enabled" => Check::Versioning.ok(name, "it keeps versions"),
            Ok(status) => Check::Versioning
                .error(
                    name,
                    format!(
                        "versioning is {}, and CodePipeline takes only a bucket that keeps versions",
                        if status.is_some() { "suspended" } else { "off" }
                    ),
                )
                .with(format!(
                    "aws s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled"
                )),
            Err(unseen) => unknown(Check::Versioning, unseen),
        };
        let events = match &self.events {
            Ok(true) => Check::Events.ok(name, "it tells EventBridge of new versions"),
            Ok(false) => Check::Events
                .error(name, "it does not tell EventBridge of new versions, so no pipeline is started")
                // The command replaces all there is; so what is there goes along.
                .with(format!(
                    "(aws s3api get-bucket-notification-configuration --bucket {name} --output json | grep . || echo '{{}}') | \
                     jq '. + {{EventBridgeConfiguration: {{}}}}' > notifications.json && aws s3api \
                     put-bucket-notification-configuration --bucket {name} --notification-configuration file://notifications.json"
                )),
            Err(unseen) => unknown(Check::Events, unseen),
        };
        let encryption = match (&self.key, &self.allowed) {
            (Ok(Some(key)), Some((own, false))) if own.is_empty() => Check::Encryption
                .error(name, format!("it is encrypted with the key {}, which the functions may not use", plain::foreign(key)))
                .with("deploy the stack with BucketKmsKeyArn and the key's ARN, each pipeline with SourceKmsKeyArn"),
            (Ok(Some(key)), _) => Check::Encryption.ok(name, format!("it is encrypted with the key {}", plain::foreign(key))),
            (Ok(None), _) => Check::Encryption.ok(name, "it needs no key"),
            (Err(unseen), _) => unknown(Check::Encryption, unseen),
        };
        vec![versioning, events, region, encryption]
    }
}

/// Where the ref of an object points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doctor) enum Tip {
    At(CommitId),
    /// There is no such ref.
    Gone,
    /// Nobody knows.
    Unknown,
}

/// An object of the table.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Object {
    pub(in crate::doctor) route: String,
    pub(in crate::doctor) ref_name: String,
    pub(in crate::doctor) bucket: String,
    pub(in crate::doctor) key: String,
    pub(in crate::doctor) tip: Tip,
    pub(in crate::doctor) held: Seen<Option<Holder>>,
    /// Whether it should be there.
    pub(in crate::doctor) is_wanted: bool,
    /// Whether nothing is delivered of it for now.
    pub(in crate::doctor) is_paused: bool,
    /// Why the functions may not write it, if so.
    pub(in crate::doctor) forbidden: Option<String>,
    /// The command that delivers it.
    pub(in crate::doctor) sync: String,
}

impl Object {
    pub(in crate::doctor) fn findings(&self) -> Vec<Finding> {
        let access = self.forbidden.as_ref().map(|why| {
            let (why, what) = why.split_once(" => ").unwrap_or((why, "change the route"));
            Check::Access.error(&self.route, why).with(what)
        });
        access.into_iter().chain(self.held()).collect()
    }

    fn held(&self) -> Option<Finding> {
        let Self {
            route,
            ref_name,
            bucket,
            key,
            tip,
            held,
            is_wanted,
            sync,
            ..
        } = self;
        let at = address(bucket, key);
        let short = |commit: &CommitId| commit.to_string()[..SHOWN_DIGITS].to_owned();
        let held = match held {
            Ok(held) => held,
            Err(unseen) => return Some(Check::Object.unknown(route, unseen)),
        };
        let is_current =
            matches!((held, tip), (Some(Holder::Us(held)), Tip::At(tip)) if held.commit == *tip);
        if self.is_paused && !is_current {
            return Some(Check::Object.ok(
                route,
                format!("the route is paused, and {at} stays as it is"),
            ));
        }
        Some(match (held, tip) {
            (None, _) if !is_wanted => return None,
            (None, Tip::Gone) => {
                Check::Object.unknown(route, &Unseen::After(format!("{ref_name} comes first")))
            }
            (None, _) => Check::Object
                .error(route, format!("nothing was delivered to {at} yet"))
                .with(sync),
            (Some(Holder::Us(held)), Tip::At(tip)) if held.commit == *tip => Check::Object.ok(
                route,
                format!("{at} holds {}, which is the tip of {ref_name}", short(tip)),
            ),
            (Some(Holder::Us(held)), Tip::At(tip)) => Check::Object
                .error(
                    route,
                    format!(
                        "{at} holds {}, and {ref_name} is at {}",
                        short(&held.commit),
                        short(tip)
                    ),
                )
                .with(sync),
            (Some(Holder::Us(held)), Tip::Gone) => Check::Object.ok(
                route,
                format!(
                    "{at} holds {}; its ref is gone, and it stays",
                    short(&held.commit)
                ),
            ),
            (Some(Holder::Us(_)), Tip::Unknown) => Check::Object.unknown(
                route,
                &Unseen::After(format!("the tip of {ref_name} comes first")),
            ),
            (Some(Holder::Foreign), _) => Check::Object
                .error(route, format!("{at} was not written by the bridge"))
                .with(format!(
                    "find out who writes there; the next delivery replaces it: {sync}"
                )),
            (
                Some(Holder::Unrouted {
                    repository,
                    ref_name,
                }),
                _,
            ) => Check::Object
                .error(
                    route,
                    format!(
                        "{at} holds {} {}, which the table does not deliver there",
                        plain::foreign(repository),
                        plain::foreign(ref_name)
                    ),
                )
                .with(format!(
                    "if no other bridge writes there, the next delivery replaces it: {sync}"
                )),
            (
                Some(Holder::Other {
                    repository,
                    ref_name,
                }),
                _,
            ) => Check::Object
                .error(
                    route,
                    format!(
                        "{at} holds {} {}, to which the table gives it, too",
                        plain::foreign(repository),
                        plain::foreign(ref_name)
                    ),
                )
                .with("give one of the two routes another object"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deliver::holder::Held, doctor::verdict::tests::problems};

    fn bucket() -> Bucket {
        Bucket {
            name: "b".into(),
            versioning: Ok(Some("Enabled".into())),
            events: Ok(true),
            region: Ok("ap-northeast-1".into()),
            here: Some("ap-northeast-1".into()),
            key: Ok(None),
            allowed: Some((String::new(), false)),
            is_missing: false,
        }
    }

    #[test]
    fn buckets_are_told() {
        let other = || Err(Unseen::Failed("elsewhere".into()));
        let key = || Ok(Some("arn:aws:kms:r:1:key/k".into()));
        for (case, bucket, expected) in [
            ("well", bucket(), &[][..]),
            (
                "missing",
                Bucket {
                    is_missing: true,
                    ..bucket()
                },
                &["error versioning b: there is no such bucket => check the route's bucket"],
            ),
            (
                "off",
                Bucket {
                    versioning: Ok(None),
                    ..bucket()
                },
                &[
                    "error versioning b: versioning is off, and CodePipeline takes only a bucket that keeps versions => aws s3api put-bucket-versioning --bucket b --versioning-configuration Status=Enabled",
                ],
            ),
            (
                "suspended",
                Bucket {
                    versioning: Ok(Some("Suspended".into())),
                    ..bucket()
                },
                &["error versioning b: versioning is suspended"],
            ),
            (
                "no events",
                Bucket {
                    events: Ok(false),
                    ..bucket()
                },
                &[
                    "error events b: it does not tell EventBridge of new versions, so no pipeline is started => (aws s3api get-bucket-notification-configuration",
                ],
            ),
            (
                "another region",
                Bucket {
                    region: Ok("us-east-1".into()),
                    events: other(),
                    ..bucket()
                },
                &[
                    "error region b: the bucket is in us-east-1, and what is asked is ap-northeast-1",
                ],
            ),
            (
                "a key",
                Bucket {
                    key: key(),
                    ..bucket()
                },
                &[
                    "error encryption b: it is encrypted with the key arn:aws:kms:r:1:key/k, which the functions may not use => deploy",
                ],
            ),
            (
                "a key that is known",
                Bucket {
                    key: key(),
                    allowed: Some(("arn".into(), false)),
                    ..bucket()
                },
                &[],
            ),
            (
                "a policy",
                Bucket {
                    key: key(),
                    allowed: Some((String::new(), true)),
                    ..bucket()
                },
                &[],
            ),
            (
                "denied",
                Bucket {
                    events: Err(Unseen::Denied("s3:GetBucketNotification".into())),
                    ..bucket()
                },
                &["? events b: not checked: needs s3:GetBucketNotification"],
            ),
        ] {
            let found: Vec<_> = bucket
                .findings()
                .into_iter()
                .filter(|found| !found.follows)
                .collect();
            let found = problems(&found);
            assert_eq!(found.len(), expected.len(), "{case}: {found:?}");
            for (line, expected) in found.iter().zip(expected) {
                assert!(line.starts_with(expected), "{case}: {line}");
            }
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
    fn objects_are_told() {
        let commit = |digit: &str| digit.repeat(40).parse::<CommitId>().unwrap();
        let ours = |digit: &str| {
            Some(Holder::Us(Held {
                commit: commit(digit),
                time: None,
                previous: None,
                delivery_id: "d".into(),
            }))
        };
        let object = |held: Option<Holder>, tip| Object {
            route: "web".into(),
            ref_name: "refs/heads/main".into(),
            bucket: "b".into(),
            key: "web.zip".into(),
            tip,
            held: Ok(held),
            is_wanted: true,
            is_paused: false,
            forbidden: None,
            sync: "sync web".into(),
        };
        let other = |repository: &str| (repository.to_owned(), "refs/heads/x".to_owned());
        let (repository, ref_name) = other("A/b");
        let tip = || Tip::At(commit("1"));
        let unwanted = Object {
            is_wanted: false,
            ..object(None, tip())
        };
        let paused = Object {
            is_paused: true,
            ..object(ours("2"), tip())
        };
        let forbidden = Object {
            forbidden: Some("web.zip does not fit => change it".into()),
            ..object(ours("1"), tip())
        };
        for (case, object, expected) in [
            ("well", object(ours("1"), tip()), None),
            ("gone", object(ours("1"), Tip::Gone), None),
            ("not wanted", unwanted, None),
            ("paused", paused, None),
            (
                "behind",
                object(ours("2"), tip()),
                Some(
                    "error object web: s3://b/web.zip holds 22222222, and refs/heads/main is at 11111111 => sync web",
                ),
            ),
            (
                "none",
                object(None, tip()),
                Some("error object web: nothing was delivered to s3://b/web.zip yet => sync web"),
            ),
            (
                "foreign",
                object(Some(Holder::Foreign), tip()),
                Some("error object web: s3://b/web.zip was not written by the bridge => find out"),
            ),
            (
                "unrouted",
                object(
                    Some(Holder::Unrouted {
                        repository: repository.clone(),
                        ref_name: ref_name.clone(),
                    }),
                    tip(),
                ),
                Some(
                    "error object web: s3://b/web.zip holds A/b refs/heads/x, which the table does not deliver there",
                ),
            ),
            (
                "other",
                object(
                    Some(Holder::Other {
                        repository,
                        ref_name,
                    }),
                    tip(),
                ),
                Some(
                    "error object web: s3://b/web.zip holds A/b refs/heads/x, to which the table gives it, too",
                ),
            ),
            (
                "forbidden",
                forbidden,
                Some("error access web: web.zip does not fit => change it"),
            ),
        ] {
            let found = problems(&object.findings());
            assert_eq!(
                found.len(),
                usize::from(expected.is_some()),
                "{case}: {found:?}"
            );
            assert!(
                expected.is_none_or(|expected| found[0].starts_with(expected)),
                "{case}: {found:?}"
            );
        }
    }
}
