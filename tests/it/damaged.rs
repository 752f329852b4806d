//! A store with something wrong in it: that is said, healed by a put where it can be, and stops nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    serve::{Place, Serving},
    support::MAIN,
};

const OTHERS: [&str; 4] = ["a", "b", "c", "d"];

/// `serve` of several branches, all of which are delivered.
fn delivered() -> (Place, PathBuf) {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    for name in OTHERS {
        let name = format!("refs/heads/{name}");
        place
            .repository
            .commit_on(&name, &[("a", name.as_str().into())]);
    }
    let table = format!(
        "[[space]]\nurl = \"file://{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/*\"\n\
         object = \"{{ref}}.zip\"\nsweep = \"all\"\n",
        place.upstream.root().display()
    );
    fs::write(place.folder.path().join("routes.toml"), table).unwrap();
    let (serving, _) = swept(&place, 5);
    assert_eq!(serving.stop().0, Some(0));
    let object = place
        .folder
        .path()
        .join("backlog-bridge-store/sources/main.zip");
    (place, object)
}

/// Starts, and waits for so many lines and the end of the sweep.
fn swept(place: &Place, lines: usize) -> (Serving, Vec<Value>) {
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    let lines = (0..lines).map(|_| serving.line()).collect();
    serving.wait_for("sweep: ");
    (serving, lines)
}

fn newest(object: &Path) -> PathBuf {
    let folders = fs::read_dir(object)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    folders.max().unwrap()
}

fn fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_a_put_may_replace_is_passed_over_and_heals() {
    type Damage = fn(&Path);
    let cases: &[(&str, &str, Damage)] = &[
        ("cut", "version.json is damaged", |version| {
            let file = version.join("version.json");
            let text = fs::read(&file).unwrap();
            fs::write(&file, &text[..text.len() / 2]).unwrap();
        }),
        ("empty", "version.json is damaged", |version| {
            fs::write(version.join("version.json"), "").unwrap();
        }),
        ("missing", "it is missing", |version| {
            fs::remove_file(version.join("version.json")).unwrap();
        }),
        ("a folder", "it is no file", |version| {
            fs::remove_file(version.join("version.json")).unwrap();
            fs::create_dir(version.join("version.json")).unwrap();
        }),
        ("a pipe", "it is no file", |version| {
            fifo(&version.join("version.json"));
        }),
        ("an empty folder", "it is missing", |version| {
            fs::remove_dir_all(version).unwrap();
            fs::create_dir(version).unwrap();
        }),
        (
            "a line break in the metadata",
            "what no header can say",
            |version| {
                let file = version.join("version.json");
                let mut json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                json["content"]["metadata"]["git-ref"] = json!("a\nb");
                fs::write(&file, json.to_string()).unwrap();
            },
        ),
        (
            "a line break in the ETag",
            "what no header can say",
            |version| {
                let file = version.join("version.json");
                let mut json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                json["content"]["etag"] = json!("a\nb");
                fs::write(&file, json.to_string()).unwrap();
            },
        ),
    ];
    let (place, object) = delivered();
    for (nth, (case, says, damage)) in cases.iter().enumerate() {
        damage(&newest(&object));
        let (serving, lines) = swept(&place, 1);
        let found = (&lines[0]["ref"], &lines[0]["outcome"]);
        assert_eq!(found, (&json!(MAIN), &json!("published")), "{case}");
        let (code, text) = serving.stop();
        assert_eq!(code, Some(0), "{case}: {text}");
        assert!(
            text.contains("restore it, or delete the folder it is in"),
            "{case}: {text}"
        );
        assert!(text.contains(says), "{case}: {text}");
        assert!(text.contains("objects 5, differed 1"), "{case}: {text}");
        assert_eq!(fs::read_dir(&object).unwrap().count(), nth + 2, "{case}");
    }
    // The bytes are no file either.
    let commit = place.repository.commit_on(MAIN, &[("b", "b".into())]);
    fifo(&newest(&object).join("main.zip"));
    let (serving, lines) = swept(&place, 1);
    assert_eq!(lines[0]["commit"], json!(commit));
    let (code, text) = serving.stop();
    assert_eq!(code, Some(0));
    assert!(text.contains("main.zip is damaged: restore it"), "{text}");
}

#[test]
fn what_nobody_can_heal_is_said_in_words_and_stops_no_other() {
    type Damage = fn(&Path);
    let cases: &[(&str, &str, Damage)] = &[
        ("a file in the place of the key", "is no folder", |object| {
            fs::remove_dir_all(object).unwrap();
            fs::write(object, "").unwrap();
        }),
        ("a number twice", "have the same number", |object| {
            let newest = newest(object);
            let name = newest.file_name().unwrap().to_str().unwrap();
            let again = format!("{}-{}", name.split_once('-').unwrap().0, "0".repeat(32));
            let copied = Command::new("cp")
                .arg("-R")
                .arg(&newest)
                .arg(object.join(again))
                .status();
            assert!(copied.unwrap().success());
        }),
        ("the last number of all", "leaves no room", |object| {
            let newest = newest(object);
            let name = newest.file_name().unwrap().to_str().unwrap();
            let last = format!("@{}-{}", u64::MAX, name.split_once('-').unwrap().1);
            fs::rename(&newest, object.join(last)).unwrap();
        }),
    ];
    for (case, says, damage) in cases {
        let (place, object) = delivered();
        damage(&object);
        // All others are looked at, and delivered.
        for name in [MAIN, "refs/heads/a", "refs/heads/d"] {
            place
                .repository
                .commit_on(name, &[("b", case.as_bytes().to_vec().into())]);
        }
        let (serving, lines) = swept(&place, 3);
        let (failed, published): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line["outcome"] == "failed");
        assert_eq!(
            (failed.len(), published.len()),
            (1, 2),
            "{case}: {lines:#?}"
        );
        let error = &failed[0]["error"];
        println!("{case}: {}", error["message"]);
        assert_eq!(
            (&error["kind"], &error["transient"]),
            (&json!("bucket"), &json!(false)),
            "{case}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{case}: {error}"
        );
        let (_, text) = serving.stop();
        assert!(
            text.contains("the embedded S3: ") && text.contains(says),
            "{case}: {text}"
        );
        assert!(!text.contains("not reached"), "{case}: {text}");
    }
}

#[test]
fn one_object_that_cannot_be_read_now_keeps_the_sweep_from_no_other() {
    let (place, object) = delivered();
    let description = newest(&object).join("version.json");
    fs::remove_file(&description).unwrap();
    std::os::unix::fs::symlink("version.json", &description).unwrap();
    for name in OTHERS {
        let name = format!("refs/heads/{name}");
        place.repository.commit_on(&name, &[("a", "new".into())]);
    }
    // In whichever order they are looked at.
    let (serving, lines) = swept(&place, 5);
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line["outcome"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    let error = &failed[0]["error"];
    assert_eq!(error["transient"], json!(true), "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("version.json"),
        "{error}"
    );
    let (_, text) = serving.stop();
    assert!(
        text.contains("objects 4, differed 4, 1 failure\n"),
        "{text}"
    );
}
