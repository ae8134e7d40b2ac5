//! A mixed fleet in one group, and what happens to its members.

use std::{fmt::Write as _, time::Duration};

use apportion::{HashRing, Label};
use tokio::sync::SemaphorePermit;

use crate::{
    evaluator::{Order, WORK, now},
    holdings::Interval,
    member::{Member, SESSION_TIMEOUT, Start, TICK, rust_url, url},
    oracle::{Overlap, Report, Side},
    stalls::{Stalls, turn},
    support::{MS, SECOND, Server, python::Versions},
};

pub(crate) const KEYS: u32 = 2000;
/// How often a member of Python asks for its part.
pub(crate) const CYCLE: Duration = MS.saturating_mul(500);
/// For how long members of this crate wait for those of Python: somewhat longer than a cycle.
pub(crate) const GRACE: Duration = MS.saturating_mul(700);

/// The members, in the group or not.
pub(crate) struct Fleet<'a> {
    pub(crate) server: &'a Server,
    pub(crate) group: String,
    pub(crate) members: Vec<Member>,
    /// Before the hosts in the URL: empty, or `user:password@`.
    pub(crate) credentials: &'static str,
    /// How often a member of Python asks for its part, and for how long members of this crate wait for that.
    pub(crate) cycle: Duration,
    pub(crate) grace: Duration,
    stalls: Stalls,
    _turn: SemaphorePermit<'static>,
    /// What was measured, a line each.
    pub(crate) table: String,
    /// Whether the group has the ring of tooz, and not that of aodh.
    has_tooz_ring: bool,
}

impl<'a> Fleet<'a> {
    /// No members so far. Waits until few other fleets are there.
    pub(crate) async fn new(server: &'a Server, group: &str) -> Fleet<'a> {
        Fleet {
            server,
            group: group.to_owned(),
            members: Vec::new(),
            credentials: "",
            cycle: CYCLE,
            grace: GRACE,
            _turn: turn().await,
            stalls: Stalls::start(),
            table: String::new(),
            has_tooz_ring: false,
        }
    }

    /// The same with the ring of tooz.
    pub(crate) async fn of_tooz(server: &'a Server, group: &str) -> Fleet<'a> {
        Fleet { has_tooz_ring: true, ..Fleet::new(server, group).await }
    }

    /// Something happens from now on.
    pub(crate) fn begin(&self) -> u64 {
        self.stalls.reset();
        now()
    }

    /// Starts the process of an evaluator of aodh.
    pub(crate) async fn aodh(&mut self, id: &str) {
        self.aodh_of(Versions::Current, id).await;
    }

    /// The same of old or current versions.
    pub(crate) async fn aodh_of(&mut self, versions: Versions, id: &str) {
        self.python(versions, id, "interop/evaluator.py", None).await;
    }

    /// Starts the process of a member of a partitioned group of tooz.
    pub(crate) async fn tooz(&mut self, versions: Versions, id: &str, script: &'static str, weight: u32) {
        self.python(versions, id, script, Some(weight)).await;
    }

    async fn python(&mut self, versions: Versions, id: &str, script: &'static str, weight: Option<u32>) {
        let credentials = self.credentials;
        let cycle = self.cycle.as_secs_f64().to_string();
        let mut arguments = vec![self.group.clone(), id.to_owned(), KEYS.to_string(), cycle];
        arguments.extend(weight.map(|weight| weight.to_string()));
        let start = Start::Python { versions, script, arguments, weight: weight.unwrap_or(1) };
        self.members
            .push(Member::new(self.server, id, |hosts| url(&format!("{credentials}{hosts}")), start).await);
    }

    /// Starts the process of an evaluator of this crate.
    pub(crate) async fn rust(&mut self, id: &str, weight: u32) {
        let credentials = self.credentials;
        let order = Order {
            url: String::new(),
            group: self.group.clone(),
            id: id.to_owned(),
            keys: KEYS,
            weight,
            plain_grace: self.grace,
            has_tooz_ring: self.has_tooz_ring,
        };
        self.members.push(
            Member::new(
                self.server,
                id,
                |hosts| rust_url(&format!("{credentials}{hosts}")),
                Start::Rust(order),
            )
            .await,
        );
    }

    /// Waits until all processes are ready to join.
    pub(crate) async fn ready(&mut self) {
        for member in &mut self.members {
            member.ready().await;
        }
    }

    pub(crate) fn member(&mut self, id: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).expect("there is such a member")
    }

    /// Waits until each key has the owner that the ring of the members in the group says, and stays so for a cycle.
    /// Returns since when that is so.
    pub(crate) async fn settles(&mut self, within: Duration) -> u64 {
        let ring = self.ring();
        let owners: Vec<_> = (0..KEYS).map(|key| self.owner(&ring, key)).collect();
        let begin = now();
        let mut right_since = None;
        loop {
            self.members.iter_mut().for_each(Member::hear);
            let at = now();
            let wrong = (0..KEYS).filter(|key| self.holders(*key, at) != [owners[*key as usize]]).count();
            if wrong > 0 {
                right_since = None;
            }
            let since = *right_since.get_or_insert(at);
            let has_asked = |member: &Member| {
                let is_asking = member.is_in && member.side() == Side::Python;
                !is_asking || member.holdings.polls_within((since, at)).count() > 1
            };
            if wrong == 0 && at - since > nanos(6 * WORK) && self.members.iter().all(has_asked) {
                return since;
            }
            if at - begin > nanos(within) {
                panic!("not settled within {within:?}: {wrong} keys are wrong\n{}", self.describe(at));
            }
            tokio::time::sleep(20 * MS).await;
        }
    }

    /// The ring of the members that should be in the group. All weights are one while a member of aodh is in it.
    fn ring(&self) -> HashRing {
        let members = || self.members.iter().filter(|member| member.is_in);
        let has_python = members().any(|member| member.side() == Side::Python);
        let counts = self.has_tooz_ring || !has_python;
        let weight = |member: &Member| if counts { member.weight() } else { 1 };
        let ring = HashRing::builder();
        let ring = if self.has_tooz_ring { ring.tooz(32) } else { ring.label(Label::PythonBytes) };
        let ring = members().fold(ring, |ring, member| ring.weighted_member(&*member.id, weight(member)));
        ring.build().expect("it is small")
    }

    fn owner(&self, ring: &HashRing, key: u32) -> usize {
        let owner = ring.owner(&format!("alarm-{key}")).expect("there are members").to_owned();
        self.members.iter().position(|member| member.id == owner).expect("it is one of ours")
    }

    fn holders(&self, key: u32, at: u64) -> Vec<usize> {
        let holds = |number: &usize| self.members[*number].holdings.acts_on(key, at);
        (0..self.members.len()).filter(holds).collect()
    }

    fn describe(&self, at: u64) -> String {
        let mut text = self.table.clone();
        for member in &self.members {
            let (count, errors) = (member.holdings.count(at), &member.holdings.errors);
            let _ = writeln!(text, "-- {}: {count} keys; {errors:?}\n{}", member.id, member.log());
        }
        text
    }

    /// Checks what went on since `from`, and notes it. `gap`: for how long a key may have been without a member.
    pub(crate) fn check(&mut self, what: &str, from: u64, settled: u64, gap: Duration) -> Report {
        let seen: Vec<_> = self.members.iter().map(Member::seen).collect();
        let report = Report::of(&seen, KEYS, (from, settled));
        let took = Duration::from_nanos(settled - from).as_millis();
        let _ = writeln!(self.table, "{what:<32} settled after {took:5} ms; {report}");
        for overlap in &report.overlaps {
            if let Some(why) = self.is_wrong(overlap) {
                let (old, new) = (&self.members[overlap.old].id, &self.members[overlap.new].id);
                panic!("{what}: {why}: {old} and {new}, {overlap:?}\n{}", self.table);
            }
        }
        let longest = report.longest_gap();
        assert!(
            longest <= gap + self.stalls.slack(),
            "{what}: key {} had no member for {longest:?}\n{}",
            report.gap.1,
            self.table
        );
        report
    }

    /// Why two members may not have acted on one key as they did.
    fn is_wrong(&self, overlap: &Overlap) -> Option<&'static str> {
        let (old, new) = (&self.members[overlap.old], &self.members[overlap.new]);
        let (start, end) = overlap.at;
        match (old.side(), new.side()) {
            (Side::Rust, Side::Rust) => Some("members of this crate are exclusive among each other"),
            // What it works on ends, and it does not start anything new.
            (Side::Rust, Side::Python) => (end - start > nanos(WORK + self.stalls.slack()))
                .then_some("it goes on for longer than its work takes"),
            (Side::Python, side) => {
                if side == Side::Rust {
                    // On a busy machine it hears of the end of its session later than the others.
                    let grace = self.grace.saturating_sub(self.stalls.slack());
                    let before = (start.saturating_sub(nanos(grace)), start);
                    let mut polls = old.holdings.polls_within(before);
                    if polls.clone().any(|poll| !poll.has_joined) {
                        return Some("the grace for members of Python was not waited for");
                    }
                    if polls.next().is_some() {
                        // It joined again just before that, and the other one does not know it yet.
                        let is_too_long = end - start > nanos(WORK + self.stalls.slack());
                        return is_too_long.then_some("it goes on after the other one has joined again");
                    }
                }
                let is_right = self.outlasts(old, new, overlap.at) || self.outlasts(new, old, overlap.at);
                (!is_right).then_some("an answer is kept for longer than a cycle")
            }
        }
    }

    /// Whether two members act on one key for no longer than Python's cycles allow: `it` does not ask again, or it asks and
    /// still has the key because it has joined again, and then the other one has it until that asks again.
    fn outlasts(&self, it: &Member, other: &Member, (start, end): Interval) -> bool {
        if it.side() == Side::Rust {
            return false;
        }
        let Some(poll) = it.holdings.polls_within((start + 1, end - 1)).next() else { return true };
        match other.side() {
            Side::Python => other.holdings.polls_within((poll.answered, end - 1)).next().is_none(),
            Side::Rust => end.saturating_sub(poll.answered) <= nanos(WORK + self.stalls.slack()),
        }
    }

    /// A member joins, and the fleet settles with it.
    pub(crate) async fn join(&mut self, id: &str) {
        let from = self.begin();
        self.member(id).join().await;
        let settled = self.settles(30 * SECOND).await;
        // A key has to wait for a cycle of the member that joins, or for the grace.
        self.check(&format!("{id} joins"), from, settled, self.cycle.max(self.grace));
    }

    /// A member leaves, and the others take over.
    pub(crate) async fn leave(&mut self, id: &str) {
        let from = self.begin();
        self.member(id).leave().await;
        let settled = self.settles(30 * SECOND).await;
        self.check(&format!("{id} leaves"), from, settled, self.cycle.max(self.grace));
    }

    /// The last member leaves.
    pub(crate) async fn leave_last(&mut self, id: &str) {
        self.member(id).leave().await;
        assert!(self.members.iter().all(|member| !member.is_in));
    }

    /// The process of a member is killed, and the others take over.
    pub(crate) async fn kill(&mut self, id: &str) {
        let from = self.begin();
        self.member(id).kill().await;
        let settled = self.settles(30 * SECOND).await;
        self.check(&format!("{id} is killed"), from, settled, EXPIRY + self.cycle.max(self.grace));
        self.member(id).ready().await;
    }

    /// The session of a member ends at the server, and it comes back by itself.
    pub(crate) async fn expire(&mut self, id: &str) {
        let from = self.begin();
        let server = self.server;
        self.member(id).expire(server).await;
        let settled = self.settles(30 * SECOND).await;
        self.check(&format!("the session of {id} ends"), from, settled, 2 * self.cycle.max(self.grace));
    }

    /// A member loses its way to the server. The others take over; then it comes back.
    pub(crate) async fn cut(&mut self, id: &str) {
        self.is_away(id, "cut off", |member, is_away| member.cut(is_away)).await;
    }

    /// The process of a member is stopped. The others take over; then it goes on.
    pub(crate) async fn pause(&mut self, id: &str) {
        self.is_away(id, "stopped", |member, is_away| if is_away { member.pause() } else { member.resume() })
            .await;
    }

    async fn is_away(&mut self, id: &str, how: &str, set: impl Fn(&mut Member, bool)) {
        let from = self.begin();
        let member = self.member(id);
        set(member, true);
        member.is_in = false;
        let settled = self.settles(30 * SECOND).await;
        self.check(&format!("{id} is {how}"), from, settled, EXPIRY + self.cycle.max(self.grace));
        let from = self.begin();
        let member = self.member(id);
        set(member, false);
        member.is_in = true;
        let settled = self.settles(60 * SECOND).await;
        self.check(&format!("{id} goes on"), from, settled, 2 * self.cycle.max(self.grace));
    }

    /// Waits until the members of this crate say that their shares are exclusive, or are not.
    pub(crate) async fn is_exclusive(&mut self, expected: bool) {
        for member in self.members.iter_mut().filter(|it| it.is_in && it.side() == Side::Rust) {
            let begin = now();
            while member.status().await["is_exclusive"] != expected {
                assert!(now() - begin < nanos(20 * SECOND), "{} does not say so", member.id);
                tokio::time::sleep(20 * MS).await;
            }
        }
    }
}

/// How long a session lasts after the last sign of its member.
const EXPIRY: Duration = SESSION_TIMEOUT.saturating_add(TICK.saturating_mul(2));

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("584 years fit")
}
