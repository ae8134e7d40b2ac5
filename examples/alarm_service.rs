//! Processes of this service share the alarms of a CSV file. `docs/service.md` explains it. To start one of them:
//! `cargo run --all-features --example alarm_service -- zookeeper://localhost:2181 127.0.0.1:8080 alarms.csv`

use std::{error::Error, time::Duration};

use apportion::{Group, PartitionCoordinator, http::StatusService};
use axum::Router;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, signal};

#[derive(serde::Deserialize)]
struct Alarm {
    id: String,
    threshold: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: alarm_service URL ADDRESS FILE");
    let (url, address, file) = (next()?, next()?, next()?);
    let metrics = PrometheusBuilder::new().set_buckets(&[0.01, 0.1, 1.0, 10.0])?.install_recorder()?;
    let upkeep = metrics.clone();
    let coordinator = PartitionCoordinator::start(&*url)?; // it starts also while ZooKeeper is down
    let group = coordinator.join("alarm-service").await?;
    let status = StatusService::new(&coordinator).metrics(move || metrics.render());
    let server = axum::serve(TcpListener::bind(address).await?, Router::new().fallback_service(status));
    let mut stop = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = server.with_graceful_shutdown(coordinator.closed()) => ended.map_err(Into::into),
        ended = evaluate_all(&group, &file, &upkeep) => ended,
        _ = stop.recv() => Ok(()),
        asked = signal::ctrl_c() => asked.map_err(Into::into),
    };
    coordinator.shutdown().await?; // the others take over at once, not a session timeout later
    ended
}

async fn evaluate_all(group: &Group, file: &str, metrics: &PrometheusHandle) -> Result<(), Box<dyn Error>> {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        metrics.run_upkeep();
        let alarms: Vec<Alarm> = csv::Reader::from_path(file)?.deserialize().collect::<Result<_, _>>()?;
        let mine = match group.extract_my_subset_by(alarms, |alarm| alarm.id.clone()).await {
            Err(error) if error.is_transient() => continue,
            mine => mine?, // empty while this member may not act
        };
        metrics::gauge!("alarm_service_alarms").set(mine.len() as f64);
        for alarm in mine {
            let _ = alarm.while_held(evaluate(&alarm)).await; // dropped when another process may have it
        }
    }
}

async fn evaluate(alarm: &Alarm) {
    tracing::debug!(alarm = alarm.id, is_raised = alarm.threshold > 0.5, "evaluated");
}
