use std::sync::{Arc, Mutex};

use apportion::{
    Config,
    backend::{BoxFuture, Connector as _, CreateMode, Memory, Op, Session},
    testing::{Call, Hook, Intercept, Outcome, Request},
};

use super::*;

/// Another process, which writes once after this folder was listed for the first time.
struct Meanwhile {
    folder: ZnodePath,
    other: Arc<dyn Session>,
    writes: Mutex<Option<Vec<Op>>>,
}

impl Hook for Meanwhile {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        let is_listing = *call.request() == Request::Children(&self.folder);
        Box::pin(async move {
            let outcome = call.send().await;
            let writes = self.writes.lock().unwrap().take_if(|_| is_listing);
            if let Some(writes) = writes {
                self.other.commit(writes).await.unwrap();
            }
            outcome
        })
    }
}

fn path(text: &str) -> ZnodePath {
    ZnodePath::parse(text).unwrap()
}

fn create(at: &str, data: &str) -> Op {
    Op::create(&path(at), data, CreateMode::Persistent)
}

/// A store with these znodes, in which another process does `writes` once `folder` was listed.
async fn store(znodes: Vec<Op>, folder: &str, writes: Vec<Op>) -> Store {
    let memory = Memory::new();
    let timeout = std::time::Duration::from_secs(10);
    let other = memory.open(timeout).await.unwrap();
    other.commit(znodes).await.unwrap();
    let hook = Meanwhile { folder: path(folder), other, writes: Mutex::new(Some(writes)) };
    let session = Intercept::new(Arc::new(memory.clone()), Arc::new(hook)).open(timeout).await.unwrap();
    Store { config: Config::for_backend(memory), namespace: path("/ns"), session }
}

fn problems(found: &[Finding]) -> Vec<&str> {
    found.iter().filter(|it| it.is_problem).map(|it| it.code).collect()
}

#[tokio::test]
async fn the_lock_of_a_job_that_is_posted_or_done_meanwhile_is_no_leftover() {
    let place = Place::parse("/tf/jobs").unwrap();
    let posting = r#"{"uuid": "u", "name": "n", "details": {}}"#;
    let (job, lock) = ("/tf/jobs/job0000000001", "/tf/jobs/job0000000001.lock");
    let board = || vec![create("/tf", ""), create("/tf/jobs", "")];
    let claimed = || vec![create(job, posting), Op::create(&path(lock), "{}", CreateMode::Ephemeral)];
    let posted = store(board(), "/tf/jobs", claimed()).await;
    assert_eq!(problems(&super::board(&posted, &place, 10).await.found), [""; 0], "posted and claimed");
    let done = vec![Op::delete(&path(lock), None), Op::delete(&path(job), None)];
    let ended = store([board(), claimed()].concat(), "/tf/jobs", done).await;
    assert_eq!(problems(&super::board(&ended, &place, 10).await.found), [""; 0], "done");
    let orphan = || vec![Op::create(&path(lock), "{}", CreateMode::Ephemeral)];
    let gone = store([board(), orphan()].concat(), "/tf/jobs", vec![Op::delete(&path(lock), None)]).await;
    assert_eq!(problems(&super::board(&gone, &place, 10).await.found), [""; 0], "its session has ended");
    let left = store([board(), orphan()].concat(), "/none", Vec::new()).await;
    assert_eq!(problems(&super::board(&left, &place, 10).await.found), ["orphan_lock"]);
}

/// The in-memory store dates its znodes by the clock of tokio.
#[tokio::test(start_paused = true)]
async fn the_oldest_entry_is_the_one_with_the_lowest_number_that_may_be_taken() {
    let folders = Folders::parse("/q").unwrap();
    let below = ["/q", "/q/unowned", "/q/owned", "/q/claims"];
    let empty = store(below.map(|at| create(at, "")).to_vec(), "/none", Vec::new()).await;
    let put = async |name: &str, data: &str| {
        let at = format!("/q/unowned/entry-{name}");
        empty.session.commit(vec![create(&at, data)]).await.unwrap();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        empty.get(&path(&at)).await.unwrap().unwrap().1.created_ms
    };
    let names = async || empty.children(&folders.unowned).await.unwrap().unwrap().0;
    assert_eq!(super::oldest_entry(&empty, &folders, &names().await).await.unwrap(), None);
    put("100--0000000006", r#"{"not_before": 4102444800000}"#).await;
    assert_eq!(
        super::oldest_entry(&empty, &folders, &names().await).await.unwrap(),
        None,
        "for the year 2100"
    );
    let (first, second) = (put("100--0000000007", "{}").await, put("900--0000000008", "{}").await);
    let last = put("100---2147483648", "{}").await;
    assert!(first < second && second < last, "{first} {second} {last}");
    let listed = names().await;
    assert_eq!(super::oldest_entry(&empty, &folders, &listed).await.unwrap(), Some(first));
    empty.session.commit(vec![Op::delete(&path("/q/unowned/entry-100--0000000007"), None)]).await.unwrap();
    assert_eq!(super::oldest_entry(&empty, &folders, &listed).await.unwrap(), Some(second), "taken since");
}

#[tokio::test]
async fn the_worker_of_an_entry_that_is_taken_or_done_meanwhile_is_not_gone() {
    let folders = Folders::parse("/q").unwrap();
    let queue = || {
        let below = ["/q", "/q/unowned", "/q/owned", "/q/claims"];
        below.map(|at| create(at, "")).to_vec()
    };
    let entry = "/q/owned/entry-100--0000000000";
    let taken = || create(entry, r#"{"worker": "w", "claim": "c"}"#);
    let claim = || create("/q/claims/c", "");
    let busy = store([queue(), vec![claim(), taken()]].concat(), "/none", Vec::new()).await;
    assert_eq!(problems(&super::queue(&busy, &folders, 10).await.found), [""; 0]);
    let finished = vec![Op::delete(&path(entry), None), Op::delete(&path("/q/claims/c"), None)];
    let done = store([queue(), vec![claim(), taken()]].concat(), "/q/owned", finished).await;
    assert_eq!(problems(&super::queue(&done, &folders, 10).await.found), [""; 0]);
    let gone = store([queue(), vec![taken()]].concat(), "/none", Vec::new()).await;
    assert_eq!(problems(&super::queue(&gone, &folders, 10).await.found), ["worker_gone"]);
}
