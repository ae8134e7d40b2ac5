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
    /// How often the head may be deleted.
    pub(super) recreations: u8,
    /// How many starts, crashes, expiries and deletions there may be; `u8::MAX`: any number.
    pub(super) faults: u8,
    /// How often the time may pass; `u8::MAX`: any number.
    pub(super) ticks: u8,
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
        recreations: 0,
        faults: u8::MAX,
        ticks: u8::MAX,
        faulty_from: 0,
        publishers: 8,
    };
}
