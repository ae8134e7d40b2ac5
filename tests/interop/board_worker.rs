//! A worker of a board: this binary, executed again. It does what `job_board.py` does, and takes the same commands.

use std::{collections::HashSet, env, time::Duration};

use apportion::{
    Config, PartitionCoordinator,
    board::{BoardError, Claim, JobBoard},
};
use serde_json::{Value, json};

use crate::{
    member::rust_url,
    support::{
        MS,
        driven::{Driven, commands, say},
    },
};

/// The variable of the environment that has the order: the servers, the path, the name, and the credentials.
const ORDER: &str = "APPORTION_INTEROP_BOARD";

/// Starts the process. It says `{"ready": true}`.
pub(crate) fn start(hosts: &str, path: &str, who: &str, credentials: &str) -> Driven {
    let url = rust_url(&format!("{credentials}@{hosts}"));
    let order = json!({"url": url, "path": path, "who": who});
    Driven::myself("board_worker::a_worker_works_until_its_stdin_ends", ORDER, &order)
}

#[test]
fn a_worker_works_until_its_stdin_ends() {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    workers.block_on(async {
        if let Ok(order) = env::var(ORDER) {
            return run(&serde_json::from_str(&order).unwrap()).await;
        }
        // Without an order: the process can be started, and ends with its stdin.
        let order = json!({"url": "", "path": "", "who": ""});
        let mut process = Driven::myself("board_worker::a_worker_works_until_its_stdin_ends", ORDER, &order);
        assert_eq!(process.says().await, json!({"ready": false}));
    });
}

async fn run(order: &Value) {
    let text = |name: &str| order[name].as_str().unwrap();
    let mut commands = commands();
    if text("url").is_empty() {
        return say(&json!({"ready": false}));
    }
    let config = Config::from_url(text("url")).unwrap().member_id(text("who"));
    let coordinator = PartitionCoordinator::connect(config).await.unwrap();
    let board = coordinator.job_board(text("path")).pauses(Duration::ZERO, Duration::ZERO);
    let board = board.max_attempts(None).await.unwrap();
    say(&json!({"ready": true}));
    let (mut holds, mut works, mut abandoned) = (false, false, HashSet::new());
    loop {
        let claim = tokio::select! {
            biased;
            command = commands.recv() => {
                match command.expect("the process ends with the commands")["do"].as_str().unwrap() {
                    "work" => works = true,
                    "hold" => holds = true,
                    "stop" => break,
                    other => panic!("{other}"),
                }
                continue;
            }
            claim = claim(&board), if works => claim,
        };
        let number = claim.job().details()["number"].as_u64().unwrap();
        if holds {
            say(&json!({"holds": number}));
            std::future::pending::<()>().await;
        }
        // As much as TaskFlow needs for a job, so that both get their part of them.
        tokio::time::sleep(30 * MS).await;
        let (did, outcome) = match claim.job().details()["fate"].as_str().unwrap() {
            "trash" => ("trashed", claim.trash().await),
            "abandon" if abandoned.insert(number) => ("abandoned", claim.abandon().uncounted().await),
            _ => ("consumed", claim.consume().await),
        };
        let why = outcome.err().map(|error| {
            assert!(error.may_be_lost(), "{error}");
            error.to_string()
        });
        say(&json!({"number": number, "did": if why.is_some() { "lost" } else { did }, "why": why}));
    }
    coordinator.shutdown().await.unwrap();
    say(&json!({"stopped": true}));
}

async fn claim(board: &JobBoard) -> Claim {
    loop {
        match board.claim_next().await {
            Ok(claim) => return claim,
            Err(error @ BoardError::Service { .. }) => say(&json!({"error": error.to_string()})),
            Err(error) => panic!("{error}"),
        }
    }
}
