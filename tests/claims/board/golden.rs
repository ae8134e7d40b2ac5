//! Against what the Python original was recorded doing, `tests/golden/jobboard.json`: the tree after each step, which
//! foreign postings are read, and how.

use std::collections::{BTreeMap, HashMap};

use apportion::board::{BoardError, Job, Posting, Priority};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::support::{
    fleet::on_both_backends,
    golden::{golden, hex, text},
    path,
};

fn uuid(value: &Value) -> Uuid {
    text(value).parse().unwrap()
}

fn tree(step: &Value) -> BTreeMap<String, (String, bool)> {
    let znodes = step["tree"].as_array().unwrap().iter();
    znodes
        .map(|it| {
            (text(&it["path"]).to_owned(), (text(&it["data"]).to_owned(), it["ephemeral"].as_bool().unwrap()))
        })
        .collect()
}

/// The agents of the recording, each with its board and what it holds.
struct Actors<'a> {
    store: &'a Store,
    path: &'a str,
    boards: HashMap<String, (Agent, JobBoard)>,
    claims: HashMap<(String, String), Claim>,
}

impl Actors<'_> {
    async fn board(&mut self, who: &str) -> JobBoard {
        if !self.boards.contains_key(who) {
            let agent = self.store.agent(who).await;
            let board = agent.coordinator.job_board(self.path).at_once().await.unwrap();
            self.boards.insert(who.to_owned(), (agent, board));
        }
        self.boards[who].1.clone()
    }

    async fn job(&mut self, who: &str, path: &Value) -> Option<Job> {
        let board = self.board(who).await;
        let jobs = board.jobs().ensure_fresh().await.unwrap();
        jobs.into_iter().find(|job| job.path().as_str() == text(path))
    }
}

async fn the_tree_after_each_step_is_that_of_the_original(store: Store) {
    let golden = golden("jobboard.json");
    let board_path = text(&golden["path"]).to_owned();
    let root = path(&board_path).parent().unwrap();
    let observer = store.session().await;
    let mut actors =
        Actors { store: &store, path: &board_path, boards: HashMap::new(), claims: HashMap::new() };
    for (number, step) in golden["steps"].as_array().unwrap().iter().enumerate() {
        let (op, args, result) = (text(&step["op"]), &step["args"], &step["result"]);
        let who = args["who"].as_str().unwrap_or("poster").to_owned();
        let at = || format!("step {number}: {op} {args}");
        let held = (who.clone(), args["job"].as_str().unwrap_or_default().to_owned());
        match op {
            "post" => {
                let mut post = actors.board(&who).await.post(text(&args["name"])).uuid(uuid(&result["uuid"]));
                if let Some(details) = args.get("details") {
                    post = post.details(details.clone());
                }
                if let Some(priority) = args.get("priority") {
                    post = post.priority(text(priority).parse().unwrap());
                }
                if let Some(book) = args.get("book").filter(|book| !book.is_null()) {
                    post = post.book(text(&book["name"]), uuid(&book["uuid"]));
                }
                let job = post.await.unwrap();
                assert_eq!(job.path().as_str(), text(&result["path"]), "{}", at());
            }
            "claim" => {
                let job = actors.job(&who, &args["job"]).await.expect("the job is there");
                let claimed = actors.board(&who).await.claim(&job).await;
                match claimed {
                    Ok(claim) => {
                        assert_eq!(result, "ok", "{}", at());
                        actors.claims.insert(held, claim);
                    }
                    Err(BoardError::Unclaimable { owner, .. }) => {
                        assert_eq!(result["raises"], "UnclaimableJob", "{}", at());
                        let holder =
                            actors.claims.keys().find(|(_, job)| *job == held.1).map(|(who, _)| who.clone());
                        assert_eq!(owner, holder, "unlike the original this says who has it");
                    }
                    Err(error) => panic!("{}: {error}", at()),
                }
            }
            "consume" | "abandon" | "trash" => match actors.claims.remove(&held) {
                // The original takes the name of the owner; here only the holder of a claim can make this call.
                None => assert!(["NotFound", "JobFailure"].contains(&text(&result["raises"])), "{}", at()),
                Some(claim) => {
                    let finished = match op {
                        "consume" => claim.consume().await,
                        "abandon" => claim.abandon().await,
                        _ => claim.trash().await,
                    };
                    assert_eq!(
                        (finished.is_ok(), result),
                        (true, &Value::from("ok")),
                        "{}: {finished:?}",
                        at()
                    );
                }
            },
            "register_entity" => {
                let board = actors.board(&who).await;
                let (kind, name) = (text(&args["kind"]), text(&args["name"]));
                board.register_entity(kind, name, args["metadata"].clone()).await.unwrap();
            }
            other => panic!("no step is known as {other}"),
        }
        assert_eq!(dump(&*observer, &root).await, tree(step), "{}", at());
    }
    drop(actors);
    let receipts = root.join(".posting").unwrap();
    let gone = || async { children(&*observer, &receipts).await.is_empty().then_some(()) };
    eventually("no receipts", TIMEOUT, gone).await;
}

async fn foreign_postings_are_read_as_the_original_reads_them_and_others_are_set_aside(store: Store) {
    let golden = golden("jobboard.json");
    let observer = store.session().await;
    let (_agent, board) = worker(&store, "reader").await;
    let mut accepted = Vec::new();
    let mut kept = Vec::new();
    for (number, foreign) in golden["foreign_jobs"].as_array().unwrap().iter().enumerate() {
        let data = hex(&foreign["data_hex"]);
        let job = board.path().join(&format!("job{number:010}")).unwrap();
        create(&*observer, &job, data.clone()).await;
        if foreign["accepted"].as_bool().unwrap() {
            accepted.push((job, foreign));
        } else {
            kept.push(job);
        }
    }
    let jobs = board.jobs().ensure_fresh().await.unwrap();
    assert_eq!(jobs.len(), accepted.len());
    for (path, foreign) in &accepted {
        let job =
            jobs.iter().find(|job| job.path() == path).unwrap_or_else(|| panic!("{foreign} was not read"));
        let posting = job.posting();
        let written: Value = serde_json::from_slice(&hex(&foreign["data_hex"])).unwrap();
        // The original draws a new one at each reading if what is written is empty.
        if written["uuid"] == serde_json::json!([]) {
            assert_eq!(posting.uuid(), &Value::Null);
        } else {
            assert_eq!(posting.uuid(), &foreign["uuid"]);
        }
        let name = foreign["name"].as_str().map_or_else(|| foreign["name"].to_string(), str::to_owned);
        assert_eq!(posting.name(), name);
        assert_eq!(posting.priority().to_string(), text(&foreign["priority"]));
        assert_eq!(posting.details(), &foreign["details"]);
        // The original fails on an invalid book; here there is no book.
        for (key, expected) in [("uuid", &foreign["book_uuid"]), ("name", &foreign["book_name"])] {
            let found = posting.book().and_then(|book| book.get(key)).cloned().unwrap_or(Value::Null);
            let expected = if expected.get("raises").is_some() { &Value::Null } else { expected };
            assert_eq!(&found, expected, "{foreign}");
        }
    }
    let set_aside: Vec<_> = board.set_aside().into_iter().map(|it| it.path).collect();
    assert_eq!(set_aside, kept);
    let before = dump(&*observer, board.path()).await;
    let mut claims = Vec::new();
    while let Some(claim) = board.try_claim_next().await.unwrap() {
        claims.push(claim);
    }
    assert_eq!(claims.len(), accepted.len());
    for claim in claims {
        claim.abandon().await.unwrap();
    }
    assert_eq!(dump(&*observer, board.path()).await, before, "to the byte");
}

async fn jobs_come_in_the_order_that_the_original_documents(store: Store) {
    for (number, case) in golden("jobboard.json")["order"].as_array().unwrap().iter().enumerate() {
        let agent = store.agent("worker").await;
        let board = agent
            .coordinator
            .job_board(format!("/order-{}-{number}/jb", store.namespace))
            .at_once()
            .await
            .unwrap();
        let priorities: Vec<Priority> = case["priorities_in_post_order"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| text(it).parse().unwrap())
            .collect();
        for (number, priority) in priorities.iter().enumerate() {
            board.post(number.to_string()).priority(*priority).await.unwrap();
        }
        let mut expected: Vec<usize> = (0..priorities.len()).collect();
        expected.sort_by_key(|number| std::cmp::Reverse(priorities[*number]));
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(names(&board).await, expected);
        let real = case["iterjobs_order_real"].as_array().unwrap().iter().map(ToString::to_string);
        assert_ne!(expected, real.collect::<Vec<_>>(), "the original starts with the lowest");
        for name in expected {
            let claim = board.try_claim_next().await.unwrap().unwrap();
            assert_eq!(claim.job().name(), name);
            claim.consume().await.unwrap();
        }
        agent.coordinator.shutdown().await.unwrap();
    }
}

#[test]
fn lists_by_priority_agree_with_the_originals_own_sorting() {
    for case in golden("jobboard.json")["reorder"].as_array().unwrap() {
        let pairs = case["in"].as_array().unwrap();
        let mut pairs: Vec<(Priority, u64)> =
            pairs.iter().map(|it| (text(&it[0]).parse().unwrap(), it[1].as_u64().unwrap())).collect();
        pairs.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let sorted: Vec<u64> = pairs.into_iter().map(|(_, number)| number).collect();
        assert_eq!(Value::from(sorted), case["JobPriority.reorder"], "{case}");
    }
}

#[test]
fn what_the_original_wrote_is_written_back_to_the_byte() {
    let mut count = 0;
    for step in golden("jobboard.json")["steps"].as_array().unwrap() {
        for (path, (data, _)) in tree(step) {
            let name = path.rsplit('/').next().unwrap();
            if name.starts_with("job0") && !name.ends_with(".lock") {
                let posting = Posting::decode(data.as_bytes()).unwrap();
                assert_eq!(String::from_utf8(posting.encode()).unwrap(), data);
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count}");
}

on_both_backends!(
    the_tree_after_each_step_is_that_of_the_original,
    foreign_postings_are_read_as_the_original_reads_them_and_others_are_set_aside,
    jobs_come_in_the_order_that_the_original_documents,
);
