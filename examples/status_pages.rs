//! Writes the status page of members in several situations as HTML files into a folder, for `scripts/screenshots`.

use std::{error::Error, path::Path, time::Duration};

use apportion::{Config, Group, PartitionCoordinator, backend::Memory, board::Priority, http::StatusService};
use axum::{body::to_bytes, http::Request};
use tower_service::Service;

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).ok_or("usage: status_pages FOLDER")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;

    let memory = Memory::new();
    let (a, ours) = member(&memory, "evaluator-a.example.org").await?;
    save(&a, folder, "alone").await?;
    // Two of its items do not end.
    let at_work: Vec<_> = ours.extract_my_subset(0..1000).await?.into_iter().take(500).collect();
    let (b, theirs) = member(&memory, "evaluator-b.example.org").await?;
    wait(|| !theirs.status().waiting.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    save(&b, folder, "stuck").await?;
    save(&a, folder, "stuck-at").await?;
    drop(at_work);
    wait(|| theirs.status().waiting.is_empty()).await;

    let (c, _third) = member(&memory, "evaluator-c.example.org").await?;
    wait(|| theirs.status().members == 3 && ours.status().waiting.is_empty()).await;
    let board = a.job_board("/taskflow/jobs").await?;
    for volume in 0..12 {
        board.post(format!("resize-{volume}")).priority(Priority::High).await?;
    }
    board.post("later").delay(Duration::from_secs(3600)).await?;
    let claims = [board.claim_next().await?, board.claim_next().await?];
    let queue = a.queue("/reports").max_len(8).await?;
    for day in 0..9 {
        let _ = queue.put(day).await;
    }
    let delivery = queue.take().await?;
    let _ = queue.put("the last one").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    save(&a, folder, "calm").await?;
    ours.pause().await?;
    wait(|| theirs.status().is_paused).await;
    save(&b, folder, "paused").await?;
    ours.resume().await?;
    drop((claims, delivery));

    let foreign = "<script>alert('ours')</script> & a name that is as long as a name can be without a space in it-0123456789012345678901234567890123456789";
    let (d, _fourth) = member(&memory, &foreign.replace('/', "\u{2215}")).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    save(&d, folder, "foreign").await?;
    memory.suspend(c.session_id().ok_or("no session")?);
    wait(|| c.status().obstacles().len() > 1).await;
    save(&c, folder, "lapsed").await?;

    let fleet = Memory::new();
    let mut members = Vec::new();
    for number in 0..40 {
        members.push(member(&fleet, &format!("poller-{number:02}")).await?);
    }
    wait(|| members[0].1.status().members == 40 && members[0].1.status().waiting.is_empty()).await;
    save(&members[0].0, folder, "many").await
}

async fn member(memory: &Memory, id: &str) -> Result<(PartitionCoordinator, Group), Failure> {
    let config = Config::for_backend(memory.clone()).member_id(id).session_timeout(Duration::from_secs(4));
    let config = config.server_tick(Duration::from_millis(200));
    let coordinator = PartitionCoordinator::connect(config).await?;
    let group = coordinator.join("alarm-evaluator").await?;
    Ok((coordinator, group))
}

async fn wait(until: impl Fn() -> bool) {
    while !until() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn save(coordinator: &PartitionCoordinator, folder: &Path, name: &str) -> Result<(), Failure> {
    let request = Request::get("/status").header("accept", "text/html").body(())?;
    let answer = StatusService::new(coordinator).call(request).await?;
    let page = to_bytes(axum::body::Body::new(answer.into_body()), usize::MAX).await?;
    std::fs::write(folder.join(name).with_extension("html"), page)?;
    println!("{name}");
    Ok(())
}
