//! Secrets Manager, as far as one uses it: values by name and stage, and new values.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uuid::Uuid;

pub use super::json_api::Fault;
use super::json_api::{Dialect, JsonApi, Refusal};

const DIALECT: Dialect = Dialect {
    name: "secretsmanager",
    target: "secretsmanager",
    errors: "",
    content_type: "application/x-amz-json-1.1",
};
const OPERATION: &str = "GetSecretValue";
const PUT: &str = "PutSecretValue";
const DESCRIBE: &str = "DescribeSecret";
const ARN: &str = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:";
/// What Secrets Manager adds to the name at random.
const SUFFIX: &str = "-a1B2c3";

struct Secret {
    name: String,
    /// Version id and value, the newest last.
    versions: Vec<(String, String)>,
    /// How many of them a client wrote.
    written: usize,
    /// Whether it is to be deleted.
    is_dying: bool,
}

impl Secret {
    fn arn(&self) -> String {
        [ARN, &self.name, SUFFIX].concat()
    }

    fn is(&self, id: &str) -> bool {
        id == self.name || id == self.arn()
    }
}

/// A Secrets Manager of its own for one test.
pub struct TestSecrets {
    api: JsonApi,
    secrets: Arc<Mutex<Vec<Secret>>>,
}

impl TestSecrets {
    pub fn start() -> Self {
        let secrets = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&secrets);
        let api = JsonApi::start(DIALECT, move |operation, input| {
            let secrets = Arc::clone(&shared);
            async move {
                let mut secrets = secrets.lock().unwrap();
                match operation.as_str() {
                    OPERATION => get(&secrets, &input),
                    PUT => change(&mut secrets, &input),
                    DESCRIBE => describe(&secrets, &input),
                    _ => {
                        let message = format!("the test has no {operation}");
                        Err(Refusal::new("UnknownOperationException", message))
                    }
                }
            }
        });
        Self { api, secrets }
    }

    /// For `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn endpoint(&self) -> String {
        self.api.endpoint()
    }

    /// Gives a secret a new value; the one that it had until now becomes the previous one.
    pub fn put(&self, name_or_arn: &str, text: &str) -> &Self {
        let version = (Uuid::new_v4().to_string(), text.to_owned());
        let mut secrets = self.secrets.lock().unwrap();
        if let Some(secret) = secrets.iter_mut().find(|secret| secret.is(name_or_arn)) {
            secret.versions.push(version);
        } else {
            secrets.push(Secret {
                name: name(name_or_arn).to_owned(),
                versions: vec![version],
                written: 0,
                is_dying: false,
            });
        }
        self
    }

    /// The values of a secret, the newest last.
    pub fn values(&self, name_or_arn: &str) -> Vec<String> {
        let secrets = self.secrets.lock().unwrap();
        let secret = secrets.iter().find(|secret| secret.is(name_or_arn));
        let versions = secret.map(|secret| secret.versions.iter());
        let texts = versions.into_iter().flatten().map(|(_, text)| text.clone());
        texts.collect()
    }

    /// How often clients gave secrets new values.
    pub fn writes(&self) -> usize {
        let secrets = self.secrets.lock().unwrap();
        secrets.iter().map(|secret| secret.written).sum()
    }

    /// Lets nobody give secrets new values.
    pub fn deny_writes(&self) {
        self.api.fault_always(PUT, Fault::Status(403));
    }

    /// Takes a secret away at once.
    pub fn remove(&self, name_or_arn: &str) {
        let mut secrets = self.secrets.lock().unwrap();
        secrets.retain(|secret| !secret.is(name_or_arn));
    }

    /// Has a secret be deleted in some days.
    pub fn begin_deletion(&self, name_or_arn: &str) {
        let mut secrets = self.secrets.lock().unwrap();
        let mut secrets = secrets.iter_mut();
        let secret = secrets.find(|secret| secret.is(name_or_arn));
        secret.expect("the test has the secret").is_dying = true;
    }

    /// How often a secret was asked for, by name or ARN, in any stage; the failed requests too.
    pub fn count(&self, name_or_arn: &str) -> usize {
        let calls = self.api.calls(OPERATION);
        let asked = calls.iter().filter_map(|input| input["SecretId"].as_str());
        let asked = asked.filter(|id| name(id) == name(name_or_arn));
        asked.count()
    }

    /// Lets the next request fail. Called again, the one after that too.
    pub fn fail_once(&self, status: u16) -> &Self {
        self.fault_once(Fault::Status(status))
    }

    /// The same with another fault.
    pub fn fault_once(&self, fault: Fault) -> &Self {
        self.api.fault_once(OPERATION, fault);
        self
    }

    /// Lets every request fail from now on.
    pub fn fail_always(&self, status: u16) -> &Self {
        self.api.fault_always(OPERATION, Fault::Status(status));
        self
    }

    /// Nothing fails any more.
    pub fn heal(&self) -> &Self {
        self.api.heal();
        self
    }
}

fn name(id: &str) -> &str {
    let name = id.strip_prefix(ARN);
    name.map_or(id, |name| name.strip_suffix(SUFFIX).unwrap_or(name))
}

fn missing(what: &str) -> Refusal {
    let message = format!("Secrets Manager can't find the specified secret{what}.");
    Refusal::new("ResourceNotFoundException", message)
}

impl Secret {
    /// Of a secret that is to be deleted, only the description is to be had.
    fn living(&self) -> Result<(), Refusal> {
        let message =
            "You can't perform this operation on the secret because it was marked for deletion.";
        if self.is_dying {
            Err(Refusal::new("InvalidRequestException", message))
        } else {
            Ok(())
        }
    }
}

fn describe(secrets: &[Secret], input: &Value) -> Result<Value, Refusal> {
    let id = input["SecretId"].as_str().unwrap_or_default();
    let secret = secrets.iter().find(|secret| secret.is(id));
    let secret = secret.ok_or_else(|| missing(""))?;
    let mut description = json!({"ARN": secret.arn(), "Name": secret.name});
    if secret.is_dying {
        description["DeletedDate"] = json!(1_715_649_825.5);
    }
    Ok(description)
}

fn change(secrets: &mut [Secret], input: &Value) -> Result<Value, Refusal> {
    let id = input["SecretId"].as_str().unwrap_or_default();
    let secret = secrets.iter_mut().find(|secret| secret.is(id));
    let secret = secret.ok_or_else(|| missing(""))?;
    secret.living()?;
    secret.written += 1;
    let text = input["SecretString"].as_str().unwrap_or_default();
    let version = Uuid::new_v4().to_string();
    secret.versions.push((version.clone(), text.to_owned()));
    Ok(json!({
        "ARN": secret.arn(),
        "Name": secret.name,
        "VersionId": version,
        "VersionStages": ["AWSCURRENT"],
    }))
}

fn get(secrets: &[Secret], input: &Value) -> Result<Value, Refusal> {
    let id = input["SecretId"].as_str().unwrap_or_default();
    let secret = secrets.iter().find(|secret| secret.is(id));
    let secret = secret.ok_or_else(|| missing(""))?;
    secret.living()?;
    let stage = input["VersionStage"].as_str().unwrap_or("AWSCURRENT");
    let age = match stage {
        "AWSCURRENT" => 0,
        "AWSPREVIOUS" => 1,
        _ => usize::MAX,
    };
    let (version, text) = secret
        .versions
        .iter()
        .rev()
        .nth(age)
        .ok_or_else(|| missing(&format!(" value for staging label: {stage}")))?;
    Ok(json!({
        "ARN": secret.arn(),
        "Name": secret.name,
        "VersionId": version,
        "SecretString": text,
        "VersionStages": [stage],
        "CreatedDate": 1_715_649_825.5,
    }))
}
