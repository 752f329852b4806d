//! The routing table of a deployed bridge.

use std::{path::Path, time::Duration};

use backlog_bridge::{
    bucket::{Address, Condition, Found, S3},
    config::{Config, Location, stack_name},
    route::{NewField, NotPaused, Origin, ROUTES_KEY, RouteTable, with_paused},
    stack::Stack,
};
use similar::TextDiff;

use super::{describe, look_over};
use crate::cli::{Common, Ended, Usage, ask, out, setup::read};

/// How long the shortest difference between two tables is looked for. After that a longer one is shown.
const DIFF_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Deployed {
    /// Where the deployed bridge reads its table [default: `config/routes.toml` in `SOURCE_BUCKET`].
    #[arg(long, value_name = "S3_URL")]
    at: Option<Location>,
    /// The stack of the deployed bridge, whose outputs say where that is [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", conflicts_with = "at", value_parser = stack_name)]
    pub(super) stack: Option<String>,
}

/// Who says which fields the functions know that are to read a table.
#[derive(Debug)]
pub(in crate::cli) enum Knows {
    /// The functions themselves.
    Asked(Box<Stack>),
    /// Nobody.
    Unsaid,
    /// Whoever stores it answers for it.
    Whatever,
}

impl Knows {
    /// Refuses a table with a field that the functions do not know: they would refuse all of it.
    async fn check(&self, file: &str, table: &RouteTable) -> Result<(), Usage> {
        let Some(NewField { name, format, line }) = table.newest_field() else {
            return Ok(());
        };
        match self {
            Self::Asked(stack) => {
                let known = stack.table_format().await?;
                if known < format {
                    return Err(Usage(format!(
                        "{file}:{line}: `{name}` needs format {format} of the table, and the functions of {} know format {known}; \
                         deploy the newer bridge first, then store the table",
                        stack.name
                    )));
                }
                Ok(())
            }
            Self::Unsaid => Err(Usage(format!(
                "{file}:{line}: `{name}` needs format {format} of the table, which older functions refuse; name the bridge \
                 with --stack, so that they can be asked, or pass --allow-newer"
            ))),
            Self::Whatever => Ok(()),
        }
    }
}

/// Where the routing table of a deployed bridge is.
#[derive(Debug)]
pub(in crate::cli) struct Place {
    /// The table.
    pub(in crate::cli) at: Location,
    /// The bucket of routes that name none.
    pub(in crate::cli) bucket: String,
    /// What those know that read it.
    pub(in crate::cli) knows: Knows,
}

impl Deployed {
    pub(super) async fn place(self, common: &Common, config: &Config) -> Result<Place, Usage> {
        if let Some(at) = self.at {
            return Ok(Place::new(at, config));
        }
        if let Some(stack) = common.stack().await? {
            return Ok(Place::of(stack));
        }
        let of_bucket = |bucket: &String| Location {
            bucket: bucket.clone(),
            key: ROUTES_KEY.into(),
        };
        let at = config.source_bucket.as_ref().map(of_bucket);
        let at = at.ok_or_else(|| {
            Usage(
                "say where the routing table is: --stack NAME, --at s3://bucket/config/routes.toml, or set SOURCE_BUCKET"
                    .into(),
            )
        })?;
        Ok(Place::new(at, config))
    }
}

impl Place {
    fn new(at: Location, config: &Config) -> Self {
        // The template keeps the table in the source bucket.
        let bucket = config.source_bucket.clone();
        let bucket = bucket.unwrap_or_else(|| at.bucket.clone());
        let knows = Knows::Unsaid;
        Self { at, bucket, knows }
    }

    /// The table of a bridge.
    pub(in crate::cli) fn of(stack: Stack) -> Self {
        Self {
            at: stack.table.clone(),
            bucket: stack.bucket.clone(),
            knows: Knows::Asked(stack.into()),
        }
    }
}

fn address(at: &Location) -> Address<'_> {
    Address {
        bucket: &at.bucket,
        key: &at.key,
    }
}

pub(super) async fn pull(Place { at, .. }: &Place) -> Result<Ended, Usage> {
    match S3::from_environment().await.text(address(at), None).await? {
        Found::Text { text, .. } => {
            out::file(&text);
            Ok(Ended::Well)
        }
        Found::NoText { why, .. } => Err(Usage(format!("cannot read {at}: {why}"))),
        Found::Missing | Found::Deleted | Found::Same => {
            note!("there is no routing table at {at} yet; store one with routes push");
            Ok(Ended::WithFailures)
        }
    }
}

/// Who is asked before a table is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Asks {
    /// Whoever sits at the terminal.
    Always,
    /// The same, but for the first table, which takes the place of nothing.
    IfItReplaces,
    /// Nobody.
    Nobody,
    /// Nobody, and nothing is stored.
    NothingIsStored,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Pushed {
    /// It was stored already.
    Same,
    /// It is stored now; or would be.
    Stored,
    /// Whoever was asked said no.
    Declined,
    /// There is nobody to ask.
    Unasked,
    /// Somebody else stored another one meanwhile.
    Refused,
}

pub(super) async fn push(file: &Path, place: &Place, yes: bool) -> Result<Ended, Usage> {
    let asks = if yes { Asks::Nobody } else { Asks::Always };
    Ok(tell(&place.at, store(file, place, asks).await?))
}

/// Has a route of the deployed table pause, or go on.
pub(in crate::cli) async fn pause(
    place: &Place,
    name: &str,
    paused: bool,
    yes: bool,
) -> Result<Ended, Usage> {
    let at = &place.at;
    let Found::Text { text, .. } = S3::from_environment().await.text(address(at), None).await?
    else {
        return Err(Usage(format!(
            "there is no routing table at {at} that can be read; look at it with routes pull"
        )));
    };
    let table = RouteTable::parse(
        &at.to_string(),
        &text,
        Some(&place.bucket),
        Origin::Deployed,
    )?;
    let route = super::chosen(&table, &[name.to_owned()])?[0];
    let (is, becomes) = if paused {
        ("is paused", "paused = true")
    } else {
        ("is not paused", "paused = false")
    };
    let changed = match with_paused(&text, &table, route.name(), paused, &place.bucket) {
        Ok(changed) => changed,
        Err(NotPaused::Already) => {
            note!("{name} {is} already");
            return Ok(Ended::Well);
        }
        Err(NotPaused::ByHand) => {
            return Err(Usage(format!(
                "the table at {at} is not written so that one line does it; fetch it with routes pull, write `{becomes}` into the \
                 route, and store it with routes push"
            )));
        }
    };
    let asks = if yes { Asks::Nobody } else { Asks::Always };
    let pushed = store_text(&at.to_string(), &changed, Some(&text), place, asks).await?;
    Ok(tell(at, pushed))
}

fn tell(at: &Location, pushed: Pushed) -> Ended {
    match pushed {
        Pushed::Same => {
            note!("{at} is this table already");
            Ended::Well
        }
        Pushed::Stored => {
            note!("stored as {at}; it counts for the next push");
            Ended::Well
        }
        Pushed::Declined | Pushed::Unasked => {
            note!("nothing was stored");
            Ended::WithFailures
        }
        Pushed::Refused => {
            note!("{}", refused(at));
            Ended::WithFailures
        }
    }
}

/// That somebody was faster.
pub(in crate::cli) fn refused(at: &Location) -> String {
    format!(
        "somebody else has changed {at} meanwhile, so nothing was stored; look at it with routes pull, and try again"
    )
}

/// Stores the table of a file, once it is found to be of use and whoever is asked says so.
pub(in crate::cli) async fn store(file: &Path, place: &Place, asks: Asks) -> Result<Pushed, Usage> {
    let (text, _) = read(file)?;
    store_text(&file.display().to_string(), &text, None, place, asks).await
}

/// Stores a text; with `instead`, only in the place of that one.
async fn store_text(
    name: &str,
    text: &str,
    instead: Option<&str>,
    place: &Place,
    asks: Asks,
) -> Result<Pushed, Usage> {
    let Place { at, bucket, knows } = place;
    let parse =
        |name: &str, text: &str| RouteTable::parse(name, text, Some(bucket), Origin::Deployed);
    let new = parse(name, text)?;
    knows.check(name, &new).await?;
    look_over(name, &new, Origin::Deployed)?;
    let s3 = S3::from_environment().await;
    // What is of no use is replaced like anything else, unless somebody was faster.
    let (stored, condition) = match s3.text(address(at), None).await? {
        Found::Text { text, etag } => (Ok(Some(text)), Condition::Unchanged(etag)),
        Found::NoText { why, etag } => (Err(why), Condition::Unchanged(etag)),
        Found::Missing | Found::Deleted | Found::Same => (Ok(None), Condition::Absent),
    };
    if matches!(&stored, Ok(Some(stored)) if *stored == text) {
        return Ok(Pushed::Same);
    }
    if let Some(instead) = instead
        && !matches!(&stored, Ok(Some(stored)) if stored == instead)
    {
        return Ok(Pushed::Refused);
    }
    let is_first = matches!(stored, Ok(None));
    // What no bridge can read must not stay there for that: it is replaced as if it held no route.
    let (old_text, old) = match stored {
        Ok(None) => (String::new(), None),
        Ok(Some(stored)) => match parse(&at.to_string(), &stored) {
            Ok(old) => (stored, Some(old)),
            Err(fault) => {
                note!(
                    "the table that is stored is wrong, so all routes are shown as new:\n{fault}\n"
                );
                (stored, None)
            }
        },
        Err(fault) => {
            note!(
                "the table that is stored cannot be read, so all routes are shown as new: {fault}\n"
            );
            (String::new(), None)
        }
    };
    if !(is_first && asks == Asks::IfItReplaces) {
        let diff = TextDiff::configure()
            .timeout(DIFF_WITHIN)
            .diff_lines(&*old_text, text);
        let diff = diff
            .unified_diff()
            .header(&at.to_string(), name)
            .to_string();
        note!("{}", diff.trim_end());
        note!("\nWhat changes:");
        for change in changes(old.as_ref(), &new) {
            note!("  {change}");
        }
    }
    let may = match asks {
        Asks::Nobody => true,
        Asks::IfItReplaces if is_first => true,
        Asks::IfItReplaces if !ask::is_somebody_there() => return Ok(Pushed::Unasked),
        Asks::Always | Asks::IfItReplaces => {
            ask::confirmed(&format!("\nStore this as {at}?"), "store").await?
        }
        Asks::NothingIsStored => return Ok(Pushed::Stored),
    };
    if !may {
        return Ok(Pushed::Declined);
    }
    if s3.put_text(address(at), text, &condition).await? {
        Ok(Pushed::Stored)
    } else {
        Ok(Pushed::Refused)
    }
}

/// What each route does from now on, and which ones end.
fn changes(old: Option<&RouteTable>, new: &RouteTable) -> Vec<String> {
    let of = |table: &RouteTable| table.routes().iter().map(describe).collect::<Vec<_>>();
    let (old, new) = (old.map(of).unwrap_or_default(), of(new));
    let added = new.iter().filter(|route| !old.contains(route));
    let gone = old.iter().filter(|route| !new.contains(route));
    let added = added.map(|route| format!("+ {route}"));
    let gone = gone.map(|route| format!("- {route}"));
    let changes: Vec<_> = gone.chain(added).collect();
    if changes.is_empty() {
        vec!["no route".into()]
    } else {
        changes
    }
}
