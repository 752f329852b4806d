//! A request to the embedded S3: signed by one who has the keys, or by nobody.
#![no_main]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use backlog_bridge::local::{Store, service};
use backlog_bridge_fuzz::Feed;
use http_body_util::BodyExt;
use hyper::{
    Request, Uri,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use libfuzzer_sys::fuzz_target;
use s3s::{Body, service::S3Service};
use tokio::runtime::Runtime;

struct World {
    runtime: Runtime,
    service: S3Service,
    outside: PathBuf,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    World {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime"),
        service: service(Arc::new(store), "access", "secret"),
        outside: folder.path().to_owned(),
        _folder: folder,
    }
});

const METHODS: [&str; 6] = ["GET", "PUT", "HEAD", "DELETE", "POST", "OPTIONS"];
const QUERIES: [&str; 8] = [
    "",
    "versioning",
    "versions",
    "list-type=2",
    "uploads",
    "uploadId=x",
    "partNumber=1&uploadId=x",
    "versionId=null",
];
const HEADERS: [&str; 8] = [
    "if-match",
    "if-none-match",
    "x-amz-meta-a",
    "range",
    "content-md5",
    "x-amz-checksum-crc32",
    "x-amz-trailer",
    "x-amz-decoded-content-length",
];

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let mut feed = Feed(data);
    let (shape, method) = (
        feed.byte(),
        METHODS[usize::from(feed.byte()) % METHODS.len()],
    );
    let path = String::from_utf8_lossy(feed.bytes(120)).into_owned();
    let query = match feed.byte() {
        n if n < 128 => QUERIES[usize::from(n) % QUERIES.len()].to_owned(),
        _ => String::from_utf8_lossy(feed.bytes(120)).into_owned(),
    };
    let Ok(uri) = format!("http://localhost/{path}?{query}").parse::<Uri>() else {
        return;
    };
    let mut headers = vec![("host", "localhost".to_owned())];
    for _ in 0..feed.byte() % 4 {
        let name = HEADERS[usize::from(feed.byte()) % HEADERS.len()];
        let value = String::from_utf8_lossy(feed.bytes(60)).into_owned();
        if HeaderValue::from_str(&value).is_ok() && value.is_ascii() {
            headers.push((name, value));
        }
    }
    let body = feed.0.to_vec();
    let mut request = Request::builder().method(method).uri(uri.clone());
    for (name, value) in &headers {
        request = request.header(*name, value);
    }
    let Ok(mut request) = request.body(Body::from(Bytes::from(body.clone()))) else {
        return;
    };
    if shape % 4 > 0 && !signed(&mut request, method, &uri, &headers, &body) {
        return;
    }
    world.runtime.block_on(async {
        if let Ok(answer) = world.service.call(request).await {
            let status = answer.status();
            assert!(shape % 4 > 0 || !status.is_success(), "{status} for nobody");
            let _ = answer.into_body().collect().await;
        }
    });
    let around = std::fs::read_dir(&world.outside).expect("the folder around the store");
    assert_eq!(around.count(), 1, "something was written beside the store");
});

fn signed(
    request: &mut Request<Body>,
    method: &str,
    uri: &Uri,
    headers: &[(&str, String)],
    body: &[u8],
) -> bool {
    let identity = Credentials::new("access", "secret", None, None, "fuzz").into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .expect("all is set")
        .into();
    let url = uri.to_string();
    let signable = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let Ok(signable) = SignableRequest::new(method, url, signable, SignableBody::Bytes(body))
    else {
        return false;
    };
    let Ok(output) = sign(signable, &params) else {
        return false;
    };
    for (name, value) in output.into_parts().0.headers() {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        else {
            return false;
        };
        request.headers_mut().insert(name, value);
    }
    true
}
