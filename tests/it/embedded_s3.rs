//! The embedded S3 through the SDK's own client: what real S3 promises, and what its docs say beyond.

use std::{collections::HashSet, env, fs, io::Read, path::Path, process::Stdio, time::Duration};

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{head_object::HeadObjectError, put_object::PutObjectOutput},
    primitives::ByteStream,
    types::{
        BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload,
        CompletedPart,
    },
};
use backlog_bridge::local::{EmbeddedS3, Store};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    BUCKET, KEY,
    process::this_test_again,
    s3::{ACCESS_KEY, Fault, Op, TestS3, client},
};

/// The status and code of what must have failed.
fn refused<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    result: Result<T, SdkError<E>>,
) -> (u16, Option<String>) {
    let error = result.expect_err("a refusal");
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    (status, error.code().map(str::to_owned))
}

fn code(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

async fn put(s3: &Client, key: &str, text: &str) -> PutObjectOutput {
    let put = s3.put_object().bucket(BUCKET).key(key);
    let body = ByteStream::from(text.as_bytes().to_vec());
    put.body(body).send().await.expect("stored")
}

async fn get(s3: &Client, key: &str) -> String {
    let got = s3.get_object().bucket(BUCKET).key(key).send().await;
    text(got.expect("the object").body).await
}

async fn text(body: ByteStream) -> String {
    let bytes = body.collect().await.expect("a whole body").to_vec();
    String::from_utf8(bytes).expect("the text that was put")
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let put = s3
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .content_type("application/zip")
        .metadata("git-commit", "0123")
        .metadata("codepipeline-artifact-revision-summary", "A summary: ~")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        put.e_tag(),
        Some("\"5d41402abc4b2a76b9719d911017c592\""),
        "the MD5 of the bytes"
    );

    let head = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    let head = head.unwrap();
    let got = s3.get_object().bucket(BUCKET).key(KEY).send().await;
    let got = got.unwrap();
    for (e_tag, version_id, content_type, length, metadata, modified) in [
        (
            head.e_tag(),
            head.version_id(),
            head.content_type(),
            head.content_length(),
            head.metadata(),
            head.last_modified(),
        ),
        (
            got.e_tag(),
            got.version_id(),
            got.content_type(),
            got.content_length(),
            got.metadata(),
            got.last_modified(),
        ),
    ] {
        assert_eq!(e_tag, put.e_tag());
        assert_eq!(version_id, put.version_id());
        assert_eq!(content_type, Some("application/zip"));
        assert_eq!(length, Some(5));
        let metadata = metadata.unwrap();
        assert_eq!(metadata.len(), 2);
        assert_eq!(metadata["git-commit"], "0123");
        assert_eq!(
            metadata["codepipeline-artifact-revision-summary"],
            "A summary: ~"
        );
        assert!(modified.is_some());
    }
    assert_eq!(text(got.body).await, "hello");

    let stored = server.newest(BUCKET, KEY).unwrap();
    assert_eq!(stored.bytes.as_deref(), Some(b"hello".as_slice()));
    assert_eq!(Some(&*stored.version_id), put.version_id());
    assert_eq!(stored.metadata["git-commit"], "0123");
}

#[tokio::test]
async fn an_object_of_no_bytes_is_an_object() {
    let server = TestS3::start().await;
    let s3 = server.client();
    put(&s3, KEY, "").await;
    let head = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    assert_eq!(head.unwrap().content_length(), Some(0));
    assert_eq!(get(&s3, KEY).await, "");
}

#[tokio::test]
async fn any_key_can_be_put_got_and_listed() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let long = "x".repeat(1024);
    let deep = "a/".repeat(500);
    let keys = [
        "a",
        "a/b",
        "a//b",
        "a/",
        "../../etc/passwd",
        "./a",
        "資料/本番 環境.zip",
        "a%2Fb",
        "a@b+c d",
        "@00000001-x/version.json",
        "version.json",
        &long,
        &deep,
    ];
    for key in keys {
        put(&s3, key, key).await;
    }
    for key in keys {
        assert_eq!(get(&s3, key).await, key);
    }
    let list = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    let listed: Vec<_> = list.contents().iter().filter_map(|o| o.key()).collect();
    assert_eq!(listed, expected);
    // Nothing has left the store, or lies beside the bucket in it.
    assert_eq!(fs::read_dir(server.dir()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_missing_object_is_404_in_any_bucket() {
    let server = TestS3::start().await;
    let s3 = server.client();
    put(&s3, "other", "").await;
    for bucket in [BUCKET, "never-seen"] {
        let get = s3.get_object().bucket(bucket).key(KEY).send().await;
        assert_eq!(refused(get), code(404, "NoSuchKey"));
        let head = s3.head_object().bucket(bucket).key(KEY).send().await;
        let error = head.unwrap_err().into_service_error();
        assert!(matches!(error, HeadObjectError::NotFound(_)), "{error:?}");
        let get = s3.get_object().bucket(bucket).key("other").version_id("x");
        assert_eq!(refused(get.send().await), code(404, "NoSuchVersion"));
    }
}

#[tokio::test]
async fn every_put_is_a_version_and_a_delete_hides_them() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let first = put(&s3, KEY, "1").await;
    let second = put(&s3, KEY, "2").await;
    assert_ne!(first.version_id(), second.version_id());
    assert_eq!(get(&s3, KEY).await, "2");

    let delete = s3.delete_object().bucket(BUCKET).key(KEY).send().await;
    let marker = delete.unwrap();
    assert_eq!(marker.delete_marker(), Some(true));
    let gone = s3.get_object().bucket(BUCKET).key(KEY).send().await;
    let header = gone.as_ref().err().and_then(SdkError::raw_response);
    let header = header.and_then(|raw| raw.headers().get("x-amz-delete-marker"));
    assert_eq!(header, Some("true"));
    assert_eq!(refused(gone), code(404, "NoSuchKey"));
    let old = s3.get_object().bucket(BUCKET).key(KEY);
    let old = old.set_version_id(first.version_id.clone()).send().await;
    assert_eq!(text(old.unwrap().body).await, "1");
    let shown = s3.get_object().bucket(BUCKET).key(KEY);
    let shown = shown.set_version_id(marker.version_id.clone()).send().await;
    assert_eq!(refused(shown), code(405, "MethodNotAllowed"));

    let list = s3.list_object_versions().bucket(BUCKET).send().await;
    let list = list.unwrap();
    let versions: Vec<_> = list.versions().iter().map(|v| v.version_id()).collect();
    assert_eq!(versions, [second.version_id(), first.version_id()]);
    let markers: Vec<_> = list.delete_markers().iter().collect();
    assert_eq!(markers.len(), 1);
    assert_eq!(markers[0].version_id(), marker.version_id());
    assert_eq!(markers[0].is_latest(), Some(true));
    let objects = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(objects.key_count(), Some(0));

    // Without the marker the object is back.
    let undelete = s3.delete_object().bucket(BUCKET).key(KEY);
    let undelete = undelete.set_version_id(marker.version_id).send().await;
    assert_eq!(undelete.unwrap().delete_marker(), Some(true));
    assert_eq!(get(&s3, KEY).await, "2");
    let remove = s3.delete_object().bucket(BUCKET).key(KEY);
    let remove = remove.set_version_id(second.version_id).send().await;
    assert_eq!(remove.unwrap().delete_marker(), None);
    assert_eq!(get(&s3, KEY).await, "1");
}

#[tokio::test]
async fn of_32_writers_that_find_nothing_one_wins() {
    let server = TestS3::start().await;
    let mut writers = JoinSet::new();
    for n in 0..32 {
        let s3 = server.client();
        writers.spawn(async move {
            let put = s3.put_object().bucket(BUCKET).key(KEY).if_none_match("*");
            let put = put.body(ByteStream::from(vec![n; 10_000])).send().await;
            put.map(|_| n).map_err(|error| refused::<(), _>(Err(error)))
        });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writers
        .join_all()
        .await
        .into_iter()
        .partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for lost in lost {
        assert_eq!(lost, Err(code(412, "PreconditionFailed")));
    }
    let stored = server.versions(BUCKET, KEY);
    assert_eq!(stored.len(), 1);
    let winner = *won[0].as_ref().unwrap();
    assert_eq!(stored[0].bytes, Some(vec![winner; 10_000]));
}

#[tokio::test]
async fn a_chain_of_conditional_writes_loses_none() {
    let server = TestS3::start().await;
    put(&server.client(), KEY, "0").await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let s3 = server.client();
        // Each adds one to what it has read, and starts over when somebody else was faster.
        writers.spawn(async move {
            loop {
                let got = s3.get_object().bucket(BUCKET).key(KEY).send().await;
                let got = got.unwrap();
                let etag = got.e_tag.clone();
                let next = text(got.body).await.parse::<u32>().unwrap() + 1;
                let put = s3.put_object().bucket(BUCKET).key(KEY).set_if_match(etag);
                let put = put.body(ByteStream::from(next.to_string().into_bytes()));
                match put.send().await {
                    Ok(_) => break,
                    Err(lost) => {
                        assert_eq!(refused::<(), _>(Err(lost)), code(412, "PreconditionFailed"));
                    }
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(get(&server.client(), KEY).await, "8");
    assert_eq!(server.versions(BUCKET, KEY).len(), 9);
}

#[tokio::test]
async fn if_match_needs_an_object() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let overwrite = |etag: &str| {
        let put = s3.put_object().bucket(BUCKET).key(KEY).if_match(etag);
        put.body(ByteStream::from_static(b"new")).send()
    };
    assert_eq!(refused(overwrite("\"x\"").await), code(404, "NoSuchKey"));
    let first = put(&s3, KEY, "1").await;
    assert_eq!(
        refused(overwrite("\"x\"").await),
        code(412, "PreconditionFailed")
    );
    s3.delete_object()
        .bucket(BUCKET)
        .key(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(
        refused(overwrite(first.e_tag().unwrap()).await),
        code(404, "NoSuchKey")
    );
    let put = s3.put_object().bucket(BUCKET).key(KEY).if_none_match("*");
    put.send().await.unwrap();
    assert_eq!(server.versions(BUCKET, KEY).len(), 3);
}

#[tokio::test]
async fn reads_can_be_conditional_too() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let etag = put(&s3, KEY, "text").await.e_tag.unwrap();
    let get = || s3.get_object().bucket(BUCKET).key(KEY);
    assert!(get().if_match(&etag).send().await.is_ok());
    assert_eq!(
        refused(get().if_match("\"x\"").send().await),
        code(412, "PreconditionFailed")
    );
    assert_eq!(refused(get().if_none_match(&etag).send().await).0, 304);
    assert!(get().if_none_match("\"x\"").send().await.is_ok());
}

#[tokio::test]
async fn a_range_is_that_part_of_the_bytes() {
    let server = TestS3::start().await;
    let s3 = server.client();
    put(&s3, KEY, "0123456789").await;
    for (range, expected, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=0-99", "0123456789", "bytes 0-9/10"),
    ] {
        let get = s3.get_object().bucket(BUCKET).key(KEY).range(range);
        let got = get.send().await.unwrap();
        assert_eq!(got.content_range(), Some(content_range), "{range}");
        assert_eq!(text(got.body).await, expected, "{range}");
    }
    let beyond = s3.get_object().bucket(BUCKET).key(KEY).range("bytes=10-");
    assert_eq!(refused(beyond.send().await), code(416, "InvalidRange"));
}

#[tokio::test]
async fn every_checksum_is_verified_and_comes_back() {
    let server = TestS3::start().await;
    let s3 = server.client();
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let put = s3.put_object().bucket(BUCKET).key(KEY);
        let put = put.checksum_algorithm(algorithm.clone());
        let put = put.body(ByteStream::from_static(b"hello")).send().await;
        let put = put.unwrap();
        let head = s3.head_object().bucket(BUCKET).key(KEY);
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await;
        let head = head.unwrap();
        let sent = [
            put.checksum_crc32(),
            put.checksum_crc32_c(),
            put.checksum_crc64_nvme(),
            put.checksum_sha1(),
            put.checksum_sha256(),
        ];
        let kept = [
            head.checksum_crc32(),
            head.checksum_crc32_c(),
            head.checksum_crc64_nvme(),
            head.checksum_sha1(),
            head.checksum_sha256(),
        ];
        assert_eq!(sent, kept, "{algorithm}");
        assert_eq!(kept.iter().flatten().count(), 1, "{algorithm}");
        // The client verifies it while it reads.
        assert_eq!(get(&s3, KEY).await, "hello", "{algorithm}");
    }
    let plain = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    assert_eq!(plain.unwrap().checksum_sha256(), None);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_claims_is_not_stored() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let put = || {
        let put = s3.put_object().bucket(BUCKET).key(KEY);
        put.body(ByteStream::from_static(b"hello"))
    };
    for (case, wrong) in [
        ("CRC32", put().checksum_crc32("AAAAAA==")),
        ("CRC32C", put().checksum_crc32_c("AAAAAA==")),
        ("CRC64NVME", put().checksum_crc64_nvme("AAAAAAAAAAA=")),
        ("SHA1", put().checksum_sha1("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        (
            "SHA256",
            put().checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ),
        ("MD5", put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==")),
    ] {
        assert_eq!(
            refused(wrong.send().await),
            code(400, "BadDigest"),
            "{case}"
        );
    }
    let malformed = put().content_md5("hello").send().await;
    assert_eq!(refused(malformed), code(400, "InvalidDigest"));
    assert_eq!(server.versions(BUCKET, KEY), []);
    put()
        .content_md5("XUFAKrxLKna5cZ2REBfFkg==")
        .send()
        .await
        .expect("the MD5 of hello");
}

#[tokio::test]
async fn a_body_that_changes_on_the_way_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "hello").unwrap();
    let server = TestS3::start().await;
    let s3 = server.client();
    let put = |body| s3.put_object().bucket(BUCKET).key(KEY).body(body);
    let from_file = || ByteStream::from_path(&path);

    server.fail_once(Op::PutObject, Fault::Corrupt);
    let signed = put(ByteStream::from_static(b"hello")).send().await;
    assert_eq!(refused(signed), code(400, "IncompleteBody"));
    server.fail_once(Op::PutObject, Fault::Corrupt);
    let signed_in_chunks = put(from_file().await.unwrap()).send().await;
    assert_eq!(refused(signed_in_chunks), code(400, "IncompleteBody"));
    assert_eq!(server.versions(BUCKET, KEY), []);
}

#[tokio::test]
async fn more_metadata_than_s3_takes_is_refused() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let put = |length| {
        let put = s3.put_object().bucket(BUCKET).key(KEY);
        put.metadata("name", "x".repeat(length)).send()
    };
    put(2044).await.expect("2,048 bytes in all");
    assert_eq!(refused(put(2045).await), code(400, "MetadataTooLarge"));
}

#[tokio::test]
async fn listings_come_in_pages() {
    let server = TestS3::start().await;
    let s3 = server.client();
    for key in ["a", "b/1", "b/2", "c", "c", "d"] {
        put(&s3, key, "").await;
    }
    let mut pages = s3.list_objects_v2().bucket(BUCKET).delimiter("/");
    pages = pages.max_keys(2);
    let mut pages = pages.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let keys = page.contents().iter().filter_map(|object| object.key());
        let prefixes = page.common_prefixes().iter().filter_map(|p| p.prefix());
        found.push(keys.chain(prefixes).map(str::to_owned).collect::<Vec<_>>());
    }
    assert_eq!(found, [["a", "b/"], ["c", "d"]]);

    let mut pages = s3.list_object_versions().bucket(BUCKET).max_keys(2);
    let mut ids = HashSet::new();
    let mut keys = Vec::new();
    loop {
        let page = pages.clone().send().await.unwrap();
        for version in page.versions() {
            assert!(ids.insert(version.version_id().unwrap().to_owned()));
            keys.push(version.key().unwrap().to_owned());
        }
        if page.is_truncated() != Some(true) {
            break;
        }
        pages = pages
            .set_key_marker(page.next_key_marker)
            .set_version_id_marker(page.next_version_id_marker);
    }
    assert_eq!(keys, ["a", "b/1", "b/2", "c", "c", "d"]);
}

#[tokio::test]
async fn buckets_are_versioned_whether_they_were_created_or_not() {
    let server = TestS3::start().await;
    let s3 = server.client();
    s3.create_bucket().bucket("created").send().await.unwrap();
    put(&s3, KEY, "").await;
    for bucket in ["created", BUCKET, "never-seen"] {
        s3.head_bucket().bucket(bucket).send().await.unwrap();
        s3.get_bucket_location()
            .bucket(bucket)
            .send()
            .await
            .unwrap();
        let versioning = s3.get_bucket_versioning().bucket(bucket).send().await;
        assert_eq!(
            versioning.unwrap().status(),
            Some(&BucketVersioningStatus::Enabled)
        );
    }
    let buckets = s3.list_buckets().send().await.unwrap();
    let buckets: Vec<_> = buckets.buckets().iter().filter_map(|b| b.name()).collect();
    assert_eq!(buckets, ["created", BUCKET]);
    let policy = s3.get_bucket_policy().bucket(BUCKET).send().await;
    assert_eq!(refused(policy), code(501, "NotImplemented"));
}

/// Begins an upload of a part of 5 MiB and one of 4 bytes.
async fn upload_two_parts(s3: &Client) -> (String, CompletedMultipartUpload) {
    let upload = s3.create_multipart_upload().bucket(BUCKET).key(KEY);
    let upload = upload.metadata("git-commit", "0123").send().await.unwrap();
    let id = upload.upload_id.unwrap();
    let mut parts = CompletedMultipartUpload::builder();
    for (number, bytes) in [(1, vec![b'a'; 5 << 20]), (2, b"tail".to_vec())] {
        let part = s3.upload_part().bucket(BUCKET).key(KEY).upload_id(&id);
        let part = part.part_number(number).body(ByteStream::from(bytes));
        let etag = part.send().await.unwrap().e_tag;
        let part = CompletedPart::builder().part_number(number);
        parts = parts.parts(part.set_e_tag(etag).build());
    }
    (id, parts.build())
}

#[tokio::test]
async fn an_upload_in_parts_is_one_version_and_may_lose() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let (id, parts) = upload_two_parts(&s3).await;
    let listed = s3.list_parts().bucket(BUCKET).key(KEY).upload_id(&id);
    let listed = listed.send().await.unwrap();
    let sizes: Vec<_> = listed
        .parts()
        .iter()
        .filter_map(aws_sdk_s3::types::Part::size)
        .collect();
    assert_eq!(sizes, [5 << 20, 4]);

    let complete = || {
        let complete = s3.complete_multipart_upload().bucket(BUCKET).key(KEY);
        complete.upload_id(&id).multipart_upload(parts.clone())
    };
    let other = put(&s3, KEY, "other").await;
    let lost = complete().if_none_match("*").send().await;
    assert_eq!(refused(lost), code(412, "PreconditionFailed"));
    assert_eq!(get(&s3, KEY).await, "other");

    let won = complete().set_if_match(other.e_tag).send().await.unwrap();
    let etag = won.e_tag().unwrap();
    assert!(etag.ends_with("-2\""), "{etag}");
    let stored = server.newest(BUCKET, KEY).unwrap();
    assert_eq!(Some(&*stored.version_id), won.version_id());
    assert_eq!(stored.metadata["git-commit"], "0123");
    let bytes = stored.bytes.unwrap();
    assert_eq!(bytes.len(), (5 << 20) + 4);
    assert!(bytes.ends_with(b"aatail"));
    assert_eq!(
        refused(complete().send().await),
        code(404, "NoSuchUpload"),
        "it is over"
    );
}

#[tokio::test]
async fn an_upload_that_was_begun_with_a_checksum_needs_it_of_each_part() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let upload = s3.create_multipart_upload().bucket(BUCKET).key(KEY);
    let upload = upload.checksum_algorithm(ChecksumAlgorithm::Crc32);
    let id = upload.send().await.unwrap().upload_id.unwrap();
    let part = s3.upload_part().bucket(BUCKET).key(KEY).upload_id(&id);
    let part = part.part_number(1).body(ByteStream::from_static(b"hello"));
    let part = part.send().await.unwrap();
    let complete = async |checksum: Option<&str>| {
        let named = CompletedPart::builder().part_number(1);
        let named = named.set_e_tag(part.e_tag.clone());
        let named = named.set_checksum_crc32(checksum.map(Into::into)).build();
        let parts = CompletedMultipartUpload::builder().parts(named).build();
        let complete = s3.complete_multipart_upload().bucket(BUCKET).key(KEY);
        complete.upload_id(&id).multipart_upload(parts).send().await
    };
    assert_eq!(refused(complete(None).await), code(400, "InvalidRequest"));
    assert_eq!(
        refused(complete(Some("AAAAAA==")).await),
        code(400, "InvalidPart")
    );
    assert_eq!(part.checksum_crc32(), Some("NhCmhg=="));
    complete(part.checksum_crc32()).await.unwrap();
    assert_eq!(get(&s3, KEY).await, "hello");
}

#[tokio::test]
async fn parts_that_do_not_fit_are_refused() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let (id, parts) = upload_two_parts(&s3).await;
    let [first, second] = parts.parts() else {
        panic!("{parts:?}")
    };
    let other = CompletedPart::builder()
        .part_number(1)
        .e_tag("\"x\"")
        .build();
    for (case, parts, expected) in [
        ("order", vec![second, first], "InvalidPartOrder"),
        ("ETag", vec![&other, second], "InvalidPart"),
        ("none", vec![], "MalformedXML"),
    ] {
        let parts = parts.into_iter().cloned().collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let complete = s3.complete_multipart_upload().bucket(BUCKET).key(KEY);
        let complete = complete.upload_id(&id).multipart_upload(parts.build());
        assert_eq!(
            refused(complete.send().await),
            code(400, expected),
            "{case}"
        );
    }
    let abort = s3.abort_multipart_upload().bucket(BUCKET).key(KEY);
    abort.upload_id(&id).send().await.unwrap();
    assert_eq!(server.versions(BUCKET, KEY), []);
    let part = s3.upload_part().bucket(BUCKET).key(KEY).upload_id(&id);
    let part = part.part_number(3).send().await;
    assert_eq!(refused(part), code(404, "NoSuchUpload"));
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let server = TestS3::start().await;
    let s3 = client(server.endpoint(), ACCESS_KEY, "wrong");
    let put = s3.put_object().bucket(BUCKET).key(KEY).send().await;
    assert_eq!(refused(put), code(403, "SignatureDoesNotMatch"));
    assert_eq!(server.versions(BUCKET, KEY), []);
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_meanwhile_nobody_else_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedS3::start(dir.path()).await.unwrap();
    let s3 = client(&first.endpoint(), first.access_key(), first.secret_key());
    let stored = put(&s3, KEY, "kept").await;
    assert!(Store::open(dir.path()).is_err());
    let old_secret = first.secret_key().to_owned();
    first.stop().await;

    let second = EmbeddedS3::start(dir.path()).await.unwrap();
    assert_ne!(second.secret_key(), old_secret);
    let s3 = client(&second.endpoint(), second.access_key(), second.secret_key());
    assert_eq!(get(&s3, KEY).await, "kept");
    let head = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    let head = head.unwrap();
    assert_eq!(head.e_tag(), stored.e_tag());
    assert_eq!(head.version_id(), stored.version_id());
}

/// Puts as fast as it can until it is killed.
async fn put_for_ever(dir: &Path) {
    let server = EmbeddedS3::start(dir).await.unwrap();
    let s3 = client(&server.endpoint(), server.access_key(), server.secret_key());
    for n in (0..=u8::MAX).cycle() {
        let put = s3.put_object().bucket(BUCKET).key(KEY);
        let put = put.metadata("n", n.to_string());
        let put = put.body(ByteStream::from(vec![n; 300_000]));
        put.send().await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_whole_versions_only() {
    const DIR: &str = "STORE_OF_A_PROCESS_THAT_WILL_BE_KILLED";
    if let Some(dir) = env::var_os(DIR) {
        return put_for_ever(dir.as_ref()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    // More often where the machine is so busy that nothing was stored yet.
    let mut stored = 0;
    for round in 0..100 {
        if round >= 10 && stored > 0 {
            break;
        }
        let mut child = this_test_again(&|| ());
        child.stdout(Stdio::null());
        let mut child = child.env(DIR, dir.path()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(60 + 13 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(dir.path()).unwrap();
        let left = fs::read_dir(dir.path().join(".backlog-bridge/tmp"));
        assert_eq!(left.unwrap().count(), 0);
        let versions = store.versions(BUCKET, KEY).unwrap();
        stored = versions.len();
        for version in versions {
            let mut bytes = Vec::new();
            version.open().unwrap().read_to_end(&mut bytes).unwrap();
            let n: u8 = version.content.unwrap().metadata["n"].parse().unwrap();
            assert!(bytes == vec![n; 300_000], "version {n} of round {round}");
        }
    }
    assert!(stored > 0, "it never got so far");
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let dir = tempfile::tempdir().unwrap();
    let server = EmbeddedS3::start(dir.path()).await.unwrap();
    let s3 = client(&server.endpoint(), server.access_key(), server.secret_key());
    put(&s3, KEY, "").await;
    drop(server);
    let reopened = async {
        while Store::open(dir.path()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), reopened).await.unwrap();
}

/// The most memory this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_big_object_passes_through_little_memory() {
    const ALONE: &str = "MEASURE_THE_MEMORY_OF_A_PROCESS";
    const SIZE: u64 = 32 << 20;
    if env::var_os(ALONE).is_none() {
        // What other tests take at the same time would count too.
        let mut child = this_test_again(&|| ());
        let measured = child.env(ALONE, "").stdout(Stdio::null()).status();
        assert!(measured.unwrap().success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let server = TestS3::start().await;
    let s3 = server.client();
    put(&s3, KEY, "warm").await;

    let before = peak_memory();
    // From a file the client streams too, with the checksum in a trailer.
    let body = ByteStream::from_path(&path).await.unwrap();
    let put = s3.put_object().bucket(BUCKET).key(KEY).body(body);
    put.send().await.unwrap();
    let got = s3.get_object().bucket(BUCKET).key(KEY).send().await;
    let mut body = got.unwrap().body;
    let mut length = 0;
    while let Some(piece) = body.try_next().await.unwrap() {
        length += piece.len() as u64;
    }
    assert_eq!(length, SIZE);
    let grown = peak_memory() - before;
    assert!(grown < SIZE / 4, "{grown} bytes more for {SIZE}");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt;

    let server = TestS3::start().await;
    let tmp = server.dir().join(".backlog-bridge/tmp");
    let address = server.endpoint().trim_start_matches("http://");
    // Signed for a body that never comes whole.
    let s3 = server.client();
    let config = aws_sdk_s3::presigning::PresigningConfig::expires_in(Duration::from_mins(1));
    let put = s3.put_object().bucket(BUCKET).key(KEY);
    let signed = put.presigned(config.unwrap()).await.unwrap();
    let target = signed.uri().split_once(address).unwrap().1;
    let mut wire = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "PUT {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\r\nonly this much"
    );
    wire.write_all(request.as_bytes()).await.unwrap();
    let is_empty = || fs::read_dir(&tmp).unwrap().count() == 0;
    let settled = async {
        while is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(wire);
        while !is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), settled).await.unwrap();
    assert_eq!(server.versions(BUCKET, KEY), []);
}

#[tokio::test]
async fn faults_happen_once_and_as_planned() {
    let server = TestS3::start().await;
    let s3 = server.client();
    let put = || {
        let put = s3.put_object().bucket(BUCKET).key(KEY);
        put.body(ByteStream::from(vec![0; 300_000])).send()
    };
    for (status, expected) in [
        (403, "AccessDenied"),
        (409, "ConditionalRequestConflict"),
        (412, "PreconditionFailed"),
        (500, "InternalError"),
        (503, "SlowDown"),
    ] {
        server.fail_once(Op::PutObject, Fault::Status(status));
        assert_eq!(refused(put().await), code(status, expected));
    }
    server.fail_once(Op::PutObject, Fault::Drop);
    assert_eq!(refused(put().await), (0, None));
    server.fail_once(Op::PutObject, Fault::Hang);
    let hung = timeout(Duration::from_millis(100), put()).await;
    assert!(hung.is_err());
    assert_eq!(server.versions(BUCKET, KEY), []);

    server.fail_once(Op::PutObject, Fault::ApplyThenDrop);
    assert_eq!(refused(put().await), (0, None));
    assert_eq!(server.versions(BUCKET, KEY).len(), 1);
    assert_eq!(server.count(Op::PutObject), 8);

    let other = server.client();
    server.before(Op::HeadObject, move || async move {
        self::put(&other, KEY, "meanwhile").await;
    });
    let head = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    assert_eq!(head.unwrap().content_length(), Some(9));
    server.fail_once(Op::HeadObject, Fault::Status(403));
    let head = s3.head_object().bucket(BUCKET).key(KEY).send().await;
    assert_eq!(refused(head).0, 403);
}
