//! Where an object key lives on disk: one folder a component, readable, and never outside the store.
//!
//! ```text
//! web/main.zip       web/main.zip
//! ../50%/@x          %2E./50%25/%40x
//! a//b               a/%/b
//! <300 bytes>        <200 bytes>%/<100 bytes>
//! ```
//!
//! Only what must be is percent-encoded: `%` itself, control characters, and a leading `.` or `@` (a folder that starts
//! with `@` holds a version). A `%` that no hexadecimal digits follow marks an empty component, or a component that goes on in
//! the folder inside. Keys that differ only in case or Unicode normalization are one key where the file system says so.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// The longest name that is made, in bytes, before the mark that it goes on. File systems stop at 255.
const MAX_NAME_BYTES: usize = 200;

/// The name of a version's bytes where the key offers none that is fit.
const FALLBACK_NAME: &str = "object";

/// The name of the file beside a version's bytes that describes them.
pub(super) const DESCRIPTION_NAME: &str = "version.json";

/// The folder of a key, relative to that of its bucket.
pub(super) fn folder(key: &str) -> PathBuf {
    names(key).iter().collect()
}

/// The key whose folder has these names, or `None` if this is no folder that [`folder`] makes.
pub(super) fn key(names_found: &[String]) -> Option<String> {
    let mut components = Vec::new();
    let mut component = String::new();
    for name in names_found {
        let (text, ends) = match name.strip_suffix('%') {
            Some("") => ("", true),
            Some(start) => (start, false),
            None => (name.as_str(), true),
        };
        component.push_str(&percent_decode_str(text).decode_utf8().ok()?);
        if ends {
            components.push(std::mem::take(&mut component));
        }
    }
    let key = components.join("/");
    // What a person has put there may decode too; a key has one folder only.
    (names(&key) == names_found).then_some(key)
}

/// What the file with a version's bytes is called: the last part of the key, so that a person recognizes it.
pub(super) fn file_name(key: &str) -> String {
    let last = key.rsplit('/').next().unwrap_or_default();
    match <[String; 1]>::try_from(names(last)) {
        Ok([name]) if name != DESCRIPTION_NAME && name != "%" => name,
        _ => FALLBACK_NAME.to_owned(),
    }
}

fn names(key: &str) -> Vec<String> {
    let mut names = Vec::new();
    for component in key.split('/') {
        let mut name = String::new();
        for c in component.chars() {
            let mut encoded = percent_encoded(c, name.is_empty());
            if name.len() + encoded.len() > MAX_NAME_BYTES {
                names.push(name + "%");
                name = String::new();
                encoded = percent_encoded(c, true);
            }
            name.push_str(&encoded);
        }
        names.push(if name.is_empty() { "%".into() } else { name });
    }
    names
}

fn percent_encoded(c: char, leads: bool) -> String {
    if c == '%' || c.is_control() || (leads && matches!(c, '.' | '@')) {
        let mut bytes = [0; 4];
        let bytes = c.encode_utf8(&mut bytes).bytes();
        let bytes: Vec<_> = bytes.map(|byte| format!("%{byte:02X}")).collect();
        bytes.concat()
    } else {
        c.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_have_readable_folders() {
        let long = "x".repeat(201);
        for (case, key, expected) in [
            ("plain", "web/main.zip", "web/main.zip"),
            ("Japanese", "資料/本番 1.zip", "資料/本番 1.zip"),
            ("dots", "./../.git/a.", "%2E/%2E./%2Egit/a."),
            ("empty components", "/a//b/", "%/a/%/b/%"),
            ("percent", "a%2Fb%", "a%252Fb%25"),
            ("like a version", "@1/a@b", "%401/a@b"),
            ("control characters", "a\n\0", "a%0A%00"),
            ("long", &long, &format!("{}%/x", "x".repeat(200))),
        ] {
            assert_eq!(folder(key).to_str(), Some(expected), "{case}: {key}");
        }
    }

    #[test]
    fn the_bytes_are_called_as_the_key_ends() {
        for (case, key, expected) in [
            ("plain", "web/main.zip", "main.zip"),
            ("nothing after the slash", "web/", "object"),
            ("the description's name", "web/version.json", "object"),
            ("too long", &"x".repeat(201), "object"),
        ] {
            assert_eq!(file_name(key), expected, "{case}: {key}");
        }
    }

    #[test]
    fn folders_of_other_making_are_no_keys() {
        for names in [["%2e"], ["%41"], ["a%"], ["%zz"], ["%FF"], [".git"]] {
            assert_eq!(key(&names.map(String::from)), None, "{names:?}");
        }
    }

    /// Text that is rich in what could go wrong.
    fn any_key() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => "[./@%2Fa]{1,4}",
            1 => "\\PC{1,8}",
            1 => any::<char>().prop_map(String::from),
            1 => "[.@%あ]{180,240}",
        ];
        proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_folder_leads_back_to_its_key(text in any_key()) {
            prop_assert_eq!(key(&names(&text)), Some(text));
        }

        #[test]
        fn a_folder_stays_inside_and_is_no_version(text in any_key()) {
            for component in folder(&text).components() {
                let Component::Normal(name) = component else {
                    panic!("{text:?} leaves the store: {component:?}");
                };
                let name = name.to_str().unwrap();
                prop_assert!(!name.starts_with(['@', '.']) && name.len() <= 255, "{name}");
            }
            prop_assert_eq!(folder(&text).components().count(), names(&text).len());
        }

        #[test]
        fn two_keys_never_share_a_folder(one in any_key(), other in any_key()) {
            prop_assert_eq!(one == other, folder(&one) == folder(&other));
        }
    }
}
