// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Record`]: what is known of the attempts at one job. It lies beside the board, where TaskFlow does not look.
//!
//! A claim of this crate sets the posting, so the version of the posting counts the claims without a further write. The
//! record has what the version cannot show: which of the claims did not count, when the job may be claimed again, and why
//! the last attempt has failed. It is written when a claim ends without the job being done, in the same transaction.

use serde::{Deserialize, Serialize};

use crate::lease::kept;

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// How many attempts counted up to this version of the posting.
    attempts: u32,
    version: i32,
    /// Before when the job is not to be claimed, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// Why the last attempt has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Whether the job is in the trash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_trashed: bool,
}

/// What was read of the record of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded {
    /// Whether there is a znode, so that it is not created again.
    pub(super) is_there: bool,
    /// `None` as well if it cannot be read.
    pub(super) record: Option<Record>,
}

impl Recorded {
    /// Whether it is of the last claim, which has left the posting with this version: no claim is still to write it.
    pub(super) fn is_of(&self, version: i32) -> bool {
        version == 0 || self.record.as_ref().is_some_and(|record| record.version == version)
    }
}

impl Record {
    /// After so many attempts, the last of which has left the posting with this version.
    pub(super) fn new(attempts: u32, version: i32, error: Option<&str>) -> Self {
        let error = error.map(|error| kept(error).to_owned());
        Record { attempts, version, not_before: None, error, is_trashed: false }
    }

    /// Reads the data of a znode; `None` if an operator has written anything else there.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    pub(super) fn data(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has text keys")
    }

    /// How many attempts counted so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// The number of an attempt whose claim has left the posting with this version.
pub(super) fn attempt(record: Option<&Record>, version: i32) -> u32 {
    so_far(record, version.wrapping_sub(1)).saturating_add(1)
}

/// How many attempts there were when the posting has this version. A claim that is in no record has ended with its
/// process, or goes on, and counts.
fn so_far(record: Option<&Record>, version: i32) -> u32 {
    let (attempts, recorded) = record.map_or((0, 0), |record| (record.attempts, record.version));
    let since = u32::try_from(version.wrapping_sub(recorded)).unwrap_or(0);
    attempts.saturating_add(since)
}

/// How many attempts there were at a job on a board, that of its present worker included, for a program that reads the
/// znodes of a board itself. The next claim has the number that follows: [`Claim::attempt`](super::Claim::attempt).
///
/// `version` is that of its posting. `record` is the data of its znode in `.attempts`, if there is one: it is written when a
/// claim ends, so a worker that has died is known by the version alone. Data that cannot be read counts as none.
///
/// This does not hold for a job in the trash, whose posting has another version there: see
/// [`Trashed::attempts`](super::Trashed::attempts).
///
/// ```
/// use apportion::board::attempts_so_far;
///
/// assert_eq!(attempts_so_far(None, 0), 0);
/// assert_eq!(attempts_so_far(None, 3), 3, "three workers have died with it, or the last one is still at work");
/// let record = br#"{"attempts":1,"version":4}"#;
/// assert_eq!(attempts_so_far(Some(record), 4), 1, "three of four claims did not count");
/// assert_eq!(attempts_so_far(Some(record), 5), 2);
/// ```
pub fn attempts_so_far(record: Option<&[u8]>, version: i32) -> u32 {
    so_far(record.and_then(Record::read).as_ref(), version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_no_record_mentions_count_as_attempts() {
        assert_eq!(attempt(None, 1), 1);
        assert_eq!(attempt(None, 3), 3, "two processes have died with it");
        let record = Record::new(1, 4, None);
        assert_eq!(attempt(Some(&record), 5), 2, "some claims before did not count");
        assert_eq!(attempt(Some(&record), 7), 4);
        assert_eq!(attempt(Some(&record), 4), 2, "at least this one");
        assert_eq!(attempt(Some(&record), 0), 2, "an operator has created the posting anew");
    }

    #[test]
    fn the_next_claim_has_the_number_after_the_attempts_so_far() {
        let record = Record::new(1, 4, None);
        for (data, record) in [(None, None), (Some(record.data()), Some(&record))] {
            for version in [0, 1, 4, 7, i32::MAX, i32::MIN] {
                let so_far = attempts_so_far(data.as_deref(), version);
                assert_eq!(attempt(record, version.wrapping_add(1)), so_far + 1, "{record:?} {version}");
            }
        }
        assert_eq!(attempts_so_far(Some(b"no record"), 2), 2);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_anything_else_is_none() {
        let mut record = Record::new(2, 3, Some(&"é".repeat(5000)));
        record.not_before = Some(7);
        assert_eq!(record.error.as_ref().map(|it| it.chars().count()), Some(1000));
        assert_eq!(Record::read(&record.data()), Some(record));
        let short = Record::new(1, 1, None);
        assert_eq!(short.data(), br#"{"attempts":1,"version":1}"#);
        assert_eq!(Record::read(&short.data()), Some(short));
        for other in [&b""[..], b"7", b"{}", b"\xff"] {
            assert_eq!(Record::read(other), None);
        }
    }
}
