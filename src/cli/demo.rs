//! `demo`: the whole way of a push, on this machine, without an account.

mod scratch;

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use backlog_bridge::{
    archive,
    bucket::Address,
    config::Config,
    deliver::{Bridge, Delivery, Outcome, step::Hints},
    error::chain,
    progress::Stage,
    route::Destination,
    webhook::Webhook,
};
use indicatif::{HumanBytes, HumanCount};

use self::scratch::Scratch;
use super::{Common, Ended, Usage, report, setup};

/// Entries of the zip that are shown.
const SHOWN: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  backlog-bridge demo\n  \
    backlog-bridge demo --repository ../web --store demo-store\n\n\
    The repository is only read: everything happens in a clone of it.")]
pub(super) struct Options {
    /// The Git repository to deliver [default: the one this folder is in, or a small sample].
    #[arg(long, value_name = "PATH_OR_URL")]
    repository: Option<String>,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    if common.aws {
        return Err(Usage("demo needs no AWS; leave --aws away".into()));
    }
    let temporary = tempfile::tempdir()?;
    let scratch = Scratch::clone(temporary.path(), options.repository.as_deref())?;
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
    let table = setup::parse("the demo's routes.toml", &routes, common, config)?;
    let setup = setup::embedded(&store, table, config).await?;
    let demo = Demo {
        bridge: &setup.bridge,
        scratch: &scratch,
    };
    let worked = demo.show(common.store.as_deref()).await?;
    Ok(Ended::Well.and(!worked))
}

struct Demo<'a> {
    bridge: &'a Bridge,
    scratch: &'a Scratch,
}

impl Demo<'_> {
    async fn show(&self, kept: Option<&Path>) -> Result<bool, Usage> {
        let scratch = self.scratch;
        say!("backlog-bridge demo: what happens between `git push` and CodePipeline\n");
        say!(
            "  repository  {} (a clone of {})",
            scratch.name(),
            scratch.origin()
        );
        say!("  ref         {}", scratch.ref_name());

        say!("\n1. A push. Backlog posts its webhook, and the bridge delivers the commit:\n");
        let before = self.versions().await?;
        let event = scratch.webhook("create")?;
        let (to, delivery) = self.handle(&event).await?;
        if !expect(&delivery, Outcome::Published) {
            return Ok(false);
        }
        self.object(&to).await?;

        say!("\n2. The same event again. Webhooks get repeated; nothing must happen:\n");
        let (_, delivery) = self.handle(&event).await?;
        if !expect(&delivery, Outcome::AlreadyCurrent) {
            return Ok(false);
        }

        say!("\n3. A commit on top, pushed to the clone, and its event:\n");
        scratch.commit(
            "backlog-bridge-demo.txt",
            "A second commit, made by `backlog-bridge demo`.\n",
        )?;
        let (to, delivery) = self.handle(&scratch.webhook("update")?).await?;
        if !expect(&delivery, Outcome::Published) {
            return Ok(false);
        }

        let at = Address {
            bucket: &to.bucket,
            key: to.key.as_str(),
        };
        let versions = self.versions().await?;
        say!(
            "\ns3://{}/{} has {} versions:",
            at.bucket,
            at.key,
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

    /// What the bridge does with a webhook.
    async fn handle(&self, body: &str) -> Result<(Destination, Delivery), Usage> {
        let Webhook::Push(push) = Webhook::from_body(body.as_bytes())? else {
            return Err(Usage("the demo's webhook is no push".into()));
        };
        let to = self.bridge.table.matching(&push).pop();
        let to = to.ok_or_else(|| Usage("the demo's route does not match".into()))??;
        say!(
            "  webhook     {} {} -> route {:?}",
            push.repository,
            push.ref_name,
            to.route
        );
        std::io::stdout().flush()?;
        let hints = Hints {
            commits: push.commits,
            before: push.before,
        };
        let started = Instant::now();
        let delivery = report::watch(self.bridge, &to, Some(hints)).await;
        for (stage, time) in &delivery.stages {
            say!(
                "  {:<10} {:>8}   {}",
                stage.name(),
                report::time(*time),
                explain(*stage, &delivery)
            );
        }
        conclude(&to, &delivery, started.elapsed());
        Ok((to, delivery))
    }

    async fn object(&self, to: &Destination) -> Result<(), Usage> {
        let at = Address {
            bucket: &to.bucket,
            key: to.key.as_str(),
        };
        say!("\n  its metadata:");
        for (name, value) in self.bridge.s3.metadata(at).await? {
            say!("    {name}: {value}");
        }
        let file = tempfile::tempfile()?;
        self.bridge.s3.get(at, file.try_clone()?).await?;
        say!("\n  its first entries:");
        for (path, size) in archive::list(file, SHOWN)? {
            say!("    {size:>10}  {path}");
        }
        Ok(())
    }

    async fn versions(&self) -> Result<Vec<String>, Usage> {
        let route = self
            .bridge
            .table
            .routes()
            .first()
            .ok_or_else(|| Usage("the demo has no route".into()))?;
        let key = format!("{}.zip", self.scratch.name());
        Ok(self
            .bridge
            .s3
            .versions(Address {
                bucket: route.bucket(),
                key: &key,
            })
            .await?)
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
             1. cp routes.example.toml routes.toml, and name your space, repository, ref and object\n  \
             2. export BACKLOG_USERNAME=… BACKLOG_PASSWORD=…   (a member that may read the repository)\n  \
             3. backlog-bridge sync                            into ./backlog-bridge-store\n  \
             4. SOURCE_BUCKET=… backlog-bridge sync --aws      into a versioned bucket, the source of a pipeline"
        );
    }
}

fn explain(stage: Stage, delivery: &Delivery) -> String {
    match stage {
        Stage::Head => "what does the object hold?".into(),
        Stage::Tip => "where does the ref point?".into(),
        Stage::Fetch => format!(
            "depth 1, one ref: {}, every object checked",
            HumanBytes(delivery.fetched_bytes.unwrap_or_default())
        ),
        Stage::Archive => format!(
            "{} entries, {}, deflate streams copied from the pack",
            HumanCount(delivery.entries.unwrap_or_default() as u64),
            HumanBytes(delivery.archive_bytes.unwrap_or_default())
        ),
        Stage::Put => "only if nobody wrote the object meanwhile".into(),
        Stage::Verify => "does the ref still point there?".into(),
        Stage::Settle => "does the Git server lag behind the event?".into(),
    }
}

fn conclude(to: &Destination, delivery: &Delivery, took: Duration) {
    let took = report::time(took);
    let commit = delivery
        .commit
        .map(|commit| format!("{:.8}", commit.to_string()))
        .unwrap_or_default();
    match &delivery.result {
        Ok(Outcome::Published) => say!(
            "  published  {took:>8}   {commit} is s3://{}/{}, version {}",
            to.bucket,
            to.key,
            delivery.version_id.as_deref().unwrap_or_default()
        ),
        Ok(Outcome::AlreadyCurrent) => {
            say!("  already current, {took}: the object holds {commit}");
        }
        Ok(Outcome::BranchGone) => say!("  the branch is gone, {took}"),
        Err(err) => say!("  failed, {took}: {}", chain(err)),
    }
    for warning in &delivery.warnings {
        say!("  warning: {warning}");
    }
}

fn expect(delivery: &Delivery, outcome: Outcome) -> bool {
    let as_expected = delivery
        .result
        .as_ref()
        .is_ok_and(|found| *found == outcome);
    if !as_expected {
        say!("\nThe demo did not work: expected {outcome:?}.");
    }
    as_expected
}
