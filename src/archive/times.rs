//! When what an archive holds last changed in its object: the times of its entries.
//!
//! Whoever unpacks one version over another compares times: for equality, or with the time of something that was made of a
//! file. So an entry that differs from the version before has a time that no entry had there, and all others keep theirs.
//! What a version says of a file's age is therefore true of the object, and not of the commit.

use std::{fs::File, sync::Arc};

use time::{Date, OffsetDateTime, Time};

use super::{
    ArchiveError, blob,
    header::Payload,
    payload,
    previous::{self, PreviousError, Record},
};
use crate::{pack::Objects, snapshot::Entry};

/// How far the newest time of a version may be ahead of the clock, in seconds. Beyond it, that version's clock was wrong.
const MAX_AHEAD: i64 = 10 * 60;

/// An instant as an entry says it: in even seconds of Unix time, which is as fine as MS-DOS has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Modified(i64);

impl Modified {
    /// 1980-01-02: a zip's times begin a day before, and readers take them for those of any time zone.
    const FIRST: i64 = 315_619_200;
    /// 2107-12-31 23:59:58, the last instant that MS-DOS has.
    pub(super) const LAST: Self = Self(4_354_819_198);

    pub(super) fn at(seconds: i64) -> Self {
        Self(seconds.clamp(Self::FIRST, Self::LAST.0) & !1)
    }

    /// The next instant.
    fn next(self) -> Self {
        Self::at(self.0 + 2)
    }

    /// As MS-DOS has it: time and date, here in UTC.
    pub(super) fn dos(self) -> [u8; 4] {
        let at = OffsetDateTime::from_unix_timestamp(self.0).expect("a year of four digits");
        let year = at.year().try_into().expect("no later than 2107");
        let (hour, minute, second) = at.to_hms();
        let dos = zip::DateTime::from_date_and_time(
            year,
            at.month().into(),
            at.day(),
            hour,
            minute,
            second,
        );
        let dos = dos.expect("from 1980 to 2107");
        let (time, date) = (dos.timepart(), dos.datepart());
        let ([t0, t1], [d0, d1]) = (time.to_le_bytes(), date.to_le_bytes());
        [t0, t1, d0, d1]
    }

    /// In seconds of Unix time, as long as 31 bits hold them: until 2038-01-19.
    pub(super) fn unix(self) -> Option<i32> {
        self.0.try_into().ok()
    }

    /// From what an entry says. What is not as [`dos`](Self::dos) and [`unix`](Self::unix) have it comes out as another instant, or none.
    pub(super) fn read(dos: [u8; 4], unix: Option<i32>) -> Option<Self> {
        if let Some(seconds) = unix {
            return Some(Self::at(seconds.into()));
        }
        let [time, date] = [[dos[0], dos[1]], [dos[2], dos[3]]].map(u16::from_le_bytes);
        let dos = zip::DateTime::try_from_msdos(date, time).ok()?;
        let month = dos.month().try_into().ok()?;
        let date = Date::from_calendar_date(dos.year().into(), month, dos.day());
        let time = Time::from_hms(dos.hour(), dos.minute(), dos.second());
        let at = OffsetDateTime::new_utc(date.ok()?, time.ok()?);
        Some(Self::at(at.unix_timestamp()))
    }
}

/// The times of an archive of an earlier delivery, in which every byte was verified.
#[derive(Debug, Clone)]
pub struct Times {
    /// Its directory. A file of its own: the archive's need not stay until the next one is written.
    pub(super) directory: Arc<File>,
    pub(super) entries: u64,
    /// The newest of them; `None` if there is an entry without.
    pub(super) newest: Option<Modified>,
}

/// What a new archive takes its times from.
#[derive(Debug, Default, Clone)]
pub struct Dates {
    /// The time of the delivery, in seconds of Unix time.
    pub now: i64,
    /// The times of the version that this one is to replace. Without them, all entries have the delivery's.
    pub before: Option<Times>,
}

impl Dates {
    /// The times of `entries`, one after the other.
    ///
    /// Both archives have the order of Git, so one pass over the earlier one's directory finds what did not change.
    pub(super) fn times(
        &self,
        entries: &[Entry],
        objects: &Objects,
    ) -> Result<Vec<Modified>, ArchiveError> {
        let mut now = Modified::at(self.now);
        let before = self.before.as_ref();
        let before = before.and_then(|before| Some((before, before.newest?)));
        let Some((before, newest)) = before.filter(|(_, newest)| newest.0 <= now.0 + MAX_AHEAD)
        else {
            return Ok(vec![now; entries.len()]);
        };
        now = now.max(newest.next());
        let mut directory = previous::from_start(&before.directory);
        let mut left = before.entries;
        let mut record = || {
            let is_there = left > 0;
            left = left.saturating_sub(1);
            let record = is_there.then(|| Record::read(&mut directory)).transpose();
            record.map_err(|err| match err {
                PreviousError::Disk(err) => ArchiveError::Disk(err),
                err => ArchiveError::Reread(err.to_string()),
            })
        };
        let mut other = record()?;
        let mut times = Vec::with_capacity(entries.len());
        for entry in entries {
            while other
                .as_ref()
                .is_some_and(|other| other.entry.path < entry.path)
            {
                other = record()?;
            }
            let kept = other.as_ref().filter(|other| {
                let payload = blob(entry, objects).map_or(Payload::NOTHING, payload);
                let held = other.payload.unwrap_or(Payload::NOTHING);
                other.entry == *entry && held.holds_the_same(&payload)
            });
            times.push(kept.and_then(|other| other.modified).unwrap_or(now));
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_the_same_in_both_fields() {
        // Time and date as `TZ=UTC zip` writes them.
        for (case, seconds, time, date, unix) in [
            ("1969", -1, 0, 0x22, Some(315_619_200)),
            ("1980-01-01", 315_532_800, 0, 0x22, Some(315_619_200)),
            ("1980-01-02", 315_619_200, 0, 0x22, Some(315_619_200)),
            (
                "2000-02-29 23:59:58",
                951_868_798,
                0xbf7d,
                0x285d,
                Some(951_868_798),
            ),
            (
                "an odd second",
                951_868_799,
                0xbf7d,
                0x285d,
                Some(951_868_798),
            ),
            (
                "2026-11-29 23:34:26",
                1_795_995_266,
                0xbc4d,
                0x5d7d,
                Some(1_795_995_266),
            ),
            (
                "2038-01-19 03:14:06",
                2_147_483_646,
                0x19c3,
                0x7433,
                Some(2_147_483_646),
            ),
            ("2038-01-19 03:14:08", 2_147_483_648, 0x19c4, 0x7433, None),
            ("2107-12-31 23:59:58", 4_354_819_198, 0xbf7d, 0xff9f, None),
            ("the year 9999", 253_402_300_799, 0xbf7d, 0xff9f, None),
            ("no year at all", i64::MAX, 0xbf7d, 0xff9f, None),
        ] {
            let modified = Modified::at(seconds);
            let (time, date): (u16, u16) = (time, date);
            let dos = [time.to_le_bytes(), date.to_le_bytes()].concat();
            assert_eq!(modified.dos(), dos[..], "{case}");
            assert_eq!(modified.unix(), unix, "{case}");
            assert_eq!(
                Modified::read(modified.dos(), unix),
                Some(modified),
                "{case}"
            );
        }
        for (case, time, date) in [
            ("month 0", 0, 0x01),
            ("February 30", 0, 0x5e),
            ("second 62", 0x1f, 0x22),
            ("hour 24", 0xc000, 0x22),
        ] {
            let (time, date): (u16, u16) = (time, date);
            let ([t0, t1], [d0, d1]) = (time.to_le_bytes(), date.to_le_bytes());
            assert_eq!(Modified::read([t0, t1, d0, d1], None), None, "{case}");
        }
    }
}
