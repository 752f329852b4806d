//! The embedded S3 with a switch for what can go wrong on the wire.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::{self, Future},
    io::Read,
    net::Ipv4Addr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use backlog_bridge::local::{Patience, Store, serve, service};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::HeaderValue,
    service::{Service, service_fn},
};
use s3s::{Body, StdError, service::S3Service};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};

/// The keys of every [`TestS3`].
pub const ACCESS_KEY: &str = "test-access-key";
/// See [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "test-secret-key";

/// An operation, as far as the tests tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    PutObject,
    GetObject,
    /// A certain version of it: in IAM, an action of its own.
    GetObjectVersion,
    HeadObject,
    DeleteObject,
    ListObjectsV2,
    ListObjectVersions,
    GetBucketVersioning,
    GetBucketNotification,
    GetBucketLocation,
    GetBucketEncryption,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    Other,
}

/// What happens to a request in place of an answer by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status with the error code that S3 has for it. Nothing is stored.
    Status(u16),
    /// This status with an error code that is not the usual one. Nothing is stored.
    Code(u16, &'static str),
    /// It is done, by a bucket that keeps no versions: the answer has no version id.
    Unversioned,
    /// It is done, and the answer's version id is the one that all versions have that were written while versioning was off
    /// or suspended.
    NullVersion,
    /// The answer is that the bucket's versioning has this status; none if it never was on.
    Versioning(Option<&'static str>),
    /// It is done, and then the connection is cut.
    ApplyThenDrop,
    /// It is done, and no answer ever comes.
    ApplyThenHang,
    /// It is not done, and the connection is cut.
    Drop,
    /// It is not done, and no answer ever comes.
    Hang,
    /// One bit of the body is flipped on the way.
    Corrupt,
}

/// How all buckets are set up. What is `None` or `false` is as the store has it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The status of versioning, if not `Enabled`.
    pub versioning: Option<&'static str>,
    /// Whether EventBridge is told.
    pub events: bool,
    /// The region.
    pub region: Option<&'static str>,
    /// The KMS key of one's own.
    pub key: Option<&'static str>,
    /// What nobody may ask.
    pub denied: Vec<Op>,
}

type Hook = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

#[derive(Default)]
struct Plan {
    faults: VecDeque<(Op, Fault)>,
    hooks: VecDeque<(Op, Hook)>,
    /// Requests that still go well, of any operation; what happens to the one after them, and who is told of it.
    nth: Option<(usize, Fault, oneshot::Sender<()>)>,
    counts: HashMap<Op, usize>,
    /// What each answer says of its time, if not the truth.
    date: Option<String>,
    settings: Settings,
}

/// A version as it is stored. `bytes` is `None` if it is a delete marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    pub version_id: String,
    pub etag: String,
    pub content_type: String,
    pub metadata: BTreeMap<String, String>,
    pub bytes: Option<Vec<u8>>,
    /// When.
    #[allow(dead_code, reason = "the benchmark's alone")]
    pub stored: SystemTime,
}

/// An S3 of its own for one test, in a temporary folder.
pub struct TestS3 {
    endpoint: String,
    store: Arc<Store>,
    plan: Arc<Mutex<Plan>>,
    dir: TempDir,
    _stop: oneshot::Sender<()>,
}

impl TestS3 {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Store::open(dir.path()).expect("a store in it"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let plan = Arc::new(Mutex::new(Plan::default()));
        let s3 = service(Arc::clone(&store), ACCESS_KEY, SECRET_KEY);
        let shared = Arc::clone(&plan);
        let faulty = service_fn(move |request| {
            let (s3, plan) = (s3.clone(), Arc::clone(&shared));
            async move {
                let mut answer = answer(s3, Arc::clone(&plan), request).await?;
                let date = plan
                    .lock()
                    .expect("no test panics while it plans")
                    .date
                    .clone();
                if let Some(date) = date {
                    answer
                        .headers_mut()
                        .insert("date", HeaderValue::try_from(date)?);
                }
                Ok::<_, StdError>(answer)
            }
        });
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(serve(listener, faulty, Patience::OWN, async {
            let _ = stopped.await;
        }));
        Self {
            endpoint: format!("http://{address}"),
            store,
            plan,
            dir,
            _stop: stop,
        }
    }

    /// Such as `http://127.0.0.1:49152`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The folder that the store is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client that tries nothing twice, so that one fault is one failure.
    pub fn client(&self) -> Client {
        client(&self.endpoint, ACCESS_KEY, SECRET_KEY)
    }

    /// Lets the next request of this operation fail. Called again, the one after that too.
    pub fn fail_once(&self, op: Op, fault: Fault) -> &Self {
        self.plan().faults.push_back((op, fault));
        self
    }

    /// Lets the n-th request from now on fail, of any operation, the first being 1. The receiver hears when it has.
    pub fn fail_nth(&self, nth: usize, fault: Fault) -> oneshot::Receiver<()> {
        assert!(nth > 0, "the first request is number 1");
        let (failed, hears) = oneshot::channel();
        self.plan().nth = Some((nth - 1, fault, failed));
        hears
    }

    /// From now on, each answer says this of its time.
    pub fn set_date(&self, date: &str) {
        self.plan().date = Some(date.into());
    }

    /// How all buckets are set up from now on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.plan().settings);
    }

    /// What was planned and has not happened yet does not happen any more.
    pub fn heal(&self) {
        let counts = std::mem::take(&mut self.plan().counts);
        *self.plan() = Plan {
            counts,
            ..Plan::default()
        };
    }

    /// Runs `hook` before the next request of this operation is answered: the last moment at which the world can change.
    pub fn before<F>(&self, op: Op, hook: impl FnOnce() -> F + Send + 'static) -> &Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hook: Hook = Box::new(move || Box::pin(hook()));
        self.plan().hooks.push_back((op, hook));
        self
    }

    /// How many requests of this operation have arrived, the failed ones too.
    pub fn count(&self, op: Op) -> usize {
        self.plan().counts.get(&op).copied().unwrap_or_default()
    }

    /// Every version of an object, the newest first.
    pub fn versions(&self, bucket: &str, key: &str) -> Vec<StoredVersion> {
        let versions = self.store.versions(bucket, key).expect("a readable store");
        let versions = versions.into_iter().map(|version| {
            let bytes = version.content.as_ref().map(|_| {
                let mut file = version.open().expect("bytes beside their description");
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("readable bytes");
                bytes
            });
            let (etag, content_type, metadata) = version
                .content
                .map(|content| (content.etag, content.content_type, content.metadata))
                .unwrap_or_default();
            StoredVersion {
                version_id: version.version_id,
                etag,
                content_type,
                metadata,
                bytes,
                stored: version.modified.into(),
            }
        });
        versions.collect()
    }

    /// The newest version of an object, if there is one and it is no delete marker.
    pub fn newest(&self, bucket: &str, key: &str) -> Option<StoredVersion> {
        let newest = self.versions(bucket, key).into_iter().next();
        newest.filter(|newest| newest.bytes.is_some())
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().expect("no test panics while it plans")
    }
}

/// A client for any endpoint that speaks path-style S3, which tries nothing twice.
pub fn client(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

async fn answer(
    s3: S3Service,
    plan: Arc<Mutex<Plan>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, StdError> {
    let op = operation(&request);
    let (hook, fault, failed, settings) = {
        let mut plan = plan.lock().expect("no test panics while it plans");
        *plan.counts.entry(op).or_default() += 1;
        let hook = take(&mut plan.hooks, op);
        let planned = take(&mut plan.faults, op);
        let settings = plan.settings.clone();
        match plan.nth.take() {
            Some((0, fault, failed)) => (hook, Some(fault), Some(failed), settings),
            nth => {
                plan.nth = nth.map(|(left, fault, failed)| (left - 1, fault, failed));
                (hook, planned, None, settings)
            }
        }
    };
    if settings.denied.contains(&op) {
        return refuse(request, 403, "AccessDenied").await;
    }
    if let (None, Some(answer)) = (&fault, settings.answer(op)) {
        return Ok(Response::builder()
            .header("content-type", "application/xml")
            .body(Body::from(answer))?);
    }
    if let Some(hook) = hook {
        hook().await;
    }
    match fault {
        None => Ok(Service::call(&s3, request).await?),
        Some(Fault::Status(status)) => {
            tell(failed);
            refuse(request, status, code_of(status)).await
        }
        Some(Fault::Code(status, code)) => refuse(request, status, code).await,
        Some(Fault::Unversioned) => {
            let mut answer = Service::call(&s3, request).await?;
            answer.headers_mut().remove("x-amz-version-id");
            Ok(answer)
        }
        Some(Fault::NullVersion) => {
            let mut answer = Service::call(&s3, request).await?;
            let null = HeaderValue::from_static("null");
            answer.headers_mut().insert("x-amz-version-id", null);
            Ok(answer)
        }
        Some(Fault::Versioning(status)) => {
            let status = status.map(|status| format!("<Status>{status}</Status>"));
            let status = status.unwrap_or_default();
            let body = format!("<VersioningConfiguration>{status}</VersioningConfiguration>");
            let answer = Response::builder().header("content-type", "application/xml");
            Ok(answer.body(Body::from(body))?)
        }
        Some(Fault::ApplyThenDrop) => {
            Service::call(&s3, request).await?;
            tell(failed);
            Err("cut after it was done".into())
        }
        Some(Fault::ApplyThenHang) => {
            Service::call(&s3, request).await?;
            tell(failed);
            future::pending().await
        }
        Some(Fault::Drop) => {
            tell(failed);
            Err("cut before it was done".into())
        }
        Some(Fault::Hang) => {
            tell(failed);
            future::pending().await
        }
        Some(Fault::Corrupt) => {
            let (head, body) = request.into_parts();
            let mut bytes = body.collect().await?.to_bytes().to_vec();
            // What is sent in chunks begins with a line that says how long the first one is.
            let chunked = head.headers.contains_key("x-amz-trailer");
            let line = bytes.windows(2).position(|pair| pair == b"\r\n");
            let first = line.filter(|_| chunked).map_or(0, |line| line + 2);
            bytes[first] ^= 1;
            let request = Request::from_parts(head, Body::from(bytes));
            Ok(s3.call(request).await?)
        }
    }
}

impl Settings {
    /// What is asked of a bucket, where the store does not know it.
    fn answer(&self, op: Op) -> Option<String> {
        let element = |name: &str, inside: &str| format!("<{name}>{inside}</{name}>");
        match op {
            Op::GetBucketVersioning => {
                let status = element("Status", self.versioning?);
                Some(element("VersioningConfiguration", &status))
            }
            Op::GetBucketNotification => {
                let inside = if self.events {
                    "<EventBridgeConfiguration/>"
                } else {
                    ""
                };
                Some(element("NotificationConfiguration", inside))
            }
            Op::GetBucketLocation => Some(element("LocationConstraint", self.region?)),
            Op::GetBucketEncryption => {
                let key = self.key.map(|key| element("KMSMasterKeyID", key));
                let kind = element(
                    "SSEAlgorithm",
                    if key.is_some() { "aws:kms" } else { "AES256" },
                );
                let kind = format!("{kind}{}", key.unwrap_or_default());
                let rule = element(
                    "Rule",
                    &element("ApplyServerSideEncryptionByDefault", &kind),
                );
                Some(element("ServerSideEncryptionConfiguration", &rule))
            }
            _ => None,
        }
    }
}

fn tell(failed: Option<oneshot::Sender<()>>) {
    // Whoever does not want to hear it has gone.
    failed.map(|failed| failed.send(()).ok());
}

fn take<T>(planned: &mut VecDeque<(Op, T)>, op: Op) -> Option<T> {
    let index = planned.iter().position(|(planned, _)| *planned == op)?;
    planned.remove(index).map(|(_, found)| found)
}

async fn refuse(
    request: Request<Incoming>,
    status: u16,
    code: &str,
) -> Result<Response<Body>, StdError> {
    let head = request.method() == Method::HEAD;
    // A client listens only after it has sent everything.
    request.into_body().collect().await?;
    Ok(refusal(status, code, head))
}

fn code_of(status: u16) -> &'static str {
    match status {
        400 => "InvalidRequest",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 | 503 => "SlowDown",
        500 => "InternalError",
        _ => "UnknownError",
    }
}

fn refusal(status: u16, code: &str, head: bool) -> Response<Body> {
    let body = if head {
        Body::empty()
    } else {
        Body::from(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the test has it</Message></Error>"
        ))
    };
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(body)
        .expect("a status that HTTP knows")
}

fn operation(request: &Request<Incoming>) -> Op {
    let of_object = request
        .uri()
        .path()
        .trim_start_matches('/')
        .split_once('/')
        .is_some_and(|(_, key)| !key.is_empty());
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    match (request.method().as_str(), of_object) {
        ("PUT", true) if has("partNumber") => Op::UploadPart,
        ("PUT", true) => Op::PutObject,
        ("GET", true) if has("versionId") => Op::GetObjectVersion,
        ("GET", true) if !has("uploadId") => Op::GetObject,
        ("HEAD", true) => Op::HeadObject,
        ("DELETE", true) if has("uploadId") => Op::AbortMultipartUpload,
        ("DELETE", true) => Op::DeleteObject,
        ("POST", true) if has("uploads") => Op::CreateMultipartUpload,
        ("POST", true) if has("uploadId") => Op::CompleteMultipartUpload,
        ("GET", false) if has("list-type") => Op::ListObjectsV2,
        ("GET", false) if has("versions") => Op::ListObjectVersions,
        ("GET", false) if has("versioning") => Op::GetBucketVersioning,
        ("GET", false) if has("notification") => Op::GetBucketNotification,
        ("GET", false) if has("location") => Op::GetBucketLocation,
        ("GET", false) if has("encryption") => Op::GetBucketEncryption,
        _ => Op::Other,
    }
}
