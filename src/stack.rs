//! A deployed bridge, known by the name of its stack: where its parts are.

mod log;

use std::{collections::BTreeMap, fmt};

use hyper::Uri;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::log::LogLine;
pub use crate::aws::CallError;
use crate::{
    aws::{self, Service},
    config::Location,
};

/// The region that stacks are looked for in, if one is named.
pub async fn region() -> Option<String> {
    aws::region().await
}

/// A deployed bridge. What it says comes from the outputs of its stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The stack's name, with which the names of its functions begin.
    pub name: String,
    /// The bucket of routes that name none.
    pub bucket: String,
    /// Where the functions read the routing table.
    pub table: Location,
    /// The URL of the queue.
    pub queue: String,
    /// The URL of the queue of jobs that were given up.
    pub dead_letters: String,
    /// Where webhooks are posted to, without a token and without a slash at the end.
    pub hooks: String,
    /// The secret that holds the token.
    pub token_secret: String,
    /// The secret that holds the Git login.
    pub git_secret: String,
    /// The topic that alarms go to.
    pub alarm_topic: String,
    /// The URL of the queue of results, if the bridge has one.
    pub results_queue: Option<String>,
    /// What state CloudFormation says that the stack is in.
    pub status: String,
    /// When it was deployed first, if CloudFormation says so.
    pub created: Option<OffsetDateTime>,
    /// What it was deployed with, by name; not what is left empty.
    parameters: BTreeMap<String, String>,
}

/// Why a deployed bridge cannot be found by its name.
#[derive(Debug)]
pub enum StackError {
    /// There is no such stack, as far as this login and region show.
    Missing {
        /// The name.
        name: String,
        /// The region, if one is known.
        region: Option<String>,
    },
    /// It is there, and has not been deployed to its end.
    Unfinished {
        /// The name.
        name: String,
        /// What CloudFormation says.
        status: String,
    },
    /// It is there, and is no bridge.
    Foreign {
        /// The name.
        name: String,
        /// What it lacks.
        output: &'static str,
    },
    /// CloudFormation does not say.
    Unknown(CallError),
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, region } => {
                let region = region.as_deref().unwrap_or("this region");
                write!(
                    f,
                    "there is no stack {name} in {region} of this account; name another one with --stack, or its region with \
                     AWS_REGION: aws cloudformation list-stacks --query 'StackSummaries[].StackName'"
                )
            }
            Self::Unfinished { name, status } => write!(
                f,
                "the stack {name} is {status}, not a deployed bridge; wait until it is deployed, or look why it is not: aws \
                 cloudformation describe-stack-events --stack-name {name} --query \
                 'StackEvents[?contains(ResourceStatus, `FAILED`)].[LogicalResourceId,ResourceStatusReason]'"
            ),
            Self::Foreign { name, output } => write!(
                f,
                "the stack {name} is no bridge: it has no output {output}; name the stack that template.yaml was deployed as"
            ),
            Self::Unknown(err) => write!(f, "cannot read the stack: {err}"),
        }
    }
}

impl std::error::Error for StackError {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    describe_stacks_result: Described,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    stacks: Members<Shown>,
}

#[derive(Deserialize)]
struct Members<T> {
    #[serde(default = "Vec::new")]
    member: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    stack_status: String,
    creation_time: Option<String>,
    outputs: Option<Members<Output>>,
    parameters: Option<Members<Parameter>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    parameter_key: String,
    #[serde(default)]
    parameter_value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    output_key: String,
    output_value: String,
}

impl Stack {
    /// Looks for the bridge that was deployed under this name, where the SDK is configured to.
    ///
    /// # Errors
    ///
    /// [`StackError`].
    pub async fn find(name: &str) -> Result<Self, StackError> {
        let input = [("StackName", name)];
        let answer = aws::query::<Answer>(Service::CloudFormation, "DescribeStacks", &input).await;
        let missing = async || StackError::Missing {
            name: name.to_owned(),
            region: aws::region().await,
        };
        let stack = match answer {
            Ok(answer) => answer
                .describe_stacks_result
                .stacks
                .member
                .into_iter()
                .next(),
            Err(err) if err.words().contains("does not exist") => return Err(missing().await),
            Err(err) => return Err(StackError::Unknown(err)),
        };
        let Some(Shown {
            stack_status: status,
            creation_time: created,
            outputs,
            parameters,
        }) = stack
        else {
            return Err(missing().await);
        };
        let parameters = parameters.map(|parameters| parameters.member);
        let parameters = parameters.unwrap_or_default().into_iter();
        let parameters = parameters
            .map(|parameter| (parameter.parameter_key, parameter.parameter_value))
            .filter(|(_, value)| !value.is_empty());
        let outputs = outputs.map(|outputs| outputs.member).unwrap_or_default();
        let outputs = outputs
            .into_iter()
            .map(|output| (output.output_key, output.output_value));
        let stack = Self::of(name, &status, &outputs.collect())?;
        let created = created.as_deref();
        Ok(Self {
            created: created.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok()),
            parameters: parameters.collect(),
            ..stack
        })
    }

    fn of(
        name: &str,
        status: &str,
        outputs: &BTreeMap<String, String>,
    ) -> Result<Self, StackError> {
        if outputs.is_empty() {
            return Err(StackError::Unfinished {
                name: name.to_owned(),
                status: status.to_owned(),
            });
        }
        let output = |output: &'static str| {
            let value = outputs.get(output).cloned();
            value.ok_or_else(|| StackError::Foreign {
                name: name.to_owned(),
                output,
            })
        };
        let bucket = output("Bucket")?;
        let table = output("RoutingTable")?;
        let foreign = |output| StackError::Foreign {
            name: name.to_owned(),
            output,
        };
        let hooks = output("WebhookUrl")?;
        let hooks = hooks.strip_suffix("/TOKEN").unwrap_or(&hooks);
        hooks.parse::<Uri>().map_err(|_| foreign("WebhookUrl"))?;
        // Stacks of 0.2 and before name the secret only in the command that shows it.
        let token_secret = match outputs.get("TokenSecret") {
            Some(secret) => secret.clone(),
            None => secret_of(&output("ShowToken")?).ok_or_else(|| foreign("TokenSecret"))?,
        };
        Ok(Self {
            name: name.to_owned(),
            table: table.parse().map_err(|_| foreign("RoutingTable"))?,
            bucket,
            queue: output("Queue")?,
            dead_letters: output("DeadLetters")?,
            hooks: hooks.to_owned(),
            token_secret,
            git_secret: output("GitSecret")?,
            alarm_topic: output("AlarmTopic")?,
            results_queue: outputs.get("ResultsQueue").cloned(),
            status: status.to_owned(),
            created: None,
            parameters: BTreeMap::new(),
        })
    }

    /// What a parameter was set to; `None` if it was left empty.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether the functions may read a secret, named as in a routing table.
    #[must_use]
    pub fn reads_secret(&self, name: &str) -> bool {
        let further = self.parameter("ExtraGitSecrets").unwrap_or_default();
        let mut all = further.split(',').map(str::trim).chain([&*self.git_secret]);
        all.any(|own| is_same_secret(own, name))
    }

    /// The name of the function that takes webhooks.
    #[must_use]
    pub fn receive(&self) -> String {
        format!("{}-receive", self.name)
    }

    /// The name of the function that delivers.
    #[must_use]
    pub fn deliver(&self) -> String {
        format!("{}-deliver", self.name)
    }

    /// The name of the function that tells results.
    #[must_use]
    pub fn results(&self) -> String {
        format!("{}-results", self.name)
    }

    /// The URL of the queue of messages of results that were given up, if the bridge tells results.
    #[must_use]
    pub fn results_dead_letters(&self) -> Option<String> {
        let queue = self.results_queue.as_ref()?;
        Some(format!("{}-dead.fifo", queue.strip_suffix(".fifo")?))
    }

    /// Which fields of a routing table all functions know that read it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn table_format(&self) -> Result<u32, CallError> {
        let mut format = u32::MAX;
        let results = self.results_queue.is_some().then(|| self.results());
        let functions = [self.receive(), self.deliver()].into_iter().chain(results);
        for function in functions {
            let path = format!("/2015-03-31/functions/{function}/configuration");
            let answer = aws::get(Service::Lambda, "GetFunctionConfiguration", &path).await;
            let answer = match answer {
                // results.yaml may not be deployed yet.
                Err(err) if err.is_missing() && function == self.results() => continue,
                answer => answer?,
            };
            let variable = answer["Environment"]["Variables"]["TABLE_FORMAT"].as_str();
            // Without the variable it is 0.1, which knows what the first format has.
            let known = variable.and_then(|text| text.parse().ok()).unwrap_or(1);
            format = format.min(known);
        }
        Ok(format)
    }
}

/// Whether two texts, names or ARNs, are the same secret's.
fn is_same_secret(one: &str, other: &str) -> bool {
    // arn:aws:secretsmanager:region:account:secret:name-abcdef
    let name = |text: &str| match text.rsplit_once(":secret:") {
        Some((_, name)) => match name.rsplit_once('-') {
            Some((name, suffix)) if suffix.len() == 6 => name.to_owned(),
            _ => name.to_owned(),
        },
        None => text.to_owned(),
    };
    one == other
        || (one.contains(":secret:") != other.contains(":secret:") && name(one) == name(other))
}

/// The secret that a command of the AWS CLI names.
fn secret_of(command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    words.find(|word| *word == "--secret-id")?;
    words.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CloudFormation answers, as its documentation shows it.
    const ANSWER: &str = r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
  <DescribeStacksResult><Stacks><member>
    <StackName>bridge</StackName><StackStatus>UPDATE_COMPLETE</StackStatus><CreationTime>2026-04-01T09:00:00.123Z</CreationTime>
    <Parameters><member><ParameterKey>AlarmEmail</ParameterKey><ParameterValue>a@example.com</ParameterValue></member>
      <member><ParameterKey>BucketKmsKeyArn</ParameterKey><ParameterValue></ParameterValue></member></Parameters>
    <Outputs>
      <member><OutputKey>Bucket</OutputKey><OutputValue>sources</OutputValue><Description>a &amp; b</Description></member>
      <member><OutputKey>RoutingTable</OutputKey><OutputValue>s3://sources/config/routes.toml</OutputValue></member>
      <member><OutputKey>Queue</OutputKey><OutputValue>https://sqs.example/1/q.fifo</OutputValue></member>
      <member><OutputKey>DeadLetters</OutputKey><OutputValue>https://sqs.example/1/d.fifo</OutputValue></member>
      <member><OutputKey>WebhookUrl</OutputKey><OutputValue>https://abc.execute-api.example/hooks/TOKEN</OutputValue></member>
      <member><OutputKey>ShowToken</OutputKey><OutputValue>aws secretsmanager get-secret-value --region r --secret-id arn:x --query SecretString --output text</OutputValue></member>
      <member><OutputKey>GitSecret</OutputKey><OutputValue>backlog-bridge/git</OutputValue></member>
      <member><OutputKey>AlarmTopic</OutputKey><OutputValue>arn:topic</OutputValue></member>
    </Outputs>
  </member></Stacks></DescribeStacksResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</DescribeStacksResponse>"#;

    fn outputs() -> BTreeMap<String, String> {
        let answer: Answer = quick_xml::de::from_str(ANSWER).unwrap();
        let stack = answer.describe_stacks_result.stacks.member;
        let outputs = stack.into_iter().next().unwrap().outputs.unwrap().member;
        outputs
            .into_iter()
            .map(|output| (output.output_key, output.output_value))
            .collect()
    }

    #[test]
    fn the_outputs_of_every_release_say_where_the_parts_are() {
        let mut outputs = outputs();
        let stack = Stack::of("bridge", "UPDATE_COMPLETE", &outputs).unwrap();
        assert_eq!(stack.hooks, "https://abc.execute-api.example/hooks");
        assert_eq!(stack.token_secret, "arn:x");
        assert_eq!(stack.table.to_string(), "s3://sources/config/routes.toml");
        assert_eq!(stack.deliver(), "bridge-deliver");
        outputs.insert("TokenSecret".into(), "arn:y".into());
        let stack = Stack::of("bridge", "UPDATE_COMPLETE", &outputs).unwrap();
        assert_eq!(stack.token_secret, "arn:y");
    }

    #[test]
    fn a_secret_is_known_by_its_name_and_by_its_arn() {
        let mut stack = Stack::of("bridge", "CREATE_COMPLETE", &outputs()).unwrap();
        let arn = |name: &str| {
            format!("arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:{name}")
        };
        let further = format!("{}, {}", arn("other/git-aBcDeF"), arn("third-AbCdEf"));
        stack.parameters.insert("ExtraGitSecrets".into(), further);
        for (name, expected) in [
            ("backlog-bridge/git", true),
            (&*arn("backlog-bridge/git-abcdef"), true),
            ("other/git", true),
            (&*arn("other/git-aBcDeF"), true),
            (&*arn("other/git-xxxxxx"), false),
            ("third", true),
            ("backlog-bridge/gi", false),
            ("staging/git", false),
        ] {
            assert_eq!(stack.reads_secret(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_deployed_bridge_is_named() {
        let none = Stack::of("bridge", "ROLLBACK_COMPLETE", &BTreeMap::new()).unwrap_err();
        assert!(none.to_string().contains("is ROLLBACK_COMPLETE"), "{none}");
        let mut outputs = outputs();
        outputs.remove("Queue");
        let foreign = Stack::of("site", "CREATE_COMPLETE", &outputs).unwrap_err();
        assert!(
            foreign.to_string().contains("has no output Queue"),
            "{foreign}"
        );
    }
}
