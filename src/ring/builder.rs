//! Pure: how a [`HashRing`] is made.

use std::{collections::BTreeMap, io::Write as _};

use super::{HashRing, Label, Member, Point, hash};

/// Collects the members and settings of a ring: see [`HashRing::builder`].
///
/// ```
/// use apportion::{HashRing, Label};
///
/// let ring = HashRing::builder()
///     .replicas(256)
///     .label(Label::PythonBytes)
///     .member("small")
///     .weighted_member("large", 3)
///     .build()?;
/// assert_eq!(ring.points(), 4 * 256);
/// assert!(ring.fraction("large") > 0.7);
/// # Ok::<(), apportion::ring::RingError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct HashRingBuilder {
    replicas: u32,
    label: Label,
    members: Vec<(String, u32)>,
    keep_order: bool,
}

/// Why there is no such ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Without points no member could own anything.
    #[error("a ring needs at least one replica for each member")]
    ZeroReplicas,
    /// A member of weight zero could not own anything.
    #[error("the weight of member `{}` is zero", member.escape_debug())]
    ZeroWeight {
        /// The member.
        member: String,
    },
    /// More points than a ring may have: a weight or the number of replicas is far too high.
    #[error("the ring would have {points} points, {} at most are possible", HashRingBuilder::MAX_POINTS)]
    TooManyPoints {
        /// The number of points that the members would have together.
        points: u64,
    },
}

impl HashRingBuilder {
    /// The most points that the members of a ring may have together, collisions included.
    ///
    /// Enough for ten thousand members with a hundred points each and an average weight of 16. The weights of a
    /// group come from its members: without a limit, one wrong weight would use up the memory of all others.
    pub const MAX_POINTS: u64 = 1 << 24;

    pub(super) fn new() -> Self {
        HashRingBuilder { replicas: 100, label: Label::default(), members: Vec::new(), keep_order: false }
    }

    /// Gives each member `replicas` points for each unit of its weight, instead of 100.
    ///
    /// The shares of equal members differ by about `1 / sqrt(replicas)`: 10 % with 100, 5 % with 400. All members
    /// of a fleet have to use the same number.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Says what is hashed for the points of a member, instead of [`Label::Plain`].
    pub fn label(mut self, label: Label) -> Self {
        self.label = label;
        self
    }

    /// Adds a member of weight 1.
    pub fn member(self, id: impl Into<String>) -> Self {
        self.weighted_member(id, 1)
    }

    /// Adds a member that owns `weight` times as much as one of weight 1.
    ///
    /// Any text is an id. A repeated id is one member; its last weight counts, and its last place in the order.
    pub fn weighted_member(mut self, id: impl Into<String>, weight: u32) -> Self {
        self.members.push((id.into(), weight));
        self
    }

    /// Adds members of weight 1.
    pub fn members(mut self, ids: impl IntoIterator<Item: Into<String>>) -> Self {
        self.members.extend(ids.into_iter().map(|id| (id.into(), 1)));
        self
    }

    /// Lets colliding points belong to the member that was added later, instead of the one whose id sorts later.
    ///
    /// Collisions are rare: about one in a ring of 1000 members with 100 points each, 0.01 in one of 100. With the
    /// default the ring does not depend on the order in which members are added, so members that list their group
    /// in different orders still agree. Python's rings take the order as it comes: this is for comparing with them.
    pub fn keep_order(mut self) -> Self {
        self.keep_order = true;
        self
    }

    /// Builds the ring.
    ///
    /// # Errors
    ///
    /// [`RingError`] if the number of replicas or a weight is zero, or if there would be more than
    /// [`MAX_POINTS`](Self::MAX_POINTS).
    pub fn build(self) -> Result<HashRing, RingError> {
        if self.replicas == 0 {
            return Err(RingError::ZeroReplicas);
        }
        if let Some((member, _)) = self.members.iter().find(|(_, weight)| *weight == 0) {
            return Err(RingError::ZeroWeight { member: member.clone() });
        }
        let (members, order) = distinct_members(self.members, self.keep_order);
        let replicas_of = |member: &Member| u64::from(self.replicas) * u64::from(member.weight);
        let points = members.iter().map(replicas_of).fold(0, u64::saturating_add);
        if points > Self::MAX_POINTS {
            return Err(RingError::TooManyPoints { points });
        }
        let digest = digest(self.label, self.replicas, order.iter().map(|&index| &members[index]));

        let mut points = Vec::with_capacity(usize::try_from(points).unwrap_or(0));
        for index in order {
            let member = u32::try_from(index).expect("there are at most MAX_POINTS members");
            let mut text = self.label.stem(&members[index].id);
            let stem = text.len();
            for replica in 0..replicas_of(&members[index]) {
                text.truncate(stem);
                write!(text, "{replica}").expect("writing to a vector cannot fail");
                points.push(Point { position: hash::position(&text), member });
            }
        }
        // A stable sort, so that points at the same position stay in the order of the members.
        points.sort_by_key(|point| point.position);
        points.dedup_by(|later, kept| {
            let collide = later.position == kept.position;
            if collide {
                *kept = *later;
            }
            collide
        });
        Ok(HashRing { label: self.label, replicas: self.replicas, members, points, digest })
    }
}

/// The members in the order of their ids, and their indices in the order in which they take their points.
fn distinct_members(given: Vec<(String, u32)>, keep_order: bool) -> (Vec<Member>, Vec<usize>) {
    let by_id: BTreeMap<String, (usize, u32)> =
        given.into_iter().enumerate().map(|(place, (id, weight))| (id, (place, weight))).collect();
    let places: Vec<usize> = by_id.values().map(|(place, _)| *place).collect();
    let members: Vec<Member> =
        by_id.into_iter().map(|(id, (_, weight))| Member { id: id.into(), weight }).collect();
    let mut order: Vec<usize> = (0..members.len()).collect();
    if keep_order {
        order.sort_by_key(|&index| places[index]);
    }
    (members, order)
}

/// Hashes a text that no other ring has. The lengths keep ids apart that contain the separators.
fn digest<'a>(label: Label, replicas: u32, members: impl Iterator<Item = &'a Member>) -> u64 {
    let mut text = format!("ring 1 {label} {replicas}\n");
    for Member { id, weight } in members {
        text.push_str(&format!("{weight} {} {id}\n", id.len()));
    }
    hash::fingerprint(text.as_bytes())
}
