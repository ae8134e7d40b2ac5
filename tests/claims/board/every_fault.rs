//! Each write of each thing that is done at a board: its reply is lost, or the session ends before or after it, or the
//! connection breaks. And each read: the session ends before it is answered.

use apportion::{
    PartitionCoordinator,
    board::{BoardError, Claim, JobBoard},
};
use serde_json::json;

use crate::{
    bench::{Bench, PATIENCE, Trouble, soon, troubles},
    ledger::{Ledger, Says, Told},
    session_faults::Fault,
    support::fleet::SECOND,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Open,
    Post,
    ClaimAndConsume,
    ClaimAndAbandon,
    ClaimAndTrash,
    ClaimAndDrop,
    TwoClaims,
    Register,
}

/// Says where it was when a test fails.
pub(crate) struct Context<T: std::fmt::Debug>(pub(crate) T);

impl<T: std::fmt::Debug> Drop for Context<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was {:?}", self.0);
        }
    }
}

pub(crate) async fn post(board: &JobBoard, ledger: &Ledger, name: &str) {
    let posted = soon(board.post(name)).await;
    if let Ok(job) = &posted {
        assert_eq!(job.name(), name);
    }
    ledger.put_result(name, &posted);
}

/// Claims what there is; `None` if there is nothing, since what was to be put was not.
async fn claim(board: &JobBoard, ledger: &Ledger) -> Option<Claim> {
    let claim = tokio::time::timeout(30 * SECOND, board.claim_next()).await.ok()?;
    let claim = claim.expect("it waits for what goes by");
    ledger.claimed(&claim.job().name(), claim.token().get());
    Some(claim)
}

async fn consume(claim: Claim, ledger: &Ledger) {
    let (name, token) = (claim.job().name().into_owned(), claim.token().get());
    ledger.ended(&name, token, &soon(claim.consume()).await);
}

/// Opens the board, again if the session was lost meanwhile.
async fn open(whose: &PartitionCoordinator) -> JobBoard {
    for _ in 0..3 {
        match soon(whose.job_board("/place/jb")).await {
            Ok(board) => return board,
            Err(BoardError::Service(error)) if error.is_transient() => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it cannot be opened");
}

impl Script {
    const ALL: [Script; 8] = [
        Script::Open,
        Script::Post,
        Script::ClaimAndConsume,
        Script::ClaimAndAbandon,
        Script::ClaimAndTrash,
        Script::ClaimAndDrop,
        Script::TwoClaims,
        Script::Register,
    ];

    /// Runs it with one trouble. Returns how many writes it made, and at how many calls each fault can happen.
    async fn run(self, trouble: Trouble) -> (u64, Vec<u64>) {
        let _context = Context((self, trouble));
        let bench = Bench::new().await;
        let Bench { ledger, .. } = &bench;
        let board = match self {
            Script::Open => None,
            _ => {
                let theirs = bench.board_of(&bench.other).await;
                if !matches!(self, Script::Post | Script::Register) {
                    post(&theirs, ledger, "a").await;
                }
                if self == Script::TwoClaims {
                    post(&theirs, ledger, "b").await;
                }
                Some(bench.board_of(&bench.victim).await)
            }
        };
        let (writes, calls) =
            (bench.faults.calls().writes, Fault::ALL.map(|fault| bench.session_faults.calls(fault)));
        bench.plan(trouble);
        match board {
            None => post(&open(&bench.victim).await, ledger, "a").await,
            Some(board) => self.act(&board, &bench).await,
        }
        bench.heals().await;
        let writes = bench.faults.calls().writes - writes;
        let calls = Fault::ALL
            .into_iter()
            .zip(calls)
            .map(|(fault, before)| bench.session_faults.calls(fault) - before);
        let calls = calls.collect();
        bench.settle_board().await;
        (writes, calls)
    }

    async fn act(self, board: &JobBoard, bench: &Bench) {
        let ledger = &bench.ledger;
        match self {
            Script::Open => unreachable!("there is no board yet"),
            Script::Post => {
                post(board, ledger, "a").await;
                post(board, ledger, "b").await;
            }
            Script::ClaimAndConsume => {
                if let Some(claim) = claim(board, ledger).await {
                    consume(claim, ledger).await;
                }
            }
            Script::ClaimAndAbandon => {
                if let Some(claim) = claim(board, ledger).await {
                    let _ = soon(claim.abandon()).await;
                }
                let claim = claim(board, ledger).await.expect("it is back");
                consume(claim, ledger).await;
            }
            Script::ClaimAndTrash => {
                let Some(claim) = claim(board, ledger).await else { return };
                let (name, token) = (claim.job().name().into_owned(), claim.token().get());
                let result = soon(claim.trash()).await;
                ledger.ended(&name, token, &result);
                let trashed = bench.children("/place/.trash").await.len();
                match result.says() {
                    Told::Done => assert_eq!(trashed, 1),
                    Told::NotDone => assert_eq!(trashed, 0),
                    Told::Unknown => {}
                }
            }
            Script::ClaimAndDrop => {
                drop(claim(board, ledger).await.expect("there is one"));
                let claim = claim(board, ledger).await.expect("it is back");
                consume(claim, ledger).await;
            }
            Script::TwoClaims => {
                let (one, two) = tokio::join!(soon(board.claim_next()), soon(board.claim_next()));
                let claims = [one.unwrap(), two.unwrap()];
                for claim in &claims {
                    ledger.claimed(&claim.job().name(), claim.token().get());
                }
                let [one, two] = claims;
                drop(two);
                consume(one, ledger).await;
            }
            Script::Register => {
                let name = "conductor";
                let registered = soon(board.register_entity(name, "me", json!({}))).await;
                let entities = bench.children("/place/.entities/conductor").await;
                if registered.is_ok() {
                    assert_eq!(entities, ["me"]);
                }
                soon(board.close()).await;
            }
        }
    }

    async fn with_all_troubles(self) {
        let (writes, calls) = self.run(Trouble::Nothing).await;
        assert!(writes > 0);
        for trouble in troubles(writes, &calls) {
            self.run(trouble).await;
        }
    }
}

macro_rules! all_troubles {
    ($($test:ident: $script:ident,)+) => {
        $(#[tokio::test(start_paused = true)]
        async fn $test() {
            Script::$script.with_all_troubles().await;
        })+

        #[test]
        fn no_script_is_forgotten() {
            assert_eq!([$(Script::$script),+], Script::ALL);
        }
    };
}

all_troubles!(
    a_board_is_opened_whatever_gets_lost: Open,
    a_post_is_made_once_whatever_gets_lost: Post,
    a_job_is_consumed_once_whatever_gets_lost: ClaimAndConsume,
    a_job_is_abandoned_and_consumed_whatever_gets_lost: ClaimAndAbandon,
    a_job_is_trashed_once_whatever_gets_lost: ClaimAndTrash,
    a_claim_that_is_dropped_comes_back_whatever_gets_lost: ClaimAndDrop,
    two_claims_at_once_are_of_two_jobs_whatever_gets_lost: TwoClaims,
    an_entity_goes_with_its_board_whatever_gets_lost: Register,
);

#[tokio::test(start_paused = true)]
async fn the_patience_of_these_tests_is_longer_than_that_of_a_board() {
    let bench = Bench::new().await;
    assert!(PATIENCE > 5 * bench.store.session_timeout);
    bench.settle_board().await;
}
