// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Places`]: where a group and its head lie, and what is written and read there.

use super::{
    codec,
    types::{FormatError, HeadRead, MemberRead, Part, Snapshot, Write},
};
use crate::{
    backend::{
        CreateMode, Op, Znode,
        path::{PathError, ZnodePath},
    },
    error::unclear::Unclear,
    group::{
        member::{Ours, Payload},
        weight::Weight,
    },
    member::MemberId,
    ring::Label,
};

/// The paths of one membership, and what its payload has beside our part.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// `<namespace>/<group>`: its children are the members.
    pub(crate) group: ZnodePath,
    /// `<namespace>.ring/<group>`: the head. Its child is the snapshot. It is beside the namespace, because Python peers
    /// take each child of a group for a member, and each child of the namespace for a group.
    pub(crate) head: ZnodePath,
    pub(crate) own: ZnodePath,
    pub(crate) payload: Payload,
}

impl Places {
    /// The places of `me` in the group `name` below `namespace`.
    ///
    /// # Errors
    ///
    /// [`PathError`] if no znode can have that name.
    pub(crate) fn new(
        namespace: &ZnodePath,
        name: &str,
        me: &MemberId,
        payload: Payload,
    ) -> Result<Places, PathError> {
        let group = namespace.join(name)?;
        let head = ZnodePath::parse(&format!("{namespace}.ring"))?.join(name)?;
        let own = group.join(me.as_str())?;
        Ok(Places { group, head, own, payload })
    }

    /// The bytes of our znode with `part`.
    pub(crate) fn own_data(&self, part: &Part) -> Vec<u8> {
        let ours = self.payload.ours.as_ref();
        let ours = Ours { handover: Some(part.clone()), ..ours.cloned().unwrap_or_default() };
        Payload::new(self.payload.weight, ours).encode()
    }

    /// The snapshot of this name.
    pub(crate) fn snapshot(&self, name: u64) -> ZnodePath {
        self.head.join(&format!("{name:016x}")).expect("hexadecimal digits are a valid name")
    }

    /// The znode of a member.
    pub(crate) fn member(&self, id: &MemberId) -> ZnodePath {
        self.group.join(id.as_str()).expect("a member id is a name")
    }

    /// The operations for `writes`, in the same order.
    ///
    /// # Errors
    ///
    /// [`FormatError::TooLarge`] if head or snapshot have too many bytes.
    pub(crate) fn ops(&self, writes: &[Write]) -> Result<Vec<Op>, FormatError> {
        let check = |path: &ZnodePath, version| Op::Check { path: path.clone(), version };
        let create = |path: ZnodePath, data| Op::Create { path, data, mode: CreateMode::Persistent };
        let ops = writes.iter().map(|write| {
            Ok(match write {
                Write::CheckOwn { version } => check(&self.own, Some(*version)),
                Write::CheckHead { version } => check(&self.head, Some(*version)),
                Write::CheckSnapshot { name } => check(&self.snapshot(*name), None),
                Write::CheckMember { id, version } => check(&self.member(id), Some(*version)),
                Write::SetOwn { part, version } => {
                    Op::Set { path: self.own.clone(), data: self.own_data(part), version: Some(*version) }
                }
                Write::SetHead { head, version } => Op::Set {
                    path: self.head.clone(),
                    data: codec::encode_head(head)?,
                    version: Some(*version),
                },
                Write::CreateHead { head } => create(self.head.clone(), codec::encode_head(head)?),
                Write::CreateSnapshot { name, snapshot } => {
                    create(self.snapshot(*name), codec::encode_snapshot(snapshot)?)
                }
                Write::DeleteSnapshot { name } => Op::Delete { path: self.snapshot(*name), version: None },
                Write::DeleteOwn { version } => {
                    Op::Delete { path: self.own.clone(), version: Some(*version) }
                }
            })
        });
        ops.collect()
    }

    /// The head in that znode.
    ///
    /// # Errors
    ///
    /// [`FormatError`]
    pub(crate) fn read_head((data, stat): &Znode) -> Result<HeadRead, FormatError> {
        let head = codec::decode_head(data)?.into();
        Ok(HeadRead { czxid: stat.czxid, version: stat.version, mzxid: stat.mzxid, head })
    }

    /// The snapshot in that znode.
    ///
    /// # Errors
    ///
    /// [`FormatError`]
    pub(crate) fn read_snapshot((data, _): &Znode) -> Result<Snapshot, FormatError> {
        codec::decode_snapshot(data)
    }

    /// The member in that znode. `None` if it is not ephemeral: an election under the group leaves such a child.
    pub(crate) fn read_member(&self, (data, stat): &Znode) -> Option<MemberRead> {
        stat.ephemeral_owner?;
        let (payload, capabilities) = Payload::decode_with_weight(data);
        let ours = self.payload.ours.as_ref();
        let fits = match (&payload.ours, ours) {
            (Some(theirs), Some(ours)) => (theirs.label, theirs.replicas) == (ours.label, ours.replicas),
            _ => true,
        };
        let is_python = payload.ours.is_none();
        let is_tooz = self.label() == Some(Label::Tooz);
        let hints_at_tooz = !is_tooz && is_python && matches!(capabilities, Weight::Announced(_));
        let (weight, unclear) = match capabilities {
            _ if !is_tooz || !is_python => (payload.weight, None),
            _ if stat.version > 0 => (payload.weight, Some(Unclear::Changed)),
            Weight::Announced(weight) => (weight, None),
            Weight::Default => (1, None),
            Weight::Unclear(why) => (1, Some(why)),
        };
        let part = payload.ours.and_then(|ours| ours.handover);
        let (czxid, version) = (stat.czxid, stat.version);
        Some(MemberRead { czxid, version, weight, part, fits, unclear, hints_at_tooz })
    }

    /// A member that this one may not read.
    pub(crate) fn denied(&self) -> MemberRead {
        MemberRead::denied(self.label().unwrap_or_default())
    }

    fn label(&self) -> Option<Label> {
        self.payload.ours.as_ref().and_then(|ours| ours.label)
    }
}
