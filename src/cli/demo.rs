//! `demo`: the whole way of a push, on this machine, without an account.

mod scratch;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use backlog_bridge::{
    archive,
    bucket::{Address, S3},
    config::Config,
    local::{JobEnded, serve_hooks},
    outcome::{Outcome, Report},
    progress::Stage,
};
use indicatif::{HumanBytes, ProgressBar};
use tokio::{net::TcpListener, sync::mpsc::UnboundedReceiver};

use self::scratch::Scratch;
use super::{
    Common, Ended, Given, Usage, report,
    serve::{Running, Stop, new_token},
    setup::setup,
};

/// Entries of the zip that are shown.
const SHOWN: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  backlog-bridge demo\n  \
    backlog-bridge demo ../web --store demo-store\n\n\
    The repository is only read: everything happens in a clone of it.")]
pub(super) struct Options {
    /// The Git repository to deliver [default: the one this folder is in, or a small sample].
    #[arg(value_name = "PATH_OR_URL")]
    repository: Option<String>,
    /// The same, as it was asked for before.
    #[arg(long = "repository", hide = true, conflicts_with = "repository")]
    named: Option<String>,
    /// Keep the objects in this folder, as an embedded S3 [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Options {
    /// What was said of the options of other commands.
    pub(super) fn given(&self) -> Given {
        Given {
            store: self.store.clone(),
            ..Given::default()
        }
    }
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let mut stop = Stop::listen()?;
    let temporary = tempfile::tempdir()?;
    let repository = options.repository.or(options.named);
    let scratch = Scratch::clone(temporary.path(), repository.as_deref())?;
    let kept = common.store.as_deref();
    let store = common
        .store
        .clone()
        .unwrap_or_else(|| temporary.path().join("store"));
    let routes = format!(
        "[[space]]\nurl = \"file://{}\"\n\n[[route]]\nname = \"demo\"\nrepository = \"{}\"\nref = \"{}\"\n\
         object = \"{{project}}/{{repository}}.zip\"\n",
        scratch.root().display(),
        scratch.name(),
        scratch.ref_name(),
    );
    let file = temporary.path().join("routes.toml");
    std::fs::write(&file, routes)?;
    let common = Common {
        routes: file,
        store: Some(store),
        aws: false,
        replace: false,
        stack: None,
    };
    let setup = setup(&common, config).await?;
    let (token, tokens) = new_token();
    let Running {
        receiver,
        queue,
        told,
        ..
    } = Running::new(&setup, tokens);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut demo = Demo {
        s3: &setup.s3,
        bucket: setup.table.routes()[0].bucket().to_owned(),
        scratch: &scratch,
        hooks: format!("http://{}/hooks/", listener.local_addr()?),
        token,
        client: reqwest::Client::builder().no_proxy().build()?,
        told,
    };
    tokio::select! {
        () = serve_hooks(listener, receiver, queue, |_, _, _| {}, std::future::pending()) => unreachable!("it never stops"),
        worked = demo.show(kept) => Ok(Ended::Well.and(!worked?)),
        // What it made is removed all the same.
        () = stop.asked() => Ok(Ended::WithFailures),
    }
}

struct Demo<'a> {
    s3: &'a S3,
    bucket: String,
    scratch: &'a Scratch,
    hooks: String,
    token: String,
    client: reqwest::Client,
    told: UnboundedReceiver<JobEnded>,
}

impl Demo<'_> {
    async fn show(&mut self, kept: Option<&Path>) -> Result<bool, Usage> {
        let scratch = self.scratch;
        say!("backlog-bridge demo: what happens between `git push` and CodePipeline\n");
        say!(
            "  repository  {} (a clone of {})",
            scratch.name(),
            scratch.origin()
        );
        say!("  ref         {}", scratch.ref_name());
        if let Some(why) = scratch.why_sample() {
            say!("\n  It is the sample, as {why}. For another one: demo PATH_OR_URL");
        }

        say!("\n1. A push. Backlog posts its webhook, and the bridge delivers the commit:\n");
        let before = self.versions().await?;
        let event = scratch.webhook("create")?;
        if !expect(&self.push(&event).await?, Outcome::Published) {
            return Ok(false);
        }
        self.object().await?;

        say!("\n2. The same event again. Webhooks get repeated; nothing must happen:\n");
        if !expect(&self.push(&event).await?, Outcome::AlreadyCurrent) {
            return Ok(false);
        }

        say!("\n3. A commit on top, pushed to the clone, and its event:\n");
        scratch.commit(
            "backlog-bridge-demo.txt",
            "A second commit, made by `backlog-bridge demo`.\n",
        )?;
        if !expect(
            &self.push(&scratch.webhook("update")?).await?,
            Outcome::Published,
        ) {
            return Ok(false);
        }

        let versions = self.versions().await?;
        say!(
            "\ns3://{}/{} has {} versions:",
            self.bucket,
            self.key(),
            versions.len()
        );
        for (n, version) in versions.iter().enumerate() {
            say!(
                "  {version}{}",
                if n == 0 {
                    "  (current: what CodePipeline would build now)"
                } else {
                    ""
                }
            );
        }
        let worked = versions.len() == before.len() + 2;
        if !worked {
            say!("\nThat is not two more than the {} before.", before.len());
        }
        Self::what_next(kept);
        Ok(worked)
    }

    /// Posts a webhook as Backlog does, and waits for what becomes of it.
    async fn push(&mut self, body: &str) -> Result<Report, Usage> {
        let post = self.client.post(format!("{}{}", self.hooks, self.token));
        let post = post.header("content-type", "application/json");
        let answer = post.body(body.to_owned()).send().await?;
        let status = answer.status();
        say!("  POST /hooks/…  ->  {status} {}", answer.text().await?);
        if status != reqwest::StatusCode::ACCEPTED {
            return Err(Usage("the demo's webhook was not accepted".into()));
        }
        let waiting = ProgressBar::new_spinner().with_message("delivering");
        waiting.enable_steady_tick(Duration::from_millis(120));
        let told = self.told.recv().await;
        waiting.finish_and_clear();
        let report = told
            .ok_or_else(|| Usage("the demo's queue has ended".into()))?
            .report;
        for (stage, time) in &report.stages {
            say!(
                "  {:<10} {:>8}   {}",
                stage.name(),
                report::time(*time),
                explain(*stage, &report)
            );
        }
        conclude(&report);
        Ok(report)
    }

    fn key(&self) -> String {
        format!("{}.zip", self.scratch.name())
    }

    async fn object(&self) -> Result<(), Usage> {
        let key = self.key();
        let at = Address {
            bucket: &self.bucket,
            key: &key,
        };
        say!("\n  its metadata:");
        for (name, value) in self.s3.metadata(at).await? {
            say!("    {name}: {value}");
        }
        let file = tempfile::tempfile()?;
        self.s3.get(at, file.try_clone()?).await?;
        say!("\n  its first entries:");
        for (path, size) in archive::list(file, SHOWN)? {
            say!("    {size:>10}  {path}");
        }
        Ok(())
    }

    async fn versions(&self) -> Result<Vec<String>, Usage> {
        let key = self.key();
        let at = Address {
            bucket: &self.bucket,
            key: &key,
        };
        let versions = self.s3.versions(at, usize::MAX).await?;
        Ok(versions.into_iter().map(|version| version.id).collect())
    }

    fn what_next(kept: Option<&Path>) {
        if let Some(store) = kept {
            say!("\nThe store is kept: look into {}.", store.display());
        } else {
            say!(
                "\nAll of it is removed again. To keep the store and look into it: demo --store DIR"
            );
        }
        say!(
            "\nNext, with your own repository and bucket:\n  \
             1. backlog-bridge routes example > routes.toml, and name your space, repository, ref and object\n  \
             2. export BACKLOG_USERNAME=… BACKLOG_PASSWORD=…   (a member that may read the repository)\n  \
             3. backlog-bridge sync                            into ./backlog-bridge-store\n  \
             4. SOURCE_BUCKET=… backlog-bridge sync --aws      into a versioned bucket, the source of a pipeline"
        );
    }
}

fn explain(stage: Stage, report: &Report) -> String {
    match stage {
        Stage::Head => "what does the object hold?".into(),
        Stage::Tip => "where does the ref point?".into(),
        Stage::Fetch => format!(
            "what the object lacks of the commit: {}, every Git object checked",
            HumanBytes(report.fetched_bytes.unwrap_or_default())
        ),
        Stage::Archive => format!(
            "{}, {}, compressed streams copied as they are",
            report::entries(report.entries),
            HumanBytes(report.archive_bytes.unwrap_or_default())
        ),
        Stage::Put => "only if nobody wrote the object meanwhile".into(),
        Stage::Verify => "does the ref still point there?".into(),
        Stage::Settle => "does the Git server lag behind the event?".into(),
        Stage::Token | Stage::Routes | Stage::Queue | Stage::Sweep => String::new(),
    }
}

fn conclude(report: &Report) {
    let took = report::time(report.took.unwrap_or_default());
    let commit = report::short(report.commit.as_ref());
    match (report.outcome, &report.error) {
        (Outcome::Published, _) => say!(
            "  published  {took:>8}   {commit} is s3://{}/{}, version {}",
            report.bucket.as_deref().unwrap_or_default(),
            report.object_key.as_deref().unwrap_or_default(),
            report.version_id.as_deref().unwrap_or_default()
        ),
        (Outcome::AlreadyCurrent, _) => {
            say!("  already current, {took}: the object holds {commit}");
        }
        (_, Some(fault)) => say!("  failed, {took}: {}", fault.message),
        (outcome, None) => say!("  {outcome}, {took}"),
    }
    if let Some(why) = &report.full_fetch {
        say!("  fetched everything, not only what changed: {why}");
    }
    for warning in &report.warnings {
        say!("  warning: {warning}");
    }
}

fn expect(report: &Report, outcome: Outcome) -> bool {
    let as_expected = report.outcome == outcome;
    if !as_expected {
        say!("\nThe demo did not work: expected {outcome}.");
    }
    as_expected
}
