//! The services of AWS that the bridge only reads a little of, as one server: each operation answers what the test says, and
//! all others are denied. CloudFormation has what the outputs of template.yaml are.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, header};
use serde_json::{Value, json};

use super::{
    http::{self, Answer, Server},
    s3::ACCESS_KEY,
};

/// The variables that lead to it.
const ENDPOINTS: [&str; 9] = [
    "AWS_ENDPOINT_URL_CLOUDFORMATION",
    "AWS_ENDPOINT_URL_CLOUDWATCH",
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
    "AWS_ENDPOINT_URL_CODEBUILD",
    "AWS_ENDPOINT_URL_CODEPIPELINE",
    "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_SCHEDULER",
    "AWS_ENDPOINT_URL_SNS",
];

/// What was asked: an operation with its input, as JSON, a form or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Such as `DescribeStacks`.
    pub operation: String,
    /// The body, or the path where there is none.
    pub input: String,
    /// What the signature is for, such as `cloudformation`.
    pub service: String,
}

impl Call {
    /// What IAM calls it.
    fn action(&self) -> String {
        let service = match self.service.as_str() {
            "monitoring" => "cloudwatch",
            service => service,
        };
        format!("{service}:{}", self.operation)
    }
}

type Answers = HashMap<String, Box<dyn Fn(&Call) -> (u16, String) + Send + Sync>>;

/// Stops when it is dropped.
pub struct AwsApi {
    server: Server,
    answers: Arc<Mutex<Answers>>,
    calls: Arc<Mutex<Vec<Call>>>,
    /// What IAM allows, if not all that has an answer.
    allowed: Arc<Mutex<Option<BTreeSet<String>>>>,
}

impl AwsApi {
    /// Denies everything.
    pub fn start() -> Self {
        let answers = Arc::new(Mutex::new(Answers::new()));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let allowed = Arc::<Mutex<Option<BTreeSet<String>>>>::default();
        let (known, seen, may) = (
            Arc::clone(&answers),
            Arc::clone(&calls),
            Arc::clone(&allowed),
        );
        let server = Server::start("aws", move |request| {
            let may = may.lock().unwrap().clone();
            let answer = answer(&request, &known.lock().unwrap(), &seen, may.as_ref());
            async move { answer }
        });
        Self {
            server,
            answers,
            calls,
            allowed,
        }
    }

    /// From now on denies every action that is not one of these.
    pub fn allow_only(&self, actions: &BTreeSet<String>) {
        *self.allowed.lock().unwrap() = Some(actions.clone());
    }

    /// Where the SDK finds it: names and values of variables.
    pub fn vars(&self) -> Vec<(&'static str, String)> {
        let endpoint = self.server.endpoint();
        ENDPOINTS.map(|name| (name, endpoint.clone())).into()
    }

    /// What an operation answers from now on.
    pub fn says(&self, operation: &str, body: &str) -> &Self {
        let body = body.to_owned();
        self.does(operation, move |_| (200, body.clone()))
    }

    /// The same, by what was asked: a status and a body.
    pub fn does(
        &self,
        operation: &str,
        answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
    ) -> &Self {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(operation.to_owned(), Box::new(answer));
        self
    }

    /// What an operation answers now to nothing in particular.
    pub fn said(&self, operation: &str) -> String {
        let call = Call {
            operation: operation.to_owned(),
            input: String::new(),
            service: String::new(),
        };
        self.answers.lock().unwrap()[operation](&call).1
    }

    /// Denies an operation again.
    pub fn denies(&self, operation: &str) -> &Self {
        self.answers.lock().unwrap().remove(operation);
        self
    }

    /// A stack that CloudFormation shows.
    pub fn stack(&self, name: &str, status: &str, outputs: &[(&str, &str)]) -> &Self {
        self.stack_with(name, status, outputs, &[])
    }

    /// The same with parameters.
    pub fn stack_with(
        &self,
        name: &str,
        status: &str,
        outputs: &[(&str, &str)],
        parameters: &[(&str, &str)],
    ) -> &Self {
        let parameters = members(parameters, "Parameter");
        let outputs = members(outputs, "Output");
        let body = format!(
            "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>{name}</StackName>\
             <StackStatus>{status}</StackStatus><Parameters>{parameters}</Parameters><Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult>\
             </DescribeStacksResponse>"
        );
        let name = name.to_owned();
        self.does("DescribeStacks", move |call| {
            let mut fields = form_urlencoded::parse(call.input.as_bytes());
            let asked = fields.find(|(field, _)| field == "StackName");
            match asked {
                Some((_, asked)) if asked == name => (200, body.clone()),
                asked => {
                    let asked = asked.map(|(_, name)| name.into_owned()).unwrap_or_default();
                    (
                        400,
                        xml_error(
                            "ValidationError",
                            &format!("Stack with id {asked} does not exist"),
                        ),
                    )
                }
            }
        })
    }

    /// The environment that both functions of a bridge have.
    pub fn functions(&self, variables: &Value) -> &Self {
        let body = json!({"State": "Active", "LastUpdateStatus": "Successful", "Environment": {"Variables": variables}});
        self.says("GetFunctionConfiguration", &body.to_string())
    }

    /// All that was asked so far: the services and operations, as IAM calls them.
    pub fn actions(&self) -> BTreeSet<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(Call::action).collect()
    }

    /// What was asked so far.
    pub fn calls(&self, operation: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        let calls = calls.iter().filter(|call| call.operation == operation);
        calls.cloned().collect()
    }
}

/// Names and values, as CloudFormation lists them.
fn members(pairs: &[(&str, &str)], kind: &str) -> String {
    let member = |(key, value): &(&str, &str)| {
        let value = value.replace('&', "&amp;").replace('<', "&lt;");
        format!("<member><{kind}Key>{key}</{kind}Key><{kind}Value>{value}</{kind}Value></member>")
    };
    pairs.iter().map(member).collect::<Vec<_>>().concat()
}

/// An error of a service that answers in XML.
pub fn xml_error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )
}

fn answer(
    request: &Request<Bytes>,
    answers: &Answers,
    calls: &Mutex<Vec<Call>>,
    allowed: Option<&BTreeSet<String>>,
) -> Answer {
    let text = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    // Not the signature itself: that it is there, and by the right key.
    let signed = text("authorization")
        .strip_prefix(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"))
        .and_then(|scope| scope.split('/').nth(2));
    let Some(service) = signed else {
        let body = json!({"__type": "UnrecognizedClientException", "message": "not signed by the test's key"});
        return http::json(403, &body);
    };
    let body = String::from_utf8_lossy(request.body()).into_owned();
    let (is_xml, operation) = operation(request, text("x-amz-target"), &body);
    let input = if body.is_empty() {
        let path = request.uri().path_and_query();
        path.map(ToString::to_string).unwrap_or_default()
    } else {
        body
    };
    let call = Call {
        operation,
        input,
        service: service.to_owned(),
    };
    let may = allowed.is_none_or(|allowed| allowed.contains(&call.action()));
    let answered = answers.get(&call.operation).filter(|_| may);
    let answered = answered.map(|answer| answer(&call));
    let why = format!("the test's user may not do {}", call.operation);
    let (status, body) = answered.unwrap_or_else(|| {
        let denied = if is_xml {
            xml_error("AccessDenied", &why)
        } else {
            json!({"__type": "AccessDeniedException", "message": why}).to_string()
        };
        (403, denied)
    });
    calls.lock().unwrap().push(call);
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status that HTTP knows");
    let kind = if is_xml {
        "text/xml"
    } else {
        "application/json"
    };
    let kind = header::HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Whether the answer is XML, and what is asked for.
fn operation(request: &Request<Bytes>, target: &str, body: &str) -> (bool, String) {
    if let Some((_, operation)) = target.split_once('.') {
        return (false, operation.to_owned());
    }
    let mut fields = form_urlencoded::parse(body.as_bytes());
    if let Some((_, operation)) = fields.find(|(name, _)| name == "Action") {
        return (true, operation.into_owned());
    }
    let path = request.uri().path();
    let operation = match path.split('/').collect::<Vec<_>>()[..] {
        ["", "2015-03-31", "functions", _, "configuration"] => "GetFunctionConfiguration",
        ["", "2015-03-31", "event-source-mappings", ..] => "ListEventSourceMappings",
        ["", "2016-08-19", "account-settings", ..] => "GetAccountSettings",
        ["", "schedules", ..] => "GetSchedule",
        _ => path,
    };
    (false, operation.to_owned())
}
