// Pure: no runtime, no clock, no socket, no random numbers.

//! What lies in the store, and what is read from it and written to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    clock::Moment,
    error::unclear::Unclear,
    member::MemberId,
    ring::{Label, Ranges},
    session::timing::Timing,
};

/// One life of a member: its id, and the transaction that created its znode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Incarnation {
    pub(crate) id: MemberId,
    pub(crate) czxid: i64,
}

/// A published membership: the data version of a head. Versions begin again if the head is deleted, so the creation of
/// the head belongs to the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Epoch {
    /// The transaction that created the head.
    pub(crate) head: i64,
    pub(crate) version: i32,
}

/// Whether a member takes part in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Presence {
    /// Not yet: it gets ready.
    Warming,
    #[default]
    Ready,
    /// Not any more: it ends its work and leaves.
    Draining,
    /// It has ended its work, and starts no more. It stays so until its znode is deleted.
    Drained,
}

/// What the protocol adds to the payload of a member.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Part {
    pub(crate) presence: Presence,
    /// The newest epoch that it has acknowledged.
    pub(crate) ack: Option<Epoch>,
    /// Positions on which it may still act, although it lost them at the acknowledged epoch or before.
    pub(crate) keep: Ranges,
    /// Where it runs. Carried through; nothing depends on it.
    pub(crate) zone: Option<Arc<str>>,
    /// The longest lease that it may have. `None` if its version does not say it.
    pub(crate) lease: Option<Duration>,
}

/// A member in a published membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) czxid: i64,
    /// Never 0, except that of a plain member of a ring of tooz.
    pub(crate) weight: u32,
    /// It does not use this protocol, as a Python peer.
    pub(crate) is_plain: bool,
    pub(crate) zone: Option<Arc<str>>,
    /// On a ring of tooz: why other Python peers may not agree on the weight of this one.
    pub(crate) unclear: Option<Unclear>,
}

/// The members of one epoch.
pub(crate) type Members = BTreeMap<MemberId, Entry>;

/// How one epoch differs from the one before.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Change {
    pub(crate) add: Vec<(MemberId, Entry)>,
    pub(crate) del: Vec<Incarnation>,
    /// Members that have released all that they ever had: their znodes said that they had ended their work for good.
    pub(crate) released: Vec<Incarnation>,
}

/// What all members of a group have in common. It is set when the head is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Common {
    pub(crate) label: Label,
    pub(crate) replicas: u32,
    /// The longest lease that a member may have: others wait for as long.
    pub(crate) lease: Duration,
}

/// The data of the head znode. Its data version is the version of the newest epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Head {
    pub(crate) common: Common,
    /// An operator has stopped publishing.
    pub(crate) is_paused: bool,
    /// Every loss up to this epoch is released, except for what `carried` members keep.
    pub(crate) floor: i32,
    /// Members that kept positions which they had lost at the floor or before.
    pub(crate) carried: Vec<Incarnation>,
    /// The name of the child with the snapshot, as a number.
    pub(crate) snapshot: u64,
    /// The epoch of the snapshot.
    pub(crate) base: i32,
    /// The epochs after the snapshot, oldest first.
    pub(crate) log: Vec<Change>,
    /// Of the ring of the newest epoch.
    pub(crate) digest: u64,
    /// The `pzxid` of the group that the newest epoch was made from.
    pub(crate) pzxid: i64,
}

impl Head {
    /// The weights of all members that its log adds.
    pub(crate) fn added_weight(&self) -> u64 {
        self.log.iter().flat_map(|change| &change.add).map(|(_, entry)| u64::from(entry.weight)).sum()
    }

    /// The version that a head with this log has.
    pub(crate) fn version(&self) -> i32 {
        self.base.saturating_add(i32::try_from(self.log.len()).unwrap_or(i32::MAX))
    }
}

/// The data of the snapshot: all members of one epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Snapshot {
    pub(crate) epoch: i32,
    pub(crate) members: Members,
}

impl Snapshot {
    /// The weights of all members.
    pub(crate) fn weight(&self) -> u64 {
        self.members.values().map(|entry| u64::from(entry.weight)).sum()
    }
}

/// The format of head and snapshot that this version writes. It reads this one and none that is newer.
pub(crate) const FORMAT: u64 = 1;
/// The most bytes of a head, or of a snapshot. Both go into one request, and servers accept about a mebibyte.
pub(crate) const MAX_BYTES: usize = 480 * 1024;
/// The most ranges that a member lists as kept.
pub(crate) const MAX_KEEP: usize = 64;

/// Why the data of the head or of the snapshot cannot be used.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("it has format {0}, and this version of the library reads formats up to {ours}", ours = FORMAT)]
    Newer(u64),
    #[error("it cannot be decoded: {0}")]
    Garbage(&'static str),
    #[error("it has {0} bytes, and the limit is {limit}", limit = MAX_BYTES)]
    TooLarge(usize),
}

/// Why something could not be read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum ReadError {
    /// It may succeed later.
    Failed,
    /// An access control list denies it.
    NotPermitted,
    Format(FormatError),
}

/// The head as it was read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct HeadRead {
    pub(crate) czxid: i64,
    pub(crate) version: i32,
    /// The transaction that last set it: the fencing token of the epoch.
    pub(crate) mzxid: i64,
    pub(crate) head: Arc<Head>,
}

/// The znode of a member as it was read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MemberRead {
    pub(crate) czxid: i64,
    pub(crate) version: i32,
    pub(crate) weight: u32,
    /// `None` for a plain member.
    pub(crate) part: Option<Part>,
    /// Whether it has the ring parameters of the group. True for a plain member.
    pub(crate) fits: bool,
    /// As in [`Entry`].
    pub(crate) unclear: Option<Unclear>,
    /// It seems to use the ring of tooz, and this member does not.
    pub(crate) hints_at_tooz: bool,
}

impl MemberRead {
    /// A member to which permission is denied: a plain one, because nothing is known of it but the name.
    pub(crate) fn denied(label: Label) -> MemberRead {
        let unclear = (label == Label::Tooz).then_some(Unclear::NoMap);
        MemberRead { czxid: 0, version: 0, weight: 1, part: None, fits: true, unclear, hints_at_tooz: false }
    }

    /// Whether it is [`MemberRead::denied`]: no transaction has the number 0.
    pub(crate) fn is_denied(&self) -> bool {
        self.czxid == 0
    }
}

/// All ephemeral children of the group: the list was read first, then the data and stat of each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Listing {
    pub(crate) pzxid: i64,
    pub(crate) members: BTreeMap<MemberId, MemberRead>,
}

/// What is known of the group without its list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct GroupStat {
    pub(crate) pzxid: i64,
    /// How many children it has.
    pub(crate) children: usize,
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    /// There is a new session, which was asked for at `asked`. Replies to requests of an earlier session must not be
    /// passed any more.
    SessionBegan { asked: Moment, timing: Timing },
    /// The session has ended; nothing that was asked in it will be answered.
    SessionEnded,
    /// The leader certainly knew at this moment that the session lived. Other requests of the session have shown it.
    Reported(Moment),
    /// Our znode was created, with [`Handover::part`](super::Handover::part) in its payload.
    Joined { czxid: i64, version: i32 },
    /// The answer to [`Action::ReadHead`].
    Head(Result<Option<HeadRead>, ReadError>),
    /// The answer to [`Action::ReadSnapshot`].
    Snapshot(Result<Option<Snapshot>, ReadError>),
    /// The answer to [`Action::ReadMembers`], in any order.
    Members(Result<BTreeMap<MemberId, Option<MemberRead>>, ReadError>),
    /// The answer to [`Action::ListMembers`].
    Listed(Result<Listing, ReadError>),
    /// The answer to [`Action::StatGroup`].
    GroupStat(Result<GroupStat, ReadError>),
    /// The answer to [`Action::ReadOwn`].
    Own(Result<Option<MemberRead>, ReadError>),
    /// The answer to [`Action::Commit`].
    Committed { purpose: Purpose, outcome: Outcome },
    /// The watch of the head has fired.
    HeadChanged,
    /// The watch of a member has fired.
    MemberChanged(MemberId),
    /// The watch of the children of the group has fired.
    ChildrenChanged,
    /// The answer to [`Action::Freeze`]: the positions of the guards that it has marked, one entry for each.
    Marked { mark: u64, positions: Vec<u32> },
    /// A marked guard was dropped.
    Dropped { mark: u64, position: u32 },
    /// The answer to [`Action::WatchIdle`]: no guard is in flight any more.
    Idle,
    /// The time of [`Handover::wakeup`](super::Handover::wakeup) has come.
    Tick,
    /// Start nothing more, end what is in flight within `drain`, and leave. `is_idle`: no guard is in flight.
    Leave { is_idle: bool, drain: Duration },
    /// The member has warmed up.
    Ready,
    /// An operator stops publishing, or allows it again, for the whole group.
    Pause(bool),
}

/// What a transaction is for. At most one of each is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Purpose {
    /// Checks of our znode and of the head. The driver may put them into one transaction with those of other groups.
    Heartbeat,
    /// Our part of our own znode.
    Own,
    /// The next epoch.
    Publish,
    /// The first head.
    CreateHead,
    /// Whether a donor is still as we have read it.
    CheckDonor,
    /// Deletes our znode.
    Leave,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Write {
    CheckOwn { version: i32 },
    CheckHead { version: i32 },
    CheckSnapshot { name: u64 },
    CheckMember { id: MemberId, version: i32 },
    SetOwn { part: Part, version: i32 },
    SetHead { head: Arc<Head>, version: i32 },
    CreateHead { head: Arc<Head> },
    CreateSnapshot { name: u64, snapshot: Arc<Snapshot> },
    DeleteSnapshot { name: u64 },
    DeleteOwn { version: i32 },
}

/// How a transaction ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Outcome {
    Applied,
    /// The operation with this number was refused, and nothing was done.
    Refused {
        index: usize,
        why: Refusal,
    },
    /// The reply was lost.
    Unknown,
    /// It was certainly not applied, for a reason that may pass.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Refusal {
    /// The znode does not exist.
    NoNode,
    BadVersion,
    NodeExists,
    NotPermitted,
    TooLarge,
    Other,
}

/// Why this member has gained keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Cause {
    /// It has joined.
    Join,
    /// Another member has left, has crashed, or was cut off.
    Leave,
    /// Another member was replaced by one with the same id.
    Restart,
    /// The weights of members have changed.
    Weights,
    /// The head was made anew.
    Head,
}

/// A handover that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ended {
    pub(crate) cause: Cause,
    /// Since its cause was known. If another change came before the end, since the first.
    pub(crate) waited: Duration,
}

/// What the driver has to do, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Action {
    /// Read data and stat of the head, with a watch: [`Event::Head`], later [`Event::HeadChanged`].
    ReadHead,
    /// Read the snapshot of this name: [`Event::Snapshot`].
    ReadSnapshot { name: u64 },
    /// Read data and stat of these members, each with a watch of its data: [`Event::Members`], later
    /// [`Event::MemberChanged`].
    ReadMembers { ids: Vec<MemberId> },
    /// Read the children of the group, then data and stat of all: [`Event::Listed`]. With `watch`, later
    /// [`Event::ChildrenChanged`].
    ListMembers { watch: bool },
    /// Read the stat of the group: [`Event::GroupStat`]. With `watch`, later [`Event::ChildrenChanged`].
    StatGroup { watch: bool },
    /// Read our znode, as new as the leader has it: [`Event::Own`].
    ReadOwn,
    /// Commit the operations, all or none: [`Event::Committed`].
    Commit { purpose: Purpose, writes: Vec<Write> },
    /// What may be started has changed: [`Handover::startable`](super::Handover::startable). It has to take effect
    /// before the next action.
    Update,
    /// The lease ends at this moment, later than before.
    Lease(Moment),
    /// Mark each guard in flight on `lost` that has no mark, and freeze it: it is valid until `deadline`. Feed
    /// [`Event::Marked`] before any other event.
    Freeze { mark: u64, lost: Ranges, deadline: Moment },
    /// The guards with this mark are valid as long as the lease from now on.
    Thaw { mark: u64 },
    /// The guards with this mark, which had been thawed, are valid until `deadline` and no longer.
    FreezeAgain { mark: u64, deadline: Moment },
    /// End every guard now.
    EndAll,
    /// Report when no guard is in flight: [`Event::Idle`].
    WatchIdle,
    /// The status has changed: [`Handover::status`](super::Handover::status).
    Status,
    /// Every key that this member has gained is its own to start on.
    Ended(Ended),
    /// The data of the servers were deleted, or replaced by an older copy: what was read before counts no more.
    StoreWentBack,
    /// Our znode is gone: join again, after every action before this one.
    Rejoin,
    /// Our znode is deleted, and nothing is in flight.
    HasLeft,
}
