// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Weight`]: what Python members of a group of tooz read from the capabilities of a member.
//!
//! A member of a partitioned group of tooz writes the capabilities `{"weight": n}`. Each other member reads them once,
//! when it sees the member for the first time, and gives it so many times the points: none for 0 and below. A member of
//! aodh writes no map.

use rmpv::Value;

use crate::error::unclear::Unclear;

/// The weight of a member as tooz reads it from the capabilities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Weight {
    /// The member announces it.
    Announced(u32),
    /// It is 1, because the capabilities do not say.
    Default,
    /// Python members may not agree on it.
    Unclear(Unclear),
}

impl Weight {
    /// Reads the capabilities, if they are a map, and the weight in them.
    pub(crate) fn read(is_map: bool, weight: Option<&Value>) -> Weight {
        let unclear = Weight::Unclear(Unclear::Weight);
        match weight {
            _ if !is_map => Weight::Unclear(Unclear::NoMap),
            None => Weight::Default,
            Some(Value::Boolean(is_one)) => Weight::Announced((*is_one).into()),
            Some(Value::Integer(number)) => match number.as_u64() {
                Some(number) => u32::try_from(number).map_or(unclear, Weight::Announced),
                // It is negative. In Python, a range of so many points is empty.
                None => Weight::Announced(0),
            },
            Some(_) => unclear,
        }
    }

    /// The weight for the ring. It does not matter while it is unclear.
    pub(crate) fn for_ring(&self) -> u32 {
        match self {
            Weight::Announced(weight) => *weight,
            Weight::Default | Weight::Unclear(_) => 1,
        }
    }
}
