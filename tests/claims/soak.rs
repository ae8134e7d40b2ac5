//! Rounds of random work and random troubles, each with a fleet of its own in memory: posters, workers and a Python
//! conductor, whose claims do not change the jobs. The troubles are ended sessions, lost replies, connections that
//! break for a short or a long time, and locks that are deleted by hand.
//!
//! It goes on for about eight seconds, or for as many as `APPORTION_SOAK_SECONDS` says. A round that fails names its
//! seed, and `APPORTION_SOAK_SEED` runs that round alone: with the same rng, but uuids and the order of hash maps
//! differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    Lease, PartitionCoordinator,
    backend::{Connector, Memory, Op, Session, SessionId, path::ZnodePath},
    board::{Claim, JobBoard},
    queue::{Delivery, WorkQueue},
    testing::Faults,
};
use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::support::{EITHER, SECOND, fleet::Via};
use crate::{
    board::claim_as_python,
    ledger::{Ledger, Outcome},
    session_faults::{Fault, SessionFaults},
    setup::{Context, Setup, TIMEOUT, name_of},
};

const WORKERS: usize = 5;
/// How long the troubles of one round last, in the time of the fleet.
const TROUBLES: Duration = Duration::from_secs(90);

/// The state that all tasks of a round share.
#[derive(Clone)]
struct Round {
    ledger: Ledger,
    memory: Memory,
    /// Sessions that ended before their time, or whose locks were deleted: there no clock can help, only tokens.
    cheated: Arc<Mutex<BTreeSet<SessionId>>>,
    over: CancellationToken,
}

impl Round {
    /// Does some steps of work, each of which writes to another store. Returns whether the lease was held to the end.
    async fn work(&self, rng: &mut Rng, name: &str, lease: &Lease) -> bool {
        for _ in 0..rng.u32(0..4) {
            sleep(Duration::from_millis(rng.u64(1..4000))).await;
            let is_held = lease.is_held();
            let is_taken = self.ledger.write(name, lease.token().get());
            let is_cheated = self.cheated.lock().unwrap().contains(&lease.session_id());
            assert!(is_taken || !is_held || is_cheated, "{name} is another's while {lease:?} is held");
            if !is_held && rng.bool() {
                return false;
            }
        }
        true
    }

    async fn work_on_jobs(self, board: JobBoard, mut rng: Rng) {
        while !self.over.is_cancelled() {
            let waits = Duration::from_millis(rng.u64(1..5000));
            let Ok(Ok(claim)) = tokio::time::timeout(waits, board.claim_next()).await else { continue };
            let (name, token) = (claim.job().name().into_owned(), claim.token().get());
            self.ledger.was_claimed(&name, token);
            let goes_on = self.work(&mut rng, &name, claim.lease()).await;
            self.end_job(claim, &name, token, if goes_on { rng.u32(0..8) } else { 7 }).await;
        }
    }

    async fn end_job(&self, claim: Claim, name: &str, token: u64, how: u32) {
        match how {
            0..5 => self.ledger.ended(name, token, &claim.consume().await),
            5 => self.ledger.ended(name, token, &claim.trash().await),
            6 => drop(claim.abandon().await),
            _ => drop(claim),
        }
    }

    async fn post(self, board: JobBoard, queue: WorkQueue, mut rng: Rng, poster: usize) {
        for number in 0.. {
            if self.over.is_cancelled() {
                return;
            }
            sleep(Duration::from_millis(rng.u64(1..2500))).await;
            let (job, entry) = (format!("job-{poster}-{number}"), format!("entry-{poster}-{number}"));
            let label = format!("label:{}", rng.u32(0..4));
            if rng.u32(0..3) == 0 {
                self.ledger.put_result(&job, &board.post(&job).await);
                self.ledger.put_result(&entry, &queue.put(&entry).unless_queued(label).await);
            } else {
                let (posted, put) =
                    tokio::join!(board.post(&job).into_future(), queue.put(&entry).label(label));
                self.ledger.put_result(&job, &posted);
                self.ledger.put_result(&entry, &put);
            }
        }
    }

    async fn work_on_entries(self, queue: WorkQueue, mut rng: Rng) {
        while !self.over.is_cancelled() {
            let waits = Duration::from_millis(rng.u64(1..5000));
            let taken = match rng.u32(0..3) {
                0 => tokio::time::timeout(waits, queue.take_many(3)).await,
                _ => tokio::time::timeout(waits, queue.take()).await.map(|taken| taken.map(|one| vec![one])),
            };
            let Ok(Ok(taken)) = taken else { continue };
            let taken: Vec<_> = taken.into_iter().map(|it| (name_of(it.payload()), it)).collect();
            for (name, delivery) in &taken {
                self.ledger.was_claimed(name, delivery.lease().token().get());
            }
            for (name, mut delivery) in taken {
                if rng.bool() {
                    let _ = delivery.update(format!("{name} further")).await;
                }
                let goes_on = self.work(&mut rng, &name, delivery.lease()).await;
                self.end_entry(delivery, &name, if goes_on { rng.u32(0..8) } else { 7 }).await;
            }
        }
    }

    async fn end_entry(&self, delivery: Delivery, name: &str, how: u32) {
        let token = delivery.lease().token().get();
        match how {
            0..5 => self.ledger.ended(name, token, &delivery.done(()).await),
            5 => self.ledger.ended(name, token, &delivery.fail("no").await),
            6 => drop(delivery.release().await),
            _ => drop(delivery),
        }
    }

    async fn collect(self, queue: WorkQueue, mut rng: Rng) {
        while !self.over.is_cancelled() {
            sleep(Duration::from_millis(rng.u64(1..9000))).await;
            let Ok(results) = queue.try_collect(20).await else { continue };
            let names: Vec<_> = results.iter().map(|result| name_of(result.payload())).collect();
            match results.confirm().await {
                Ok(results) => {
                    results.iter().for_each(|result| self.ledger.collected(&name_of(result.payload())));
                }
                Err(_) => names.iter().for_each(|name| self.ledger.may_be_collected(name)),
            }
        }
    }

    /// A Python conductor: it claims any job, and does not use tokens.
    async fn conduct_in_python(self, mut rng: Rng) {
        let session = self.memory.open(3600 * SECOND).await.unwrap();
        let board = ZnodePath::parse("/place/jb").unwrap();
        while !self.over.is_cancelled() {
            sleep(Duration::from_millis(rng.u64(1..3000))).await;
            let (names, _) = session.children(&board).await.unwrap();
            let free: Vec<_> = names
                .iter()
                .filter(|name| !name.ends_with(".lock") && !names.contains(&format!("{name}.lock")))
                .collect();
            let Some(name) = rng.choice(&free) else { continue };
            let (job, lock) = (board.join(name).unwrap(), board.join(&format!("{name}.lock")).unwrap());
            if !claim_as_python(&*session, &job, &lock).await {
                continue;
            }
            self.conduct_one(&*session, &job, &lock, &mut rng).await;
        }
    }

    async fn conduct_one(&self, session: &dyn Session, job: &ZnodePath, lock: &ZnodePath, rng: &mut Rng) {
        let Some((data, _)) = session.get(job).await.unwrap() else { return };
        let Some((_, stat)) = session.get(lock).await.unwrap() else { return };
        let (name, token) = (name_of_job(&data), stat.czxid.unsigned_abs());
        self.ledger.was_claimed(&name, token);
        self.ledger.write(&name, token);
        sleep(Duration::from_millis(rng.u64(1..6000))).await;
        // As it consumes: the versions as they are read now, not as they were.
        let (Some((_, job_stat)), Some((_, lock_stat))) =
            (session.get(job).await.unwrap(), session.get(lock).await.unwrap())
        else {
            return;
        };
        if lock_stat.ephemeral_owner != Some(session.id()) {
            return;
        }
        let mut ops = vec![Op::delete(lock, Some(lock_stat.version))];
        let consumes = rng.bool();
        if consumes {
            ops.push(Op::delete(job, Some(job_stat.version)));
        }
        if session.commit(ops).await.is_ok() && consumes {
            self.ledger.end(&name, token, Outcome::Done);
        }
    }
}

fn name_of_job(data: &[u8]) -> String {
    let posting: serde_json::Value = serde_json::from_slice(data).unwrap();
    posting["name"].as_str().unwrap().to_owned()
}

/// A member of the fleet, with its faults.
struct Member {
    coordinator: Arc<PartitionCoordinator>,
    session_faults: Arc<SessionFaults>,
    faults: Faults,
}

impl Member {
    async fn new(setup: &Setup, round: &Round, id: &str) -> Member {
        let session_faults = Arc::new(SessionFaults::slow(setup.memory()).noting(round.cheated.clone()));
        let faults = Faults::new(Arc::new(session_faults.connector()));
        let config = setup.store.config_via(Via(Arc::new(faults.clone())), id);
        let coordinator = Arc::new(PartitionCoordinator::connect(config).await.unwrap());
        Member { coordinator, session_faults, faults }
    }
}

/// Makes trouble until the round is over. Returns how often it made each kind.
async fn make_trouble(round: Round, members: &[Member], mut rng: Rng) -> BTreeMap<&'static str, u32> {
    let mut made = BTreeMap::new();
    let mut lines = JoinSet::new();
    while !round.over.is_cancelled() {
        sleep(Duration::from_millis(rng.u64(1..1500))).await;
        let member = rng.choice(members).unwrap();
        let session = member.coordinator.session_id();
        let what = match rng.u32(0..10) {
            0..4 => {
                let lost = rng.choice(EITHER).unwrap();
                member.faults.lose_nth_write(member.faults.calls().writes + rng.u64(1..4), lost);
                "a lost reply"
            }
            4..6 => {
                let fault = rng.choice(Fault::ALL).unwrap();
                member.session_faults.arm(rng.u64(1..6), fault);
                "a fault of a session"
            }
            6 => {
                let Some(session) = session else { continue };
                round.cheated.lock().unwrap().insert(session);
                round.memory.expire(session);
                "an expiry"
            }
            7 | 8 => {
                let Some(session) = session else { continue };
                round.memory.suspend(session);
                let (memory, away) = (round.memory.clone(), Duration::from_millis(rng.u64(100..16_000)));
                lines.spawn(async move {
                    sleep(away).await;
                    memory.resume(session);
                });
                "a broken connection"
            }
            _ => {
                round.break_a_lock(&mut rng).await;
                "a broken lock"
            }
        };
        *made.entry(what).or_default() += 1;
    }
    made
}

impl Round {
    /// An operator deletes a lock or a claim.
    async fn break_a_lock(&self, rng: &mut Rng) {
        let session = self.memory.open(60 * SECOND).await.unwrap();
        let folder =
            ZnodePath::parse(rng.choice(["/place/jb", "/queue/claims"]).unwrap()).expect("it is a path");
        let (names, _) = session.children(&folder).await.unwrap();
        let locks: Vec<_> =
            names.iter().filter(|name| !name.starts_with("job") || name.contains(".lock")).collect();
        let Some(lock) = rng.choice(&locks) else { return };
        let lock = folder.join(lock).unwrap();
        let Some((_, stat)) = session.get(&lock).await.unwrap() else { return };
        self.cheated.lock().unwrap().extend(stat.ephemeral_owner);
        let job = lock.as_str().strip_suffix(".lock").and_then(|job| ZnodePath::parse(job).ok());
        if let Some(job) = job
            && let Some((data, _)) = session.get(&job).await.unwrap()
        {
            self.ledger.broken(&name_of_job(&data));
        }
        let _ = session.commit(vec![Op::delete(&lock, None)]).await;
    }
}

/// One fleet, from its first connection to the last check of the ledger. Returns the troubles that it had.
async fn round(seed: u64) -> BTreeMap<&'static str, u32> {
    let _context = Context(format!("APPORTION_SOAK_SEED={seed}"));
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let setup = Setup::new().await;
    let round = Round {
        ledger: setup.ledger.clone(),
        memory: setup.memory().clone(),
        cheated: Arc::default(),
        over: CancellationToken::new(),
    };
    let (mut members, mut tasks) = (Vec::new(), JoinSet::new());
    for number in 0..WORKERS {
        let member = Member::new(&setup, &round, &format!("w-{number}")).await;
        let (board, queue) =
            (setup.board_of(&member.coordinator).await, setup.queue_of(&member.coordinator).await);
        if number < 2 {
            tasks.spawn(round.clone().post(board.clone(), queue.clone(), rng.fork(), number));
            tasks.spawn(round.clone().collect(queue.clone(), rng.fork()));
        }
        tasks.spawn(round.clone().work_on_jobs(board, rng.fork()));
        tasks.spawn(round.clone().work_on_entries(queue, rng.fork()));
        members.push(member);
    }
    tasks.spawn(round.clone().conduct_in_python(rng.fork()));
    let (made, ()) = tokio::join!(make_trouble(round.clone(), &members, rng.fork()), async {
        sleep(TROUBLES).await;
        round.over.cancel();
    });
    members.iter().for_each(|member| member.session_faults.disarm());
    let joined = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    };
    tokio::time::timeout(TIMEOUT, joined).await.expect("all tasks end");
    // A process has to be there to give back the entries of the dead ones.
    let _queue = setup.queue_of(&setup.other).await;
    setup.heals().await;
    setup.finish_jobs().await;
    setup.finish_entries().await;
    let names = round.ledger.names();
    assert!(names.len() > 20, "hardly anything happened");
    round.ledger.judge_results_of(names.iter().map(String::as_str).filter(|name| name.starts_with("entry")));
    for member in &members {
        let _ = member.coordinator.shutdown().await;
    }
    setup.leaves_nothing_behind().await;
    made
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long the test itself takes")]
fn after_random_troubles_each_job_and_entry_is_done_once_and_none_is_lost() {
    let runs = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(round(seed))
    };
    if let Some(seed) = setting("APPORTION_SOAK_SEED") {
        println!("{:?}", runs(seed));
        return;
    }
    let begin = std::time::Instant::now();
    let limit = Duration::from_secs(setting("APPORTION_SOAK_SECONDS").unwrap_or(8));
    let mut made: BTreeMap<_, u32> = BTreeMap::new();
    for seed in 0.. {
        for (what, times) in runs(seed) {
            *made.entry(what).or_default() += times;
        }
        if begin.elapsed() > limit {
            println!("{} rounds with {made:?}", seed + 1);
            break;
        }
    }
    assert_eq!(made.len(), 5, "{made:?}");
}
