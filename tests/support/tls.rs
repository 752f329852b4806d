//! A certificate authority of the test's own, and how this process comes to trust it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::process::{this_test_again, wait_within};

/// Names the folder of the authority that a process started by [`trusting`] shares with its parent.
const FOLDER: &str = "BACKLOG_BRIDGE_TEST_CA";
const LIMIT: Duration = Duration::from_mins(5);

/// A certificate authority. Clients want one: they refuse a leaf that signed itself, even if told to trust it.
pub struct Ca {
    key: KeyPair,
    folder: PathBuf,
    /// Removes the folder, unless another process owns it.
    _owned: Option<TempDir>,
}

impl Ca {
    /// The authority that this process trusts, if [`trusting`] started it; otherwise a new one.
    pub fn new() -> Self {
        if let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) {
            let key = fs::read_to_string(folder.join("ca.key")).unwrap();
            return Self {
                key: KeyPair::from_pem(&key).unwrap(),
                folder,
                _owned: None,
            };
        }
        let owned = tempfile::tempdir().unwrap();
        let ca = Self {
            key: KeyPair::generate().unwrap(),
            folder: owned.path().to_owned(),
            _owned: Some(owned),
        };
        let certificate = authority().self_signed(&ca.key).unwrap();
        fs::write(ca.file(), certificate.pem()).unwrap();
        fs::write(ca.folder.join("ca.key"), ca.key.serialize_pem()).unwrap();
        ca
    }

    /// The authority's certificate in PEM, for `SSL_CERT_FILE`, or for git's `http.sslCAInfo`.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A server with a new certificate for `localhost` and 127.0.0.1 that speaks HTTP/1.1.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config_for(&["localhost", "127.0.0.1"], (2000, 2999))
    }

    /// The same for other names, or of other years: from the first one's beginning to the second one's.
    pub fn server_config_for(&self, names: &[&str], years: (i32, i32)) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        leaf.distinguished_name
            .push(DnType::CommonName, "localhost");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let authority = authority();
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate = leaf.signed_by(&key, &issuer).unwrap();

        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn authority() -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "backlog-bridge test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
}

/// Runs the body of a test in a process that trusts every [`Ca`] made in it.
///
/// Clients in the test's own process read `SSL_CERT_FILE`, and a process that runs threads cannot safely change its own
/// environment. So this starts the same test again, with the environment that it needs. The closure must be written in
/// the test function itself: its type names the test to start.
///
/// # Panics
///
/// If the body panics, does not run, or takes more than five minutes.
pub fn trusting<F: FnOnce()>(body: F) {
    if let Some(folder) = env::var_os(FOLDER) {
        body();
        fs::write(Path::new(&folder).join("done"), "").unwrap();
        return;
    }
    let ca = Ca::new();
    let mut child = this_test_again(&body)
        .env(FOLDER, &ca.folder)
        .env("SSL_CERT_FILE", ca.file())
        .env_remove("SSL_CERT_DIR")
        .spawn()
        .unwrap();
    let status = wait_within(&mut child, LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "in the process that trusts the test's authority: {status:?}"
    );
    assert!(
        ca.folder.join("done").exists(),
        "the test did not run: is the closure in the test function itself?"
    );
}
