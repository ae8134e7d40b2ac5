// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Entry`]: the name of an entry. It contains all that a worker needs to choose.
//!
//! The form is that of the queue of femto-mesos: `entry-{priority:03}-{label}-{sequence}`. ZooKeeper appends the
//! sequence number, ten digits. In the original, one name of another form makes every process fail. Here such names are
//! set aside.

use std::{cmp::Ordering, fmt, hash, str::FromStr};

use crate::backend::path::{PathError, ZnodePath};

/// The highest priority of an entry that is put: it has three digits, as in the original.
pub const MAX_PRIORITY: u16 = 999;

/// The length of the longest label of an entry that is put, in bytes. A listing has the names of all entries in one
/// reply, so long labels make large replies. This client reads replies of several megabytes; Java clients refuse a
/// reply larger than `jute.maxbuffer`, about 1 MB by default.
pub const MAX_LABEL_BYTES: usize = 200;

/// The name of an entry of a queue. Entries are ordered as they are to be taken: the highest priority first, and the
/// oldest first within one priority.
///
/// ```
/// # use apportion::queue::Entry;
/// let urgent: Entry = "entry-900-taxi:42-0000000007".parse()?;
/// let early: Entry = "entry-100-taxi:42-0000000003".parse()?;
/// assert!(urgent < early);
/// assert_eq!((urgent.priority(), urgent.label(), urgent.sequence()), (900, "taxi:42", 7));
/// # Ok::<(), apportion::queue::InvalidEntryName>(())
/// ```
#[derive(Clone)]
pub struct Entry {
    name: Box<str>,
    priority: u32,
    label: (usize, usize),
    sequence: i32,
}

/// The name is not that of an entry. From parsing an [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not of the form `entry-100-label-0000000000`", .0.escape_debug())]
pub struct InvalidEntryName(pub String);

/// Why a label is not valid. From [`QueueError::Label`](super::QueueError::Label).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// It cannot be part of the name of a znode.
    #[error(transparent)]
    Name(#[from] PathError),
    /// It is too long.
    #[error("it has {bytes} bytes, more than {MAX_LABEL_BYTES}")]
    TooLong {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// It ends with a dash, which would be read as the sign of the sequence number.
    #[error("it ends with a dash")]
    EndsWithDash,
}

impl Entry {
    /// The name of its znode.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The priority. The highest is taken first.
    pub const fn priority(&self) -> u32 {
        self.priority
    }

    /// The label, for workers that choose by it. In the original it is the data set and the group.
    pub fn label(&self) -> &str {
        &self.name[self.label.0..self.label.1]
    }

    /// The sequence number that the store gave it: the number of znodes that were created in its folder before. After
    /// 2147483647 it goes on with -2147483648.
    pub const fn sequence(&self) -> i32 {
        self.sequence
    }

    /// Sorts in the order in which the numbers were given, also past 2147483647, until they start again at 0.
    pub(crate) const fn age(&self) -> u32 {
        self.sequence.cast_unsigned()
    }

    /// The older first, without regard to priority.
    pub(crate) fn by_age(&self, other: &Entry) -> Ordering {
        self.age().cmp(&other.age()).then_with(|| self.name.cmp(&other.name))
    }

    /// The name of an entry without the sequence.
    pub(crate) fn prefix(priority: u32, label: &str) -> String {
        format!("entry-{priority:03}-{label}-")
    }
}

/// Checks that a label can be part of a name.
pub(crate) fn check_label(label: &str) -> Result<(), LabelError> {
    if label.len() > MAX_LABEL_BYTES {
        return Err(LabelError::TooLong { bytes: label.len() });
    }
    if label.ends_with('-') {
        return Err(LabelError::EndsWithDash);
    }
    match label {
        // These are invalid as a whole name, and valid as a part of one.
        "" | "." | ".." => Ok(()),
        label => Ok(ZnodePath::root().join(label).map(drop)?),
    }
}

impl FromStr for Entry {
    type Err = InvalidEntryName;

    fn from_str(name: &str) -> Result<Self, InvalidEntryName> {
        parse(name).ok_or_else(|| InvalidEntryName(name.into()))
    }
}

fn parse(name: &str) -> Option<Entry> {
    let (digits, rest) = name.strip_prefix("entry-")?.split_once('-')?;
    let priority = number(digits)?;
    let start = name.len() - rest.len();
    let (label, sequence) = sequence(rest)?;
    Some(Entry { name: name.into(), priority, label: (start, start + label.len()), sequence })
}

/// Parses ASCII digits only: `parse` alone accepts a sign as well.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Splits off the number at the end. It has ten characters, or eleven where a sign comes before ten digits.
fn sequence(text: &str) -> Option<(&str, i32)> {
    let digits = text.rfind('-')? + 1;
    let (before, magnitude) = (&text[..digits - 1], &text[digits..]);
    let number: i64 = number(magnitude)?;
    // One dash before the digits separates, a second one is a sign: a label does not end with a dash.
    let negative = before.strip_suffix('-').filter(|_| {
        let is_padded = magnitude.len() == 9 && number > 0;
        is_padded || (magnitude.len() == 10 && number >= 1_000_000_000)
    });
    match negative {
        Some(label) => Some((label, i32::try_from(-number).ok()?)),
        None if magnitude.len() == 10 => Some((before, i32::try_from(number).ok()?)),
        None => None,
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Entry {}

impl hash::Hash for Entry {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| self.by_age(other))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: i32) -> Entry {
        format!("{}{number:010}", Entry::prefix(100, "d:g")).parse().unwrap()
    }

    #[test]
    fn the_order_holds_past_the_largest_sequence_number() {
        let ages = [0, 1, 999_999_999, 1_000_000_000, i32::MAX - 1, i32::MAX];
        let later = [i32::MIN, i32::MIN + 1, -1_000_000_001, -1_000_000_000, -999_999_999, -5, -1];
        let numbers: Vec<i32> = ages.into_iter().chain(later).collect();
        let entries: Vec<_> = numbers.iter().map(|number| numbered(*number)).collect();
        assert!(entries.is_sorted() && entries.is_sorted_by(|a, b| a.by_age(b).is_lt()), "{entries:?}");
        for (entry, number) in entries.iter().zip(numbers) {
            assert_eq!((entry.label(), entry.sequence()), ("d:g", number), "{entry}");
        }
    }

    #[test]
    fn a_label_may_have_dashes_colons_and_digits_and_may_be_empty() {
        for label in ["", "a-b", "-", "-a", "a:b:18", "100", "2017-01-02:3", "--x", ".", "группа"] {
            let name = format!("{}0000000012", Entry::prefix(7, label));
            let entry: Entry = name.parse().unwrap();
            assert_eq!((entry.priority(), entry.label(), entry.sequence()), (7, label, 12), "{name}");
        }
    }

    #[test]
    fn names_of_another_form_are_invalid() {
        for name in [
            "",
            "entry",
            "entry-",
            "entry-100",
            "entry-100-",
            "entry-100-d",
            "entry-100-0000000001",
            "entry--d-0000000001",
            "entry-100-d-000000001",
            "entry-100-d-00000000001",
            "entry-100-d-00000000a1",
            "entry-1e2-d-0000000001",
            "entry-100-d-+000000001",
            "entry-99999999999-d-0000000001",
            "entry-100-d-2147483648",
            "entry-100-d-4294967296",
            "entry-100-d--2147483649",
            "other-100-d-0000000001",
            "Entry-100-d-0000000001",
            "claims",
        ] {
            assert_eq!(name.parse::<Entry>(), Err(InvalidEntryName(name.into())));
        }
    }

    #[test]
    fn labels_that_cannot_be_in_a_name_are_refused() {
        for good in ["", ".", "a", "taxi:42", "a-b", "a b", "-a"] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        assert_eq!(check_label("a-"), Err(LabelError::EndsWithDash));
        assert_eq!(check_label(&"x".repeat(201)), Err(LabelError::TooLong { bytes: 201 }));
        for bad in ["a/b", "/", "a\n", "\u{0}", "\u{1f600}"] {
            assert!(matches!(check_label(bad), Err(LabelError::Name(_))), "{bad:?}");
        }
    }
}
