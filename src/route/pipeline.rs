//! The name of the pipeline that watches an object: one for all refs of a route, or a template.

use std::{fmt, str::FromStr};

use crate::push::{InvalidName, RefName};

/// Where a ref's name goes.
const REF: &str = "{ref}";

/// The longest name of a pipeline, in bytes.
///
/// Source: <https://docs.aws.amazon.com/codepipeline/latest/APIReference/API_PipelineDeclaration.html>
const MAX_BYTES: usize = 100;

/// The name of a pipeline, in which `{ref}` stands for [`RefName::short`]. What a pipeline's name may not have is a hyphen
/// there: `refs/heads/release/1.0` is `release-1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineName(String);

impl PipelineName {
    /// The pipeline of one ref.
    pub(super) fn of(&self, ref_name: &RefName) -> String {
        let short = ref_name.short().chars();
        let short: String = short.map(|c| if is_allowed(c) { c } else { '-' }).collect();
        self.0.replace(REF, &short)
    }

    /// Whether it may be the pipeline of some ref.
    #[must_use]
    pub fn may_be(&self, name: &str) -> bool {
        match self.0.split_once(REF) {
            Some((before, rest)) => {
                let after = rest.rsplit(REF).next().unwrap_or_default();
                name.len() > before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            }
            None => self.0 == name,
        }
    }

    /// The one pipeline, if it is the same for all refs.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains(REF)).then_some(&self.0)
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '@' | '-' | '_')
}

impl fmt::Display for PipelineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PipelineName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rest = text.replace(REF, "");
        let is_valid = !text.is_empty() && text.len() <= MAX_BYTES && rest.chars().all(is_allowed);
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            let expected = "a pipeline's name of 1 to 100 letters, digits and .@-_, or {ref}";
            Err(InvalidName::new(expected, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_a_name_or_a_template() {
        for (text, ref_name, expected) in [
            ("web-main", "refs/heads/main", Some("web-main")),
            ("web-{ref}", "refs/heads/main", Some("web-main")),
            (
                "web-{ref}",
                "refs/heads/release/1.0",
                Some("web-release-1.0"),
            ),
            ("{ref}", "refs/heads/機能", Some("--")),
            ("web/main", "refs/heads/main", None),
            ("{project}", "refs/heads/main", None),
            ("", "refs/heads/main", None),
        ] {
            let name = text.parse::<PipelineName>().ok();
            let name = name.map(|name| name.of(&ref_name.parse().unwrap()));
            assert_eq!(name.as_deref(), expected, "{text}");
        }
        let template: PipelineName = "web-{ref}".parse().unwrap();
        assert!(template.may_be("web-x") && !template.may_be("web-") && !template.may_be("api-x"));
        assert!("p".repeat(101).parse::<PipelineName>().is_err());
    }
}
