//! `verify`: whether an archive is exactly the commit that it says it is.

use std::{fs::File, path::Path, sync::Arc, time::Instant};

use backlog_bridge::{
    config::Config,
    progress::Progress,
    route::{Route, RouteTable},
    status::Statuses,
    verdict::{Sources, Verdict, Word, sources},
};

use super::{
    Common, Ended, Form, GivenObjects, Usage, out,
    prose::{Line, Tone},
    report::{close, closing, entries, json, short, watch},
    routes::{chosen, taking},
    setup::{Setup, setup},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each header must be as it was written, each file match its Git id, and all together make the\n\
    tree that the object names. A downloaded file names only its commit: --against-git asks the Git\n\
    server for the tree.\n\n\
    Exit status: 0 all are what they say; 1 something differs or cannot be read.\n\n\
    Examples:\n  backlog-bridge verify --aws\n  \
    backlog-bridge verify web-main --aws --version-id 3sL4kqtJlcpXroDTDmJ\n  \
    backlog-bridge verify downloaded.zip --against-git"
)]
pub(super) struct Options {
    /// Names of routes, or zip files; all routes if none is given.
    #[arg(value_name = "ROUTE|FILE.zip")]
    names: Vec<String>,
    /// Only this ref, of a route with a glob.
    #[arg(long = "ref", value_name = "REF")]
    ref_name: Option<String>,
    /// This version, and not the current one, of one route.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// Fetch the commit from the Git server, too, and compare.
    #[arg(long)]
    against_git: bool,
    #[command(flatten)]
    pub(super) given: GivenObjects,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let is_file = |name: &&String| {
        let path = Path::new(name.as_str());
        path.extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("zip"))
            || path.is_file()
    };
    let (files, names): (Vec<_>, Vec<_>) = options.names.iter().partition(is_file);
    let names: Vec<_> = names.into_iter().cloned().collect();
    if !files.is_empty() && options.version_id.is_some() {
        return Err(Usage(
            "--version-id is for an object, and a file has no versions; drop one".into(),
        ));
    }
    let mut verdicts = Verdicts::default();
    let needs_setup = options.against_git || files.is_empty() || !names.is_empty();
    if !needs_setup {
        for file in files {
            verdicts.tell(&alone(file, config).await?);
        }
        return Ok(verdicts.close());
    }
    let setup = setup(common, config).await?;
    let all = if options.against_git {
        sources(&setup.table)
    } else {
        Sources::new()
    };
    for file in files {
        let opened = open(file)?;
        let progress = progress(config);
        let bridge = setup.bridge();
        let verdict = Verdict::of_file(&bridge, file.clone(), opened, &all, &progress);
        verdicts.tell(&watch(file, &progress, Box::pin(verdict)).await);
    }
    if !names.is_empty() || options.names.is_empty() {
        objects(&setup, &names, &options, config, &mut verdicts).await?;
    }
    Ok(verdicts.close())
}

async fn objects(
    setup: &Setup,
    names: &[String],
    options: &Options,
    config: &Config,
    verdicts: &mut Verdicts,
) -> Result<(), Usage> {
    let (bridge, table): (_, &RouteTable) = (setup.bridge(), &setup.table);
    let mut routes: Vec<&Route> = chosen(table, names)?;
    let mut only = None;
    if let Some(text) = &options.ref_name {
        let (taking, ref_name) = taking(&routes, text)?;
        (routes, only) = (taking, Some(ref_name));
    }
    let is_one = matches!(routes.as_slice(), [route] if only.is_some() || !route.is_glob());
    if options.version_id.is_some() && !is_one {
        return Err(Usage(
            "--version-id is a version of one object; name its route, and with a glob its --ref"
                .into(),
        ));
    }
    for route in routes {
        let space = table.space_of(route);
        let source = if options.against_git {
            vec![(space, route.repository())]
        } else {
            Sources::new()
        };
        let refs = match only.as_ref().or(route.pattern().exact()) {
            Some(one) => vec![one.clone()],
            None => match Statuses::refs_with_objects(&bridge, route).await {
                Ok(refs) => refs,
                Err(err) => {
                    let objects = format!("s3://{}/{}", route.bucket(), route.object());
                    verdicts.tell(&Verdict::unlisted(objects, &err));
                    continue;
                }
            },
        };
        if refs.is_empty() {
            note!("{}: no ref that matches has an object yet", route.name());
        }
        for ref_name in refs {
            let to = route.destination(space, &ref_name)?;
            let progress = progress(config);
            let version = options.version_id.as_deref();
            let verdict = Verdict::of_object(&bridge, &to, version, &source, &progress);
            let verdict = watch(route.name(), &progress, Box::pin(verdict)).await;
            if verdict.is_absent && names.is_empty() {
                note!("{}: there is no object yet", route.name());
            } else {
                verdicts.tell(&verdict);
            }
        }
    }
    Ok(())
}

fn progress(config: &Config) -> Arc<Progress> {
    Arc::new(Progress::until(Instant::now() + config.delivery_time))
}

fn open(file: &str) -> Result<File, Usage> {
    File::open(file).map_err(|err| Usage(format!("cannot read {file}: {err}")))
}

/// A file, without a table or an S3.
async fn alone(file: &str, config: &Config) -> Result<Verdict, Usage> {
    let opened = open(file)?;
    let progress = progress(config);
    let verdict = Verdict::of_file_alone(config.limits, file.to_owned(), opened, &progress);
    Ok(watch(file, &progress, Box::pin(verdict)).await)
}

/// What was found so far.
#[derive(Default)]
struct Verdicts {
    ok: usize,
    differ: usize,
    unreadable: usize,
}

impl Verdicts {
    fn tell(&mut self, verdict: &Verdict) {
        *match verdict.verdict {
            Word::Ok => &mut self.ok,
            Word::Differs => &mut self.differ,
            Word::Unreadable => &mut self.unreadable,
        } += 1;
        let manner = out::manner();
        let line = prose(verdict);
        if manner.json {
            json(verdict);
            if !manner.quiet || line.is_bad() {
                out::problem(&line);
            }
        } else if line.is_bad() {
            out::problem(&line);
        } else {
            out::result(&line);
        }
    }

    fn close(&self) -> Ended {
        let counts = [
            (self.ok, "ok"),
            (self.differ, "differing"),
            (self.unreadable, "unreadable"),
        ];
        let all = self.ok + self.differ + self.unreadable;
        let counts: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        close(&closing(all, &counts));
        Ended::Well.and(self.ok < all)
    }
}

fn prose(verdict: &Verdict) -> Line {
    let version = verdict.version_id.as_ref();
    let version = version.map_or_else(String::new, |id| format!(", version {id}"));
    let before = format!("{}{version}: ", verdict.object);
    let problem = verdict.problem.as_deref().unwrap_or_default();
    match verdict.verdict {
        Word::Ok => {
            let entries = entries(verdict.entries);
            let after = format!(
                ", commit {}: {entries}, every file matches its id, the tree is {}{}",
                short(verdict.commit.as_ref()),
                short(verdict.tree.as_ref()),
                if verdict.is_in_git {
                    ", as the Git server has it"
                } else {
                    ""
                },
            );
            Line::new(before, (Tone::Good, "ok"), after)
        }
        Word::Differs => Line::new(before, (Tone::Bad, "differs"), format!(": {problem}")),
        Word::Unreadable => Line::new(before, (Tone::Bad, "unreadable"), format!(": {problem}")),
    }
}
