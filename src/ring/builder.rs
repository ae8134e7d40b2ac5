// Pure: no runtime, no clock, no socket, no random numbers.

//! [`HashRingBuilder`]: builds a [`HashRing`].

use super::{
    HashRing, Label, Member, hash,
    kernel::{Kernel, Numbers},
    point::{Narrow, Point, Wide},
    points::{AllPoints, Points},
    tooz,
};

/// Collects the members and settings of a ring. From [`HashRing::builder`].
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
    kernel: Kernel,
}

/// Why a ring cannot be built. From [`HashRingBuilder::build`] and [`HashRing::with_member`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The number of replicas is zero, so no member would have points.
    #[error("a ring needs at least one replica for each member")]
    ZeroReplicas,
    /// The weight of a member is zero, so it would have no points.
    #[error("the weight of member `{}` is zero", member.escape_debug())]
    ZeroWeight {
        /// The member.
        member: String,
    },
    /// The ring would have too many points: a weight or the number of replicas is far too high.
    #[error("the ring would have {points} points, and the limit is {}", HashRingBuilder::MAX_POINTS)]
    TooManyPoints {
        /// The number of points that the members would have together.
        points: u64,
    },
    /// A ring of ironic is configured with another hash algorithm than MD5. From
    /// [`HashRingBuilder::ironic`] and [`Config::ironic`](crate::Config::ironic).
    #[error("the hash algorithm is `{}`, and only `md5` is supported", algorithm.escape_debug())]
    HashAlgorithm {
        /// The algorithm.
        algorithm: String,
    },
}

impl HashRingBuilder {
    /// The largest number of points that the members of a ring may have together, collisions included.
    ///
    /// It is enough for ten thousand members with a hundred points each and an average weight of 16. The weights of a
    /// group come from its members. Without a limit, one wrong weight would use up the memory of all members.
    pub const MAX_POINTS: u64 = 1 << 24;

    pub(super) fn new() -> Self {
        HashRingBuilder {
            replicas: 100,
            label: Label::default(),
            members: Vec::new(),
            keep_order: false,
            kernel: Kernel::best(),
        }
    }

    /// Gives each member `replicas` points for each unit of its weight. Default: 100.
    ///
    /// The shares of equal members differ by about `1 / sqrt(replicas)`: 10 % with 100, 5 % with 400. All members
    /// of a fleet have to use the same number.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Builds the ring of OpenStack's tooz, with `partitions` points for each unit of weight; tooz's default is 32.
    ///
    /// It is the same as [`Label::Tooz`] with so many [`replicas`](Self::replicas).
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().tooz(32).member("host-1").weighted_member("host-2", 3).build()?;
    /// assert_eq!(ring.points(), 4 * 32);
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn tooz(self, partitions: u32) -> Self {
        self.label(Label::Tooz).replicas(partitions)
    }

    /// Builds the ring of OpenStack's ironic: that of tooz, with 2 to the power of `exponent` points for each
    /// conductor. The arguments are ironic's options `hash_partition_exponent` (default: 5) and `hash_ring_algorithm`
    /// (default: `md5`).
    ///
    /// # Errors
    ///
    /// [`RingError::HashAlgorithm`] for another algorithm than `md5`, [`RingError::TooManyPoints`] if one member alone
    /// would have more than [`MAX_POINTS`](Self::MAX_POINTS).
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().ironic(5, "md5")?.members(["conductor-1", "conductor-2"]).build()?;
    /// let standby: Vec<&str> = ring.owners("9a7a5e4c-7b22-4f0e-8f0c-2f2a8f5d0f51").collect();
    /// assert_eq!(standby.len(), 2);
    /// assert!(HashRing::builder().ironic(5, "sha256").is_err());
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn ironic(self, exponent: u32, algorithm: &str) -> Result<Self, RingError> {
        Ok(self.tooz(ironic_partitions(exponent, algorithm)?))
    }

    /// Sets which text is hashed for the points of a member. Default: [`Label::Plain`].
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
    /// Any text can be an id. A repeated id is one member, with its last weight and its last place in the order.
    pub fn weighted_member(mut self, id: impl Into<String>, weight: u32) -> Self {
        self.members.push((id.into(), weight));
        self
    }

    /// Adds members of weight 1.
    pub fn members(mut self, ids: impl IntoIterator<Item: Into<String>>) -> Self {
        self.members.extend(ids.into_iter().map(|id| (id.into(), 1)));
        self
    }

    /// Gives a colliding point to the member that was added later, instead of the one whose id sorts later.
    ///
    /// Collisions are rare: about one in a ring of 1000 members with 100 points each, 0.01 in one of 100. By default
    /// the ring does not depend on the order in which members are added, so members that list their group in different
    /// orders still agree. Use this option to compare with the rings in Python, which depend on the order.
    pub fn keep_order(mut self) -> Self {
        self.keep_order = true;
        self
    }

    /// Sets the kernel. It changes the time that hashing takes, and no owner.
    #[doc(hidden)]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
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
        for (member, weight) in &self.members {
            check_weight(member, *weight)?;
        }
        let members = distinct_members(self.members, self.keep_order);
        let points = check_points(self.replicas, &members)?;
        let points = if self.label == Label::Tooz {
            AllPoints::Wide(wide_points(self.replicas, &members, points))
        } else {
            AllPoints::Narrow(narrow_points(self.label, self.replicas, self.kernel, &members, points))
        };
        Ok(HashRing {
            label: self.label,
            replicas: self.replicas,
            keep_order: self.keep_order,
            by_id: by_id(&members),
            points,
            digest: digest(self.label, self.replicas, &members),
            members,
            kernel: self.kernel,
        })
    }
}

fn narrow_points(
    label: Label,
    replicas: u32,
    kernel: Kernel,
    members: &[Member],
    points: usize,
) -> Points<Narrow> {
    let most = members.iter().map(|member| points_of(replicas, member)).max().unwrap_or(0);
    let numbers = Numbers::first(most);
    let mut all = Vec::with_capacity(points);
    for (number, member) in (0..).zip(members) {
        let stem = label.stem(&member.id);
        let positions = kernel.points(&stem, &numbers, points_of(replicas, member));
        all.extend(positions.map(|position| Narrow::new(position, number)));
    }
    Points::new(all)
}

fn wide_points(partitions: u32, members: &[Member], points: usize) -> Points<Wide> {
    let mut all = Vec::with_capacity(points);
    for (number, member) in (0..).zip(members) {
        let positions = tooz::points(&member.id, points_of(partitions, member));
        all.extend(positions.map(|position| Wide::new(position, number)));
    }
    Points::new(all)
}

/// The number of partitions that ironic gives the ring by its options `hash_partition_exponent` and
/// `hash_ring_algorithm`: 2 to the power of the exponent.
///
/// # Errors
///
/// [`RingError::HashAlgorithm`] for another algorithm than `md5`, [`RingError::TooManyPoints`] if one member alone
/// would have more than [`HashRingBuilder::MAX_POINTS`].
pub(crate) fn ironic_partitions(exponent: u32, algorithm: &str) -> Result<u32, RingError> {
    if algorithm != "md5" {
        return Err(RingError::HashAlgorithm { algorithm: algorithm.into() });
    }
    let points = 1_u64.checked_shl(exponent).unwrap_or(u64::MAX);
    let partitions = u32::try_from(points).ok().filter(|_| points <= HashRingBuilder::MAX_POINTS);
    partitions.ok_or(RingError::TooManyPoints { points })
}

/// The members in the order in which they take their points.
fn distinct_members(given: Vec<(String, u32)>, keep_order: bool) -> Vec<Member> {
    let mut members: Vec<_> = given.into_iter().enumerate().collect();
    // A stable sort, so that the last of equal ids is the one added last.
    members.sort_by(|(_, (one, _)), (_, (other, _))| one.cmp(other));
    members.dedup_by(|later, kept| {
        let repeated = later.1.0 == kept.1.0;
        if repeated {
            std::mem::swap(later, kept);
        }
        repeated
    });
    if keep_order {
        members.sort_by_key(|(place, _)| *place);
    }
    members.into_iter().map(|(_, (id, weight))| Member { id: id.into(), weight }).collect()
}

pub(super) fn check_weight(member: &str, weight: u32) -> Result<(), RingError> {
    if weight == 0 { Err(RingError::ZeroWeight { member: member.into() }) } else { Ok(()) }
}

/// The number of points of `member`, after [`check_points`] has accepted its ring.
pub(super) fn points_of(replicas: u32, member: &Member) -> usize {
    replicas as usize * member.weight as usize
}

/// The number of points that the members have together; an error if there are too many.
pub(super) fn check_points(replicas: u32, members: &[Member]) -> Result<usize, RingError> {
    let points_of = |member: &Member| u64::from(replicas) * u64::from(member.weight);
    let points = members.iter().map(points_of).fold(0, u64::saturating_add);
    if points > HashRingBuilder::MAX_POINTS {
        return Err(RingError::TooManyPoints { points });
    }
    Ok(usize::try_from(points).expect("it is at most MAX_POINTS"))
}

/// The numbers of the members in the order of their ids.
pub(super) fn by_id(members: &[Member]) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..).take(members.len()).collect();
    numbers.sort_by(|&one, &other| members[one as usize].id.cmp(&members[other as usize].id));
    numbers
}

/// Hashes a text that is different for each ring. The lengths are for ids that contain the separators.
pub(super) fn digest(label: Label, replicas: u32, members: &[Member]) -> u64 {
    let mut text = format!("ring 1 {label} {replicas}\n");
    // Without `write!`, because it is slow, and every change of a large ring makes this text.
    for Member { id, weight } in members {
        push_number(&mut text, *weight as usize);
        text.push(' ');
        push_number(&mut text, id.len());
        text.push(' ');
        text.push_str(id);
        text.push('\n');
    }
    hash::fingerprint(text.as_bytes())
}

/// Appends a number in decimal digits.
fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}
