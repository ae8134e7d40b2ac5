//! The example `alarm_service`, which is the code of the guide "from zero to a service": three processes on a real server.

use std::{fs, path::Path};

use apportion::status::Status;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    example::{Processes, TIMEOUT, url},
    free_port, shared_server, until,
};

const ALARMS: usize = 1000;

/// What a process answers to a GET; nothing while it is not there.
async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The value of a metric, by its name and labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// How many alarms these processes have, as each of them knows its members and has evaluated its part.
async fn shared_by(addresses: &[&str]) -> Option<usize> {
    let mut sum = 0;
    for address in addresses {
        let metrics = get(address, "/metrics").await?;
        let members = value(&metrics, "apportion_group_members{group=\"alarm-service\"}")?;
        let connected = value(&metrics, "apportion_session_state{state=\"connected\"}")?;
        if members as usize != addresses.len() || connected != 1.0 {
            return None;
        }
        let alarms = value(&metrics, "alarm_service_alarms")? as usize;
        sum += (alarms > 0).then_some(alarms)?;
    }
    Some(sum)
}

fn write_alarms(file: &Path) {
    let rows = (0..ALARMS).map(|number| format!("alarm-{number},0.{number}\n"));
    fs::write(file, format!("id,threshold\n{}", rows.collect::<String>())).expect("it can be written");
}

#[tokio::test]
async fn three_processes_of_the_guide_share_a_thousand_alarms_through_a_crash_and_a_stop() {
    let server = shared_server().await;
    let mut processes = Processes::new();
    let file = processes.folder().join("alarms.csv");
    write_alarms(&file);
    let url = format!("{}&namespace=service-{}", url(&server.connect_string()), std::process::id());
    let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    for (id, address) in ["a", "b", "c"].iter().zip(&addresses) {
        let url = format!("{url}&member_id={id}");
        processes.start(id, "alarm_service", &[&url, address, file.to_str().expect("it is text")]);
    }
    let [a, b, c] = addresses.each_ref().map(String::as_str);
    let has_all = async |of: &[&str]| {
        let all = async {
            while shared_by(of).await != Some(ALARMS) {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let shared = tokio::time::timeout(TIMEOUT, all).await;
        assert!(shared.is_ok(), "{:?}\n{}", shared_by(of).await, processes.report());
    };
    has_all(&[a, b, c]).await;
    let health = get(a, "/healthz").await.expect("it answers");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("\r\n\r\nok\n"), "{health}");
    let status = get(b, "/status").await.expect("it answers");
    let (_, body) = status.split_once("\r\n\r\n").expect("it has a body");
    let status: Status = serde_json::from_str(body).expect("it is JSON");
    assert_eq!((status.member.as_str(), status.groups[0].parts.len()), ("b", 3));

    processes["c"].signal("KILL");
    has_all(&[a, b]).await;
    processes["b"].signal("TERM");
    has_all(&[a]).await;
    until("b has ended well", TIMEOUT, || processes["b"].exit_code() == Some(0)).await;
}
