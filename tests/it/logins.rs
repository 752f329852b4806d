//! `sync --aws` on a machine that is not set up, or whose login is over: one line says what to type, and whether it passes by
//! itself. Nothing outside of this machine is asked.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use crate::support::{
    MAIN, git_server::GitServer, process::run_within, tls::Ca, upstream::Upstream,
};

const LIMIT: Duration = Duration::from_mins(1);

/// A home of its own with files of AWS, and a Git server with something to deliver.
struct Machine {
    _upstream: Upstream,
    server: GitServer,
    home: tempfile::TempDir,
}

/// Where nobody listens.
fn closed() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Machine {
    fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        repository.commit_on(MAIN, &[("a", "a".into())]);
        let server = GitServer::start(upstream.root(), None);
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let table = format!(
            "[[space]]\nurl = \"{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"web.zip\"\n",
            server.space_url()
        );
        fs::write(home.path().join("routes.toml"), table).unwrap();
        Self {
            _upstream: upstream,
            server,
            home,
        }
    }

    fn config(&self, text: &str) {
        fs::write(self.home.path().join(".aws/config"), text).unwrap();
    }

    /// Runs `sync --aws` with these variables and no others, which fails. Returns the failure as JSON, how long it took, and
    /// all that was printed.
    fn sync(&self, variables: &[(&str, &str)]) -> (Value, Duration, String) {
        let (line, took, printed) = self.sync_to(&["--aws"], variables);
        assert_eq!(line["outcome"], "failed", "{printed}");
        (line["error"].clone(), took, printed)
    }

    /// The same to anywhere, of the whole line.
    fn sync_to(&self, place: &[&str], variables: &[(&str, &str)]) -> (Value, Duration, String) {
        let mut sync = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        sync.env_clear()
            .arg("sync")
            .args(place)
            .args(["--routes", "routes.toml"])
            .current_dir(self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home.path())
            .env("SOURCE_BUCKET", "sources-of-nobody")
            .env("SSL_CERT_FILE", self.server.ca_file())
            // Nobody is there, on any machine.
            .env(
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                format!("http://127.0.0.1:{}", closed()),
            )
            .envs(variables.iter().copied());
        let began = Instant::now();
        let output = run_within(&mut sync, LIMIT).expect("it is built");
        let took = began.elapsed();
        let [stdout, stderr] = [&output.stdout, &output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let line = serde_json::from_str(stdout.lines().next().unwrap_or_default());
        let line: Value = line.unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        let status = i32::from(line["outcome"] == "failed");
        assert_eq!(output.status.code(), Some(status), "{stdout}{stderr}");
        (line, took, stdout + &stderr)
    }
}

const REGION: (&str, &str) = ("AWS_REGION", "us-east-1");
const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "never-to-be-seen"),
];

/// What it is, the variables, why it fails, and what to do.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn a_login_that_cannot_be_had_says_what_to_type() {
    let machine = Machine::new();
    let config = "\
[profile sso]
region = us-east-1
sso_session = corp
sso_account_id = 111122223333
sso_role_name = dev
[sso-session corp]
sso_region = us-east-1
sso_start_url = https://corp.example/start
[profile ended]
region = us-east-1
sso_session = ended
sso_account_id = 111122223333
sso_role_name = dev
[sso-session ended]
sso_region = us-east-1
sso_start_url = https://corp.example/start
[profile old-sso]
region = us-east-1
sso_region = us-east-1
sso_start_url = https://corp.example/start
sso_account_id = 111122223333
sso_role_name = dev
[profile signed-in]
region = us-east-1
login_session = arn:aws:iam::111122223333:user/me
[profile through]
region = us-east-1
role_arn = arn:aws:iam::111122223333:role/deploy
source_profile = sso
[profile program]
region = us-east-1
credential_process = /nonexistent/program --secret never-to-be-seen
[profile fails]
region = us-east-1
credential_process = false
[profile half]
region = us-east-1
aws_access_key_id = AKIDEXAMPLE
[profile empty]
region = us-east-1
";
    machine.config(config);
    // The token of a session that is over, under the name that the AWS CLI gives it: the SHA-1 of the session's.
    let cache = machine.home.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let token = "{\"accessToken\":\"never-to-be-seen\",\"expiresAt\":\"2020-01-01T00:00:00Z\",\"region\":\"us-east-1\",\
                 \"startUrl\":\"https://corp.example/start\"}";
    fs::write(
        cache.join("ba92ed73c97b30bcc4639724ab6aa8ae87f92601.json"),
        token,
    )
    .unwrap();
    let home = machine.home.path();
    let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let (nowhere, folder, broken) = (path("nowhere"), path(".aws"), path("broken"));
    fs::write(&broken, "[profile a\nregion=x\n").unwrap();
    let dead = format!("http://127.0.0.1:{}/keys", closed());
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let swallows = format!("http://{}", silent.local_addr().unwrap());
    let profile = |name| ("AWS_PROFILE", name);
    let cases: &[Case<'_>] = &[
        (
            "nothing at all",
            &[],
            "no region is named",
            "AWS_REGION=ap-northeast-1",
        ),
        (
            "no region",
            &KEYS,
            "no region is named",
            "AWS_REGION=ap-northeast-1",
        ),
        (
            "no login",
            &[REGION],
            "",
            "log in: aws configure, or aws sso login",
        ),
        (
            "a network that swallows everything",
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &swallows)],
            "no region is named",
            "AWS_REGION=ap-northeast-1",
        ),
        (
            "the same, and a region",
            &[REGION, ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &swallows)],
            "no credentials were found",
            "log in: aws configure, or aws sso login",
        ),
        (
            "an empty profile",
            &[profile("empty")],
            "",
            "log in: aws configure, or aws sso login",
        ),
        (
            "SSO",
            &[profile("sso")],
            "",
            "log in: aws sso login --profile sso",
        ),
        (
            "SSO that is over",
            &[profile("ended")],
            "",
            "log in: aws sso login --profile ended",
        ),
        (
            "SSO of old",
            &[profile("old-sso")],
            "",
            "log in: aws sso login --profile old-sso",
        ),
        (
            "a role of SSO",
            &[profile("through")],
            "",
            "log in: aws sso login --profile sso",
        ),
        (
            "aws login",
            &[profile("signed-in")],
            "the profile signed-in is one of aws login",
            "aws configure export-credentials --profile signed-in --format env",
        ),
        (
            "no such profile",
            &[profile("nope")],
            "there is no profile nope in ",
            "aws configure --profile nope",
        ),
        (
            "no such profile, a region",
            &[REGION, profile("nope")],
            "/.aws/config or ",
            "aws configure --profile nope",
        ),
        (
            "a program that is not there",
            &[profile("program")],
            "",
            "run the program that credential_process of the profile program names",
        ),
        (
            "a program that fails",
            &[profile("fails")],
            "",
            "run the program that credential_process of the profile fails names",
        ),
        (
            "half a profile",
            &[profile("half")],
            "only one of aws_access_key_id and aws_secret_access_key",
            "aws configure --profile half",
        ),
        (
            "no secret",
            &[REGION, KEYS[0]],
            "AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not",
            "set both",
        ),
        (
            "only a secret",
            &[REGION, KEYS[1]],
            "AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not",
            "set both",
        ),
        (
            "an empty secret",
            &[REGION, KEYS[0], ("AWS_SECRET_ACCESS_KEY", "")],
            "AWS_SECRET_ACCESS_KEY is not",
            "set both",
        ),
        (
            "no token",
            &[
                REGION,
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &nowhere),
                ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/a"),
            ],
            "AWS_WEB_IDENTITY_TOKEN_FILE names ",
            "provide the token",
        ),
        (
            "no container",
            &[REGION, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &dead)],
            "",
            "check the role of this container",
        ),
        (
            "an endpoint that is none",
            &[REGION, KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", "s3 example")],
            "AWS_ENDPOINT_URL is no URL",
            "https://s3.example.com",
        ),
        (
            "an endpoint without a scheme",
            &[
                REGION,
                KEYS[0],
                KEYS[1],
                ("AWS_ENDPOINT_URL_S3", "localhost:9000"),
            ],
            "AWS_ENDPOINT_URL_S3 is no URL",
            "https://s3.example.com",
        ),
        (
            "an endpoint without a host",
            &[REGION, KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", "http://")],
            "AWS_ENDPOINT_URL is no URL",
            "https://s3.example.com",
        ),
        (
            "a region with a typo",
            &[KEYS[0], KEYS[1], ("AWS_REGION", "ap-northeast1")],
            "\"ap-northeast1\" is not a region of AWS",
            "correct the region",
        ),
        (
            "a place for a region",
            &[KEYS[0], KEYS[1], ("AWS_REGION", "Tokyo")],
            "\"Tokyo\" is not a region of AWS",
            "correct the region",
        ),
        (
            "a file that is not there",
            &[REGION, ("AWS_CONFIG_FILE", &nowhere)],
            "AWS_CONFIG_FILE names ",
            "name another one",
        ),
        (
            "a folder for a file",
            &[REGION, ("AWS_SHARED_CREDENTIALS_FILE", &folder)],
            "AWS_SHARED_CREDENTIALS_FILE names ",
            "name another one",
        ),
        (
            "a file that is broken",
            &[REGION, ("AWS_CONFIG_FILE", &broken)],
            "",
            "mend ",
        ),
    ];
    for (case, variables, why, advice) in cases {
        let (error, took, printed) = machine.sync(variables);
        let message = error["message"].as_str().unwrap();
        println!("{case} ({} ms): {message}", took.as_millis());
        assert_eq!(error["kind"], "bucket", "{case}: {message}");
        let passes = *case == "no container";
        assert!(passes || error["transient"] == false, "{case}: {error}");
        assert!(
            message.contains(why) && message.contains(advice),
            "{case}: {message}"
        );
        assert!(
            !message.contains('\n') && !message.contains("\\n"),
            "{case}: {message}"
        );
        assert!(message.len() < 500, "{case}: {message}");
        for unsaid in ["unhandled error", "never-to-be-seen"] {
            assert!(!printed.contains(unsaid), "{case}: {printed}");
        }
        assert!(took < Duration::from_secs(5), "{case}: {took:?}");
    }
}

/// An S3 on TLS that answers every request with an error of its own; its certificate's authority.
fn s3_on_tls(ca: &Ca) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = ca.server_config();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            if stream.read(&mut [0; 8192]).is_ok_and(|n| n > 0) {
                let answer =
                    "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).ok();
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        }
    });
    format!("https://localhost:{port}")
}

#[test]
fn an_authority_of_the_company_is_taken_from_where_the_aws_cli_takes_it() {
    let machine = Machine::new();
    let ca = Ca::new();
    let endpoint = s3_on_tls(&ca);
    let file = ca.file();
    let file = file.to_str().unwrap();
    let base = [REGION, KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", &endpoint)];
    let sync = |more: &[(&str, &str)]| {
        let (error, _, printed) = machine.sync(&[&base[..], more].concat());
        assert!(!printed.contains("never-to-be-seen"), "{printed}");
        let transient = error["transient"].as_bool().unwrap();
        (error["message"].as_str().unwrap().to_owned(), transient)
    };
    let (message, transient) = sync(&[]);
    println!("{message}");
    for says in [
        "its certificate is of an authority that is not trusted here",
        "AWS_CA_BUNDLE or SSL_CERT_FILE",
    ] {
        assert!(message.contains(says), "{message}");
    }
    assert!(transient);
    let reached = "access was denied";
    let (message, _) = sync(&[("AWS_CA_BUNDLE", file)]);
    assert!(message.contains(reached), "{message}");
    machine.config(&format!("[default]\nca_bundle = {file}\n"));
    let (message, _) = sync(&[]);
    assert!(message.contains(reached), "{message}");
    machine.config("");
    let (message, _) = sync(&[("AWS_CA_BUNDLE", "/nonexistent/ca.pem")]);
    assert!(
        message.contains("AWS_CA_BUNDLE names /nonexistent/ca.pem"),
        "{message}"
    );
    let empty = machine.home.path().join("empty.pem");
    fs::write(&empty, "no certificate\n").unwrap();
    let (message, _) = sync(&[("AWS_CA_BUNDLE", empty.to_str().unwrap())]);
    assert!(message.contains("it holds no certificate"), "{message}");
}

/// A proxy that answers every CONNECT alike. Returns its port.
fn proxy(answer: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
    port
}

#[test]
fn a_proxy_that_lets_nobody_through_is_named_without_its_login() {
    let machine = Machine::new();
    let routes = machine.home.path().join("routes.toml");
    let ca = Ca::new();
    let endpoint = s3_on_tls(&ca).replace("localhost", "127.0.0.1");
    let file = ca.file();
    machine.config(&format!("[default]\nca_bundle = {}\n", file.display()));
    let refuses = proxy("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    let forbids = proxy("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    for (case, port, says, transient) in [
        ("407", refuses, "wants a login, or another one", false),
        (
            "403",
            forbids,
            "check that it runs and lets this host through",
            true,
        ),
        (
            "nobody",
            closed(),
            "check that it runs and lets this host through",
            true,
        ),
    ] {
        let url = format!("http://me:never-to-be-seen@127.0.0.1:{port}");
        let through = format!("the proxy http://127.0.0.1:{port}");
        let proxied = ("HTTPS_PROXY", &url[..]);
        let aws = machine.sync(&[REGION, KEYS[0], KEYS[1], proxied, ("NO_PROXY", "localhost")]);
        let (git, took, printed) = machine.sync_to(&["--store", "store"], &[proxied]);
        let git = (git["error"].clone(), took, printed);
        for (kind, (error, _, printed)) in [("bucket", aws), ("unreachable", git)] {
            let message = error["message"].as_str().unwrap();
            println!("{case}: {message}");
            assert_eq!(error["kind"], kind, "{case}: {message}");
            assert!(
                message.contains(says) && message.contains(&through),
                "{case}: {message}"
            );
            assert_eq!(error["transient"], transient, "{case}: {message}");
            assert!(!printed.contains("never-to-be-seen"), "{case}: {printed}");
        }
        // What is at an address is past it too.
        let table = fs::read_to_string(&routes).unwrap();
        fs::write(&routes, table.replace("localhost", "127.0.0.1")).unwrap();
        let past = [proxied, ("NO_PROXY", "example.com, *")];
        let (line, _, printed) = machine.sync_to(&["--store", case], &past);
        assert_eq!(line["outcome"], "published", "{case}: {printed}");
        let s3 = [REGION, KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", &endpoint)];
        let (error, ..) = machine.sync(&[&s3[..], &past].concat());
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("access was denied"), "{case}: {message}");
        fs::write(&routes, table).unwrap();
    }
}

#[test]
fn an_authority_of_the_company_is_taken_from_where_git_takes_it() {
    let machine = Machine::new();
    let home = machine.home.path();
    let ca = machine.server.ca_file();
    let ca = ca.to_str().unwrap();
    fs::copy(ca, home.join("company.pem")).unwrap();
    fs::create_dir(home.join("authorities")).unwrap();
    fs::copy(ca, home.join("authorities/company.pem")).unwrap();
    // Of others, so that the server's is not trusted by itself.
    let other = Ca::new();
    let other = other.file();
    let nobody = ("SSL_CERT_FILE", other.to_str().unwrap());
    let url = machine.server.base();
    let folder = home.join("authorities");
    let folder = folder.to_str().unwrap();
    let git = |text: &str| fs::write(home.join(".gitconfig"), text).unwrap();
    let sync = |store: &str, variables: &[(&str, &str)]| {
        let place = ["--store", store];
        machine.sync_to(&place, &[&[nobody], variables].concat())
    };
    for (n, (config, variables)) in [
        (String::new(), &[("GIT_SSL_CAINFO", ca)][..]),
        (String::new(), &[("GIT_SSL_CAPATH", folder)]),
        (String::new(), &[("SSL_CERT_FILE", ca)]),
        (String::new(), &[("SSL_CERT_DIR", folder)]),
        (format!("[http]\n\tsslCAInfo = {ca}\n"), &[]),
        ("[http]\n\tsslcainfo = ~/company.pem\n".into(), &[]),
        (format!("[http]\n\tsslCAPath = {folder}\n"), &[]),
        (format!("[http \"{url}\"]\n\tsslCAInfo = {ca}\n"), &[]),
        (format!("[http \"{url}/git/\"]\n\tsslCAInfo = {ca}\n"), &[]),
    ]
    .into_iter()
    .enumerate()
    {
        git(&config);
        let (line, _, printed) = sync(&n.to_string(), variables);
        assert_eq!(
            line["outcome"], "published",
            "{n} {config} {variables:?}: {printed}"
        );
    }
    git("");
    fs::create_dir_all(home.join(".config/git")).unwrap();
    let xdg = home.join(".config/git/config");
    fs::write(&xdg, format!("[http]\n\tsslCAInfo = {ca}\n")).unwrap();
    let (line, _, printed) = sync("xdg", &[]);
    assert_eq!(line["outcome"], "published", "{printed}");
    fs::remove_file(xdg).unwrap();
    let named = home.join("global");
    fs::write(&named, format!("[http]\n\tsslCAInfo = {ca}\n")).unwrap();
    let (line, _, printed) = sync(
        "by-variable",
        &[("GIT_CONFIG_GLOBAL", named.to_str().unwrap())],
    );
    assert_eq!(line["outcome"], "published", "{printed}");
    for (config, says) in [
        (
            String::new(),
            "name the file (PEM) of the company's authority in SSL_CERT_FILE",
        ),
        (
            "[http \"https://elsewhere.example\"]\n\tsslCAInfo = ~/company.pem\n".into(),
            "in SSL_CERT_FILE",
        ),
        // Whoever can be anybody is not trusted, whatever git is told.
        ("[http]\n\tsslVerify = false\n".into(), "in SSL_CERT_FILE"),
        (
            "[http]\n\tsslCAInfo = /nonexistent/ca.pem\n".into(),
            "git's http.sslCAInfo names /nonexistent/ca.pem",
        ),
    ] {
        git(&config);
        let (line, _, printed) = sync("none", &[]);
        let message = line["error"]["message"].as_str().unwrap();
        println!("{message}");
        assert_eq!(line["error"]["kind"], "unreachable", "{printed}");
        assert!(message.contains(says), "{message}");
        assert!(
            message.contains("is of an authority that is not trusted here"),
            "{message}"
        );
        assert!(message.len() < 400, "{message}");
    }
}
