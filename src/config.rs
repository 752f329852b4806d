//! What the environment says, read once and checked as a whole: one type for each program.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use ipnet::IpNet;
use tracing::Level;

use crate::{
    limits::Limits,
    route::{Preferred, bucket_name},
    secrets::{Password, Token, Tokens},
};

/// How many repositories of a host a sweep asks at once, unless `SWEEP_AT_ONCE` says so.
const SWEEP_AT_ONCE: usize = 6;

/// What the command line reads from the environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// `SOURCE_BUCKET`: the bucket of routes that name none. Default: none, so that every route must name its own.
    pub source_bucket: Option<String>,
    /// `WEBHOOK_TOKEN`: what webhooks must bring, or `secret:` and the name or ARN of a secret that holds it. Default:
    /// none, so that one is made up.
    pub webhook_token: Option<Arc<Tokens>>,
    /// `BACKLOG_BRIDGE_STACK`: the stack that commands are meant for that name none. Default: none.
    pub stack: Option<String>,
    /// How large a repository may be.
    pub limits: Limits,
    /// `SWEEP_AT_ONCE`: how many repositories of a host a sweep asks at once. Default: 6.
    pub sweep_at_once: usize,
    /// `DELIVERY_SECONDS`: how long a whole delivery of `sync` and `invoke` may take, in seconds. Default: 3,600.
    pub delivery_time: Duration,
    /// `BACKLOG_USERNAME` with `BACKLOG_PASSWORD`, and `BACKLOG_API_KEY`: whether they count in place of secrets.
    pub preferred: Preferred,
    /// `BACKLOG_ADMIN_API_KEY`: the key of Backlog's API of whoever administers projects. It is kept nowhere.
    pub admin_api_key: Option<Password>,
    /// `LOG_LEVEL`: `error`, `warn`, `info` or `debug`. Default: `info`. There is no `trace`, at which the AWS SDK prints
    /// keys.
    pub log_level: Level,
}

/// What `receive` reads from the environment.
#[derive(Debug)]
pub struct ReceiveConfig {
    /// `ROUTES`: where the routing table is, as `s3://bucket/key`.
    pub routes: Location,
    /// `QUEUE_URL`: where jobs are sent.
    pub queue_url: String,
    /// `RESULTS_QUEUE_URL`: where looks at results are sent. Default: none, so that nobody hears of pull requests.
    pub results_queue_url: Option<String>,
    /// `WEBHOOK_TOKEN`: `secret:` and the name or ARN of the secret whose current and previous versions are valid.
    pub webhook_token: Tokens,
    /// `ALLOWED_IPS`: the networks that may post, such as `192.0.2.0/24, 2001:db8::/32`. Default: none, so that all may.
    pub allowed_ips: Vec<IpNet>,
    /// `LOG_LEVEL`, as in [`Config::log_level`].
    pub log_level: Level,
}

/// What `deliver` reads from the environment.
#[derive(Debug)]
pub struct DeliverConfig {
    /// `SOURCE_BUCKET`: the bucket of routes that name none.
    pub source_bucket: String,
    /// `ROUTES`: where the routing table is, as `s3://bucket/key`.
    pub routes: Location,
    /// `QUEUE_URL`: where jobs come from, and where the sweep sends its own.
    pub queue_url: String,
    /// `DEADLINE_MARGIN_MS`: how long before the invocation's deadline work stops, in milliseconds. Default: 5,000.
    pub deadline_margin: Duration,
    /// How large a repository may be.
    pub limits: Limits,
    /// `SWEEP_AT_ONCE`: how many repositories of a host a sweep asks at once. Default: 6.
    pub sweep_at_once: usize,
    /// `LOG_LEVEL`, as in [`Config::log_level`].
    pub log_level: Level,
}

/// What `results` reads from the environment.
#[derive(Debug)]
pub struct ResultsConfig {
    /// `ROUTES`: where the routing table is, as `s3://bucket/key`.
    pub routes: Location,
    /// `RESULTS_QUEUE_URL`: where its messages come from.
    pub queue_url: String,
    /// `ALARM_TOPIC`: the topic that mails of failed runs go to. Default: none, so that there are none.
    pub alarm_topic: Option<String>,
    /// `COMMENT_LAG_MS`: for how long Backlog's list of comments may not show one that was written, in milliseconds. Default:
    /// 6,000.
    pub comment_lag: Duration,
    /// `LOG_LEVEL`, as in [`Config::log_level`].
    pub log_level: Level,
}

/// An object of a bucket, written as `s3://bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The object key.
    pub key: String,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'));
        match parts.map(|(bucket, key)| (bucket_name(bucket), key)) {
            Some((Ok(bucket), key)) if !key.is_empty() => Ok(Self {
                bucket,
                key: key.into(),
            }),
            Some((Err(err), _)) => Err(err.to_string()),
            _ => Err(format!("{text:?} is not of the form s3://bucket/key")),
        }
    }
}

/// Variables that are wrong: every one of them, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the variables through `var`, which is `|name| env::var(name).ok()` but in tests. A variable that is set to
    /// nothing is wrong: whoever set it meant something.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names every variable that is wrong.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(var);
        let config = Self {
            source_bucket: vars.read("SOURCE_BUCKET", bucket),
            webhook_token: vars.read("WEBHOOK_TOKEN", tokens).map(Arc::new),
            stack: vars.read("BACKLOG_BRIDGE_STACK", stack_name),
            limits: vars.limits(),
            sweep_at_once: vars.sweep_at_once(),
            delivery_time: Duration::from_secs(
                vars.count::<u32>("DELIVERY_SECONDS", 3_600, "seconds")
                    .into(),
            ),
            preferred: Preferred {
                login: ["BACKLOG_USERNAME", "BACKLOG_PASSWORD"].map(|name| vars.is_set(name))
                    == [true, true],
                api_key: vars.is_set("BACKLOG_API_KEY"),
            },
            admin_api_key: vars.read("BACKLOG_ADMIN_API_KEY", |key| Ok(key.to_owned().into())),
            log_level: vars.log_level(),
        };
        vars.finish(Some(config))
    }
}

impl ReceiveConfig {
    /// As [`Config::from_vars`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names every variable that is wrong or missing.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(var);
        let routes = vars.required("ROUTES", str::parse);
        let queue_url = vars.required("QUEUE_URL", url);
        let results_queue_url = vars.read("RESULTS_QUEUE_URL", url);
        let webhook_token = vars.required("WEBHOOK_TOKEN", |text| match text.split_once(':') {
            Some(("secret", _)) => tokens(text),
            // The value itself would stand in the function's configuration, for many to read.
            _ => Err("expected secret: and the name or ARN of a secret".into()),
        });
        let allowed_ips = vars.read("ALLOWED_IPS", networks).unwrap_or_default();
        let log_level = vars.log_level();
        let config =
            routes
                .zip(queue_url)
                .zip(webhook_token)
                .map(|((routes, queue_url), webhook_token)| Self {
                    routes,
                    queue_url,
                    results_queue_url,
                    webhook_token,
                    allowed_ips,
                    log_level,
                });
        vars.finish(config)
    }
}

impl DeliverConfig {
    /// As [`Config::from_vars`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names every variable that is wrong or missing.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(var);
        let source_bucket = vars.required("SOURCE_BUCKET", bucket);
        let routes = vars.required("ROUTES", str::parse);
        let queue_url = vars.required("QUEUE_URL", url);
        let margin = vars.count("DEADLINE_MARGIN_MS", 5_000, "milliseconds");
        let limits = vars.limits();
        let sweep_at_once = vars.sweep_at_once();
        let log_level = vars.log_level();
        let config =
            source_bucket
                .zip(routes)
                .zip(queue_url)
                .map(|((source_bucket, routes), queue_url)| Self {
                    source_bucket,
                    routes,
                    queue_url,
                    deadline_margin: Duration::from_millis(margin),
                    limits,
                    sweep_at_once,
                    log_level,
                });
        vars.finish(config)
    }
}

impl ResultsConfig {
    /// As [`Config::from_vars`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names every variable that is wrong or missing.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(var);
        let routes = vars.required("ROUTES", str::parse);
        let queue_url = vars.required("RESULTS_QUEUE_URL", url);
        let alarm_topic = vars.read("ALARM_TOPIC", |arn| Ok(arn.to_owned()));
        let lag = vars.count("COMMENT_LAG_MS", 6_000, "milliseconds");
        let log_level = vars.log_level();
        let config = routes.zip(queue_url).map(|(routes, queue_url)| Self {
            routes,
            queue_url,
            alarm_topic,
            comment_lag: Duration::from_millis(lag),
            log_level,
        });
        vars.finish(config)
    }
}

/// Keeps reading after a fault, and keeps the faults.
struct Vars<F> {
    var: F,
    faults: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Vars<F> {
    fn new(var: F) -> Self {
        Self {
            var,
            faults: Vec::new(),
        }
    }

    /// `config`, which is there if nothing is missing, unless something is wrong.
    fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        config
            .filter(|_| self.faults.is_empty())
            .ok_or(ConfigError {
                faults: self.faults,
            })
    }

    fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if (self.var)(name).is_none() {
            self.faults.push(format!("{name} is not set"));
        }
        self.read(name, parse)
    }

    fn limits(&mut self) -> Limits {
        let default = Limits::default();
        Limits {
            entries: self.count("MAX_ENTRIES", default.entries, "entries"),
            tree_bytes: self.count("MAX_TREE_BYTES", default.tree_bytes, "bytes"),
            blob_bytes: self.count("MAX_BLOB_BYTES", default.blob_bytes, "bytes"),
            pack_bytes: self.count("MAX_PACK_BYTES", default.pack_bytes, "bytes"),
            low_speed_bytes: self.count("LOW_SPEED_BYTES", default.low_speed_bytes, "bytes"),
            low_speed_seconds: self
                .read("LOW_SPEED_SECONDS", whole_number)
                .unwrap_or(default.low_speed_seconds),
        }
    }

    fn sweep_at_once(&mut self) -> usize {
        self.count("SWEEP_AT_ONCE", SWEEP_AT_ONCE, "repositories")
    }

    /// Whether it is set, to something.
    fn is_set(&self, name: &str) -> bool {
        (self.var)(name).is_some_and(|text| !text.is_empty())
    }

    fn log_level(&mut self) -> Level {
        self.read("LOG_LEVEL", log_level).unwrap_or(Level::INFO)
    }

    /// `None` if the variable is not set, or after a fault.
    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = (self.var)(name)?;
        if text.is_empty() {
            self.faults.push(format!("{name} is set to nothing"));
            return None;
        }
        parse(&text)
            .map_err(|fault| self.faults.push(format!("{name}: {fault}")))
            .ok()
    }

    /// A whole number above zero: a limit of zero would refuse everything, and is never meant.
    fn count<T: FromStr + Default + PartialEq>(&mut self, name: &str, default: T, unit: &str) -> T {
        self.read(name, |text| match text.parse() {
            Ok(count) if count != T::default() => Ok(count),
            _ => Err(format!(
                "{text:?} is not a whole number of {unit} above zero"
            )),
        })
        .unwrap_or(default)
    }
}

fn whole_number(text: &str) -> Result<u32, String> {
    let wrong = |_| format!("{text:?} is not a whole number of seconds");
    text.parse().map_err(wrong)
}

/// The name of a stack, as CloudFormation takes it.
///
/// # Errors
///
/// Says what was expected.
pub fn stack_name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_part) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not the name of a stack, such as backlog-bridge"
        ))
    }
}

fn bucket(text: &str) -> Result<String, String> {
    bucket_name(text).map_err(|err| err.to_string())
}

fn url(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a URL")),
    }
}

/// A text that may be a token is not repeated.
fn tokens(text: &str) -> Result<Tokens, String> {
    match text.strip_prefix("secret:") {
        Some("") => Err("the secret has no name".into()),
        Some(name) => Ok(Tokens::in_secret(name.to_owned())),
        None => text
            .parse::<Token>()
            .map(Tokens::fixed)
            .map_err(|err| err.to_string()),
    }
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |text: &str| {
        let text = text.trim();
        let network: Option<IpNet> = text.parse().ok();
        // One address is a network too.
        let network = network.or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
        network.ok_or_else(|| format!("{text:?} is not an address, or a network as 192.0.2.0/24"))
    };
    text.split(',').map(network).collect()
}

fn log_level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        _ => Err(format!("{text:?} is not error, warn, info or debug")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars<'a>(vars: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<'a> {
        |name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn nothing_has_to_be_set_for_the_command_line() {
        let config = Config::from_vars(vars(&[])).unwrap();
        assert_eq!(config.source_bucket, None);
        assert!(config.webhook_token.is_none());
        assert_eq!(config.log_level, Level::INFO);
        let limits = Limits {
            entries: 200_000,
            tree_bytes: 2_147_483_648,
            blob_bytes: 134_217_728,
            pack_bytes: 1_073_741_824,
            low_speed_bytes: 1_000,
            low_speed_seconds: 60,
        };
        assert_eq!(config.limits, limits);
    }

    #[test]
    fn every_variable_is_read() {
        let set = [
            ("SOURCE_BUCKET", "sources"),
            ("ROUTES", "s3://sources/config/routes.toml"),
            ("QUEUE_URL", "https://sqs.example.com/1/bridge.fifo"),
            (
                "WEBHOOK_TOKEN",
                "secret:arn:aws:secretsmanager:a:1:secret:t",
            ),
            ("ALLOWED_IPS", "192.0.2.0/24, 2001:db8::1"),
            ("DEADLINE_MARGIN_MS", "2000"),
            (
                "RESULTS_QUEUE_URL",
                "https://sqs.example.com/1/bridge-results.fifo",
            ),
            ("ALARM_TOPIC", "arn:aws:sns:r:1:t"),
            ("COMMENT_LAG_MS", "1"),
            ("MAX_ENTRIES", "1"),
            ("MAX_TREE_BYTES", "2"),
            ("MAX_BLOB_BYTES", "3"),
            ("MAX_PACK_BYTES", "4"),
            ("LOG_LEVEL", "debug"),
        ];
        let limits = Limits {
            entries: 1,
            tree_bytes: 2,
            blob_bytes: 3,
            pack_bytes: 4,
            ..Limits::default()
        };
        let config = Config::from_vars(vars(&set)).unwrap();
        assert_eq!(config.source_bucket.as_deref(), Some("sources"));
        assert!(config.webhook_token.is_some());
        assert_eq!((config.limits, config.log_level), (limits, Level::DEBUG));

        let config = ReceiveConfig::from_vars(vars(&set)).unwrap();
        assert_eq!(config.routes.bucket, "sources");
        assert_eq!(config.routes.key, "config/routes.toml");
        assert_eq!(config.queue_url, "https://sqs.example.com/1/bridge.fifo");
        let allowed: Vec<_> = config.allowed_ips.iter().map(IpNet::to_string).collect();
        assert_eq!(allowed, ["192.0.2.0/24", "2001:db8::1/128"]);
        assert_eq!(config.log_level, Level::DEBUG);

        let results = "https://sqs.example.com/1/bridge-results.fifo";
        assert_eq!(config.results_queue_url.as_deref(), Some(results));

        let config = ResultsConfig::from_vars(vars(&set)).unwrap();
        assert_eq!(
            (&*config.queue_url, config.routes.key.as_str()),
            (results, "config/routes.toml")
        );
        assert_eq!(config.alarm_topic.as_deref(), Some("arn:aws:sns:r:1:t"));
        assert_eq!(config.comment_lag, Duration::from_millis(1));

        let config = DeliverConfig::from_vars(vars(&set)).unwrap();
        assert_eq!(config.source_bucket, "sources");
        assert_eq!(config.routes.to_string(), "s3://sources/config/routes.toml");
        assert_eq!(config.queue_url, "https://sqs.example.com/1/bridge.fifo");
        assert_eq!(config.deadline_margin, Duration::from_secs(2));
        assert_eq!((config.limits, config.log_level), (limits, Level::DEBUG));
    }

    #[test]
    fn every_wrong_variable_is_named() {
        let set = [
            ("SOURCE_BUCKET", "My Bucket"),
            ("WEBHOOK_TOKEN", "too short"),
            ("MAX_ENTRIES", "0"),
            ("MAX_TREE_BYTES", "2 GiB"),
            ("MAX_BLOB_BYTES", ""),
            ("MAX_PACK_BYTES", "-1"),
            ("LOG_LEVEL", "trace"),
        ];
        assert_eq!(
            Config::from_vars(vars(&set)).unwrap_err().to_string(),
            "SOURCE_BUCKET: expected a bucket name of 3 to 63 lower-case letters, digits, dots and hyphens, found \"My Bucket\"\n\
             WEBHOOK_TOKEN: expected a token of at least 16 letters, digits, `-`, `.`, `_` and `~`, which fit into a URL as they are\n\
             MAX_ENTRIES: \"0\" is not a whole number of entries above zero\n\
             MAX_TREE_BYTES: \"2 GiB\" is not a whole number of bytes above zero\n\
             MAX_BLOB_BYTES is set to nothing\n\
             MAX_PACK_BYTES: \"-1\" is not a whole number of bytes above zero\n\
             LOG_LEVEL: \"trace\" is not error, warn, info or debug"
        );
        let set = [
            ("ROUTES", "routes.toml"),
            ("WEBHOOK_TOKEN", "a-token-that-is-long-enough"),
            ("ALLOWED_IPS", "192.0.2.0/24,example.com"),
            ("DEADLINE_MARGIN_MS", "5s"),
        ];
        assert_eq!(
            ReceiveConfig::from_vars(vars(&set))
                .unwrap_err()
                .to_string(),
            "ROUTES: \"routes.toml\" is not of the form s3://bucket/key\n\
             QUEUE_URL is not set\n\
             WEBHOOK_TOKEN: expected secret: and the name or ARN of a secret\n\
             ALLOWED_IPS: \"example.com\" is not an address, or a network as 192.0.2.0/24"
        );
        assert_eq!(
            DeliverConfig::from_vars(vars(&set))
                .unwrap_err()
                .to_string(),
            "SOURCE_BUCKET is not set\n\
             ROUTES: \"routes.toml\" is not of the form s3://bucket/key\n\
             QUEUE_URL is not set\n\
             DEADLINE_MARGIN_MS: \"5s\" is not a whole number of milliseconds above zero"
        );
    }
}
