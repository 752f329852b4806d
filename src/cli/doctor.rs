//! `doctor`: every hop of a push is looked at, and what is wrong is told.

use std::{path::PathBuf, sync::Arc};

use backlog_bridge::{
    bucket::S3,
    config::{Config, stack_name},
    doctor::{Check, Deployed, Finding, Local, Patient, Tally, Verdict, stack_missing},
    plain,
    secrets::Password,
};

use super::{
    Common, Ended, Given, Usage, out,
    prose::{Line, Tone},
    routes::chosen,
    setup::{preferring, read, table},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It reads, and writes nothing. What it may not look at it marks with a question mark, and\n\
    says what that needs. It ends after half a minute at the latest. A key of Backlog's API\n\
    comes from BACKLOG_ADMIN_API_KEY, BACKLOG_API_KEY or the routing table.\n\n\
    Exit status: 0 no error, 1 an error.\n\n\
    Examples:\n  backlog-bridge doctor\n  backlog-bridge doctor --stack backlog-bridge\n  \
    backlog-bridge doctor web-main --aws --json"
)]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
    /// The routing table: which refs are delivered to which objects [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Look at its buckets, objects and pipelines on AWS, too.
    #[arg(long)]
    aws: bool,
    /// Look at the bridge that was deployed as this stack, with its routing table [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack: Option<String>,
    /// Ask the Git server for LFS, too, and tell what it answers.
    #[arg(long)]
    deep: bool,
    /// Print a line of JSON for each check, also for those that are well.
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(super) fn given(&self) -> Given {
        Given {
            routes: self.routes.clone(),
            aws: self.aws,
            stack: self.stack.clone(),
            ..Given::default()
        }
    }
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let mut patient = Patient {
        table: None,
        routes: options.names.clone(),
        s3: None,
        deployed: None,
        local: None,
        api_key: api_key(config),
        has_login: config.preferred.login,
        is_deep: options.deep,
    };
    if common.aws || common.stack.is_some() {
        patient.s3 = Some(S3::from_environment().await);
    }
    if let (Some(name), Some(s3)) = (&common.stack, &patient.s3) {
        match Deployed::find(name, s3).await {
            Ok(deployed) => patient.deployed = Some(deployed),
            Err(err) => return Ok(tell(&stack_missing(name, err), &options)),
        }
    } else {
        let table = preferring(table(common, config)?, config);
        patient.table = Some(Arc::new(table));
    }
    if patient.deployed.is_some() {
        let local = read(&common.routes).ok();
        patient.local = local.map(|(text, _)| Local {
            file: common.routes.display().to_string(),
            text,
        });
    }
    if let Some(table) = patient.table() {
        chosen(table, &options.names)?;
    }
    Ok(tell(&patient.examine().await, &options))
}

/// The key of Backlog's API that was given. An administrator's sees more.
fn api_key(config: &Config) -> Option<Password> {
    let given = config.admin_api_key.clone();
    given.or_else(|| {
        let of_robot = config
            .preferred
            .api_key
            .then(|| std::env::var("BACKLOG_API_KEY"));
        of_robot?.ok().map(Password::from)
    })
}

fn tell(findings: &[Finding], options: &Options) -> Ended {
    let tally = Tally::of(findings);
    if options.json {
        for finding in findings {
            let line = serde_json::to_string(finding).expect("text and names");
            say!("{}", plain::json(&line));
        }
        if !out::manner().quiet {
            note!("{tally}");
        }
    } else {
        let is_verbose = out::manner().verbose;
        let is_told = |finding: &&Finding| match finding.verdict {
            // Of LFS the answer itself is what is asked for.
            Verdict::Ok => is_verbose || finding.check == Check::Lfs,
            Verdict::Warning | Verdict::Error => true,
            // What follows from another problem is told there.
            Verdict::Unknown => is_verbose || !finding.follows,
        };
        for finding in findings.iter().filter(is_told) {
            out::result(&line(finding));
        }
        say!("{tally}");
    }
    Ended::Well.and(tally.errors > 0)
}

fn line(finding: &Finding) -> Line {
    let (tone, word) = match finding.verdict {
        Verdict::Ok => (Tone::Calm, "ok"),
        Verdict::Warning => (Tone::Odd, "warning"),
        Verdict::Error => (Tone::Bad, "error"),
        Verdict::Unknown => (Tone::Odd, "?"),
    };
    let Finding {
        check,
        subject,
        message,
        remedy,
        ..
    } = finding;
    let mut text = format!(
        "{:pad$} {:<14} {subject}: {message}",
        "",
        check.name(),
        pad = "warning".len() - word.len()
    );
    if let Some(remedy) = remedy {
        text = format!("{text}\n{:23}{remedy}", "");
    }
    Line::new("", (tone, word), text)
}
