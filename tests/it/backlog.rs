//! Backlog's API as the library asks it: each question, each error, and a key that is nowhere but in its header.

use std::{future::Future, time::Duration};

use backlog_bridge::{
    backlog::{ApiError, Backlog, Fault, WebhookChange},
    error::chain,
    secrets::Password,
    space::SpaceUrl,
};
use serde_json::json;

use crate::support::{
    backlog::{ADMIN_KEY, BARE_KEY, Fault as Planned, Habits, ROBOT_KEY, TestBacklog},
    tls::{Ca, trusting},
};

fn api(space: &TestBacklog, key: &str) -> Backlog {
    let url: SpaceUrl = space.space_url().parse().unwrap();
    Backlog::new(&url, &key.to_owned().into()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Fails, with a text that holds no secret. Returns what is wrong and the text.
fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (Fault, String) {
    let err = result.unwrap_err();
    let text = format!("{} {err:?}", chain(&err));
    for secret in [ADMIN_KEY, ROBOT_KEY, BARE_KEY, "sentinel"] {
        assert!(!text.contains(secret), "{text}");
    }
    (err.fault, chain(&err))
}

#[test]
fn each_question_is_answered_and_the_key_is_in_its_header_alone() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP", "LIB"]);
        space.repository("APP", "web", None);
        space.repository("APP", "api", Some("https://example.com/hooks/sentinel"));
        space.pushes("APP", 150);
        let api = api(&space, ADMIN_KEY);
        run(async {
            let me = api.myself().await.unwrap();
            assert!(me.is_administrator() && me.name.as_deref() == Some("Robot"));
            let about = api.space().await.unwrap();
            assert_eq!(about.lang.as_deref(), Some("ja"));
            let limits = api.rate_limit().await.unwrap();
            assert_eq!(limits.read.unwrap().remaining, Some(599));
            assert_eq!(limits.search, None);
            let projects = api.projects().await.unwrap();
            let keys: Vec<_> = projects.iter().map(|p| p.project_key.as_deref()).collect();
            assert_eq!(keys, [Some("APP"), Some("LIB")]);
            assert_eq!(api.project("LIB").await.unwrap().use_git, Some(true));
            let repositories = api.repositories("APP").await.unwrap();
            let names: Vec<_> = repositories.iter().map(|r| r.name.as_deref()).collect();
            assert_eq!(names, [Some("web"), Some("api")]);
            assert!(!format!("{repositories:?}").contains("sentinel"));

            let url: Password = "https://bridge.example/hooks/sentinel%2Btoken?a=b&c"
                .to_owned()
                .into();
            let wanted = WebhookChange {
                name: Some("名前 & 1"),
                description: Some("d"),
                hook_url: Some(&url),
                all_event: Some(false),
                activity_type_ids: Some(&[12, 18]),
            };
            let added = api.add_webhook("APP", &wanted).await.unwrap();
            assert!(!format!("{added:?}").contains("sentinel"), "{added:?}");
            let types = WebhookChange {
                activity_type_ids: Some(&[1, 12]),
                ..WebhookChange::default()
            };
            api.change_webhook("APP", added.id, &types).await.unwrap();
            let listed = api.webhooks("APP").await.unwrap();
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].name.as_deref(), Some("名前 & 1"));
            assert_eq!(listed[0].activity_type_ids, Some(vec![1, 12]));
            assert!(listed[0].posts_pushes());
            assert_eq!(listed[0].hook_url.as_ref().unwrap().reveal(), url.reveal());
            api.remove_webhook("APP", added.id).await.unwrap();
            assert!(api.webhooks("APP").await.unwrap().is_empty());

            for (limit, pages) in [(1, 1), (100, 1), (120, 2), (1000, 3)] {
                space.clear_requests();
                let pushes = api.activities("APP", limit).await.unwrap();
                assert_eq!(pushes.len(), limit.min(150));
                assert!(pushes.windows(2).all(|two| two[0].id > two[1].id));
                assert_eq!(space.requests().len(), pages, "{limit}");
                let content = pushes[0].content.as_ref().unwrap();
                assert_eq!(content.ref_name.as_deref(), Some("refs/heads/main"));
                let repository = content.repository.as_ref().unwrap();
                assert_eq!(repository.name.as_deref(), Some("web"));
            }
            assert!(api.activities("LIB", 5).await.unwrap().is_empty());
        });
        for request in space.requests() {
            assert_eq!(request.header("x-api-key"), Some(ADMIN_KEY));
            assert_eq!(request.header("accept"), Some("application/json"));
            assert!(
                request
                    .header("user-agent")
                    .unwrap()
                    .starts_with("backlog-bridge/")
            );
            for place in [&request.path, &request.query, &request.body] {
                assert!(
                    !place.contains(ADMIN_KEY) && !place.contains("apiKey"),
                    "{place}"
                );
            }
        }
        assert!(!format!("{api:?}").contains(ADMIN_KEY));
    });
}

#[test]
fn what_is_null_is_absent() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        let api = api(&space, ADMIN_KEY);
        let plan = |path: &str, body: serde_json::Value| {
            let body = body.to_string().into_bytes();
            space.fault(path, 1, Planned::Answer(200, "application/json", body));
        };
        plan(
            "GET users/myself",
            json!({"id": 1, "userId": null, "name": null, "roleType": null, "lang": null}),
        );
        plan("GET space", json!({}));
        plan(
            "GET rateLimit",
            json!({"rateLimit": {"read": null, "update": {}}}),
        );
        plan(
            "GET projects/APP/git",
            json!([{"id": 5, "name": null, "hookUrl": null, "httpUrl": null, "pushedAt": null}]),
        );
        plan(
            "GET projects/APP/webhooks",
            json!([{"id": 6, "name": null, "hookUrl": null, "allEvent": null, "activityTypeIds": null}, {"id": 7}]),
        );
        plan(
            "GET projects/APP/activities",
            json!([{"id": 8, "type": 12, "content": null, "created": null}, {"id": 7, "content": {"repository": null}}]),
        );
        plan(
            "GET projects/APP",
            json!({"id": 1, "projectKey": null, "name": null, "useGit": null, "unheard": {"of": []}}),
        );
        run(async {
            let me = api.myself().await.unwrap();
            assert!(me.name.is_none() && !me.is_administrator());
            assert_eq!(api.space().await.unwrap().lang, None);
            let limits = api.rate_limit().await.unwrap();
            assert_eq!((limits.read, limits.update.unwrap().limit), (None, None));
            assert!(api.repositories("APP").await.unwrap()[0].hook_url.is_none());
            let hooks = api.webhooks("APP").await.unwrap();
            assert!(
                hooks
                    .iter()
                    .all(|hook| hook.hook_url.is_none() && !hook.posts_pushes())
            );
            assert_eq!(api.activities("APP", 2).await.unwrap().len(), 2);
            assert_eq!(api.project("APP").await.unwrap().name, None);
        });
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn each_error_says_what_to_do_and_whether_it_passes() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        let text = |text: &str| text.as_bytes().to_vec();
        let page = |status| Planned::Answer(status, "text/html", text("<html>sentinel</html>"));
        let json = |status, body: &str| Planned::Answer(status, "application/json", text(body));
        for (fault, expected, passes, words) in [
            (
                Planned::Refuse(401, 11),
                Fault::WrongKey,
                false,
                "the API key is wrong, or of another space",
            ),
            (
                Planned::Refuse(403, 12),
                Fault::TwoFactor,
                false,
                "two-factor",
            ),
            (
                Planned::Refuse(403, 4),
                Fault::Address,
                false,
                "a VPC with a NAT gateway",
            ),
            (
                Planned::Refuse(403, 5),
                Fault::Role,
                false,
                "ask an administrator of the project",
            ),
            (
                Planned::Refuse(404, 6),
                Fault::NotThere,
                false,
                "no member of the project",
            ),
            (Planned::Refuse(402, 3), Fault::Refused, false, "licence"),
            (
                Planned::Refuse(400, 7),
                Fault::Refused,
                false,
                "as the test has it (code 7)",
            ),
            (
                Planned::Refuse(500, 1),
                Fault::Server,
                true,
                "try again later",
            ),
            (page(503), Fault::Server, true, "503 Service Unavailable"),
            (page(401), Fault::WrongKey, false, "is none of the API"),
            (page(407), Fault::Unreachable, true, "wants a login first"),
            (page(404), Fault::NoApi, false, "check the space's `url`"),
            (page(200), Fault::NoApi, false, "the answer is a web page"),
            (
                json(200, "{\"id\":"),
                Fault::NoApi,
                false,
                "at line 1 column 6",
            ),
            (json(200, ""), Fault::NoApi, false, "not what the API gives"),
            (
                Planned::Redirect("https://elsewhere.example/login?next=sentinel".into()),
                Fault::NoApi,
                false,
                "it redirects to https://elsewhere.example/login, and no redirect is followed",
            ),
            (Planned::Drop, Fault::NoAnswer, true, "try again later"),
            (
                json(
                    400,
                    &format!(
                        "{{\"errors\":[{{\"message\":\"apiKey={ADMIN_KEY} \\u001b[31m\",\"code\":7}}]}}"
                    ),
                ),
                Fault::Refused,
                false,
                "apiKey=[hidden] \\u{1b}[31m (code 7)",
            ),
        ] {
            space.fault("GET users/myself", 1, fault.clone());
            let err = run(api(&space, ADMIN_KEY).myself());
            assert_eq!(
                err.as_ref().map_err(ApiError::is_transient).err(),
                Some(passes),
                "{fault:?}"
            );
            let (found, said) = refused(err);
            println!("{said}");
            assert_eq!(found, expected, "{said}");
            assert!(said.contains(words), "{said}");
            assert!(
                said.starts_with("cannot ask whose API key it is in localhost:"),
                "{said}"
            );
        }
        // The space's own answers.
        let (wait, said) = {
            space.fault("GET users/myself", 1, Planned::Refuse(429, 13));
            refused(run(api(&space, ADMIN_KEY).myself()))
        };
        let Fault::Wait(wait) = wait else {
            panic!("{said}")
        };
        assert!((38..=42).contains(&wait.as_secs()), "{said}");
        assert!(
            said.contains(&format!("wait for {} s", wait.as_secs())),
            "{said}"
        );
        assert_eq!(
            refused(run(api(&space, "wrong").myself())).0,
            Fault::WrongKey
        );
        assert_eq!(
            refused(run(api(&space, BARE_KEY).myself())).0,
            Fault::TwoFactor
        );
        assert_eq!(
            refused(run(api(&space, ROBOT_KEY).webhooks("APP"))).0,
            Fault::Role
        );
        assert_eq!(
            refused(run(api(&space, ROBOT_KEY).project("NONE"))).0,
            Fault::NotThere
        );
    });
}

#[test]
fn an_answer_may_have_four_mebibytes() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        let api = api(&space, ADMIN_KEY);
        space.fault("GET projects", 1, Planned::Padded(4_194_304));
        assert_eq!(run(api.projects()).unwrap().len(), 1);
        space.fault("GET projects", 1, Planned::Padded(4_194_305));
        let (fault, said) = refused(run(api.projects()));
        assert_eq!(fault, Fault::NoApi);
        assert!(said.contains("longer than 4194304 bytes"), "{said}");
    });
}

#[test]
fn a_key_goes_to_no_other_place() {
    trusting(|| {
        let ca = Ca::new();
        let (space, stranger) = (
            TestBacklog::start(&ca, &["APP"]),
            TestBacklog::start(&ca, &["APP"]),
        );
        let elsewhere = stranger.space_url().replace("/git", "/api/v2/users/myself");
        space.fault("GET users/myself", 9, Planned::Redirect(elsewhere));
        assert_eq!(
            refused(run(api(&space, ADMIN_KEY).myself())).0,
            Fault::NoApi
        );
        assert!(stranger.requests().is_empty());
        // Nor over HTTP, but to this machine.
        for url in ["file:///srv/git", "http://git.example.com/git"] {
            let url: SpaceUrl = url.parse().unwrap();
            let err = Backlog::new(&url, &ADMIN_KEY.to_owned().into());
            assert_eq!(refused(err).0, Fault::NoApi);
        }
        for key in ["", " ", "sentinel\nkey", "sentinelキー"] {
            let url: SpaceUrl = space.space_url().parse().unwrap();
            let err = Backlog::new(&url, &key.to_owned().into());
            assert_eq!(refused(err).0, Fault::WrongKey, "{key:?}");
        }
    });
}

#[test]
fn a_slow_or_absent_server_is_given_up() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        let api = api(&space, ADMIN_KEY).within(Duration::from_millis(300));
        space.fault("GET space", 1, Planned::Late(Duration::from_mins(1)));
        let began = std::time::Instant::now();
        let (fault, said) = refused(run(api.space()));
        assert_eq!(fault, Fault::NoAnswer, "{said}");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(run(api.space()).is_ok(), "the next one is answered");

        let gone = space.space_url();
        drop(space);
        for url in [&*gone, "https://no-such-space.invalid/git"] {
            let url: SpaceUrl = url.parse().unwrap();
            let api = Backlog::new(&url, &ADMIN_KEY.to_owned().into()).unwrap();
            let (fault, said) = refused(run(api.space()));
            assert_eq!(fault, Fault::Unreachable, "{said}");
            assert!(
                said.contains("check the space's url and the network"),
                "{said}"
            );
        }
    });
}

#[test]
fn a_certificate_of_nobody_we_trust_is_named() {
    trusting(|| {
        let ca = Ca::new();
        let expired = ca.server_config_for(&["localhost"], (2000, 2001));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                use std::io::Read;
                let tls = tokio_rustls::rustls::ServerConnection::new(expired.clone()).unwrap();
                let mut tls = tokio_rustls::rustls::StreamOwned::new(tls, stream.unwrap());
                let mut heard = Vec::new();
                tls.read_to_end(&mut heard).ok();
            }
        });
        let url: SpaceUrl = format!("https://localhost:{port}/git").parse().unwrap();
        let api = Backlog::new(&url, &ADMIN_KEY.to_owned().into()).unwrap();
        let (fault, said) = refused(run(api.space()));
        assert_eq!(fault, Fault::Unreachable);
        assert!(
            said.contains("its certificate expired on 2001-01-01"),
            "{said}"
        );
    });
}

#[test]
fn a_change_that_was_made_unheard_is_told_from_one_that_was_not() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        let api = api(&space, ADMIN_KEY);
        let url: Password = "https://bridge.example/hooks/sentinel-token"
            .to_owned()
            .into();
        let wanted = WebhookChange {
            hook_url: Some(&url),
            ..WebhookChange::default()
        };
        for (fault, may_be_done, hooks) in [
            (Planned::Refuse(403, 5), false, 0),
            (Planned::Refuse(429, 13), false, 0),
            (Planned::Drop, true, 1),
            (Planned::Refuse(500, 1), true, 1),
        ] {
            space.fault("POST projects/APP/webhooks", 1, fault.clone());
            let err = run(api.add_webhook("APP", &wanted));
            assert_eq!(
                err.as_ref().map_err(ApiError::may_be_done).err(),
                Some(may_be_done),
                "{fault:?}"
            );
            refused(err);
            assert_eq!(space.hooks("APP").len(), hooks, "{fault:?}");
        }
        // A server that repeats what it was sent.
        let body = format!(
            "{{\"errors\":[{{\"message\":\"{} and sentinel-token\",\"code\":7}}]}}",
            url.reveal()
        );
        space.fault(
            "POST projects",
            1,
            Planned::Answer(400, "application/json", body.into_bytes()),
        );
        let (_, said) = refused(run(api.add_webhook("APP", &wanted)));
        assert!(said.contains("[hidden] and [hidden] (code 7)"), "{said}");
        let posts = space.writes().len();
        assert_eq!(posts, 5, "nothing is sent twice");
    });
}

#[test]
fn where_the_key_has_to_be_in_the_query_it_is_told_nowhere_else() {
    trusting(|| {
        let space = TestBacklog::start(&Ca::new(), &["APP"]);
        space.habits(Habits {
            wants_query: true,
            ..Habits::default()
        });
        // Question 35 of docs/unverified.md. With the header it is a wrong key.
        let header = api(&space, ROBOT_KEY);
        let query = api(&space, ROBOT_KEY)
            .with_key_in_query()
            .within(Duration::from_secs(2));
        run(async {
            let (fault, _) = refused(header.myself().await);
            assert_eq!(fault, Fault::WrongKey);
            assert_eq!(query.myself().await.unwrap().id, 2);
            for planned in [
                Planned::Refuse(403, 5),
                Planned::Refuse(500, 1),
                Planned::Drop,
                Planned::Late(Duration::from_secs(4)),
                Planned::Redirect("https://localhost:1/".into()),
                Planned::Answer(200, "text/html", b"<html>".to_vec()),
            ] {
                space.fault("GET users/myself", 1, planned);
                refused(query.myself().await);
            }
        });
        drop(space);
        run(async { refused(query.myself().await) });
    });
}
