//! How much the explorer visits.

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    pub(super) slots: usize,
    /// How many guards a process has at most.
    pub(super) guards: usize,
    /// How many epochs there are at most above the oldest floor that any process uses.
    pub(super) window: i32,
    /// In ticks.
    pub(super) lease: u32,
    pub(super) is_strict: bool,
    /// A write to the own znode takes effect some time after it was sent, not at once.
    pub(super) is_full: bool,
    /// A crashed process leaves its znode until its lease has ended.
    pub(super) znodes_stay: bool,
    /// The znode of a living process may expire.
    pub(super) may_expire: bool,
    /// The znode of a living process may be deleted at any time.
    pub(super) may_delete: bool,
    pub(super) may_crash: bool,
    /// A member may be held out of the ring although it lives, and let in again.
    pub(super) may_hold: bool,
    pub(super) budget: Budget,
    /// From which slot on processes may crash, expire, be held and be deleted.
    pub(super) faulty_from: usize,
    /// Who may publish.
    pub(super) publishers: usize,
}

impl Scope {
    pub(super) const TWO: Scope = Scope {
        slots: 2,
        guards: 1,
        window: 3,
        lease: 1,
        is_strict: false,
        is_full: false,
        znodes_stay: false,
        may_expire: true,
        may_delete: false,
        may_crash: true,
        may_hold: false,
        budget: Budget { faults: u8::MAX, ticks: u8::MAX, recreations: 0 },
        faulty_from: 0,
        publishers: 8,
    };
}

/// How much may still happen. The more is left, the more can follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Budget {
    /// How many starts, crashes, expiries, holds and deletions of znodes; `u8::MAX`: any number.
    pub(super) faults: u8,
    /// How often the time may pass; `u8::MAX`: any number.
    pub(super) ticks: u8,
    /// How often the head may be deleted.
    pub(super) recreations: u8,
}

impl Budget {
    /// Whether at least as much of each is left as of `other`.
    pub(super) fn covers(self, other: Budget) -> bool {
        self.faults >= other.faults && self.ticks >= other.ticks && self.recreations >= other.recreations
    }

    /// How much of `all` was used.
    pub(super) fn used(self, all: Budget) -> usize {
        let used = |all: u8, left: u8| usize::from(all - left);
        used(all.faults, self.faults) + used(all.ticks, self.ticks) + used(all.recreations, self.recreations)
    }
}
