//! `rollback`: a pipeline goes back to an earlier version of its object.

use backlog_bridge::{
    bucket::Address,
    config::Config,
    pipeline::{self, Pipeline, Way},
    plain,
};
use serde::Serialize;

use super::{
    Common, Ended, GivenStack, Usage,
    history::{self, Wanted},
    routes::{chosen, ref_of},
    setup::setup,
};

/// In so many executions it is looked for one of the version.
const EXECUTIONS: usize = 500;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Where an execution of that version succeeded, the last stage goes back to it without a build. Otherwise the whole\n\
    pipeline runs with that version. The object stays as it is: the next push is delivered and built as ever.\n\n\
    Examples:\n  backlog-bridge rollback web-main --commit 51c72b74 --stack backlog-bridge --dry-run\n  \
    backlog-bridge rollback web-main --version-id 61f8f752 --stack backlog-bridge",
    group(clap::ArgGroup::new("version").required(true).args(["version_id", "commit"]))
)]
pub(super) struct Options {
    /// The name of a route.
    #[arg(value_name = "ROUTE")]
    name: String,
    /// The ref, of a route with a glob.
    #[arg(long = "ref", value_name = "REF")]
    ref_name: Option<String>,
    /// The version to go back to.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// The newest version that holds this commit: its id, or the first digits of it.
    #[arg(long, value_name = "ID", value_parser = history::commit)]
    commit: Option<String>,
    #[command(flatten)]
    pub(super) deployed: GivenStack,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print a line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    route: &'a str,
    version_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    pipeline: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'a str>,
    next: &'a str,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    common.wanted_stack().await?;
    let setup = setup(common, config).await?;
    let route = chosen(&setup.table, std::slice::from_ref(&options.name))?[0];
    let ref_name = ref_of(route, options.ref_name.as_deref())?;
    let to = route.destination(setup.table.space_of(route), &ref_name)?;
    let at = Address::from(&to);
    let wanted = Wanted {
        commit: options.commit.clone(),
        version_id: options.version_id.clone(),
        limit: 1,
    };
    let Some(version) = history::find(&setup.s3, at, &wanted)
        .await?
        .into_iter()
        .next()
    else {
        note!("{}", history::nothing(&to, &wanted));
        return Ok(Ended::WithFailures);
    };
    let pipeline = match route.pipeline(&ref_name) {
        Some(name) => Pipeline::named(&name).await?,
        None => only(
            pipeline::reading(at.bucket, at.key).await?,
            at,
            &options.name,
        )?,
    };
    let executions = pipeline::executions(&pipeline.name, EXECUTIONS).await?;
    let way = pipeline.way_to(at.bucket, at.key, &version.version_id, &executions);
    let Some(way) = way else {
        return Err(Usage(format!(
            "the pipeline {} does not read s3://{}/{}; name the one that does as `pipeline` of the route",
            pipeline.name, at.bucket, at.key
        )));
    };
    let execution = if options.dry_run {
        None
    } else {
        Some(pipeline.go(&way, &version.version_id).await?)
    };
    let first = pipeline.stages.first().map_or("Build", |stage| &stage.name);
    let next = format!(
        "the next push to {ref_name} is delivered and built as ever; to hold it back: aws codepipeline disable-stage-transition \
         --pipeline-name {} --stage-name {first} --transition-type Inbound --reason \"rolled back\"",
        pipeline.name
    );
    if options.json {
        let line = Line {
            route: route.name(),
            version_id: &version.version_id,
            commit: version.commit.as_deref(),
            pipeline: &pipeline.name,
            execution: execution.as_deref(),
            next: &next,
        };
        let line = serde_json::to_string(&line).expect("plain data");
        say!("{}", plain::json(&line));
        return Ok(Ended::Well);
    }
    let commit = version.commit.as_deref().and_then(|commit| commit.get(..8));
    let what = format!(
        "version {} ({})",
        version.version_id,
        commit.unwrap_or("foreign")
    );
    let does = match (&way, &execution) {
        (Way::RollBack { stage, .. }, Some(_)) => format!("its stage {stage} goes back to {what}"),
        (Way::RollBack { stage, .. }, None) => {
            format!("its stage {stage} would go back to {what}, without a build")
        }
        (Way::Start { .. }, Some(_)) => format!("it runs with {what}"),
        (Way::Start { .. }, None) => format!(
            "it would run with {what}, as no execution of that succeeded or all it does is build"
        ),
    };
    let execution = execution.map_or_else(String::new, |id| format!(", execution {id}"));
    say!("{}: {}: {does}{execution}", route.name(), pipeline.name);
    say!("{next}");
    Ok(Ended::Well)
}

/// The pipeline of an object, if there is one and no more.
fn only(mut found: Vec<Pipeline>, at: Address<'_>, route: &str) -> Result<Pipeline, Usage> {
    match (found.pop(), found.is_empty()) {
        (Some(pipeline), true) => Ok(pipeline),
        (None, _) => Err(Usage(format!(
            "no pipeline reads s3://{}/{}; deploy one, or name it as `pipeline` of the route {route}",
            at.bucket, at.key
        ))),
        (Some(last), false) => {
            let names: Vec<_> = found
                .iter()
                .chain([&last])
                .map(|one| one.name.as_str())
                .collect();
            Err(Usage(format!(
                "several pipelines read s3://{}/{}: {}; name one as `pipeline` of the route {route}",
                at.bucket,
                at.key,
                names.join(", ")
            )))
        }
    }
}
