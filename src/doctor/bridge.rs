//! What is seen of a deployed bridge: its stack, table, functions, queues, secrets, schedule and alarms.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{
    seen::{Seen, Time, Unseen},
    verdict::{Alarms, Function, Queues, Schedule, WayIn},
};
use crate::{
    aws::{self, CallError, Service},
    bucket::{Address, Found, S3},
    error::chain,
    queue::Sqs,
    registration,
    route::{Origin, RouteTable},
    secrets::{Held, TokenPair, tokens_in},
    stack::{Stack, StackError},
};

/// What Backlog posts when somebody tries a webhook.
const TEST_BODY: &str = include_str!("../../events/project-test-delivery-push.json");

/// What is at the place of a routing table.
#[derive(Debug, Clone)]
pub enum Table {
    /// One that is of use.
    Good {
        /// What it says.
        table: Arc<RouteTable>,
        /// As it is written.
        text: String,
    },
    /// Nothing.
    Missing,
    /// Nothing any more.
    Deleted,
    /// Something of no use: why.
    Wrong(String),
}

/// A bridge that is deployed, and its table.
#[derive(Debug)]
pub struct Deployed {
    /// Where its parts are.
    pub stack: Stack,
    pub(super) table: Seen<Table>,
    /// That of the whole examination.
    pub(super) time: Time,
}

impl Deployed {
    /// Looks for the bridge that was deployed under this name, and reads its table.
    ///
    /// # Errors
    ///
    /// [`StackError`] if there is none.
    pub async fn find(name: &str, s3: &S3) -> Result<Self, StackError> {
        let stack = Stack::find(name).await?;
        let time = Time::begin();
        let table = Box::pin(time.look(read(&stack, s3))).await;
        Ok(Self { stack, table, time })
    }

    /// The table, if it is of use.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<RouteTable>> {
        match &self.table {
            Ok(Table::Good { table, .. }) => Some(table),
            _ => None,
        }
    }
}

async fn read(stack: &Stack, s3: &S3) -> Result<Table, CallError> {
    let at = &stack.table;
    let address = Address {
        bucket: &at.bucket,
        key: &at.key,
    };
    Ok(match s3.small(address).await? {
        Found::Missing | Found::Same => Table::Missing,
        Found::Deleted => Table::Deleted,
        Found::NoText { why, .. } => Table::Wrong(why),
        Found::Text { text, .. } => {
            let table = RouteTable::parse(
                &at.to_string(),
                &text,
                Some(&stack.bucket),
                Origin::Deployed,
            );
            match table {
                Ok(table) => Table::Good {
                    table: table.into(),
                    text,
                },
                Err(err) => Table::Wrong(err.to_string()),
            }
        }
    })
}

/// What was seen of a bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) functions: Vec<(String, Seen<Option<Function>>)>,
    pub(super) mappings: Seen<Vec<(String, String)>>,
    pub(super) queues: Queues,
    pub(super) tokens: Seen<Held<TokenPair>>,
    pub(super) way_in: WayIn,
    pub(super) schedule: Seen<Option<Schedule>>,
    pub(super) alarms: Alarms,
    pub(super) account: Seen<u64>,
}

/// Looks at all of it at once.
pub(super) async fn look(time: &Time, stack: &Stack) -> Bridge {
    let (receive, deliver) = (stack.receive(), stack.deliver());
    let attributes = async |url: &str| {
        let queue = Sqs::from_environment(url.to_owned()).await;
        time.look(queue.attributes()).await
    };
    let (
        first,
        second,
        mappings,
        queue,
        dead_letters,
        (tokens, way_in),
        schedule,
        on,
        told,
        account,
    ) = tokio::join!(
        time.look(function(&receive)),
        time.look(function(&deliver)),
        time.look(mappings(&deliver, &stack.queue)),
        attributes(&stack.queue),
        attributes(&stack.dead_letters),
        way_in(time, stack),
        time.look(schedule(&stack.name)),
        time.look(alarms_on(&stack.alarm_topic)),
        time.look(told(&stack.alarm_topic)),
        time.look(account_limit()),
    );
    Bridge {
        functions: vec![(receive, first), (deliver, second)],
        mappings,
        queues: Queues {
            stack: stack.name.clone(),
            queue: (stack.queue.clone(), queue),
            dead_letters: (stack.dead_letters.clone(), dead_letters),
        },
        tokens,
        way_in,
        schedule,
        alarms: Alarms { on, told },
        account,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) async fn function(name: &str) -> Result<Option<Function>, CallError> {
    let path = format!("/2015-03-31/functions/{name}/configuration");
    let answer = match aws::get(Service::Lambda, "GetFunctionConfiguration", &path).await {
        Ok(answer) => answer,
        Err(err) if err.code == "ResourceNotFoundException" => return Ok(None),
        Err(err) => return Err(err),
    };
    let variables = answer["Environment"]["Variables"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    Ok(Some(Function {
        state: text(&answer["State"]),
        state_reason: text(&answer["StateReason"]),
        update: text(&answer["LastUpdateStatus"]),
        update_reason: text(&answer["LastUpdateStatusReason"]),
        timeout: answer["Timeout"].as_u64(),
        architecture: answer["Architectures"][0].as_str().map(Into::into),
        variables: variables
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
    }))
}

/// What hands the messages of the queue to the function: ids and states.
async fn mappings(function: &str, queue: &str) -> Result<Vec<(String, String)>, CallError> {
    let path = format!("/2015-03-31/event-source-mappings/?FunctionName={function}");
    let answer = aws::get(Service::Lambda, "ListEventSourceMappings", &path).await?;
    let queue = queue.rsplit('/').next().unwrap_or_default();
    let mappings = answer["EventSourceMappings"]
        .as_array()
        .into_iter()
        .flatten();
    let own = mappings
        .filter(|mapping| text(&mapping["EventSourceArn"]).rsplit(':').next() == Some(queue));
    Ok(own
        .map(|mapping| (text(&mapping["UUID"]), text(&mapping["State"])))
        .collect())
}

async fn account_limit() -> Result<u64, CallError> {
    let answer = aws::get(
        Service::Lambda,
        "GetAccountSettings",
        "/2016-08-19/account-settings/",
    )
    .await?;
    Ok(answer["AccountLimit"]["ConcurrentExecutions"]
        .as_u64()
        .unwrap_or(u64::MAX))
}

/// The tokens, and what the function answers to the one that is valid.
async fn way_in(time: &Time, stack: &Stack) -> (Seen<Held<TokenPair>>, WayIn) {
    let tokens = time.look(tokens_in(&stack.token_secret)).await;
    let answer = match (&tokens, stack.hooks.parse::<registration::Hooks>()) {
        (Ok(Held::Filled(tokens)), Ok(hooks)) => {
            let bridge = registration::Bridge {
                hooks,
                tokens: None,
            };
            let posted = registration::deliver(&bridge, &tokens.current, TEST_BODY.into());
            let posted = time.within(posted).await;
            let posted = posted.map(|posted| posted.map_err(|err| Unseen::Failed(chain(&err))));
            let posted = posted.unwrap_or(Err(Unseen::Late));
            posted.map(|answer| (answer.status, answer.text))
        }
        (Err(unseen), _) => Err(unseen.clone()),
        (Ok(_), _) => Err(Unseen::After("the webhook's token comes first".into())),
    };
    let way_in = WayIn {
        hooks: stack.hooks.clone(),
        is_limited: stack.parameter("AllowedIps").is_some(),
        answer,
    };
    (tokens, way_in)
}

#[derive(Deserialize)]
struct Members<T> {
    #[serde(default = "Vec::new")]
    member: Vec<T>,
}

async fn schedule(stack: &str) -> Result<Option<Schedule>, CallError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        describe_stack_resource_result: Described,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Described {
        stack_resource_detail: Detail,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Detail {
        physical_resource_id: String,
    }
    let input = [("StackName", stack), ("LogicalResourceId", "Sweep")];
    let answer =
        aws::query::<Answer>(Service::CloudFormation, "DescribeStackResource", &input).await;
    let name = match answer {
        Ok(answer) => {
            answer
                .describe_stack_resource_result
                .stack_resource_detail
                .physical_resource_id
        }
        Err(err) if err.code == "ValidationError" => return Ok(None),
        Err(err) => return Err(err),
    };
    let answer = aws::get(
        Service::Scheduler,
        "GetSchedule",
        &format!("/schedules/{name}"),
    )
    .await;
    match answer {
        Ok(answer) => Ok(Some(Schedule {
            name,
            state: text(&answer["State"]),
        })),
        Err(err) if err.code == "ResourceNotFoundException" => Ok(None),
        Err(err) => Err(err),
    }
}

/// The alarms that are on, of those that go to the topic.
async fn alarms_on(topic: &str) -> Result<Vec<(String, String)>, CallError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        describe_alarms_result: Described,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Described {
        metric_alarms: Option<Members<Alarm>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Alarm {
        alarm_name: String,
        #[serde(default)]
        state_reason: String,
    }
    let input = [
        ("ActionPrefix", topic),
        ("StateValue", "ALARM"),
        ("MaxRecords", "100"),
    ];
    let answer: Answer = aws::query(Service::CloudWatch, "DescribeAlarms", &input).await?;
    let alarms = answer.describe_alarms_result.metric_alarms;
    let alarms = alarms.into_iter().flat_map(|alarms| alarms.member);
    Ok(alarms
        .map(|alarm| (alarm.alarm_name, alarm.state_reason))
        .collect())
}

/// Who is told of alarms, and whether that is confirmed.
async fn told(topic: &str) -> Result<Vec<(String, bool)>, CallError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        list_subscriptions_by_topic_result: Listed,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        subscriptions: Option<Members<Subscription>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Subscription {
        #[serde(default)]
        endpoint: String,
        subscription_arn: String,
    }
    let answer: Answer = aws::query(
        Service::Sns,
        "ListSubscriptionsByTopic",
        &[("TopicArn", topic)],
    )
    .await?;
    let told = answer.list_subscriptions_by_topic_result.subscriptions;
    let told = told.into_iter().flat_map(|told| told.member);
    Ok(told
        .map(|one| (one.endpoint, one.subscription_arn.starts_with("arn:")))
        .collect())
}

/// The variables that the functions must have, as the outputs of the stack say.
pub(super) fn variables(stack: &Stack) -> Vec<(&'static str, String)> {
    vec![
        ("ROUTES", stack.table.to_string()),
        ("QUEUE_URL", stack.queue.clone()),
        ("SOURCE_BUCKET", stack.bucket.clone()),
        ("WEBHOOK_TOKEN", format!("secret:{}", stack.token_secret)),
    ]
}
