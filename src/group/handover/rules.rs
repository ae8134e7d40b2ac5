// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Rule`]: what the protocol demands. Tests switch single rules off and show that two members then act on one key.

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident,)+) => {
        /// A rule of the protocol that can be switched off in tests.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(not(test), allow(dead_code, reason = "some are named only where a test switches them off"))]
        pub(crate) enum Rule {
            $($(#[$doc])* $rule,)+
        }

        #[cfg(test)]
        impl Rule {
            pub(crate) const ALL: &[Rule] = &[$(Rule::$rule,)+];
        }
    };
}

rules! {
    /// A gainer waits until those who lost the key have released it.
    GainerWaits,
    /// An acknowledgement lists what is still in flight.
    AckListsKept,
    /// A guard stays marked if its key is regained.
    MarkStays,
    /// What is lost is the union over all epochs, not the difference of two views.
    LostIsUnion,
    /// A lapsed donor is released only after a check that it has not written since.
    LapseIsChecked,
    /// A lapsed donor is released only when the lease and the margin have passed.
    LapseWaits,
    /// A frozen guard whose deadline has passed stays ended.
    EndedStaysEnded,
    /// A heartbeat checks the head.
    HeartbeatChecksHead,
    /// Every member that lost the key since the floor is asked.
    AllLosersAsked,
    /// The floor passes a loss that is not acknowledged only with a check of the loser's znode.
    FloorChecksUnacked,
    /// The floor rises only to epochs that were first seen one lease ago.
    FloorWaits,
    /// Members that keep positions when the floor passes their loss are carried.
    Carried,
    /// The next publisher goes on carrying them.
    CarriedStays,
    /// What a carried member keeps is read after the head.
    CarriedReadAfresh,
    /// A member is its id and the creation of its znode.
    IdentityHasCreation,
    /// A confirmed write thaws only guards that were marked when it was sent.
    ThawOnlyWhatWasSent,
    /// Strict mode: a member that is gone is released only when the lease and the margin have passed.
    StrictGoneWaits,
    /// Strict mode: the floor stays below the first loss of a member that is gone, until then.
    StrictFloorWaits,
    /// Strict mode: a carried member that is gone is carried until then.
    StrictCarriedWaits,
    /// A member that leaves has released what it had only when its work has ended.
    ReleasedIsDrained,
    /// The first epoch after a new head waits until the leases under the old head have ended.
    NewHeadWaits,
    /// An acknowledgement names the head.
    AckNamesHead,
    /// What a member acknowledged under a newer head says nothing about ours: it is not lapsed.
    NewerHeadIsNoLapse,
    /// What extends a lease that has lapsed checks the snapshot child: it proves that the head was not recreated.
    RevivalChecksSnapshot,
    /// Guards from under an old head are frozen for good.
    NewHeadFreezesForGood,
    /// All guards are ended before a new znode is created.
    GuardsEndWithTheirZnode,
    /// A member that is not in an epoch marks what it lost all the same.
    AbsentFollows,
    /// A publisher checks the snapshot child: it proves that the head was not recreated.
    PublishChecksSnapshot,
    /// The snapshot is of an epoch up to the floor.
    SnapshotUpToFloor,
}

/// The rules that hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    off: Option<Rule>,
}

impl Rules {
    /// All rules but `rule`.
    #[cfg(test)]
    pub(crate) fn without(rule: Rule) -> Rules {
        Rules { off: Some(rule) }
    }

    /// Whether `rule` holds: always, outside of tests.
    #[inline]
    pub(crate) fn hold(&self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.off != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}
