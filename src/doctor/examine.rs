//! All looks at once; then what is said of what they saw.

use std::sync::Arc;

use super::{
    Check, Finding, backlog,
    bridge::{self, Deployed},
    git, objects, pipelines, results,
    seen::Time,
    verdict::{self, GitLogin, Local},
};
use crate::{
    aws,
    bucket::S3,
    config::Location,
    connect::deploy_command,
    route::{Route, RouteTable},
    secrets::{Held, Password},
};

/// What is examined.
#[derive(Debug)]
pub struct Patient {
    /// The routing table, unless a deployed bridge has it.
    pub table: Option<Arc<RouteTable>>,
    /// The routes that are looked at, by name; all if it is empty.
    pub routes: Vec<String>,
    /// Where objects are, unless nobody looks at them.
    pub s3: Option<S3>,
    /// The bridge, if one is deployed.
    pub deployed: Option<Deployed>,
    /// A table here, to be compared with that of the bridge.
    pub local: Option<Local>,
    /// The key of Backlog's API, if one was given. If not, the table may name some.
    pub api_key: Option<Password>,
    /// Whether `BACKLOG_USERNAME` and `BACKLOG_PASSWORD` count where the secret of the Git login may not be read.
    pub has_login: bool,
    /// Whether the server is asked for LFS, too.
    pub is_deep: bool,
}

impl Patient {
    /// The table that is looked at, if it is of use.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<RouteTable>> {
        let deployed = self.deployed.as_ref();
        self.table.as_ref().or_else(|| deployed?.table())
    }

    /// Looks at every hop, at most for half a minute. What is found stands in the order of a push.
    pub async fn examine(&self) -> Vec<Finding> {
        let deployed = self.deployed.as_ref();
        let time = deployed.map_or_else(Time::begin, |deployed| deployed.time.clone());
        let table = self.table();
        let routes = table.map(|table| git::chosen(table, &self.routes));
        let routes = routes.unwrap_or_default();
        let hosted = async {
            let (mut found, mut bridge) = (Vec::new(), None);
            if let Some(deployed) = deployed {
                let stack = &deployed.stack;
                let table = table.map(AsRef::as_ref);
                let telling = results::look(&time, stack, table);
                let (seen, telling) =
                    tokio::join!(Box::pin(bridge::look(&time, stack)), Box::pin(telling));
                found = self.of_bridge(deployed, &seen);
                found.extend(telling.as_ref().map(verdict::results));
                bridge = Some(backlog::Bridge::of(&deployed.stack, &seen.tokens));
            }
            let spaces = match table {
                Some(table) => {
                    // A key is of one space, and no other one may see it.
                    let given = self.api_key.as_ref().filter(|_| table.spaces().len() == 1);
                    backlog::look(&time, table, &routes, given, bridge.as_ref()).await
                }
                None => backlog::Spaces::default(),
            };
            (found, spaces)
        };
        let delivered = async {
            match table {
                Some(table) => self.of_routes(&time, table, &routes).await,
                None => (git::Servers::default(), Vec::new()),
            }
        };
        let ((mut found, mut spaces), (mut servers, findings)) = tokio::join!(hosted, delivered);
        found.extend(findings);
        for repository in &mut servers.repositories {
            let project = repository.name.project().to_owned();
            let known = spaces
                .repositories
                .remove(&(repository.space.clone(), project));
            repository.known = known.unwrap_or_default();
        }
        found.extend(servers.hosts.iter().flat_map(verdict::Host::findings));
        let repositories = servers.repositories.iter();
        found.extend(repositories.flat_map(verdict::Repository::findings));
        found.extend(spaces.spaces.iter().flat_map(verdict::Space::findings));
        if self.s3.is_some() || time.trouble().is_some() {
            let region = aws::region().await;
            found.push(verdict::aws_login(region.as_deref(), time.trouble()));
        }
        found.sort_by_key(|finding| finding.check);
        // Two spaces may have one host.
        found.dedup();
        found
    }

    /// Git servers, buckets, objects and pipelines.
    async fn of_routes(
        &self,
        time: &Time,
        table: &Arc<RouteTable>,
        routes: &[Route],
    ) -> (git::Servers, Vec<Finding>) {
        let stack = self.deployed.as_ref().map(|deployed| &deployed.stack);
        let secrets = git::secrets(time, table, routes).await;
        let mut found: Vec<_> = secrets
            .iter()
            .map(|(name, held)| {
                let held = held.as_ref().map(Held::state).map_err(Clone::clone);
                let stack = stack.map(|stack| {
                    let has_policy = stack.parameter("DeliverPolicyArn").is_some();
                    let may = has_policy || stack.reads_secret(name);
                    (stack.name.clone(), stack.git_secret.clone(), may)
                });
                verdict::git_secret(&GitLogin {
                    secret: name.clone(),
                    stack,
                    held,
                })
            })
            .collect();
        let has_login = self.has_login && table.spaces().len() == 1;
        let servers = git::look(time, table, routes, &secrets, (has_login, self.is_deep));
        let Some(s3) = &self.s3 else {
            return (servers.await, found);
        };
        let (servers, buckets) = tokio::join!(servers, objects::buckets(time, s3, routes, stack));
        found.extend(buckets.iter().flat_map(verdict::Bucket::findings));
        let (places, more) = objects::places(table, routes, &servers);
        let own: Vec<_> = places
            .iter()
            .map(|place| (place.to.bucket.clone(), place.to.key.to_string()))
            .collect();
        let (objects, pipelines) = tokio::join!(
            objects::look(time, s3, table, &places, stack),
            pipelines::look(time, &own)
        );
        found.extend(objects.iter().flat_map(verdict::Object::findings));
        if more > 0 {
            found.push(Check::Object.unknown("S3", &objects::unseen(more)));
        }
        let here = aws::region().await.unwrap_or_default();
        // Nobody may look at any: once is enough.
        if let Err(unseen) = &pipelines {
            found.push(Check::Pipeline.unknown("CodePipeline", unseen));
            return (servers, found);
        }
        for place in &places {
            let to = &place.to;
            let deploy = match stack {
                Some(stack) => {
                    let key = to.key.as_str();
                    deploy_command(stack, None, &to.route, &to.bucket, key)
                }
                None => "deploy pipeline.yaml for it, with SourceBucket and ObjectKey".into(),
            };
            let at = (to.bucket.as_str(), to.key.as_str());
            found.extend(verdict::of_object(
                &to.route,
                at,
                (place.is_exact, place.pipeline.as_deref()),
                &here,
                &deploy,
                &pipelines,
            ));
        }
        (servers, found)
    }

    fn of_bridge(&self, deployed: &Deployed, bridge: &bridge::Bridge) -> Vec<Finding> {
        let stack = &deployed.stack;
        let name = stack.name.as_str();
        let Location { bucket, key } = &stack.table;
        let at = format!("s3://{bucket}/{key}");
        let held = bridge
            .tokens
            .as_ref()
            .map(Held::state)
            .map_err(Clone::clone);
        let maximum = stack.parameter("MaximumConcurrency");
        let mut found = vec![
            verdict::stack(name, &stack.status),
            verdict::table(&at, name, &deployed.table, self.local.as_ref()),
            verdict::token_secret(&stack.token_secret, name, &held),
            verdict::way_in(&bridge.way_in),
            verdict::mappings(&stack.deliver(), &bridge.mappings),
            verdict::schedule(name, &bridge.schedule),
            verdict::account_limit(&bridge.account, maximum.and_then(|text| text.parse().ok())),
        ];
        found.extend(verdict::functions(
            name,
            &bridge.functions,
            &bridge::variables(stack),
            &bridge.queues,
        ));
        found.extend(verdict::queues(&bridge.queues));
        found.extend(verdict::alarms(name, &stack.alarm_topic, &bridge.alarms));
        found
    }
}
