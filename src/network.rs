//! The network that this machine is in: the proxy of a company, the authorities that it trusts, and what is wrong with a
//! certificate.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use gix::{
    bstr::ByteSlice,
    config::{File, Source, path::interpolate},
};
use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::CertificateError;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{chain::chain, plain};

/// How large a file of certificates may be that we read, in bytes. The public authorities together take a fifth of it.
const AUTHORITIES_BYTES: u64 = 1 << 20;

/// How we call ourselves to servers.
pub(crate) const AGENT: &str = concat!("backlog-bridge/", env!("CARGO_PKG_VERSION"));

/// Whether `NO_PROXY` takes every host. The HTTP clients take `*` for all names, and for no address.
pub(crate) fn is_proxy_off() -> bool {
    let set = ["NO_PROXY", "no_proxy"].into_iter().find_map(env::var_os);
    set.is_some_and(|hosts| takes_all(&hosts.to_string_lossy()))
}

fn takes_all(hosts: &str) -> bool {
    hosts.split(',').any(|host| host.trim() == "*")
}

/// An HTTP client for `url`: through the proxy of this network, with the authorities that git trusts there, and to no other
/// place that an answer names.
pub(crate) fn http_client(url: &str) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(authorities_for_git(url))
        .user_agent(AGENT);
    if is_proxy_off() {
        client.no_proxy()
    } else {
        client
    }
}

/// The proxy that a request to `url` goes through, if any: where it is, and never its login.
pub(crate) fn proxy_of(url: &str) -> Option<String> {
    if is_proxy_off() {
        return None;
    }
    let proxy = Matcher::from_env().intercept(&url.parse().ok()?)?;
    address_of(proxy.uri())
}

fn address_of(proxy: &Uri) -> Option<String> {
    let (scheme, host) = (proxy.scheme_str()?, proxy.host()?);
    let port = proxy.port_u16();
    Some(port.map_or_else(
        || format!("{scheme}://{host}"),
        |port| format!("{scheme}://{host}:{port}"),
    ))
}

/// What the HTTP clients say of a proxy that answers a CONNECT with 407. There is no other way to know it: the error is of a
/// type that its crate keeps to itself.
pub(crate) const PROXY_LOGIN: &str = "proxy authorization required";

/// Whether a proxy wants a login, by what an HTTP client said last.
pub(crate) fn is_proxy_login(said: &str) -> bool {
    said.contains(PROXY_LOGIN)
}

/// What to do where the way leads through a proxy, by what an HTTP client said last.
pub(crate) fn through(proxy: &str, said: &str) -> String {
    if is_proxy_login(said) {
        return format!(
            "the proxy {proxy} wants a login, or another one: HTTPS_PROXY=http://user:password@host:port"
        );
    }
    format!(
        "the way leads through the proxy {proxy}: check that it runs and lets this host through (HTTPS_PROXY, NO_PROXY)"
    )
}

/// What is wrong with a server's certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Distrust {
    /// In words, of the server.
    pub(crate) why: String,
    /// What to do.
    pub(crate) advice: String,
}

impl Distrust {
    /// What `err` says of a certificate; `None` if something else failed. `variables` name files of authorities.
    pub(crate) fn of(err: &(dyn Error + 'static), variables: &str) -> Option<Self> {
        use CertificateError as Of;
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let now = now.format(&Rfc3339).unwrap_or_default();
        let fault = match tls_error(err)? {
            rustls::Error::InvalidCertificate(fault) => fault,
            // This is what a client says that could read none.
            rustls::Error::General(_) => &Of::UnknownIssuer,
            _ => return None,
        };
        let said = match fault {
            // The second: of an authority of the same name, as one is that was renewed.
            Of::UnknownIssuer | Of::BadSignature => Self {
                why: "its certificate is of an authority that is not trusted here".into(),
                advice: format!(
                    "a company's proxy may open TLS: name the file (PEM) of the company's authority in {variables}{}",
                    unreadable()
                ),
            },
            Of::NotValidForName | Of::NotValidForNameContext { .. } => {
                let shown = match fault {
                    Of::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
                        // As `DnsName("a.example")`.
                        let name =
                            |name: &String| plain::foreign(name.split('"').nth(1).unwrap_or(name));
                        let names = presented.iter().take(3).map(name);
                        format!(" but of {}", names.collect::<Vec<_>>().join(", "))
                    }
                    _ => String::new(),
                };
                Self {
                    why: format!("its certificate is not of this host{shown}"),
                    advice: "check the host's name, and what else answers in its place".into(),
                }
            }
            Of::Expired | Of::ExpiredContext { .. } => {
                let on = match fault {
                    Of::ExpiredContext { not_after, .. } => date(not_after.as_secs()),
                    _ => String::new(),
                };
                Self {
                    why: format!("its certificate expired{on}, says the clock of this machine ({now})"),
                    advice: "set the clock if it is wrong; if not, whoever runs the server has to renew the certificate".into(),
                }
            }
            Of::NotValidYet | Of::NotValidYetContext { .. } => {
                let from = match fault {
                    Of::NotValidYetContext { not_before, .. } => date(not_before.as_secs()),
                    _ => String::new(),
                };
                Self {
                    why: format!(
                        "its certificate is not valid yet, says the clock of this machine ({now}): it begins{from}"
                    ),
                    advice: "set the clock of this machine".into(),
                }
            }
            other => Self {
                why: format!(
                    "its certificate is refused: {}",
                    plain::foreign(&other.to_string())
                ),
                advice: "whoever runs the server has to look after its certificate".into(),
            },
        };
        Some(said)
    }
}

fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let at = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map(|at| format!(" on {}", at.date()))
        .unwrap_or_default()
}

/// The TLS client's own error among the causes. An `io::Error` names as its cause only that of what it holds.
fn tls_error<'a>(err: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if let Some(found) = err.downcast_ref() {
            return Some(found);
        }
        let io = err.downcast_ref::<io::Error>();
        let held = io.and_then(io::Error::get_ref);
        cause = held
            .map(|held| held as &(dyn Error + 'static))
            .or_else(|| err.source());
    }
    None
}

/// The last cause, which says most.
pub(crate) fn last_cause(err: &dyn Error) -> Option<String> {
    let mut last = None;
    let mut cause = err.source();
    while let Some(err) = cause {
        last = Some(err.to_string());
        cause = err.source();
    }
    last
}

/// A file of authorities that somebody names and that cannot be read, for the end of an advice.
fn unreadable() -> String {
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"];
    let variables = variables.into_iter().filter_map(|name| {
        let paths = env::var_os(name).filter(|path| !path.is_empty())?;
        let paths: Vec<_> = match name {
            "SSL_CERT_DIR" => env::split_paths(&paths).collect(),
            _ => vec![paths.into()],
        };
        Some(paths.into_iter().map(move |path| (name.to_owned(), path)))
    });
    let mut named = variables.flatten().chain(named_for_git(None));
    let said = named.find_map(|(name, path)| {
        let why = match fs::metadata(&path) {
            Ok(about) if about.is_dir() => fs::read_dir(&path).err()?.to_string(),
            _ => match authorities_in(&path) {
                Ok(found) if found.is_empty() => "it holds no certificate".into(),
                Ok(_) => return None,
                Err(err) => err.to_string(),
            },
        };
        Some(format!(
            "; {name} names {}, and that is of no use: {why}",
            path.display()
        ))
    });
    said.unwrap_or_default()
}

/// The certificates of a file.
fn authorities_in(path: &Path) -> io::Result<Vec<reqwest::Certificate>> {
    let pem = read_authorities(path)?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|err| io::Error::other(chain(&err)))
}

/// The bytes of a file of certificates.
pub(crate) fn read_authorities(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() || about.len() > AUTHORITIES_BYTES {
        return Err(io::Error::other(format!(
            "it is no file of at most {AUTHORITIES_BYTES} bytes"
        )));
    }
    fs::read(path)
}

/// Whether there is a certificate in it, and nothing that no client can read.
pub(crate) fn has_authorities(pem: &[u8]) -> bool {
    reqwest::Certificate::from_pem_bundle(pem).is_ok_and(|found| !found.is_empty())
}

/// The authorities that git trusts for `url` besides the system's, as its variables and its configuration for all repositories
/// name them. What cannot be read is left out: a certificate that is refused for want of it says so.
pub(crate) fn authorities_for_git(url: &str) -> Vec<reqwest::Certificate> {
    let named = named_for_git(Some(url)).into_iter();
    let files = named.flat_map(|(_, path)| match fs::read_dir(&path) {
        Ok(folder) => folder
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect(),
        Err(_) => vec![path],
    });
    files
        .filter_map(|path| authorities_in(&path).ok())
        .flatten()
        .collect()
}

/// By which name git is told of which files and folders of certificates, for one URL or for any.
fn named_for_git(url: Option<&str>) -> Vec<(String, PathBuf)> {
    let mut named = Vec::new();
    for name in ["GIT_SSL_CAINFO", "GIT_SSL_CAPATH"] {
        let path = env::var_os(name).filter(|path| !path.is_empty());
        named.extend(path.map(|path| (name.to_owned(), path.into())));
    }
    let mut variable = |name: &str| -> Option<OsString> { env::var_os(name) };
    // The installation's own configuration is left out: to find it, gix would start git.
    for source in [Source::System, Source::Git, Source::User] {
        let path = source.storage_location(&mut variable);
        let config = path.and_then(|path| File::from_path_no_includes(path, source).ok());
        named.extend(config.iter().flat_map(|config| named_in(config, url)));
    }
    named
}

fn named_in(config: &File, url: Option<&str>) -> Vec<(String, PathBuf)> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let mut named = Vec::new();
    for section in config.sections_by_name("http").into_iter().flatten() {
        let of = section.header().subsection_name();
        let is_meant = of.zip(url).is_none_or(|(of, url)| {
            let below = url.as_bytes().strip_prefix(of.trim_end_with(|c| c == '/'));
            below.is_some_and(|below| below.first().is_none_or(|next| b"/:".contains(next)))
        });
        for name in ["sslCAInfo", "sslCAPath"] {
            let Some(value) = section.value(name).filter(|_| is_meant) else {
                continue;
            };
            let path = gix::config::Path::from(value.as_bstr());
            let path = path.interpolate(interpolate::Context {
                home_dir: home.as_deref(),
                ..interpolate::Context::default()
            });
            named.extend(path.ok().map(|path| (format!("git's http.{name}"), path)));
        }
    }
    named
}
