//! Faults at each write of each operation of a board: its reply is lost, or the session ends before or after it, or the
//! connection breaks. And at each read: the session ends before the reply.

use apportion::{
    PartitionCoordinator,
    board::{BoardError, Claim, JobBoard},
};
use serde_json::json;

use crate::{
    ledger::{HasOutcome, Ledger, Outcome},
    setup::{AtOnce as _, Context, Counts, Setup, TIMEOUT, Trouble, all_troubles, post, troubles},
    support::{SECOND, soon},
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

/// Claims a job; `None` if there is none, because the post has failed.
async fn claim(board: &JobBoard, ledger: &Ledger) -> Option<Claim> {
    let claim = tokio::time::timeout(30 * SECOND, board.claim_next()).await.ok()?;
    let claim = claim.expect("it waits while errors may pass");
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
        match soon(whose.job_board("/place/jb").at_once()).await {
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

    /// Runs it with one trouble.
    async fn run(self, trouble: Trouble) -> Counts {
        let _context = Context((self, trouble));
        let setup = Setup::new().await;
        let Setup { ledger, .. } = &setup;
        let board = match self {
            Script::Open => None,
            _ => {
                let theirs = setup.board_of(&setup.other).await;
                if !matches!(self, Script::Post | Script::Register) {
                    post(&theirs, ledger, "a").await;
                }
                if self == Script::TwoClaims {
                    post(&theirs, ledger, "b").await;
                }
                Some(setup.board_of(&setup.victim).await)
            }
        };
        let work = async {
            match board {
                None => post(&open(&setup.victim).await, ledger, "a").await,
                Some(board) => self.act(&board, &setup).await,
            }
        };
        let counts = setup.in_trouble(trouble, work).await;
        setup.finish_board().await;
        counts
    }

    async fn act(self, board: &JobBoard, setup: &Setup) {
        let ledger = &setup.ledger;
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
                let trashed = setup.children("/place/.trash").await.len();
                match result.outcome() {
                    Outcome::Done => assert_eq!(trashed, 1),
                    Outcome::NotDone => assert_eq!(trashed, 0),
                    Outcome::Unknown => {}
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
                let entities = setup.children("/place/.entities/conductor").await;
                if registered.is_ok() {
                    assert_eq!(entities, ["me"]);
                }
                soon(board.close()).await;
            }
        }
    }

    async fn with_all_troubles(self) {
        let counts = self.run(Trouble::Nothing).await;
        assert!(counts.writes > 0);
        for trouble in troubles(counts) {
            self.run(trouble).await;
        }
    }
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
async fn the_timeout_of_these_tests_is_longer_than_that_of_a_board() {
    let setup = Setup::new().await;
    assert!(TIMEOUT > 5 * setup.store.session_timeout);
    setup.finish_board().await;
}
