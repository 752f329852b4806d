//! The entries of a routing table as they stand in the file: which fields each has, and where.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

use super::faults::Faults;

/// The fields that are no text, but true or false.
const FLAGS: &[&str] = &["paused", "results_detail"];

/// One `[[space]]` or `[[route]]`, with those of its fields that can be read.
pub(super) struct Entry {
    span: Range<usize>,
    fields: Vec<(&'static str, Spanned<String>)>,
}

impl Entry {
    /// All entries of one kind, each with what of it can be read.
    pub(super) fn all(
        faults: &mut Faults,
        kind: &str,
        known: &'static [&'static str],
        needed: &[&str],
        value: Spanned<DeValue<'_>>,
    ) -> Vec<Self> {
        let span = value.span();
        let entries: Vec<Spanned<DeValue<'_>>> = match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            // One pair of brackets too few hides nothing else.
            table @ DeValue::Table(_) => {
                faults.add(span.clone(), format!("expected {kind}"));
                vec![Spanned::new(span, table)]
            }
            other => vec![Spanned::new(span, other)],
        };
        let entries = entries.into_iter();
        entries
            .filter_map(|entry| Self::read(faults, kind, known, needed, entry))
            .collect()
    }

    fn read(
        faults: &mut Faults,
        kind: &str,
        known: &'static [&'static str],
        needed: &[&str],
        value: Spanned<DeValue<'_>>,
    ) -> Option<Self> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            faults.add(span, format!("expected {kind}"));
            // What is not there is no further fault.
            faults.is_whole = false;
            return None;
        };
        let (mut fields, mut unread) = (Vec::new(), Vec::new());
        for (key, value) in table {
            let name = &**key.get_ref();
            let Some(name) = known.iter().find(|known| **known == name) else {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                let fault = format!(
                    "unknown field `{name}`, expected one of {}",
                    known.join(", ")
                );
                faults.add(key.span(), fault);
                continue;
            };
            let span = value.span();
            if let (true, DeValue::Boolean(flag)) = (FLAGS.contains(name), value.get_ref()) {
                fields.push((*name, Spanned::new(span, flag.to_string())));
                continue;
            }
            match String::deserialize(ValueDeserializer::from(value)) {
                Ok(text) => fields.push((*name, Spanned::new(span, text))),
                Err(error) => {
                    faults.add_toml(&error, span);
                    unread.push(*name);
                }
            }
        }
        for name in needed {
            if !unread.contains(name) && !fields.iter().any(|(own, _)| own == name) {
                faults.missing(span.clone(), format!("missing field `{name}`"));
            }
        }
        Some(Self { span, fields })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Spanned<String>> {
        let field = self.fields.iter().find(|(own, _)| *own == name);
        field.map(|(_, text)| text)
    }

    /// Where a field is, or the entry itself if there is no such field.
    pub(super) fn span(&self, name: &str) -> Range<usize> {
        self.get(name)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }
}
