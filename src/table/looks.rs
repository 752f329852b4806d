//! What looks at the table's source come to. Pure.

use std::sync::Arc;

use crate::{
    error::{Error, chain},
    route::RouteTable,
};

/// What was found by a look that began after it was asked for.
#[derive(Debug, Clone)]
pub enum Reading {
    /// The table as it is.
    Newest(Arc<RouteTable>),
    /// None was ever stored.
    Never,
    /// What is stored is of no use: it is no routing table, or it was deleted.
    Spoiled {
        /// The newest table before it that is one, as far as it is known.
        last: Option<Arc<RouteTable>>,
        /// What is wrong.
        fault: TableFault,
    },
    /// It cannot be read now.
    Unread {
        /// The last one that was read.
        last: Option<Arc<RouteTable>>,
        /// What is in the way.
        fault: TableFault,
    },
}

/// Why there is no newest table. A clone is the same fault.
#[derive(Debug, Clone)]
pub struct TableFault(Arc<Error>);

impl From<Error> for TableFault {
    fn from(err: Error) -> Self {
        Self(err.into())
    }
}

impl TableFault {
    /// The fault as the error of whoever cannot do without the newest table. That somebody mends it is waited for.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::Routes {
            reason: match &*self.0 {
                Error::Routes { reason, .. } => reason.clone(),
                err => err.to_string(),
            },
            transient: true,
            source: std::error::Error::source(&*self.0).map(|source| chain(source).into()),
        }
    }
}

impl Reading {
    /// The newest table.
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], which is transient: the table can be mended.
    pub fn newest(&self) -> Result<&Arc<RouteTable>, Error> {
        match self {
            Self::Newest(table) => Ok(table),
            Self::Never => Err(Error::Routes {
                reason: "none was stored yet, though there are jobs".into(),
                transient: true,
                source: None,
            }),
            Self::Spoiled { fault, .. } | Self::Unread { fault, .. } => Err(fault.error()),
        }
    }
}

impl Reading {
    /// The newest table, or the last one that was of use.
    #[must_use]
    pub fn last_good(&self) -> Option<&Arc<RouteTable>> {
        match self {
            Self::Newest(table) => Some(table),
            Self::Never => None,
            Self::Spoiled { last, .. } | Self::Unread { last, .. } => last.as_ref(),
        }
    }
}

impl TableFault {
    /// The fault as it was found.
    #[must_use]
    pub fn cause(&self) -> &Error {
        &self.0
    }
}

/// What the looks so far found.
#[derive(Debug, Clone, Default)]
pub struct Looks {
    /// What the version seen last is compared by, good or not: an entity tag, or the text itself.
    version: Option<String>,
    /// What is wrong with it, if it is not `good`.
    spoiled: Option<TableFault>,
    /// The last table that was of use.
    good: Option<Arc<RouteTable>>,
}

/// What a look found.
#[derive(Debug)]
pub enum Seen {
    /// The version that was seen last.
    Same,
    /// Nothing, and maybe there never was anything. If there was, this is what is wrong.
    Missing(TableFault),
    /// That it was deleted.
    Deleted(TableFault),
    /// Another version, which is a table.
    Table(Arc<RouteTable>, String),
    /// Another version, which is none.
    NoTable(TableFault, String),
    /// Nothing: the source cannot be asked.
    Unread(TableFault),
}

/// What somebody should be told of after a look.
#[derive(Debug)]
pub enum News {
    /// Nothing.
    Nothing,
    /// There is a new table.
    Table(Arc<RouteTable>),
    /// What is stored is of no use any more.
    Spoiled(TableFault),
    /// It cannot be read.
    Unread(TableFault),
}

impl Looks {
    /// What the next look compares with.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether a table is known.
    #[must_use]
    pub fn has_good(&self) -> bool {
        self.good.is_some()
    }

    /// Takes a look into account, and says what it means.
    pub fn learn(&mut self, seen: Seen) -> (Reading, News) {
        let mut news = News::Nothing;
        match seen {
            Seen::Same => {}
            Seen::Table(table, version) => {
                news = News::Table(Arc::clone(&table));
                self.good = Some(table);
                self.spoiled = None;
                self.version = Some(version);
            }
            Seen::NoTable(fault, version) => {
                news = News::Spoiled(fault.clone());
                self.spoiled = Some(fault);
                self.version = Some(version);
            }
            Seen::Missing(_) if self.good.is_none() && self.spoiled.is_none() => {
                return (Reading::Never, news);
            }
            Seen::Missing(fault) | Seen::Deleted(fault) => {
                // One deletion is no news at the next look.
                if self.version.take().is_some() || self.spoiled.is_none() {
                    news = News::Spoiled(fault.clone());
                    self.spoiled = Some(fault);
                }
            }
            Seen::Unread(fault) => {
                let last = self.good.clone();
                let reading = Reading::Unread {
                    last,
                    fault: fault.clone(),
                };
                return (reading, News::Unread(fault));
            }
        }
        (self.reading(), news)
    }

    /// Takes an older version for the last good one, and says what the last look means with it.
    pub fn remember(&mut self, older: Arc<RouteTable>) -> Reading {
        self.good.get_or_insert(older);
        self.reading()
    }

    fn reading(&self) -> Reading {
        match (&self.spoiled, &self.good) {
            (None, Some(table)) => Reading::Newest(Arc::clone(table)),
            (None, None) => Reading::Never,
            (Some(fault), last) => Reading::Spoiled {
                last: last.clone(),
                fault: fault.clone(),
            },
        }
    }
}
