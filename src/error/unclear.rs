// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Unclear`]: why the ring of the Python members of a group is not certain.

use std::fmt;

use crate::member::MemberId;

/// Why it is not certain which ring the Python members of a group of tooz have. Part of
/// [`Error::RingUnclear`](super::Error::RingUnclear).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Unclear {
    /// The capabilities of the member are not a map, or cannot be read. Every member of a partitioned group of tooz
    /// writes a map, so this member may have another ring: aodh writes no map.
    NoMap,
    /// Its weight is not a whole number. No Python member can build a ring with it.
    Weight,
    /// It has changed its capabilities after it had joined. Python members read them once, so they have the old weight
    /// or the new one, depending on when they joined.
    Changed,
    /// Its id is not ASCII. No Python member can list the group.
    NotAscii,
    /// Its id is that of another member, or a part of it, several times over, as `11` and `1`. Both have some points in
    /// common, and each Python member gives them to one of the two by chance.
    RepeatedId(MemberId),
    /// All members together have more points than a ring can have here. Python has no such limit.
    TooManyPoints,
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unclear::NoMap => "has no map of capabilities, so its ring may be another one, such as aodh's",
            Unclear::Weight => "has a weight that is not a whole number",
            Unclear::Changed => "has changed its capabilities after it had joined",
            Unclear::NotAscii => "has an id that is not ASCII",
            Unclear::RepeatedId(other) => {
                return write!(f, "has points in common with `{other}`, because both ids repeat one text");
            }
            Unclear::TooManyPoints => "has no room in the ring, which Python does not limit",
        })
    }
}
