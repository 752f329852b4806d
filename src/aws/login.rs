//! How this machine is set up to ask AWS. The SDK says of a login that it cannot have little more than that; what to type
//! depends on where it is meant to come from.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aws_config::{
    SdkConfig,
    profile::{Profile, ProfileSet},
};
use hyper::Uri;

use crate::chain::chain;

/// How many profiles are followed that name another one as their source.
const SOURCES: usize = 8;

/// Where an endpoint may be named that is ours to ask.
const ENDPOINTS: [&str; 4] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
];

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) advice: String,
}

impl Trouble {
    fn new(advice: impl Into<String>, why: impl Into<String>) -> Self {
        let (advice, why) = (advice.into(), why.into());
        Self { why, advice }
    }
}

/// How this machine is set up.
#[derive(Debug)]
pub(super) struct Login {
    /// Why there can be no login, if that is known without asking anybody.
    pub(super) trouble: Option<Trouble>,
    /// What to do if there is no login all the same.
    pub(super) advice: String,
    /// The region, and whether an endpoint is named, which need not have a region of AWS.
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

static LOGIN: OnceLock<Login> = OnceLock::new();

/// What was found, once somebody looked.
pub(super) fn found() -> Option<&'static Login> {
    LOGIN.get()
}

/// The profiles of this machine, or what is wrong with their files.
pub(super) async fn profiles() -> Result<ProfileSet, String> {
    #[expect(
        clippy::default_trait_access,
        reason = "the types are in crates that are not ours to name"
    )]
    let (fs, env, files) = (Default::default(), Default::default(), Default::default());
    let loaded = aws_config::profile::load(&fs, &env, &files, None).await;
    loaded.map_err(|err| {
        let words = chain(&err);
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

/// Looks at variables and files. Nobody is asked.
pub(super) fn look(config: &SdkConfig, profiles: &Result<ProfileSet, String>) {
    let region = config.region().map(ToString::to_string);
    let mut login = Login {
        trouble: None,
        advice: String::new(),
        endpoint: variable("AWS_ENDPOINT_URL_S3").or_else(|| config.endpoint_url().map(Into::into)),
        region,
    };
    login.trouble = login.trouble_with(profiles.as_ref());
    login.advice = advice(profiles.as_ref().ok());
    LOGIN.set(login).ok();
}

/// A variable that is not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The file of a kind, and the variable that names it, if one does.
fn file(named_by: &'static str, default: &str) -> (Option<&'static str>, PathBuf) {
    if let Some(path) = variable(named_by) {
        return (Some(named_by), path.into());
    }
    let home = env::var_os("HOME").unwrap_or_default();
    (None, Path::new(&home).join(default))
}

impl Login {
    fn trouble_with(&self, profiles: Result<&ProfileSet, &String>) -> Option<Trouble> {
        let of_files = || {
            // Whoever has keys needs no file.
            if variable("AWS_ACCESS_KEY_ID").is_some() {
                return None;
            }
            let of_profile = || trouble_with_profile(profiles.ok()?);
            trouble_with_files(profiles)
                .or_else(of_profile)
                .or_else(trouble_with_token)
        };
        let known = trouble_with_endpoint().or_else(trouble_with_keys);
        known
            .or_else(of_files)
            .or_else(|| self.trouble_with_region())
    }

    fn trouble_with_region(&self) -> Option<Trouble> {
        match &self.region {
            None => Some(Trouble::new(
                "name the region, such as AWS_REGION=ap-northeast-1, or with aws configure set region ap-northeast-1",
                "no region is named",
            )),
            Some(region) if self.endpoint.is_none() && !is_region(region) => Some(Trouble::new(
                "correct the region (AWS_REGION, or region in the AWS configuration)",
                format!("{region:?} is not a region of AWS, as ap-northeast-1 is"),
            )),
            Some(_) => None,
        }
    }
}

fn trouble_with_endpoint() -> Option<Trouble> {
    let name = ENDPOINTS.into_iter().find(|name| {
        let url = variable(name).map(|url| url.parse::<Uri>());
        url.is_some_and(|url| !url.is_ok_and(|url| is_http(&url)))
    })?;
    let advice = format!("set {name} to a URL such as https://s3.example.com, or to none");
    Some(Trouble::new(advice, format!("{name} is no URL")))
}

fn trouble_with_keys() -> Option<Trouble> {
    let [id, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let (set, not) = match [id, secret].map(|name| variable(name).is_some()) {
        [true, false] => (id, secret),
        [false, true] => (secret, id),
        _ => return None,
    };
    Some(Trouble::new(
        format!("set both {id} and {secret}, or neither"),
        format!("{set} is set, and {not} is not"),
    ))
}

fn files() -> [(Option<&'static str>, PathBuf); 2] {
    [
        file("AWS_CONFIG_FILE", ".aws/config"),
        file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
    ]
}

fn trouble_with_files(profiles: Result<&ProfileSet, &String>) -> Option<Trouble> {
    let files = files();
    for (named_by, path) in &files {
        let Err(err) = fs::read(path) else {
            continue;
        };
        let is_there = err.kind() != std::io::ErrorKind::NotFound;
        if named_by.is_some() || is_there {
            let by = named_by.map_or_else(String::new, |name| format!("{name} names "));
            return Some(Trouble::new(
                "let this user read the file, or name another one",
                format!("{by}{}, which cannot be read: {err}", path.display()),
            ));
        }
    }
    let [config, credentials] = files.each_ref().map(|(_, path)| path.display());
    let why = profiles.err()?;
    Some(Trouble::new(
        format!("mend {config} or {credentials}"),
        why.as_str(),
    ))
}

fn trouble_with_profile(profiles: &ProfileSet) -> Option<Trouble> {
    let name = profiles.selected_profile();
    let Some(profile) = profiles.get_profile(name) else {
        let [config, credentials] = files().map(|(_, path)| path.display().to_string());
        // Nobody has to have a default one.
        return variable("AWS_PROFILE").map(|_| {
            Trouble::new(
                format!(
                    "name another profile with AWS_PROFILE, or make this one: aws configure --profile {name}"
                ),
                format!("there is no profile {name} in {config} or {credentials}"),
            )
        });
    };
    let has = |field: &str| profile.get(field).is_some();
    if has("aws_access_key_id") != has("aws_secret_access_key") {
        return Some(Trouble::new(
            format!("name both for the profile: aws configure --profile {name}"),
            format!(
                "the profile {name} has only one of aws_access_key_id and aws_secret_access_key"
            ),
        ));
    }
    let origin = origin(profiles)?;
    if origin.get("login_session").is_some() {
        let name = origin.name();
        return Some(Trouble::new(
            format!(
                "hand its keys over: eval \"$(aws configure export-credentials --profile {name} --format env)\""
            ),
            format!("the profile {name} is one of aws login, which is not read here"),
        ));
    }
    None
}

fn trouble_with_token() -> Option<Trouble> {
    let path = variable("AWS_WEB_IDENTITY_TOKEN_FILE")?;
    let err = fs::File::open(&path).err()?;
    Some(Trouble::new(
        "whoever runs this here has to provide the token (in Kubernetes, the service account's)",
        format!("AWS_WEB_IDENTITY_TOKEN_FILE names {path}, which cannot be read: {err}"),
    ))
}

fn is_http(url: &Uri) -> bool {
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    is_http && url.host().is_some_and(|host| !host.is_empty())
}

/// Whether a region is spelled as AWS spells all of its regions: words, and a number at the end.
fn is_region(region: &str) -> bool {
    let parts: Vec<_> = region.split('-').collect();
    let (Some((number, words)), true) = (parts.split_last(), parts.len() >= 3) else {
        return false;
    };
    let is_word =
        |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.iter().all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The profile that a login comes from: the last of those that name another one as their source.
fn origin(profiles: &ProfileSet) -> Option<&Profile> {
    let mut profile = profiles.get_profile(profiles.selected_profile())?;
    for _ in 0..SOURCES {
        let source = profile.get("source_profile");
        let Some(source) = source.and_then(|source| profiles.get_profile(source)) else {
            break;
        };
        profile = source;
    }
    Some(profile)
}

/// What to do if the login cannot be had, by where it is meant to come from.
fn advice(profiles: Option<&ProfileSet>) -> String {
    if variable("AWS_ACCESS_KEY_ID").is_some() {
        return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN".into();
    }
    if let Some(profile) = profiles.and_then(origin) {
        let name = profile.name();
        let has = |field: &str| profile.get(field).is_some();
        if has("sso_session") || has("sso_start_url") {
            return format!("log in: aws sso login --profile {name}");
        }
        if has("credential_process") {
            return format!(
                "run the program that credential_process of the profile {name} names, and see what it says"
            );
        }
        if has("web_identity_token_file") {
            return format!("check web_identity_token_file and role_arn of the profile {name}");
        }
        if has("role_arn") || has("aws_access_key_id") {
            return format!("see what AWS says: aws sts get-caller-identity --profile {name}");
        }
    }
    let container = [
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if let Some(by) = container.into_iter().find(|by| variable(by).is_some()) {
        return format!("check the role of this container; {by} says where its keys are");
    }
    if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        return "check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE".into();
    }
    "log in: aws configure, or aws sso login, and AWS_PROFILE for a profile that is not the default"
        .into()
}
