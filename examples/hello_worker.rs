//! An executor sends requests to two workers, and gets their results. One of the requests fails.
//!
//! It runs within the process. With the feature `amqp` and a broker: give both `Amqp::new("amqp://rabbit")`.

use std::{error::Error, time::Duration};

use apportion::worker::{Arguments, Context, Executor, LocalBroker, Request, RequestError, Worker};

type Failure = Box<dyn Error + Send + Sync>;

async fn resize(context: Context, arguments: Arguments) -> Result<String, Failure> {
    let width: u32 = arguments.get("width")?;
    for part in 1..=4 {
        tokio::time::sleep(Duration::from_millis(20)).await; // the work
        context.update_progress(f64::from(part) / 4.0).await;
    }
    if width > 1000 { Err("too wide".into()) } else { Ok(format!("thumbnail-{width}.png")) }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = LocalBroker::new();
    // A service has them in processes of their own.
    let mut workers = Vec::new();
    for topic in ["host-1", "host-2"] {
        let worker = Worker::builder(broker.clone()).topic(topic).task("resize", resize).concurrency(4);
        workers.push(worker.await?);
    }
    let executor = Executor::builder(broker).topics(["host-1", "host-2"]).await?;

    let widths = [100, 200, 400, 5000];
    let submitted = widths.map(|width| executor.submit(Request::execute("resize").argument("width", width)));
    let mut progress = submitted[0].progress();
    let mut failed = 0;
    for (width, request) in widths.into_iter().zip(submitted) {
        match request.await {
            Ok(outcome) => println!("{width}: {}", outcome.get::<String>()?),
            Err(RequestError::Failed(failure)) => {
                println!("{width}: {failure}");
                failed += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(event) = progress.next().await {
        println!("the first one was done to {:.0} %", 100.0 * event.as_progress().unwrap_or_default());
    }
    executor.shutdown().await;
    for worker in workers {
        worker.shutdown(Duration::from_secs(30)).await;
    }
    if failed == 1 { Ok(()) } else { Err(format!("{failed} requests have failed").into()) }
}
