//! Drops each waiting call at each of its polls. Afterwards nothing is held, lost or done twice.

mod call;

use std::time::Duration;

use apportion::{
    board::{Claim, JobBoard},
    queue::{Delivery, WorkQueue},
};
use serde_json::json;

use self::call::{Call, Pace};
use crate::{
    ledger::{Ledger, Outcome},
    setup::{AtOnce as _, Context, Setup, TIMEOUT, done, name_of, post, put},
    support::{alive_tasks, until},
};

/// More polls than any call takes that does not wait for time to pass.
const MOST: usize = 30;
/// The time after which the job or entry comes that a call waits for.
const LATE: Duration = Duration::from_millis(300);

fn of_claim(claim: &Claim) -> (String, u64) {
    (claim.job().name().into_owned(), claim.token().get())
}

fn of_delivery(delivery: &Delivery) -> (String, u64) {
    (name_of(delivery.payload()), delivery.lease().token().get())
}

/// The victim, its board with the jobs `a` and `b`, and its queue with the entries `c` and `d`.
struct Scene {
    setup: Setup,
    ledger: Ledger,
    board: JobBoard,
    queue: WorkQueue,
}

impl Scene {
    async fn new(is_late: bool) -> Scene {
        let setup = Setup::slow().await;
        let (board, queue) = (setup.board_of(&setup.victim).await, setup.queue_of(&setup.victim).await);
        let scene = Scene { ledger: setup.ledger.clone(), setup, board, queue };
        if !is_late {
            scene.fill().await;
        }
        scene
    }

    async fn fill(&self) {
        let (board, queue) = (
            self.setup.board_of(&self.setup.other).await,
            // A delivery that is given back goes to the dead letters.
            self.setup.other.queue("/queue").max_attempts(1).at_once().await.unwrap(),
        );
        for name in ["a", "b"] {
            post(&board, &self.ledger, name).await;
        }
        put(&queue, &self.ledger, "e").await;
        queue.take().await.unwrap().release().await.unwrap();
        put(&queue, &self.ledger, "f").await;
        let delivery = queue.take().await.unwrap();
        self.ledger.claimed("f", delivery.lease().token().get());
        done(delivery, &self.ledger).await;
        for name in ["c", "d"] {
            put(&queue, &self.ledger, name).await;
        }
    }

    /// Adds a job or entry for which a call waits.
    async fn fill_late(&self, what: &str) {
        if BOARD.contains(&what) {
            post(&self.setup.board_of(&self.setup.other).await, &self.ledger, "a").await;
            return;
        }
        let queue = self.setup.queue_of(&self.setup.other).await;
        put(&queue, &self.ledger, "c").await;
        if what == "collect" {
            let delivery = queue.take().await.unwrap();
            self.ledger.claimed("c", delivery.lease().token().get());
            done(delivery, &self.ledger).await;
        }
    }

    async fn claim(&self) -> Claim {
        let claim = self.board.claim_next().await.unwrap();
        let (name, token) = of_claim(&claim);
        self.ledger.claimed(&name, token);
        claim
    }

    async fn take(&self) -> Delivery {
        let delivery = self.queue.take().await.unwrap();
        let (name, token) = of_delivery(&delivery);
        self.ledger.claimed(&name, token);
        delivery
    }

    async fn board_call(&self, what: &str) -> Call {
        let (board, ledger) = (self.board.clone(), self.ledger.clone());
        match what {
            "post" => Call::new(async move {
                let posted = board.post("new").await;
                ledger.put_result("new", &posted);
            }),
            "claim" => {
                let job = self.board.jobs().ensure_fresh().await.unwrap().into_iter().next().unwrap();
                Call::new(async move { drop(board.claim(&job).await.unwrap()) })
            }
            "claim next" => Call::new(async move { drop(board.claim_next().await.unwrap()) }),
            "try claim next" => Call::new(async move { drop(board.try_claim_next().await.unwrap()) }),
            "consume" => {
                let claim = self.claim().await;
                let (name, token) = of_claim(&claim);
                let ends = vec![(name.clone(), token)];
                Call::ending(ends, async move { ledger.ended(&name, token, &claim.consume().await) })
            }
            "trash" => {
                let claim = self.claim().await;
                let (name, token) = of_claim(&claim);
                let ends = vec![(name.clone(), token)];
                Call::ending(ends, async move { ledger.ended(&name, token, &claim.trash().await) })
            }
            "abandon" => {
                let claim = self.claim().await;
                Call::new(async move { claim.abandon().await.unwrap() })
            }
            "wait for jobs" => Call::new(async move { board.wait_for_work().await.unwrap() }),
            "wait for one" => {
                let job = self.board.jobs().ensure_fresh().await.unwrap().into_iter().next().unwrap();
                Call::new(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(1), job.wait_for_end()).await;
                })
            }
            "list" => Call::new(async move { drop(board.jobs().ensure_fresh().await.unwrap()) }),
            "find owner" => {
                let job = self.board.jobs().ensure_fresh().await.unwrap().into_iter().next().unwrap();
                Call::new(async move {
                    board.state(&job).await.unwrap();
                    board.find_owner(&job).await.unwrap();
                })
            }
            "register" => {
                Call::new(async move { board.register_entity("conductor", "me", json!({})).await.unwrap() })
            }
            "close" => {
                self.board.register_entity("conductor", "me", json!({})).await.unwrap();
                Call::new(async move { board.close().await })
            }
            other => panic!("unknown call {other}"),
        }
    }

    async fn queue_call(&self, what: &str) -> Call {
        let (queue, ledger) = (self.queue.clone(), self.ledger.clone());
        match what {
            "put" => Call::new(async move {
                let result = queue.put("new").await;
                ledger.put_result("new", &result);
            }),
            "put unless queued" => Call::new(async move {
                let result = queue.put("new").unless_queued("a label").await;
                ledger.put_result("new", &result);
            }),
            "take" => Call::new(async move { drop(queue.take().await.unwrap()) }),
            "take preferring" => Call::new(async move {
                drop(queue.take_preferring(|entry| entry.label() == "label:d").await.unwrap());
            }),
            "take many" => Call::new(async move { drop(queue.take_many(5).await.unwrap()) }),
            "try take" => Call::new(async move { drop(queue.try_take().await.unwrap()) }),
            "update" => {
                let mut delivery = self.take().await;
                let payload = format!("{} further", name_of(delivery.payload()));
                Call::new(async move { delivery.update(payload).await.unwrap() })
            }
            "done" | "fail" => {
                let (delivery, fails) = (self.take().await, what == "fail");
                let (name, token) = of_delivery(&delivery);
                Call::ending(vec![(name.clone(), token)], async move {
                    let result = if fails { delivery.fail("no").await } else { delivery.done(()).await };
                    ledger.ended(&name, token, &result);
                })
            }
            "release" => {
                let delivery = self.take().await;
                Call::new(async move { delivery.release().await.unwrap() })
            }
            "collect" => Call::new(async move { drop(queue.collect(9).await.unwrap()) }),
            "confirm" => {
                let results = self.queue.collect(9).await.unwrap();
                let ends = results.iter().map(|result| (name_of(result.payload()), 0)).collect();
                Call::ending(ends, async move {
                    let confirmed = results.confirm().await.unwrap();
                    confirmed.iter().for_each(|result| ledger.collected(&name_of(result.payload())));
                })
            }
            "wait for work" => Call::new(async move { queue.wait_for_work().await.unwrap() }),
            "entries" => Call::new(async move { drop(queue.entries().await.unwrap()) }),
            "len" => Call::new(async move { assert_eq!(queue.len().await.unwrap(), 2) }),
            "revive" => {
                let letter = self.queue.dead_letters().await.unwrap().remove(0);
                Call::new(async move { assert!(queue.revive(&letter).await.unwrap()) })
            }
            other => panic!("unknown call {other}"),
        }
    }
}

/// Makes the call once with at most so many polls. Returns whether it was ready.
async fn cut_short(what: &str, polls: usize, pace: Pace, is_late: bool) -> bool {
    let _context = Context((what.to_owned(), polls, pace, is_late));
    let scene = Scene::new(is_late).await;
    let Scene { setup, ledger, .. } = &scene;
    let is_of_board = BOARD.contains(&what);
    let call = if is_of_board { scene.board_call(what).await } else { scene.queue_call(what).await };
    let ends = call.ends.clone();
    let idle = if is_late { LATE } else { Duration::ZERO };
    let (is_ready, ()) = tokio::join!(call.poll_at_most(polls, pace, idle), async {
        if is_late {
            tokio::time::sleep(LATE).await;
            scene.fill_late(what).await;
        }
    });
    if !is_ready {
        for (name, token) in ends {
            match token {
                0 => ledger.may_be_collected(&name),
                token => ledger.end(&name, token, Outcome::Unknown),
            }
        }
    }
    // What goes on in the background comes to its end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    setup.heals().await;
    setup.finish_jobs().await;
    setup.finish_entries().await;
    ledger.judge_results_of(["c", "d", "e", "f"]);
    setup.leaves_nothing_behind().await;
    is_ready
}

async fn cut_short_at_each_poll(what: &str, is_late: bool) {
    let woken = (1..=MOST).map(|polls| (polls, Pace::Woken));
    let mut is_ready = false;
    for (polls, pace) in woken {
        is_ready = cut_short(what, polls, pace, is_late).await;
        if is_ready {
            break;
        }
    }
    assert!(is_ready, "{what} takes more than {MOST} polls");
    for polls in 1..=MOST {
        if cut_short(what, polls, Pace::EachTurn, is_late).await {
            break;
        }
    }
}

const BOARD: [&str; 13] = [
    "post",
    "claim",
    "claim next",
    "try claim next",
    "consume",
    "abandon",
    "trash",
    "wait for jobs",
    "wait for one",
    "list",
    "find owner",
    "register",
    "close",
];

const QUEUE: [&str; 16] = [
    "put",
    "put unless queued",
    "take",
    "take preferring",
    "take many",
    "try take",
    "update",
    "done",
    "fail",
    "release",
    "collect",
    "confirm",
    "wait for work",
    "entries",
    "len",
    "revive",
];

#[tokio::test(start_paused = true)]
async fn a_call_of_a_board_that_is_dropped_at_any_poll_leaves_nothing_held_and_nothing_lost() {
    for what in BOARD {
        cut_short_at_each_poll(what, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_queue_that_is_dropped_at_any_poll_leaves_nothing_held_and_nothing_lost() {
    for what in QUEUE {
        cut_short_at_each_poll(what, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_and_is_dropped_at_any_poll_leaves_nothing_held_and_nothing_lost() {
    for what in
        ["claim next", "wait for jobs", "take", "take preferring", "take many", "collect", "wait for work"]
    {
        cut_short_at_each_poll(what, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn opening_that_is_dropped_at_any_poll_leaves_nothing_running() {
    for (pace, is_board) in
        [Pace::Woken, Pace::EachTurn].into_iter().flat_map(|pace| [(pace, true), (pace, false)])
    {
        for polls in 1..=MOST {
            let _context = Context((polls, pace, is_board));
            let setup = Setup::slow().await;
            let victim = std::sync::Arc::new(setup.victim);
            let opener = victim.clone();
            let tasks = alive_tasks();
            let call = Call::new(async move {
                if is_board {
                    drop(opener.job_board("/place/jb").at_once().await.unwrap());
                } else {
                    drop(opener.queue("/queue").at_once().await.unwrap());
                }
            });
            let is_ready = call.poll_at_most(polls, pace, Duration::ZERO).await;
            until("no task is left", TIMEOUT, || alive_tasks() <= tasks).await;
            if is_ready {
                break;
            }
        }
    }
}
