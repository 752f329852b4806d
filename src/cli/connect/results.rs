//! Results: who can read them, whether they are wanted, and what to type then.

use backlog_bridge::{
    connect::{results_commands, results_lines},
    plain,
    route::{Results, Route},
};

use super::{Became, Connection, Steps, Usage, ask};

/// Whether results are to be told in Backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Wish {
    Yes,
    No,
}

impl Connection<'_> {
    /// Says who can read an issue, before the table is stored with which one is told.
    pub(super) fn readers(&self, steps: &mut Steps) {
        let spaces = self.table.spaces().iter();
        for space in spaces.filter(|space| space.results_issue().is_some()) {
            let mut own = self.table.routes().iter();
            let tells = |route: &Route| {
                self.table.space_of(route) == space && self.table.results_of(route) != Results::None
            };
            if own.any(tells) {
                let message = format!(
                    "results_issue of {}: what is told in an issue can be read by reporters and guests, often customers, who see \
                     no pull request",
                    space.url()
                );
                steps.tell("results", Became::Well, &message);
            }
        }
    }

    /// Asks whether results are to be told, unless that is known. What to type then. `pipelines` are those that were found, by the
    /// names of routes: without one there is nothing to tell of yet.
    pub(super) async fn results(
        &self,
        region: Option<&str>,
        pipelines: &[(String, String)],
        steps: &mut Steps,
    ) -> Result<Vec<String>, Usage> {
        let routes = self.table.routes().iter();
        let told = routes.filter(|route| self.table.results_of(route) != Results::None);
        let told = told.count();
        let is_wanted = match self.options.results {
            Some(Wish::No) => return Ok(Vec::new()),
            _ if told > 0 && self.stack.results_queue.is_some() => {
                let routes = plain::count(told, "route", "routes");
                let message = format!("{} tells results of {routes}", self.stack.results());
                steps.tell("results", Became::Well, &message);
                return Ok(Vec::new());
            }
            Some(Wish::Yes) => true,
            None if told > 0 => true,
            None => self.asks && !self.says_results && !pipelines.is_empty(),
        };
        if !is_wanted {
            return Ok(Vec::new());
        }
        let is_known = told > 0 || self.options.results.is_some();
        let question = "\nTell in Backlog's pull requests what becomes of pipelines? It takes a second stack and an API key.";
        if !is_known && !ask::confirmed(question, "tell").await? {
            return Ok(vec![
                "\nTo be asked no more: results = \"none\" in the [[space]], or --results no"
                    .into(),
            ]);
        }
        let mut next = vec![
            "\nResults in Backlog (docs/operate.md says more):".to_owned(),
            "Make a member for the bridge, a normal user of each project, and an API key of this member. Then".into(),
        ];
        for (of, lines) in results_lines(self.stack, self.table, pipelines) {
            next.push(format!("in routes.toml, in {of}:"));
            next.extend(lines.into_iter().map(|line| format!("  {line}")));
        }
        next.push("in the folder of the functions:".into());
        for command in results_commands(self.stack, region, self.table) {
            steps.next(&command);
            next.push(command);
        }
        next.push("fill the key into the secret, and run this again.".into());
        next.push(
            "With results_issue, issues are told, too. Reporters and guests, often customers, can read them; pull requests they \
             cannot."
                .into(),
        );
        Ok(next)
    }
}
