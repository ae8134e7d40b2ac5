//! The tracing spans of claims, deliveries, requests and handovers, with ids as fields.

use std::time::Duration;

use apportion::{
    Config, Executor, PartitionCoordinator, Worker,
    backend::Memory,
    worker::{LocalBroker, Request},
};
use tracing::{Instrument as _, Span, info_span};

use crate::support::{events::Spans, soon};

async fn member(memory: &Memory, id: &str) -> PartitionCoordinator {
    PartitionCoordinator::connect(Config::for_backend(memory.clone()).member_id(id)).await.unwrap()
}

fn current() -> &'static str {
    Span::current().metadata().map_or("none", |span| span.name())
}

#[tokio::test(start_paused = true)]
async fn a_claim_and_a_delivery_have_spans_below_the_caller_and_their_work_runs_in_them() {
    let spans = Spans::record();
    let a = member(&Memory::new(), "a").await;
    let board = a.job_board("/jobs").await.unwrap();
    let job = board.post("resize").await.unwrap();
    let claim = board.claim_next().instrument(info_span!("caller")).await.unwrap();
    let [span] = &spans.of("claim")[..] else { panic!("{:?}", spans.of("claim")) };
    let uuid = job.uuid().unwrap();
    let expected = format!(
        "caller: board=/jobs job=\"job0000000000\" name=\"resize\" uuid={uuid} attempt=1 token={} ",
        claim.token()
    );
    assert_eq!(*span, expected);
    let seen = claim.lease().while_held(async { current() }).await.unwrap();
    assert_eq!((seen, current()), ("claim", "none"));
    claim.consume().await.unwrap();
    let queue = a.queue("/entries").await.unwrap();
    let id = queue.put(7).label("taxi").await.unwrap();
    let delivery = queue.take().instrument(info_span!("caller")).await.unwrap();
    let [span] = &spans.of("delivery")[..] else { panic!("{:?}", spans.of("delivery")) };
    assert!(span.starts_with("caller: queue=/entries entry=entry-100-taxi-0000000000 id="), "{span}");
    let number = id.to_string();
    assert!(
        span.contains("attempt=1") && number.contains(span.split('"').nth(1).unwrap()),
        "{span} {number}"
    );
    assert_eq!(delivery.lease().while_held(async { current() }).await, Ok("delivery"));
    delivery.done("well").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_has_a_span_at_its_executor_and_one_with_the_same_id_at_its_worker() {
    let spans = Spans::record();
    let broker = LocalBroker::new();
    let task = async |_, _| Ok::<_, std::io::Error>(current());
    let _worker = Worker::builder(broker.clone()).topic("images").task("where", task).await.unwrap();
    let executor = Executor::builder(broker).topics(["images"]).await.unwrap();
    let submitted = info_span!("caller").in_scope(|| executor.submit(Request::execute("where")));
    let id = submitted.id().to_owned();
    assert_eq!(submitted.span().metadata().unwrap().name(), "request");
    assert_eq!(soon(submitted).await.unwrap().get::<String>().unwrap(), "request");
    let [sent, run] = &spans.of("request")[..] else { panic!("{:?}", spans.of("request")) };
    assert_eq!(*sent, format!("caller: id=\"{id}\" task=\"where\" "));
    assert!(
        run.starts_with(&format!("none: id=\"{id}\" task=\"where\" topic=\"images\" executor=")),
        "{run}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_that_waits_for_another_one_has_a_span_of_the_handover() {
    let spans = Spans::record();
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let group = a.join("g").await.unwrap();
    let at_work: Vec<_> = group.extract_my_subset(0..100).await.unwrap().into_iter().collect();
    let theirs = b.join("g").await.unwrap();
    let waits = async |is: bool| {
        while theirs.status().waiting.is_empty() == is {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(waits(true)).await;
    drop(at_work);
    soon(waits(false)).await;
    let of_b: Vec<_> = spans.of("handover").into_iter().filter(|span| span.contains("member=b")).collect();
    let [span] = &of_b[..] else { panic!("{of_b:?}") };
    assert_eq!(*span, format!("none: group=g member=b epoch={} ", theirs.view().epoch()));
}
