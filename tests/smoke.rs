use std::time::Duration;
use apportion::{Config, PartitionCoordinator, backend::Memory};

#[tokio::test(start_paused = true)]
async fn smoke() {
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init();
    let ensemble = Memory::new();
    let a = PartitionCoordinator::connect(Config::for_backend(ensemble.clone()).member_id("a")).await.unwrap();
    let ga = a.join("g").await.unwrap();
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    let mine = ga.extract_my_subset(keys.clone()).await.unwrap();
    assert_eq!(mine.len(), 100);
    let b = PartitionCoordinator::connect(Config::for_backend(ensemble.clone()).member_id("b")).await.unwrap();
    let gb = b.join("g").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ma = ga.extract_my_subset(keys.clone()).await.unwrap();
    let mb = gb.extract_my_subset(keys.clone()).await.unwrap();
    println!("{ma:?}\n{} {}", ma.len(), mb.len());
    assert_eq!(ma.len() + mb.len(), 100);
    ensemble.suspend(b.session_id().unwrap());
    drop(b);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(ga.extract_my_subset(keys.clone()).await.unwrap().len(), 100);
    ensemble.expire(a.session_id().unwrap());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(ga.extract_my_subset(keys.clone()).await.unwrap().len(), 100);
    a.shutdown().await.unwrap();
    println!("{:?} {:?}", ga, a);
}
