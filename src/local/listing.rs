//! Listings by pages: which keys or versions, which common prefixes, and where the next page begins.

use s3s::{
    S3Result,
    dto::{
        CommonPrefix, DeleteMarkerEntry, ETag, ListObjectVersionsInput, ListObjectVersionsOutput,
        ListObjectsV2Input, ListObjectsV2Output, Object, ObjectVersion,
    },
};

use super::s3::{Operations, length};

/// The most entries a listing holds.
const MAX_KEYS: i32 = 1000;

impl Operations {
    /// A page of the objects of a bucket: the keys whose newest version is no delete marker.
    pub(super) async fn objects_page(
        &self,
        input: ListObjectsV2Input,
    ) -> S3Result<ListObjectsV2Output> {
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let (bucket, start) = (input.bucket.clone(), input.start_after.clone());
        let (last, delimiter) = (input.continuation_token.clone(), input.delimiter.clone());
        let prefix = input.prefix.clone().unwrap_or_default();
        let page = self
            .store(move |store| {
                let keys = store.keys(&bucket)?.into_iter().filter(|key| {
                    start.as_ref().is_none_or(|start| key > start)
                        && last
                            .as_ref()
                            .is_none_or(|last| follows(key, last, &prefix, delimiter.as_deref()))
                });
                let objects = keys.filter_map(|key| {
                    let newest = store.version(&bucket, &key, None).transpose()?;
                    newest
                        .map(|version| Some((key, (version.modified, version.content?))))
                        .transpose()
                });
                page(objects, &prefix, delimiter.as_deref(), count(max_keys))
            })
            .await?;
        let next = page.last().filter(|_| page.truncated);
        Ok(ListObjectsV2Output {
            next_continuation_token: next.map(str::to_owned),
            is_truncated: Some(page.truncated),
            key_count: i32::try_from(page.items.len() + page.prefixes.len()).ok(),
            common_prefixes: Some(common_prefixes(page.prefixes)),
            contents: Some(
                page.items
                    .into_iter()
                    .map(|(key, (modified, content))| Object {
                        key: Some(key),
                        e_tag: Some(ETag::Strong(content.etag)),
                        size: Some(length(content.size)),
                        last_modified: Some(modified.into()),
                        ..Object::default()
                    })
                    .collect(),
            ),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: Some(max_keys),
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        })
    }

    /// A page of the versions of a bucket, delete markers too: by key, the newest first.
    pub(super) async fn versions_page(
        &self,
        input: ListObjectVersionsInput,
    ) -> S3Result<ListObjectVersionsOutput> {
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let (bucket, delimiter) = (input.bucket.clone(), input.delimiter.clone());
        let (last, last_id) = (input.key_marker.clone(), input.version_id_marker.clone());
        let prefix = input.prefix.clone().unwrap_or_default();
        let page = self
            .store(move |store| {
                let mut versions = Vec::new();
                for key in store.keys(&bucket)? {
                    let mut of_key = store.versions(&bucket, &key)?;
                    let mut latest = true;
                    let mut of_key: Vec<_> = of_key
                        .drain(..)
                        .map(|version| (version, std::mem::take(&mut latest)))
                        .collect();
                    match (&last, &last_id) {
                        (Some(last), Some(id)) if *last == key => {
                            let seen = of_key.iter().position(|(seen, _)| seen.version_id == *id);
                            of_key.drain(..seen.map_or(0, |seen| seen + 1));
                        }
                        (Some(last), _) if !follows(&key, last, &prefix, delimiter.as_deref()) => {
                            of_key.clear();
                        }
                        _ => {}
                    }
                    versions.extend(of_key.into_iter().map(|of_key| Ok((key.clone(), of_key))));
                }
                page(
                    versions.into_iter(),
                    &prefix,
                    delimiter.as_deref(),
                    count(max_keys),
                )
            })
            .await?;
        let mut output = ListObjectVersionsOutput {
            next_key_marker: page.last().filter(|_| page.truncated).map(str::to_owned),
            next_version_id_marker: page
                .items
                .last()
                .filter(|(key, _)| page.truncated && page.last() == Some(key))
                .map(|(_, (version, _))| version.version_id.clone()),
            is_truncated: Some(page.truncated),
            common_prefixes: Some(common_prefixes(page.prefixes)),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: Some(max_keys),
            key_marker: input.key_marker,
            version_id_marker: input.version_id_marker,
            ..ListObjectVersionsOutput::default()
        };
        for (key, (version, latest)) in page.items {
            match version.content {
                Some(content) => {
                    output.versions.get_or_insert_default().push(ObjectVersion {
                        key: Some(key),
                        version_id: Some(version.version_id),
                        is_latest: Some(latest),
                        e_tag: Some(ETag::Strong(content.etag)),
                        size: Some(length(content.size)),
                        last_modified: Some(version.modified.into()),
                        ..ObjectVersion::default()
                    });
                }
                None => output
                    .delete_markers
                    .get_or_insert_default()
                    .push(DeleteMarkerEntry {
                        key: Some(key),
                        version_id: Some(version.version_id),
                        is_latest: Some(latest),
                        last_modified: Some(version.modified.into()),
                        ..DeleteMarkerEntry::default()
                    }),
            }
        }
        Ok(output)
    }
}

fn common_prefixes(prefixes: Vec<String>) -> Vec<CommonPrefix> {
    let prefixes = prefixes.into_iter();
    prefixes
        .map(|prefix| CommonPrefix {
            prefix: Some(prefix),
        })
        .collect()
}

fn count(max_keys: i32) -> usize {
    usize::try_from(max_keys).unwrap_or_default()
}

/// One page of items by key.
struct Page<T> {
    /// Keys that begin with the prefix and hold no delimiter after it.
    items: Vec<(String, T)>,
    /// What the other keys have in common, up to the delimiter.
    prefixes: Vec<String>,
    /// There is more after this page.
    truncated: bool,
}

impl<T> Page<T> {
    /// The last key or common prefix of the page, whichever comes later.
    fn last(&self) -> Option<&str> {
        let key = self.items.last().map(|(key, _)| &**key);
        key.max(self.prefixes.last().map(|prefix| &**prefix))
    }
}

/// The first `max` items and common prefixes of `all`, which is in the order of its keys.
fn page<T, E>(
    all: impl Iterator<Item = Result<(String, T), E>>,
    prefix: &str,
    delimiter: Option<&str>,
    max: usize,
) -> Result<Page<T>, E> {
    let mut page = Page {
        items: Vec::new(),
        prefixes: Vec::<String>::new(),
        truncated: false,
    };
    for item in all {
        let (key, item) = item?;
        let Some(rest) = key.strip_prefix(prefix) else {
            continue;
        };
        let common = delimiter
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()))
            .map(|length| key[..prefix.len() + length].to_owned());
        if common.is_some() && common.as_ref() == page.prefixes.last() {
            continue;
        }
        if page.items.len() + page.prefixes.len() == max {
            // A page of nothing has no next one.
            page.truncated = max > 0;
            break;
        }
        match common {
            Some(common) => page.prefixes.push(common),
            None => page.items.push((key, item)),
        }
    }
    Ok(page)
}

/// Whether a key comes after the page that ended at `last`, a key or a common prefix.
fn follows(key: &str, last: &str, prefix: &str, delimiter: Option<&str>) -> bool {
    let is_common_prefix = |last: &str| {
        let rest = last.strip_prefix(prefix).unwrap_or_default();
        delimiter.is_some_and(|delimiter| !rest.is_empty() && rest.ends_with(delimiter))
    };
    key > last && !(key.starts_with(last) && is_common_prefix(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let keys = ["a", "a/1", "a/2", "b", "b/", "b/1", "b/2/3", "c"];
        for (case, prefix, delimiter, expected) in [
            ("all", "", None, keys.to_vec()),
            ("a prefix", "b", None, vec!["b", "b/", "b/1", "b/2/3"]),
            ("grouped", "", Some("/"), vec!["a", "a/", "b", "b/", "c"]),
            ("grouped below", "b/", Some("/"), vec!["b/", "b/1", "b/2/"]),
        ] {
            for max in 1..=keys.len() {
                let mut found = Vec::new();
                let mut last = String::new();
                loop {
                    let rest = keys
                        .iter()
                        .filter(|key| follows(key, &last, prefix, delimiter))
                        .map(|key| Ok::<_, ()>(((*key).to_owned(), ())));
                    let page = page(rest, prefix, delimiter, max).unwrap();
                    if let Some(end) = page.last() {
                        end.clone_into(&mut last);
                    }
                    let mut entries = page.prefixes;
                    entries.extend(page.items.into_iter().map(|(key, ())| key));
                    entries.sort_unstable();
                    assert!(entries.len() <= max, "{case}, {max} a page");
                    found.extend(entries);
                    if !page.truncated {
                        break;
                    }
                }
                assert_eq!(found, expected, "{case}, {max} a page");
            }
        }
    }
}
