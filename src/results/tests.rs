use super::*;
use crate::route::Language;

fn run(id: &str, state: State, started: i64) -> Run {
    Run {
        id: format!("{id}-0000-0000"),
        state,
        started,
        updated: started + 90,
        version: format!("v-{id}"),
        holds: Some(Holds {
            commit: id.repeat(5).parse().unwrap(),
            subject: format!("APP-{} mend it", started / 100),
            author: "A".into(),
            written: started - 10,
        }),
        is_rollback: false,
        failure: (state == State::Failed).then(|| Failure {
            stage: "Build".into(),
            action: Some("Compile".into()),
            words: "exit status 1 in 123456789012".into(),
        }),
        link: "https://console.example/1".into(),
    }
}

fn topic(runs: Vec<Run>) -> Topic {
    Topic {
        pipeline: "web-main".into(),
        marker: Marker::new("123456789012", "r", "web-main", "refs/heads/main"),
        ref_name: "main".into(),
        is_branch: true,
        project: "APP".into(),
        runs,
        is_cut: false,
        results: Results::PullRequest,
        issue: None,
        words: Words {
            language: Language::English,
            markup: Markup::Markdown,
            zone: None,
            detail: false,
        },
    }
}

fn open(number: i64) -> Request {
    Request {
        number,
        branch: "main".into(),
        base: "production".into(),
        fate: Fate::Open,
        author: Some(7),
    }
}

fn merged(number: i64, at: i64, commit: Option<&str>) -> Request {
    Request {
        branch: format!("feature/{number}"),
        base: "main".into(),
        fate: Fate::Over {
            at: Some(at),
            is_merged: true,
            commit: commit.map(|commit| commit.parse().unwrap()),
        },
        ..open(number)
    }
}

/// All that a look writes into empty homes: where, what, and the text.
fn written(topic: &Topic, requests: &[Request]) -> Vec<Write> {
    let mut look = Look::new(topic, Why::Event, Vec::new());
    let mut written = Vec::new();
    loop {
        match look.next() {
            Step::Requests => look.saw_requests(requests.to_vec()),
            Step::Comments { home, settled } => {
                look.saw_comments(&home, Vec::new(), false, settled);
            }
            Step::Write(write) => {
                look.wrote(&write, 100 + i64::try_from(written.len()).unwrap());
                written.push(write);
            }
            Step::Over => return written,
        }
    }
}

fn homes(written: &[Write]) -> Vec<(Home, Kind)> {
    let homes = written.iter();
    homes
        .map(|write| (write.home.clone(), write.kind.clone()))
        .collect()
}

#[test]
fn a_request_is_told_of_the_runs_of_its_branch_or_of_what_it_brought() {
    let topic = topic(vec![
        run("cccccccc", State::Running, 300),
        run("bbbbbbbb", State::Failed, 200),
        run("aaaaaaaa", State::Succeeded, 100),
    ]);
    let status = |number| (Home::Request(number), Kind::Status);
    let alert = |number| (Home::Request(number), Kind::Alert("bbbbbbbb".into()));
    let all = |requests: Vec<Request>| homes(&written(&topic, &requests));
    assert_eq!(all(vec![open(1)]), [status(1), alert(1)]);
    // Two merges in one version; one before it, and one that no version has yet.
    let merges = vec![
        merged(2, 150, None),
        merged(3, 190, None),
        merged(4, 90, None),
        merged(5, 400, None),
    ];
    assert_eq!(all(merges), [status(2), status(3), alert(2), alert(3)]);
    let by_commit = vec![merged(6, 1, Some(&"a".repeat(40)))];
    assert_eq!(all(by_commit), [status(6)]);
    let elsewhere = Request {
        branch: "other".into(),
        ..open(8)
    };
    assert_eq!(all(vec![elsewhere]), []);
}

#[test]
fn an_issue_is_told_what_no_request_is_and_of_no_alert() {
    let mut topic = topic(vec![
        run("bbbbbbbb", State::Failed, 200),
        run("aaaaaaaa", State::Failed, 100),
    ]);
    topic.issue = Some(ResultsIssue::OfCommit);
    let issue = |key: &str| (Home::Issue(key.into()), Kind::Status);
    assert_eq!(
        homes(&written(&topic, &[])),
        [issue("APP-1"), issue("APP-2")]
    );
    topic.issue = Some(ResultsIssue::Key("APP-9".into()));
    assert_eq!(homes(&written(&topic, &[])), [issue("APP-9")]);
    let with_request = homes(&written(&topic, &[open(1)]));
    assert!(
        with_request
            .iter()
            .all(|(home, _)| *home == Home::Request(1)),
        "{with_request:?}"
    );
    topic.results = Results::Alert;
    assert_eq!(homes(&written(&topic, &[])), []);
}

#[test]
fn an_alert_is_one_for_a_red_run_and_says_how_it_goes_on() {
    let red = run("bbbbbbbb", State::Failed, 200);
    let mut topic = topic(vec![red.clone(), run("aaaaaaaa", State::Succeeded, 100)]);
    topic.results = Results::Alert;
    let mut there: Vec<Comment> = Vec::new();
    let mut see = |topic: &Topic| -> Vec<(Option<i64>, String, bool)> {
        let mut look = Look::new(topic, Why::Event, Vec::new());
        let mut writes = Vec::new();
        loop {
            match look.next() {
                Step::Requests => look.saw_requests(vec![open(1)]),
                Step::Comments { home, settled } => {
                    look.saw_comments(&home, there.clone(), false, settled);
                }
                Step::Write(write) => {
                    look.wrote(&write, 1);
                    there.retain(|own| own.id != 1);
                    there.push(Comment {
                        id: 1,
                        kind: write.kind.clone(),
                        text: write.text.clone(),
                        updated: None,
                    });
                    let head = write.text.lines().next().unwrap().to_owned();
                    writes.push((write.replaces, head, write.notifies.is_some()));
                }
                Step::Over => return writes,
            }
        }
    };
    let head = |state: &str| format!("CI web-main (main): {state}");
    assert_eq!(see(&topic), [(None, head("failed"), true)]);
    assert_eq!(see(&topic), []);
    topic.runs.insert(0, run("cccccccc", State::Failed, 300));
    assert_eq!(see(&topic), [], "red again");
    topic.runs[1].state = State::Running;
    // The run that it was for began anew; another one is red.
    assert_eq!(
        see(&topic)[0],
        (Some(1), head("failed, and runs again"), false)
    );
    topic.runs[1].state = State::Failed;
    topic.runs.insert(0, run("dddddddd", State::Succeeded, 400));
    assert!(see(&topic).contains(&(Some(1), head("failed, and is mended"), false)));
}

#[test]
fn a_hostile_name_or_error_is_only_text() {
    for (name, shown) in [
        ("feature/ログイン", "feature/ログイン"),
        ("fix_login", "fix_login"),
        ("__bold__", "??bold??"),
        ("#image(x.png)", "?image?x.png?"),
        ("{code}", "?code?"),
        ("a`b`<script>", "a?b??script?"),
        ("&color(red){x}", "?color?red??x?"),
        ("@robot", "?robot"),
        ("''x''", "??x??"),
    ] {
        assert_eq!(text::name(name), shown);
    }
    let mut topic = topic(vec![run("bbbbbbbb", State::Failed, 200)]);
    topic.words.detail = true;
    let words = "role 123456789012 of 1234567890123\n```\n[x](http://evil) {/code} #image(y)";
    topic.runs[0].failure.as_mut().unwrap().words = words.into();
    let shown = text::status(&topic, &[0]);
    assert!(
        shown.contains("role ************ of 1234567890123 ''' [x]"),
        "{shown}"
    );
    assert_eq!(shown.matches("```").count(), 2, "{shown}");
    topic.words.markup = Markup::Backlog;
    let shown = text::status(&topic, &[0]);
    assert_eq!(
        (
            shown.matches("{code}").count(),
            shown.matches("{/code}").count()
        ),
        (1, 1),
        "{shown}"
    );
    topic.words.detail = false;
    assert!(!text::status(&topic, &[0]).contains("role"));
}

#[test]
fn comments_look_like_this() {
    let mut topic = topic(vec![
        run("dddddddd", State::Running, 1_774_970_000),
        Run {
            is_rollback: true,
            ..run("cccccccc", State::Succeeded, 1_774_960_000)
        },
        Run {
            holds: None,
            ..run("bbbbbbbb", State::Superseded, 1_774_950_000)
        },
        run("aaaaaaaa", State::Failed, 1_774_940_000),
    ]);
    topic.words.detail = true;
    let mut shown = String::new();
    for (language, markup, zone) in [
        (
            Language::Japanese,
            Markup::Backlog,
            Words::zone_of("Asia/Tokyo"),
        ),
        (Language::English, Markup::Markdown, None),
    ] {
        topic.words.language = language;
        topic.words.markup = markup;
        topic.words.zone = zone;
        for text in [
            text::status(&topic, &[0, 1, 2, 3]),
            text::alert(&topic, 3, None),
        ] {
            shown.push_str(&text);
            shown.push_str("\n\n----\n\n");
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_marker_is_of_one_pipeline_of_one_account() {
    let marker =
        |account, region, pipeline| Marker::new(account, region, pipeline, "refs/heads/main");
    let own = marker("1", "a", "web");
    let line = own.line(&Kind::Status);
    assert!(
        line.starts_with("backlog-bridge/web/") && line.len() == "backlog-bridge/web/".len() + 6,
        "{line}"
    );
    assert_eq!(
        own.kind_of(&format!("text\r\n\r\n{line}\r\n")),
        Some(Kind::Status)
    );
    let alert = Kind::Alert("0123abcd".into());
    assert_eq!(own.kind_of(&own.line(&alert)), Some(alert));
    for other in [
        marker("2", "a", "web"),
        marker("1", "b", "web"),
        marker("1", "a", "web2"),
    ] {
        assert_eq!(own.kind_of(&other.line(&Kind::Status)), None);
    }
    assert_eq!(own.kind_of(&format!("{line}\nI agree")), None);
    assert_eq!(own.kind_of(&format!("{line}x")), None);
}

#[test]
fn the_schedule_heals_and_leaves_alone_what_people_did() {
    let topic = topic(vec![run("aaaaaaaa", State::Succeeded, 1000)]);
    let look = |now, known: Vec<(Home, Known)>, there: Vec<Comment>| {
        let mut look = Look::new(&topic, Why::Schedule { now }, known);
        look.saw_requests(vec![open(1)]);
        look.saw_comments(&Home::Request(1), there, false, true);
        look.next()
    };
    let comment = |updated| Comment {
        id: 1,
        kind: Kind::Status,
        text: "by hand".into(),
        updated: Some(updated),
    };
    let is_write = |step: &Step| matches!(step, Step::Write(_));
    assert!(is_write(&look(2000, vec![], vec![])), "lost");
    assert_eq!(
        look(1090 + HEALED_FOR + 1, vec![], vec![]),
        Step::Over,
        "long ago"
    );
    assert!(
        is_write(&look(2000, vec![], vec![comment(500)])),
        "older than the run's end"
    );
    assert_eq!(
        look(9000, vec![], vec![comment(8000)]),
        Step::Over,
        "by hand"
    );
    let known = Known {
        comment: comment(1),
        run: topic.runs[0].id.clone(),
        is_fresh: false,
    };
    assert_eq!(
        look(2000, vec![(Home::Request(1), known.clone())], vec![]),
        Step::Over,
        "removed"
    );
    let earlier = Known {
        run: "an earlier one".into(),
        ..known
    };
    assert!(
        is_write(&look(2000, vec![(Home::Request(1), earlier)], vec![])),
        "the next run"
    );
}

#[test]
fn nothing_new_is_written_where_not_all_is_read_or_the_list_may_lag() {
    let topic = topic(vec![run("aaaaaaaa", State::Succeeded, 1000)]);
    let home = Home::Request(1);
    let mut look = Look::new(&topic, Why::Event, Vec::new());
    look.saw_requests(vec![open(1)]);
    assert_eq!(
        look.next(),
        Step::Comments {
            home: home.clone(),
            settled: true
        }
    );
    look.saw_comments(&home, Vec::new(), false, false);
    assert_eq!(
        look.next(),
        Step::Comments {
            home: home.clone(),
            settled: true
        }
    );
    look.saw_comments(&home, Vec::new(), true, true);
    assert_eq!(look.next(), Step::Over);
    assert_eq!(look.crowded().count(), 1);
}
