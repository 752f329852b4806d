//! `routes`: what the routing table says.

use backlog_bridge::{
    config::Config,
    push::{RefName, RepositoryName},
    route::{Sweep, Verdict},
};

use super::{Common, Ended, Usage, setup::table};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the routing table, name every fault with its line, and list what it delivers.
    Check,
    /// Say which routes take a ref and which object each writes; and of the others, why not.
    #[command(after_help = "Example:\n  backlog-bridge routes explain APP/web refs/heads/main")]
    Explain {
        /// The repository, as PROJECT/repository.
        repository: RepositoryName,
        /// The ref in full, as refs/heads/main.
        #[arg(value_name = "REF")]
        ref_name: RefName,
    },
}

pub(super) fn run(command: Command, common: &Common, config: &Config) -> Result<Ended, Usage> {
    let table = table(common, config)?;
    match command {
        Command::Check => {
            for route in table.routes() {
                let sweep = match route.sweep() {
                    Sweep::All => "all",
                    Sweep::Existing => "existing",
                };
                say!(
                    "{}: {} {} -> s3://{}/{} (sweep: {sweep})",
                    route.name(),
                    route.repository(),
                    route.pattern(),
                    route.bucket(),
                    route.object(),
                );
            }
            eprintln!(
                "{} is well; routes: {}",
                common.routes.display(),
                table.routes().len()
            );
            Ok(Ended::Well)
        }
        Command::Explain {
            repository,
            ref_name,
        } => {
            let explanations = table.explain(&repository, &ref_name);
            let mut taken = false;
            for explanation in &explanations {
                say!("{explanation}");
                taken |= matches!(explanation.verdict, Verdict::Writes { .. });
            }
            if !taken {
                eprintln!("no route delivers {repository} {ref_name}");
            }
            Ok(Ended::Well)
        }
    }
}
