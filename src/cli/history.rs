//! `history`: the versions of an object.

use backlog_bridge::{
    bucket::{Address, Described, S3},
    config::Config,
    error::Error,
    pipeline::{self, Execution},
    plain,
    route::Destination,
};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use indicatif::HumanBytes;
use serde::Serialize;

use super::{
    Common, Ended, Form, GivenObjects, Usage, out,
    prose::{Cut, Line, Table, Tone, minutes},
    report::{close, json, short},
    routes::{chosen, ref_of},
    setup::setup,
};

/// In so many executions of a pipeline it is looked for the versions.
const EXECUTIONS: usize = 500;

/// How many versions are looked at at once.
const AT_ONCE: usize = 16;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0; 1 if no version is found.\n\n\
    Examples:\n  backlog-bridge history web-main --aws\n  \
    backlog-bridge history web-main --aws --commit 51c72b74\n  \
    backlog-bridge history web-releases --ref release/1.0 --limit 5")]
pub(super) struct Options {
    /// The name of a route.
    #[arg(value_name = "ROUTE")]
    name: String,
    /// The ref, of a route with a glob.
    #[arg(long = "ref", value_name = "REF")]
    ref_name: Option<String>,
    /// How many versions to list, the newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only versions that hold this commit: its id, or the first digits of it.
    #[arg(long, value_name = "ID", value_parser = commit)]
    commit: Option<String>,
    /// Only the version of this id, with all that is known of it.
    #[arg(long, value_name = "ID", conflicts_with = "commit")]
    version_id: Option<String>,
    #[command(flatten)]
    pub(super) given: GivenObjects,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) fn commit(text: &str) -> Result<String, String> {
    let is_id = (4..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected 4 to 40 hexadecimal digits of a commit's id".into())
    }
}

/// A version of an object. Its fields and their names are a contract; what is not known is absent.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) version_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_sha256: Option<String>,
    /// The newest execution of the pipeline that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline_execution: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline_status: Option<String>,
}

impl From<Described> for Row {
    fn from(described: Described) -> Self {
        let Described {
            version,
            holds,
            sha256,
        } = described;
        let (mut commit, mut author, mut subject, mut delivery_id) = (None, None, None, None);
        if let Some(holds) = holds {
            commit = Some(holds.commit.to_string());
            (author, subject) = (holds.author, holds.subject);
            delivery_id = Some(holds.delivery_id);
        }
        Self {
            version_id: version.id,
            time: version.written.and_then(plain::time),
            commit,
            author,
            subject,
            delivery_id,
            bytes: version.bytes,
            archive_sha256: sha256,
            pipeline_execution: None,
            pipeline_status: None,
        }
    }
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let setup = setup(common, config).await?;
    let route = chosen(&setup.table, std::slice::from_ref(&options.name))?[0];
    let ref_name = ref_of(route, options.ref_name.as_deref())?;
    let to = route.destination(setup.table.space_of(route), &ref_name)?;
    let wanted = Wanted {
        commit: options.commit.clone(),
        version_id: options.version_id.clone(),
        limit: usize::try_from(options.limit).unwrap_or(usize::MAX),
    };
    let mut found = match find(&setup.s3, (&to).into(), &wanted).await {
        Ok(found) => found,
        Err(err) => {
            let failed = (Tone::Bad, "failed");
            let why = format!(": {}", backlog_bridge::error::chain(&err));
            out::problem(&Line::new(format!("{}: ", options.name), failed, why));
            return Ok(Ended::WithFailures);
        }
    };
    if found.is_empty() {
        note!("{}", nothing(&to, &wanted));
        return Ok(Ended::WithFailures);
    }
    // On a laptop there is no pipeline to be asked of.
    if let Some(name) = route.pipeline(&ref_name)
        && (common.aws || setup.stack.is_some())
    {
        match pipeline::executions(&name, EXECUTIONS).await {
            Ok(executions) => found.iter_mut().for_each(|row| row.run(&executions)),
            Err(err) => note!("warning: what became of them in {name} cannot be seen: {err}"),
        }
    }
    if out::manner().json {
        found.iter().for_each(json);
    } else if let ([version], true) = (found.as_slice(), options.version_id.is_some()) {
        show_one(version, &to, route.pipeline(&ref_name).as_deref());
    } else {
        show(&found);
    }
    Ok(Ended::Well)
}

impl Row {
    /// Finds its newest execution.
    fn run(&mut self, newest_first: &[Execution]) {
        let mut own = newest_first.iter();
        let own = own.find(|execution| execution.versions.contains(&self.version_id));
        self.pipeline_execution = own.map(|execution| execution.id.clone());
        self.pipeline_status = own.map(|execution| execution.status.clone());
    }
}

/// Which versions are asked for.
pub(super) struct Wanted {
    /// Those that hold this commit.
    pub(super) commit: Option<String>,
    /// The one of this id.
    pub(super) version_id: Option<String>,
    /// At most so many.
    pub(super) limit: usize,
}

/// The versions that are asked for, the newest first.
pub(super) async fn find(s3: &S3, at: Address<'_>, options: &Wanted) -> Result<Vec<Row>, Error> {
    let limit = options.limit;
    if let Some(id) = &options.version_id {
        let described = s3.describe(at, Some(id)).await?;
        return Ok(described.into_iter().map(Row::from).collect());
    }
    // Each version says itself which commit it holds.
    let most = if options.commit.is_some() {
        usize::MAX
    } else {
        limit
    };
    let versions = s3.versions(at, most).await?;
    let described = stream::iter(&versions)
        .map(async |version| s3.describe(at, Some(&version.id)).await)
        .buffered(AT_ONCE);
    let is_wanted = |version: &Row| match (&options.commit, &version.commit) {
        (None, _) => true,
        (Some(digits), Some(commit)) => commit.starts_with(digits.as_str()),
        (Some(_), None) => false,
    };
    described
        // One that was removed meanwhile is none.
        .try_filter_map(|described| future::ok(described.map(Row::from).filter(is_wanted)))
        .take(limit)
        .try_collect()
        .await
}

pub(super) fn nothing(to: &Destination, options: &Wanted) -> String {
    let object = format!("s3://{}/{}", to.bucket, to.key);
    match (&options.commit, &options.version_id) {
        (Some(commit), _) => format!("no version of {object} holds the commit {commit}"),
        (_, Some(id)) => format!("{object} has no version {id:?}, or not any more"),
        _ => format!("there is no version of {object}"),
    }
}

fn show(versions: &[Row]) {
    let mut table = Table::new(&["commit", "delivered (UTC)", "version", "author", "subject"]);
    for version in versions {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let (tone, commit) = match &version.commit {
            Some(_) => (Tone::Good, short(version.commit.as_ref())),
            None => (Tone::Odd, "foreign"),
        };
        table.row(
            (tone, commit),
            &[
                &minutes(version.time.as_ref()),
                &version.version_id,
                &text(&version.author),
                &text(&version.subject),
            ],
        );
        if out::manner().verbose {
            for detail in details(version) {
                table.under(&detail);
            }
        }
    }
    for line in table.lines(4, Cut::End) {
        out::result(&line);
    }
    close(&plain::count(versions.len(), "version", "versions"));
}

fn details(version: &Row) -> Vec<String> {
    let named =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    [
        named("commit", &version.commit),
        named("delivery", &version.delivery_id),
        named("archive SHA-256", &version.archive_sha256),
        named("execution", &version.pipeline_execution),
        named("pipeline", &version.pipeline_status),
        Some(HumanBytes(version.bytes).to_string()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All of one version, and how a pipeline is started with it.
fn show_one(version: &Row, to: &Destination, pipeline: Option<&str>) {
    let object = format!("s3://{}/{}", to.bucket, to.key);
    let commit = version.commit.as_deref().unwrap_or("foreign");
    let written = version.time.as_deref().unwrap_or("-");
    let after = format!("  {object}, version {}, {written}", version.version_id);
    out::result(&Line::new("", (Tone::Good, commit), after));
    let by = version.author.iter().chain(&version.subject);
    let by: Vec<_> = by.map(String::as_str).collect();
    let by = (!by.is_empty()).then(|| by.join(": "));
    for detail in by.into_iter().chain(details(version).into_iter().skip(1)) {
        out::result(&Line::plain(format!("    {detail}")));
    }
    if version.commit.is_some() && !out::manner().quiet {
        out::result(&Line::plain(format!(
            "\nTo start the pipeline with it:\n  aws codepipeline start-pipeline-execution --name {} \\\n    \
             --source-revisions actionName=Source,revisionType=S3_OBJECT_VERSION_ID,revisionValue={}",
            pipeline.unwrap_or("PIPELINE"),
            version.version_id
        )));
    }
}
