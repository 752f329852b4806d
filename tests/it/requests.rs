//! Requests that lie: whatever is posted, only what the routing table lists is asked, and only what it lists is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use backlog_bridge::webhook::MAX_BODY_BYTES;
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{
    BUCKET, KEY, MAIN,
    service::{Service, TOKEN, answer, project_push, request},
    sqs::Op as SqsOp,
};

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

/// An event that holds a body of any bytes, as API Gateway hands it on.
fn event_of(body: &[u8]) -> Value {
    let mut event = request(
        "POST",
        &format!("/hooks/{TOKEN}"),
        &BASE64_STANDARD.encode(body),
    );
    event["isBase64Encoded"] = true.into();
    event
}

/// A port that somebody would like us to ask, and how often it was.
fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, asked)
}

/// Texts that would like to be a host, a key, a path or a command.
fn text(trap: u16, space: &str) -> impl Strategy<Value = String> + use<> {
    let some = [
        "APP",
        "web",
        "APP/web",
        MAIN,
        "refs/heads/other",
        "refs/heads/../../main",
        "refs/tags/v1",
        "",
        "..",
        "../../config/routes.toml",
        "config/routes.toml",
        "web/main.zip",
        "/etc/passwd",
        "%2e%2e%2f",
        "$(touch /tmp/x)",
        "--upload-pack=touch",
        "ext::sh -c touch",
        "-oProxyCommand=x",
        "a\0b",
        "a\nb",
        "日本",
        "0000000000000000000000000000000000000000",
        "abababababababababababababababababababab",
    ];
    let mut texts: Vec<String> = some.map(str::to_owned).to_vec();
    for base in [
        space.to_owned(),
        format!("https://localhost:{trap}/git"),
        format!("http://127.0.0.1:{trap}/git"),
    ] {
        for rest in [
            "/APP/web",
            "/APP/web.git",
            "/../APP/web",
            "/APP/other",
            "@evil/APP/web",
            "",
        ] {
            texts.push(format!("{base}{rest}"));
        }
    }
    prop_oneof![9 => proptest::sample::select(texts), 1 => any::<String>()]
}

fn body(trap: u16, space: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let words = proptest::collection::vec(text(trap, space), 8);
    let push = (words, 0..4_usize, any::<bool>()).prop_map(|(w, kind, plausible)| {
        let pick = |right: &str, wrong: &String| if plausible { right.to_owned() } else { wrong.clone() };
        let (key, name, reference) = (pick("APP", &w[0]), pick("web", &w[1]), pick([MAIN, "refs/heads/other"][kind % 2], &w[2]));
        let project = json!({
            "id": 1, "type": 12, "project": {"projectKey": key, "url": w[3], "host": w[3]},
            "content": {"change_type": w[4], "ref": reference, "bucket": w[5], "object": w[5], "route": w[5],
                "repository": {"name": name, "url": w[3], "cloneUrl": w[3]},
                "revisions": [{"rev": w[6], "url": w[3]}, {"rev": w[7]}]},
        });
        let git = json!({
            "before": w[6], "after": "abababababababababababababababababababab", "ref": reference,
            "repository": {"url": w[3], "name": name, "clone_url": w[4]}, "url": w[3], "object": w[5],
            "revisions": [{"id": w[7], "url": w[3]}],
        });
        let form = |json: &Value| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("payload", &json.to_string()).append_pair("url", &w[3]);
            form.finish().into_bytes()
        };
        match kind {
            0 => project.to_string().into_bytes(),
            1 => git.to_string().into_bytes(),
            2 => form(&git),
            _ => form(&project),
        }
    });
    let push = push.boxed();
    let cut = (push.clone(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(
        |(mut body, at, byte)| {
            let at = at.index(body.len());
            body[at] = byte;
            body
        },
    );
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![6 => push, 2 => cut, 1 => noise]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_chooses_a_host_or_a_key() {
    let other = "refs/heads/other";
    let routes = [(MAIN, KEY, ""), (other, "web/other.zip", "")];
    let service = Service::with(&routes, &[]).await;
    for ref_name in [MAIN, other, "refs/tags/v1", "refs/heads/third"] {
        service.repository.commit_on(ref_name, &[("a", "a".into())]);
    }
    service
        .upstream
        .repository("APP/other")
        .commit_on(MAIN, &[("b", "b".into())]);
    let (port, asked) = trap();
    let mut statuses = BTreeMap::new();
    let config = Config {
        cases: 400,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&body(port, &service.git.space_url()), |body| {
        let (status, _) = answer(&block(service.receive.invoke(&event_of(&body))));
        prop_assert!([200, 202, 400].contains(&status), "{status}");
        Ok(())
    });
    result.unwrap();
    for message in service.sqs.sent() {
        let job: Value = serde_json::from_str(&message.body).unwrap();
        let fields: BTreeSet<_> = job
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let known = [
            "route",
            "repository",
            "ref",
            "hints",
            "before",
            "deleted",
            "request_id",
        ];
        assert!(fields.iter().all(|field| known.contains(field)), "{job}");
        assert_eq!(job["repository"], "APP/web", "{job}");
        let route = job["route"].as_str().unwrap();
        assert!(
            [MAIN, other].contains(&route) && job["ref"] == route,
            "{job}"
        );
        *statuses.entry(route.to_owned()).or_insert(0) += 1;
    }
    println!("jobs: {statuses:?}");
    assert_eq!(
        statuses.len(),
        2,
        "both routes were asked for: {statuses:?}"
    );
    // One of each is enough: the others are the same but for their hints, which cost seconds.
    let messages = service.sqs.receive(1_000);
    let mut seen = BTreeSet::new();
    for message in &messages {
        let job: Value = serde_json::from_str(&message.body).unwrap();
        if seen.insert(job["route"].to_string()) {
            let event = service.sqs.event(std::slice::from_ref(message));
            service.deliver.invoke(&event).await;
        }
    }
    let listed = service
        .s3
        .client()
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    let keys: Vec<_> = listed
        .contents()
        .iter()
        .filter_map(|object| object.key())
        .collect();
    println!("written: {keys:?}");
    let allowed = ["config/routes.toml", KEY, "web/other.zip"];
    assert!(keys.iter().all(|key| allowed.contains(key)), "{keys:?}");
    assert!(keys.len() > 1);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    for request in service.git.requests() {
        assert!(
            request.path.starts_with("/git/APP/web.git/"),
            "{}",
            request.path
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
async fn a_body_that_is_no_webhook_is_refused_at_once() {
    let service = Service::start().await;
    let right = project_push("update", MAIN, &[]);
    let with = |from: &str, to: &str| {
        assert!(right.contains(from), "{from}");
        right.replacen(from, to, 1).into_bytes()
    };
    let nested = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let shift_jis = || {
        let (before, behind) = right.split_once("heads/main").unwrap();
        [before.as_bytes(), b"heads/\x83\x58", behind.as_bytes()].concat()
    };
    let gzip = || {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(right.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let bomb = || {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b'{'; 50_000_000]).unwrap();
        gzip.finish().unwrap()
    };
    let utf16 =
        |bytes: fn(u16) -> [u8; 2]| right.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let kind = r#""type":12"#;
    let reference = r#""ref":"refs/heads/main""#;
    let long = [
        right.as_bytes(),
        " ".repeat(MAX_BODY_BYTES + 1 - right.len()).as_bytes(),
    ]
    .concat();
    let longest = long[..MAX_BODY_BYTES].to_vec();
    for (case, body, expected) in [
        ("nothing", Vec::new(), 400),
        (
            "100,000 objects in each other",
            nested("{\"a\":", "}").into_bytes(),
            400,
        ),
        (
            "100,000 lists in each other",
            [
                b"{\"type\":12,\"content\":",
                nested("[", "]").as_bytes(),
                b"}",
            ]
            .concat(),
            400,
        ),
        (
            "the same in a form",
            ["payload={\"ref\":", &nested("[", "]")]
                .concat()
                .into_bytes(),
            400,
        ),
        ("a type of 1e999999", with(kind, r#""type":1e999999"#), 400),
        (
            "a type of 400 digits",
            with(kind, &format!("\"type\":{}", "9".repeat(400))),
            400,
        ),
        ("a type below zero", with(kind, r#""type":-12"#), 400),
        ("a type of 12.5", with(kind, r#""type":12.5"#), 400),
        (
            "half a character",
            with(reference, r#""ref":"refs/heads/\ud800""#),
            400,
        ),
        (
            "half a character elsewhere",
            with("a marker of a name", r"\udc00"),
            202,
        ),
        (
            "a byte-order mark",
            [b"\xef\xbb\xbf", right.as_bytes()].concat(),
            400,
        ),
        ("UTF-16", utf16(u16::to_le_bytes), 400),
        ("UTF-16 the other way", utf16(u16::to_be_bytes), 400),
        (
            "a NUL in a ref",
            with(reference, "\"ref\":\"refs/heads/\u{0}\""),
            400,
        ),
        ("Shift_JIS in a ref", shift_jis(), 400),
        (
            "bytes that are not UTF-8",
            [&with(reference, "")[..40], b"\xff\xfe"].concat(),
            400,
        ),
        ("gzip", gzip(), 400),
        ("a bomb of gzip", bomb(), 400),
        ("two types", with(kind, r#""type":1,"type":12"#), 400),
        (
            "two refs",
            with(reference, r#""ref":"refs/heads/a","ref":"refs/heads/main""#),
            400,
        ),
        ("two payloads", form(&["{}", &right]), 400),
        ("a list", format!("[{right}]").into_bytes(), 400),
        (
            "more behind it",
            format!("{right}{right}").into_bytes(),
            400,
        ),
        (
            "XML",
            b"<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>"
                .to_vec(),
            400,
        ),
        ("as long as it may be", longest, 202),
        ("a byte more", long, 413),
        ("twice that", vec![b' '; 2 * MAX_BODY_BYTES], 413),
        ("what is right", right.clone().into_bytes(), 202),
    ] {
        let sent =
            service.sqs.count(SqsOp::SendMessage) + service.sqs.count(SqsOp::SendMessageBatch);
        let invocation = service.receive.invoke(&event_of(&body)).await;
        let (status, text) = answer(&invocation);
        println!("{case:<32} {status} {:>5} ms", invocation.took.as_millis());
        assert_eq!(status, expected, "{case}: {text}");
        assert!(
            text.len() < 300 && !text.contains("marker"),
            "{case}: {text}"
        );
        assert!(
            invocation.took < Duration::from_secs(5),
            "{case}: {:?}",
            invocation.took
        );
        let more = service.sqs.count(SqsOp::SendMessage)
            + service.sqs.count(SqsOp::SendMessageBatch)
            - sent;
        assert_eq!(more > 0, expected == 202, "{case}");
    }
    assert_eq!(service.receive.starts(), 1, "one process took them all");
}

fn form(payloads: &[&str]) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for payload in payloads {
        form.append_pair("payload", payload);
    }
    form.finish().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_envelopes_decide_nothing() {
    let service = Service::start().await;
    let right = project_push("update", MAIN, &[]);
    for (case, change, expected) in [
        ("no content type", json!({"headers": {}}), 202),
        (
            "a content type of a form",
            json!({"headers": {"content-type": "application/x-www-form-urlencoded"}}),
            202,
        ),
        (
            "an image",
            json!({"headers": {"content-type": "image/png", "content-encoding": "gzip"}}),
            202,
        ),
        (
            "another charset",
            json!({"headers": {"content-type": "application/json; charset=utf-7"}}),
            202,
        ),
        (
            "another host",
            json!({"headers": {"host": "evil.example", "x-forwarded-host": "evil.example"}}),
            202,
        ),
        (
            "another method in a header",
            json!({"headers": {"x-http-method-override": "GET"}}),
            202,
        ),
        (
            "headers that are no texts",
            json!({"headers": {"authorization": [1], "host": null}}),
            202,
        ),
        (
            "base64 that is none",
            json!({"isBase64Encoded": true, "body": "%%%"}),
            400,
        ),
        (
            "base64 without its end",
            json!({"isBase64Encoded": true, "body": "eyJ0eXBlIjoxMn"}),
            400,
        ),
        (
            "base64 of URLs",
            json!({"isBase64Encoded": true, "body": "_-__"}),
            400,
        ),
        (
            "base64 that is not said to be",
            json!({"body": BASE64_STANDARD.encode(&right)}),
            400,
        ),
        ("no body", json!({"body": null}), 400),
        ("a body that is no text", json!({"body": {"a": 1}}), 404),
        (
            "another method",
            json!({"requestContext": {"http": {"method": "PUT"}}}),
            404,
        ),
        ("no method", json!({"requestContext": {"http": {}}}), 404),
        (
            "a path with dots behind",
            json!({"rawPath": format!("/hooks/x/../{TOKEN}")}),
            404,
        ),
        (
            "an escaped path",
            json!({"rawPath": format!("/%68ooks/{TOKEN}")}),
            404,
        ),
        (
            "an escaped token",
            json!({"rawPath": format!("/hooks/%74{}", &TOKEN[1..])}),
            404,
        ),
        (
            "two slashes",
            json!({"rawPath": format!("/hooks//{TOKEN}")}),
            404,
        ),
        (
            "a token in the query",
            json!({"rawPath": "/hooks", "rawQueryString": format!("token={TOKEN}")}),
            404,
        ),
    ] {
        let mut event = request("POST", &format!("/hooks/{TOKEN}"), &right);
        for (name, value) in change.as_object().unwrap() {
            event[name] = value.clone();
        }
        let (status, text) = answer(&service.receive.invoke(&event).await);
        assert_eq!(status, expected, "{case}: {text}");
    }
    assert_eq!(service.receive.starts(), 1, "one process took them all");
}
