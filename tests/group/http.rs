//! The HTTP service: what it answers, to whom, and that no text of another process becomes markup.

use std::time::Duration;

use apportion::{
    Config, Group, PartitionCoordinator,
    backend::{Connector as _, CreateMode, Memory, Op},
    http::StatusService,
    status::Status,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use tower_service::Service;

use crate::support::{SECOND, soon};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn member(memory: &Memory, id: &str) -> (PartitionCoordinator, Group) {
    let coordinator =
        PartitionCoordinator::connect(Config::for_backend(memory.clone()).member_id(id)).await.unwrap();
    let group = coordinator.join("g").await.unwrap();
    (coordinator, group)
}

/// An answer: its status, its headers as text, and its body.
struct Answer {
    status: StatusCode,
    headers: String,
    body: String,
}

async fn ask(mut app: Router, method: Method, path: &str, accept: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
    let answer = app.call(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: head.status,
        headers: format!("{:?}", head.headers),
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(app: &Router, path: &str, accept: &str) -> Answer {
    ask(app.clone(), Method::GET, path, accept).await
}

fn mounted(coordinator: &PartitionCoordinator) -> Router {
    let status = StatusService::new(coordinator).metrics(|| "apportion_test 1\n".to_owned());
    Router::new().route_service("/healthz", status.clone()).nest_service("/internal", status)
}

/// The text of a page, of all its elements one after another. It fails unless the page is well-formed.
fn text_of(page: &str) -> (String, Vec<String>) {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(page, options)
        .unwrap_or_else(|error| panic!("{error}: {page}"));
    let shown = |node: &roxmltree::Node<'_, '_>| {
        node.is_text() && !node.ancestors().any(|it| it.has_tag_name("style") || it.has_tag_name("title"))
    };
    let texts = document.descendants().filter(shown).filter_map(|node| node.text());
    let names = document.descendants().filter(roxmltree::Node::is_element);
    (texts.collect::<Vec<_>>().join(" "), names.map(|node| node.tag_name().name().to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn health_is_ok_while_the_member_may_act_and_says_why_it_may_not() {
    let memory = Memory::new();
    let (a, _group) = member(&memory, "a").await;
    let app = mounted(&a);
    let healthy = get(&app, "/healthz", "*/*").await;
    assert_eq!((healthy.status, &*healthy.body), (StatusCode::OK, "ok\n"));
    let session = a.session_id().unwrap();
    memory.suspend(session);
    let lapsed = async {
        loop {
            let answer = get(&app, "/internal/healthz", "*/*").await;
            if answer.status != StatusCode::OK && answer.body.lines().count() > 1 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let lapsed = soon(lapsed).await;
    assert_eq!(lapsed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lapsed.body.contains("group g: lapsed\n"), "{}", lapsed.body);
    memory.resume(session);
    let healthy = async {
        while get(&app, "/healthz", "*/*").await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(healthy).await;
    drop((a, _group));
    let closed = get(&app, "/healthz", "*/*").await;
    assert_eq!(
        (closed.status, &*closed.body),
        (StatusCode::SERVICE_UNAVAILABLE, "the coordinator is closed\n")
    );
    assert_eq!(get(&app, "/internal/status", "*/*").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn the_status_is_json_for_programs_and_a_page_for_browsers() {
    let memory = Memory::new();
    let (a, _ours) = member(&memory, "a").await;
    let (b, _theirs) = member(&memory, "b").await;
    let board = a.job_board("/jobs").await.unwrap();
    board.post("resize").await.unwrap();
    let queue = a.queue("/entries").max_len(1).await.unwrap();
    queue.put(1).await.unwrap();
    assert_eq!(queue.entries().await.unwrap().len(), 1);
    tokio::time::sleep(5 * SECOND).await;
    let app = mounted(&a);
    let json = get(&app, "/internal/status", "*/*").await;
    assert!(
        json.headers.contains("application/json") && json.headers.contains("\"vary\": \"accept\""),
        "{}",
        json.headers
    );
    let status: Status = serde_json::from_str(&json.body).unwrap();
    assert_eq!((status.member.as_str(), status.groups[0].parts.len()), ("a", 2));
    let page = get(&app, "/internal/status/", BROWSER).await;
    assert!(
        page.headers.contains("text/html") && page.headers.contains("default-src 'none'"),
        "{}",
        page.headers
    );
    let (text, _) = text_of(&page.body);
    for expected in
        ["may act", "Group g", "this process", "/jobs", "/entries", "connected", "owns", "full", "limit"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let digest = format!("{:016x}", status.groups[0].status.digest);
    assert!(text.contains(&digest) && text.contains(&status.groups[0].status.epoch.to_string()), "{text}");
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_process_is_text_whatever_it_contains() {
    let memory = Memory::new();
    let (a, _ours) = member(&memory, "a").await;
    let foreign = "<script>alert(1)</script>\" onmouseover='x' &amp;";
    let (_b, _theirs) = member(&memory, foreign.replace('/', "\u{2215}").as_str()).await;
    let _board = a.job_board("/<b>jobs").await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let page = get(&mounted(&a), "/internal/status", BROWSER).await;
    let (text, elements) = text_of(&page.body);
    assert!(text.contains(&foreign.replace('/', "\u{2215}")) && text.contains("/<b>jobs"), "{text}");
    assert!(!elements.iter().any(|name| name == "script" || name == "b"), "{elements:?}");
    assert!(!page.body.contains("<script") && !page.body.contains("onmouseover='x'"), "{}", page.body);
}

#[tokio::test(start_paused = true)]
async fn the_page_says_for_whom_keys_wait_and_that_a_group_is_paused() {
    let memory = Memory::new();
    let (_a, ours) = member(&memory, "a").await;
    let at_work: Vec<_> = ours.extract_my_subset(0..100).await.unwrap().into_iter().collect();
    let (b, theirs) = member(&memory, "b").await;
    let app = mounted(&b);
    let waiting = async {
        loop {
            let (text, _) = text_of(&get(&app, "/internal/status", BROWSER).await.body);
            if text.contains("it still works on some of them") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let text = soon(waiting).await;
    assert!(text.contains("What this member waits for") && text.contains("apportion status"), "{text}");
    drop(at_work);
    theirs.pause().await.unwrap();
    let (text, _) = text_of(&get(&app, "/internal/status", BROWSER).await.body);
    assert!(text.contains("paused"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn other_paths_and_methods_are_refused_and_metrics_are_those_of_the_caller() {
    let (a, _group) = member(&Memory::new(), "a").await;
    let app = mounted(&a);
    let metrics = get(&app, "/internal/metrics", "*/*").await;
    assert_eq!((metrics.status, &*metrics.body), (StatusCode::OK, "apportion_test 1\n"));
    assert!(metrics.headers.contains("version=0.0.4"), "{}", metrics.headers);
    for path in ["/internal", "/internal/", "/internal/other", "/internal/healthz/x"] {
        assert_eq!(get(&app, path, "*/*").await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let posted = ask(app.clone(), Method::POST, "/healthz", "*/*").await;
    assert!(posted.status == StatusCode::METHOD_NOT_ALLOWED && posted.headers.contains("GET, HEAD"));
    let head = ask(app, Method::HEAD, "/internal/status", "*/*").await;
    assert_eq!((head.status, &*head.body), (StatusCode::OK, ""));
    let without = Router::new().nest_service("/internal", StatusService::new(&a));
    assert_eq!(get(&without, "/internal/metrics", "*/*").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_has_the_length_of_the_body_that_get_has() {
    let (a, _group) = member(&Memory::new(), "a").await;
    let mut status = StatusService::new(&a).metrics(|| "apportion_test 1\n".to_owned());
    for path in ["/healthz", "/metrics", "/other"] {
        let mut ask = |method| status.call(Request::builder().method(method).uri(path).body(()).unwrap());
        let (get, head) = (ask(Method::GET).await.unwrap(), ask(Method::HEAD).await.unwrap());
        let body = to_bytes(Body::new(get.into_body()), usize::MAX).await.unwrap();
        assert!(!body.is_empty());
        assert_eq!(head.headers()[header::CONTENT_LENGTH], body.len().to_string(), "{path}");
        assert!(to_bytes(Body::new(head.into_body()), usize::MAX).await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "it measures what a request costs the runtime")]
async fn a_request_for_the_health_does_not_compute_what_each_member_of_a_large_group_owns() {
    let memory = Memory::new();
    let a = PartitionCoordinator::connect(Config::for_backend(memory.clone())).await.unwrap();
    let group = a.join("g").immediate().await.unwrap();
    let others = memory.open(10 * SECOND).await.unwrap();
    let namespace = Config::default().namespace_path().unwrap();
    let join = |number: usize| {
        let at = namespace.join("g").unwrap().join(&format!("python-{number}")).unwrap();
        Op::create(&at, "\u{c0}", CreateMode::Ephemeral)
    };
    others.commit((0..1000).map(join).collect()).await.unwrap();
    let all = async {
        while group.view().members().len() < 1001 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(all).await;
    let app = mounted(&a);
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (path, shortest) in ["/healthz", "/internal/status"].into_iter().zip(&mut shortest) {
            let began = std::time::Instant::now();
            assert_eq!(get(&app, path, "*/*").await.status, StatusCode::OK, "{path}");
            *shortest = began.elapsed().min(*shortest);
        }
    }
    let [health, status] = shortest;
    println!("healthz: {health:?}, status: {status:?}");
    assert!(10 * health < status, "healthz takes {health:?}, the whole status {status:?}");
}
