//! What the handover watches.

use crate::{
    group::{handover::Event, watches},
    member::MemberId,
};

/// The watches of one session that have not fired.
pub(super) type Watches = watches::Watches<Watched>;

/// What is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Watched {
    Head,
    Member(MemberId),
    Children,
}

impl Watched {
    /// What the handover learns when the watch has fired.
    pub(super) fn event(self) -> Event {
        match self {
            Watched::Head => Event::HeadChanged,
            Watched::Member(id) => Event::MemberChanged(id),
            Watched::Children => Event::ChildrenChanged,
        }
    }
}
