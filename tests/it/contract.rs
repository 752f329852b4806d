//! The templates and the code fit each other: variables, permissions, limits, and the rule that starts a pipeline.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use backlog_bridge::{
    config::{DeliverConfig, ReceiveConfig, ResultsConfig},
    limits::Limits,
    route::TABLE_FORMAT,
};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::support::{
    KEY, MAIN,
    git_server::{Fault as GitFault, Op as GitOp},
    lambda::Lambda,
    s3::{Fault as S3Fault, Op as S3Op},
    service::{GIT_SECRET, LOGIN, Service, TOKEN, lines, project_push, request},
    sqs::Op as SqsOp,
};

/// A template as JSON, in which `!Ref X` is `{"!Ref": "X"}`.
pub(crate) fn template(name: &str) -> Value {
    fn plain(yaml: Yaml) -> Value {
        match yaml {
            Yaml::Tagged(tagged) => json!({ tagged.tag.to_string(): plain(tagged.value) }),
            Yaml::Sequence(items) => items.into_iter().map(plain).collect(),
            Yaml::Mapping(fields) => {
                let fields = fields.into_iter();
                let name = |key: Yaml| match plain(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                let fields = fields.map(|(key, value)| (name(key), plain(value)));
                Value::Object(fields.collect())
            }
            other => serde_json::to_value(other).unwrap(),
        }
    }
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    plain(serde_yaml_ng::from_str(&text).unwrap())
}

fn names(fields: &Value) -> BTreeSet<String> {
    fields.as_object().unwrap().keys().cloned().collect()
}

/// The names that a program asks its environment for.
fn asked(read: impl Fn(&dyn Fn(&str) -> Option<String>)) -> BTreeSet<String> {
    let names = RefCell::<BTreeSet<String>>::default();
    read(&|name| {
        names.borrow_mut().insert(name.to_owned());
        None
    });
    names.into_inner()
}

#[test]
fn each_function_has_the_variables_that_it_reads_and_no_other() {
    let (bridge, results) = (template("template.yaml"), template("results.yaml"));
    for (stack, function, asked) in [
        (
            &bridge,
            "Receive",
            asked(|var| drop(ReceiveConfig::from_vars(var))),
        ),
        (
            &bridge,
            "Deliver",
            asked(|var| drop(DeliverConfig::from_vars(var))),
        ),
        (
            &results,
            "Results",
            asked(|var| drop(ResultsConfig::from_vars(var))),
        ),
    ] {
        let properties = &stack["Resources"][function]["Properties"];
        let given = &properties["Environment"]["Variables"];
        let format = TABLE_FORMAT.to_string();
        assert_eq!(given["TABLE_FORMAT"], format, "{function}");
        let mut given = names(given);
        // For whoever stores a table.
        given.remove("TABLE_FORMAT");
        assert_eq!(given, asked, "{function}");
    }
}

/// What a role is allowed, or whoever has a policy: each action, and where.
pub(crate) fn allowed(role: &str) -> BTreeMap<String, Vec<Value>> {
    allowed_in("template.yaml", role)
}

/// The same of a role of another template.
pub(crate) fn allowed_in(stack: &str, role: &str) -> BTreeMap<String, Vec<Value>> {
    let bridge = template(stack);
    let properties = &bridge["Resources"][role]["Properties"];
    let policies = match &properties["Policies"] {
        Value::Array(policies) => policies.clone(),
        _ => vec![properties.clone()],
    };
    let mut actions = BTreeMap::<_, Vec<_>>::new();
    for policy in policies {
        let statements = &policy["PolicyDocument"]["Statement"];
        for statement in statements.as_array().unwrap() {
            // `!If [condition, statement, nothing]`
            let statement = statement.get("!If").map_or(statement, |parts| &parts[1]);
            if statement["Effect"] != "Allow" {
                continue;
            }
            let listed = match &statement["Action"] {
                Value::Array(actions) => actions.clone(),
                action => vec![action.clone()],
            };
            for action in listed {
                let action = action.as_str().unwrap().to_owned();
                assert!(!action.contains('*'), "{role} may {action}");
                actions
                    .entry(action)
                    .or_default()
                    .push(statement["Resource"].clone());
            }
        }
    }
    actions
}

/// Which calls are recorded at the wire up to now.
fn calls(service: &Service) -> BTreeMap<&'static str, usize> {
    let sqs = [
        ("sqs:SendMessage", SqsOp::SendMessage),
        ("sqs:GetQueueUrl", SqsOp::GetQueueUrl),
        ("sqs:GetQueueAttributes", SqsOp::GetQueueAttributes),
        (
            "sqs:ChangeMessageVisibility",
            SqsOp::ChangeMessageVisibility,
        ),
        ("sqs:ReceiveMessage", SqsOp::ReceiveMessage),
        ("sqs:DeleteMessage", SqsOp::DeleteMessage),
    ];
    // A HEAD is allowed by the same action as a GET.
    let s3 = [
        ("s3:GetObject", vec![S3Op::GetObject, S3Op::HeadObject]),
        ("s3:GetObjectVersion", vec![S3Op::GetObjectVersion]),
        ("s3:ListBucketVersions", vec![S3Op::ListObjectVersions]),
        ("s3:GetBucketVersioning", vec![S3Op::GetBucketVersioning]),
        (
            "s3:PutObject",
            vec![
                S3Op::PutObject,
                S3Op::CreateMultipartUpload,
                S3Op::UploadPart,
                S3Op::CompleteMultipartUpload,
            ],
        ),
        ("s3:AbortMultipartUpload", vec![S3Op::AbortMultipartUpload]),
        (
            "s3: something else",
            vec![S3Op::DeleteObject, S3Op::ListObjectsV2, S3Op::Other],
        ),
    ];
    let mut calls: BTreeMap<_, _> = sqs
        .map(|(action, op)| (action, service.sqs.count(op)))
        .into();
    for (action, ops) in s3 {
        calls.insert(action, ops.into_iter().map(|op| service.s3.count(op)).sum());
    }
    let secrets = ["bridge/token", "bridge/git"].map(|name| service.secrets.count(name));
    calls.insert("secretsmanager:GetSecretValue", secrets.iter().sum());
    calls
}

/// The actions whose calls became more.
fn made(
    before: &BTreeMap<&'static str, usize>,
    after: &BTreeMap<&'static str, usize>,
) -> BTreeSet<String> {
    let more = after
        .iter()
        .filter(|(action, count)| **count > before[*action]);
    more.map(|(action, _)| (*action).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_allows_the_calls_that_its_function_makes_and_no_other() {
    let service = Service::with(&[(MAIN, KEY, "")], &[("MAX_ENTRIES", "1")]).await;
    // What follows is called by functions that start anew and find a table that is of no use.
    service.put_routes("nonsense").await;
    let start = calls(&service);
    service.push(MAIN, &[]).await;
    let received = calls(&service);
    let sweep = format!("{}/events/sqs-sweep.json", env!("CARGO_MANIFEST_DIR"));
    let sweep = serde_json::from_str(&fs::read_to_string(sweep).unwrap()).unwrap();
    service.deliver.invoke(&sweep).await.result.unwrap();
    service.put_routes(&service.table(&[(MAIN, KEY, "")])).await;

    // A failure that passes, a delivery, a failure that does not pass, and a sweep that finds something: a version from
    // before the bucket kept any.
    service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.git.fault(GitOp::Handshake, GitFault::Status(503));
    let messages = service.sqs.receive(1);
    let event = service.sqs.event(&messages);
    service.deliver.invoke(&event).await.result.unwrap();
    service.git.clear_faults();
    service.deliver.invoke(&event).await.result.unwrap();
    service.repository.commit_on(MAIN, &[("b", "b".into())]);
    service.deliver.invoke(&event).await.result.unwrap();
    for message in &messages {
        service.sqs.delete(message);
    }
    assert_eq!(service.sqs.dead_letters().len(), 1);
    service.repository.commit_on(
        MAIN,
        &[
            ("a", "c".into()),
            ("b", crate::support::upstream::Content::Deleted),
        ],
    );
    let head = S3Op::HeadObject;
    service.s3.fail_once(head, S3Fault::NullVersion);
    service.sweep().await;
    assert_eq!(service.versions().len(), 2);
    let delivered = calls(&service);

    // What a role is allowed and its function does not do.
    let exceptions: &[(&str, &str)] = &[
        (
            "logs:CreateLogStream",
            "Lambda writes the log with this role",
        ),
        ("logs:PutLogEvents", "Lambda writes the log with this role"),
        ("s3:ListBucket", "a missing object is 404 and not 403"),
        (
            "s3:AbortMultipartUpload",
            "a large archive whose upload failed, as in uploads.rs",
        ),
        (
            "kms:Decrypt",
            "S3 does it for the caller, with a bucket key of one's own",
        ),
        (
            "kms:GenerateDataKey",
            "S3 does it for the caller, with a bucket key of one's own",
        ),
        (
            "sqs:ReceiveMessage",
            "the event source mapping polls with this role",
        ),
        (
            "sqs:DeleteMessage",
            "the event source mapping polls with this role",
        ),
    ];
    for (role, made) in [
        ("ReceiveRole", made(&start, &received)),
        ("DeliverRole", made(&received, &delivered)),
    ] {
        let allowed = allowed(role);
        println!("{role}");
        for (action, resources) in &allowed {
            let why = exceptions.iter().find(|(name, _)| name == action);
            let why = why.map_or("called", |(_, why)| why);
            println!("  {action}: {why}");
            for resource in resources {
                println!("    {resource}");
            }
        }
        let allowed: BTreeSet<_> = allowed.into_keys().collect();
        let missing: Vec<_> = made.difference(&allowed).collect();
        assert!(missing.is_empty(), "{role} does not allow {missing:?}");
        let unused: Vec<_> = allowed
            .difference(&made)
            .filter(|action| !exceptions.iter().any(|(name, _)| name == action))
            .collect();
        assert!(unused.is_empty(), "{role} allows {unused:?} for nothing");
    }
}

#[test]
fn versions_are_listed_of_the_routing_table_alone() {
    let bridge = template("template.yaml");
    for role in ["ReceiveRole", "DeliverRole"] {
        let policies = &bridge["Resources"][role]["Properties"]["Policies"];
        let statements = policies[0]["PolicyDocument"]["Statement"]
            .as_array()
            .unwrap();
        let mut listing = statements
            .iter()
            .filter(|statement| statement["Action"] == "s3:ListBucketVersions");
        let table = json!({"StringEquals": {"s3:prefix": "config/routes.toml"}});
        assert_eq!(listing.next().unwrap()["Condition"], table, "{role}");
        assert_eq!(listing.next(), None, "{role}");
    }
}

/// A metric as an alarm names it: its namespace, its name, and its dimensions.
pub(crate) type Metric = (String, String, BTreeMap<String, String>);

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What CloudWatch makes of a function's log, without what counts nothing.
pub(crate) fn counted(function: &Lambda) -> BTreeSet<Metric> {
    let mut counted = BTreeSet::new();
    for line in lines(function) {
        for directive in list(&line["_aws"]["CloudWatchMetrics"]) {
            let name = text(&directive["Metrics"][0]["Name"]);
            if line[&name] == 0 {
                continue;
            }
            for dimensions in list(&directive["Dimensions"]) {
                let names = list(dimensions).iter().map(text);
                let dimensions = names.map(|name| (name.clone(), text(&line[&name])));
                let namespace = text(&directive["Namespace"]);
                counted.insert((namespace, name.clone(), dimensions.collect()));
            }
        }
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alarm_watches_a_metric_that_is_counted() {
    // No table, a lost push, a refused login, a wrong table, and no token.
    let service = Service::with(&[], &[]).await;
    service.sweep().await;
    service.put_routes(&service.table(&[(MAIN, KEY, "")])).await;
    service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.sweep().await;
    let login = json!({"username": LOGIN.0, "password": "the old one"});
    service.secrets.put(GIT_SECRET, &login.to_string());
    service.deliver.kill();
    service.sweep().await;
    service.put_routes("nonsense").await;
    service.push(MAIN, &[]).await;
    service.sweep().await;
    let mut vars = service.vars.clone();
    vars.retain(|(name, _)| *name != "WEBHOOK_TOKEN");
    vars.push(("WEBHOOK_TOKEN", "secret:nowhere".into()));
    let limit = Duration::from_secs(40);
    let tokenless = Lambda::start(env!("CARGO_BIN_EXE_receive"), &vars, limit).await;
    let webhook = project_push("update", MAIN, &[]);
    let webhook = request("POST", &format!("/hooks/{TOKEN}"), &webhook);
    tokenless.invoke(&webhook).await;
    let functions = [&service.receive, &service.deliver, &tokenless];
    let counted: BTreeSet<_> = functions.into_iter().flat_map(counted).collect();

    let bridge = template("template.yaml");
    let resources = bridge["Resources"].as_object().unwrap();
    let mut watched = 0;
    for (alarm, resource) in resources {
        let properties = &resource["Properties"];
        let namespace = text(&properties["Namespace"]);
        // What AWS counts of its own services is known there.
        let is_own = !matches!(&*namespace, "AWS/Lambda" | "AWS/SQS");
        if resource["Type"] == "AWS::CloudWatch::Alarm" && is_own {
            let refs = [("Receive", "receive"), ("Deliver", "deliver")];
            let dimensions = resolve(&properties["Dimensions"], &refs);
            let dimensions = list(&dimensions).iter();
            let dimensions = dimensions.map(|each| (text(&each["Name"]), text(&each["Value"])));
            let metric = text(&properties["MetricName"]);
            let metric = (namespace, metric, dimensions.collect());
            assert!(
                counted.contains(&metric),
                "{alarm} watches {metric:?}, and there is {counted:#?}"
            );
            watched += 1;
        }
    }
    assert!(watched > 0);
}

#[test]
fn times_and_sizes_fit_into_each_other() {
    let bridge = template("template.yaml");
    let parameters = &bridge["Parameters"];
    let default = |name: &str| -> u64 {
        let default = &parameters[name]["Default"];
        let text = default.as_str().map(str::to_owned);
        let text = text.unwrap_or_else(|| default.to_string());
        text.parse().unwrap_or_else(|_| panic!("{name}: {text}"))
    };
    // A message that becomes visible while its delivery still runs would be delivered twice at once.
    let timeouts = bridge["Mappings"]["Timeout"].as_object().unwrap();
    let offered = parameters["DeliverTimeout"]["AllowedValues"]
        .as_array()
        .unwrap();
    let margin =
        Duration::from_millis(parameters["DeadlineMarginMs"]["MaxValue"].as_u64().unwrap());
    for timeout in offered {
        let timeout = timeout.as_str().unwrap();
        let visibility = timeouts[timeout]["Visibility"].as_u64().unwrap();
        let timeout: u64 = timeout.parse().unwrap();
        assert_eq!(visibility, timeout + 60, "{timeout}");
        assert!(margin < Duration::from_secs(timeout), "{timeout}");
    }
    // The webhook's sender has its answer before API Gateway gives up on the function.
    let receive = bridge["Resources"]["Receive"]["Properties"]["Timeout"]
        .as_u64()
        .unwrap();
    let gateway = &bridge["Resources"]["HttpApiIntegration"]["Properties"]["TimeoutInMillis"];
    assert!(gateway.as_u64().unwrap() > receive * 1000 && receive >= 10);

    let mib = 1024 * 1024;
    let (tree, pack, blob) = (
        default("MaxTreeBytes"),
        default("MaxPackBytes"),
        default("MaxBlobBytes"),
    );
    assert!(
        default("DeliverTmp") * mib > tree + pack,
        "/tmp holds the archive and the pack"
    );
    let archives = 2 * tree + 100 * mib;
    assert!(
        default("DeliverTmp") * mib > archives,
        "and the archive with the one before it, and their headers"
    );
    let memory = 64 * mib + 2 * blob + 200 * default("MaxEntries");
    assert!(
        default("DeliverMemory") * mib > memory,
        "{memory} bytes are needed"
    );
    let built_in = Limits::default();
    assert_eq!(default("MaxEntries"), u64::from(built_in.entries));
    assert_eq!(blob, built_in.blob_bytes);
    // Smaller than on a laptop: /tmp has its price.
    assert!(tree <= built_in.tree_bytes && pack <= built_in.pack_bytes);
    // What the sweep sends is told apart from its duplicates for five minutes.
    for minutes in parameters["SweepMinutes"]["AllowedValues"]
        .as_array()
        .unwrap()
    {
        let minutes: u64 = minutes.as_str().unwrap().parse().unwrap();
        assert!(minutes > 5);
    }
    let policy = &bridge["Resources"]["Queue"]["Properties"]["RedrivePolicy"];
    // Three tries for a job of the sweep, and for a ref that is missing.
    assert!(policy["maxReceiveCount"].as_u64().unwrap() > 3);
}

#[test]
fn the_sweep_is_a_message_that_the_function_reads() {
    let bridge = template("template.yaml");
    let target = &bridge["Resources"]["Sweep"]["Properties"]["Target"];
    let body = target["Input"].as_str().unwrap();
    let message = backlog_bridge::queue::Message::parse(body).unwrap();
    assert_eq!(message, backlog_bridge::queue::Message::Sweep(None));
    assert_eq!(target["SqsParameters"]["MessageGroupId"], "sweep");
}

/// Whether an event matches a pattern of EventBridge: every field of it is there, with one of the values.
pub(crate) fn matches(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(fields) => fields
            .iter()
            .all(|(name, pattern)| event.get(name).is_some_and(|event| matches(pattern, event))),
        Value::Array(values) => values.contains(event),
        _ => panic!("no pattern: {pattern}"),
    }
}

/// Puts a value in the place of each `!Ref`.
fn resolve(value: &Value, refs: &[(&str, &str)]) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("!Ref").and_then(Value::as_str) {
                let found = refs.iter().find(|(known, _)| *known == name);
                return found.unwrap_or_else(|| panic!("{name}")).1.into();
            }
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| (name.clone(), resolve(value, refs)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(|item| resolve(item, refs)).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_starts_the_pipeline_for_the_object_that_is_delivered_and_no_other() {
    let service = Service::start().await;
    service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.sweep().await;
    let version = service.versions().remove(0);
    // As S3 sends it.
    // Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    let event = |bucket: &str, key: &str, kind: &str| {
        json!({
            "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind, "source": "aws.s3",
            "account": "123456789012", "time": "2026-04-01T00:00:00Z", "region": "ap-northeast-1",
            "resources": [format!("arn:aws:s3:::{bucket}")],
            "detail": {
                "version": "0", "bucket": {"name": bucket},
                "object": {"key": key, "size": 1, "etag": version.etag, "version-id": version.version_id, "sequencer": "1"},
                "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "source-ip-address": "192.0.2.1",
                "reason": "PutObject",
            },
        })
    };
    let pipeline = template("pipeline.yaml");
    let refs = [("SourceBucket", "sources"), ("ObjectKey", KEY)];
    let rule = &pipeline["Resources"]["NewVersion"]["Properties"];
    let pattern = resolve(&rule["EventPattern"], &refs);
    for (case, event, expected) in [
        (
            "what was delivered",
            event("sources", KEY, "Object Created"),
            true,
        ),
        (
            "another object",
            event("sources", "web/main.zip.txt", "Object Created"),
            false,
        ),
        (
            "the routing table",
            event("sources", "config/routes.toml", "Object Created"),
            false,
        ),
        (
            "another bucket",
            event("others", KEY, "Object Created"),
            false,
        ),
        ("a deletion", event("sources", KEY, "Object Deleted"), false),
    ] {
        assert_eq!(matches(&pattern, &event), expected, "{case}");
    }
    // The version is not pinned: events come in any order, and the newest version is what must be built.
    let target = rule["Targets"].as_array().unwrap();
    assert_eq!(target.len(), 1);
    assert!(target[0].get("InputTransformer").is_none() && target[0].get("Input").is_none());
    // And the source action takes that object.
    let stages = &pipeline["Resources"]["Pipeline"]["Properties"]["Stages"];
    let source = resolve(&stages[0]["Actions"][0]["Configuration"], &refs);
    let expected =
        json!({"S3Bucket": "sources", "S3ObjectKey": KEY, "PollForSourceChanges": "false"});
    assert_eq!(source, expected);
}
