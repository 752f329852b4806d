//! What the environment says, read once and checked as a whole.

use std::{fmt, str::FromStr};

use tracing::Level;

use crate::route::bucket_name;

/// What the command line reads from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `SOURCE_BUCKET`: the bucket of routes that name none. Default: none, so that every route must name its own.
    pub source_bucket: Option<String>,
    /// How large a repository may be.
    pub limits: Limits,
    /// `LOG_LEVEL`: `error`, `warn`, `info` or `debug`. Default: `info`. There is no `trace`, at which the AWS SDK prints
    /// keys.
    pub log_level: Level,
}

/// How large a repository may be. What is larger is refused before it takes memory or disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `MAX_ENTRIES`: how many files, links and submodules one commit's tree may hold. Default: 200,000.
    pub entries: u32,
    /// `MAX_TREE_BYTES`: how large all files of the tree may be together, unpacked, in bytes. Default: 2 GiB.
    pub tree_bytes: u64,
    /// `MAX_BLOB_BYTES`: how large one file may be, unpacked, in bytes. Default: 128 MiB.
    pub blob_bytes: u64,
    /// `MAX_PACK_BYTES`: how much the Git server may send in one fetch, in bytes. Default: 1 GiB.
    pub pack_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            entries: 200_000,
            tree_bytes: 2 * 1024 * MIB,
            blob_bytes: 128 * MIB,
            pack_bytes: 1024 * MIB,
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
        let mut vars = Vars {
            var,
            faults: Vec::new(),
        };
        let default = Limits::default();
        let config = Self {
            source_bucket: vars.read("SOURCE_BUCKET", |text| {
                bucket_name(text).map_err(|error| error.to_string())
            }),
            limits: Limits {
                entries: vars.count("MAX_ENTRIES", default.entries, "entries"),
                tree_bytes: vars.count("MAX_TREE_BYTES", default.tree_bytes, "bytes"),
                blob_bytes: vars.count("MAX_BLOB_BYTES", default.blob_bytes, "bytes"),
                pack_bytes: vars.count("MAX_PACK_BYTES", default.pack_bytes, "bytes"),
            },
            log_level: vars.read("LOG_LEVEL", log_level).unwrap_or(Level::INFO),
        };
        if vars.faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                faults: vars.faults,
            })
        }
    }
}

/// Keeps reading after a fault, and keeps the faults.
struct Vars<F> {
    var: F,
    faults: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Vars<F> {
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

    fn config(vars: &[(&str, &str)]) -> Result<Config, String> {
        let var = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::from_vars(var).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_has_to_be_set() {
        let limits = Limits {
            entries: 200_000,
            tree_bytes: 2_147_483_648,
            blob_bytes: 134_217_728,
            pack_bytes: 1_073_741_824,
        };
        let expected = Config {
            source_bucket: None,
            limits,
            log_level: Level::INFO,
        };
        assert_eq!(config(&[]), Ok(expected));
    }

    #[test]
    fn every_variable_is_read() {
        let limits = Limits {
            entries: 1,
            tree_bytes: 2,
            blob_bytes: 3,
            pack_bytes: 4,
        };
        let expected = Config {
            source_bucket: Some("sources".to_owned()),
            limits,
            log_level: Level::DEBUG,
        };
        let vars = [
            ("SOURCE_BUCKET", "sources"),
            ("MAX_ENTRIES", "1"),
            ("MAX_TREE_BYTES", "2"),
            ("MAX_BLOB_BYTES", "3"),
            ("MAX_PACK_BYTES", "4"),
            ("LOG_LEVEL", "debug"),
        ];
        assert_eq!(config(&vars), Ok(expected));
    }

    #[test]
    fn every_wrong_variable_is_named() {
        let vars = [
            ("SOURCE_BUCKET", "My Bucket"),
            ("MAX_ENTRIES", "0"),
            ("MAX_TREE_BYTES", "2 GiB"),
            ("MAX_BLOB_BYTES", ""),
            ("MAX_PACK_BYTES", "-1"),
            ("LOG_LEVEL", "trace"),
        ];
        assert_eq!(
            config(&vars).unwrap_err(),
            "SOURCE_BUCKET: expected a bucket name of 3 to 63 lower-case letters, digits, dots and hyphens, found \"My Bucket\"\n\
             MAX_ENTRIES: \"0\" is not a whole number of entries above zero\n\
             MAX_TREE_BYTES: \"2 GiB\" is not a whole number of bytes above zero\n\
             MAX_BLOB_BYTES is set to nothing\n\
             MAX_PACK_BYTES: \"-1\" is not a whole number of bytes above zero\n\
             LOG_LEVEL: \"trace\" is not error, warn, info or debug"
        );
    }
}
