//! Endpoints for the demonstration: most answer, some are slow, broken or not there.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::target::Target;

/// Servers in this process; dropping it ends them.
pub struct Endpoints {
    pub targets: Vec<Target>,
    _servers: JoinSet<()>,
}

impl Endpoints {
    /// Starts them on free ports.
    pub async fn start() -> io::Result<Endpoints> {
        let mut servers = JoinSet::new();
        let web = TcpListener::bind("127.0.0.1:0").await?;
        let open = TcpListener::bind("127.0.0.1:0").await?;
        let closed = TcpListener::bind("127.0.0.1:0").await?;
        let (web_at, open_at, closed_at) = (web.local_addr()?, open.local_addr()?, closed.local_addr()?);
        drop(closed);
        let mut urls: Vec<String> = (1..=15).map(|number| format!("http://{web_at}/shop/{number}")).collect();
        urls.extend((1..=4).map(|number| format!("http://{web_at}/report/{number}")));
        urls.extend(["/stuck", "/missing", "/broken"].map(|path| format!("http://{web_at}{path}")));
        urls.extend([format!("tcp://{open_at}"), format!("http://{open_at}/"), format!("tcp://{closed_at}")]);
        servers.spawn(serve(web, answer));
        servers.spawn(serve(open, |mut stream| async move {
            let _ = stream.write_all(b"220 this is no web server\r\n").await;
        }));
        let targets = urls.iter().map(|url| url.parse().expect("it is spelled properly")).collect();
        Ok(Endpoints { targets, _servers: servers })
    }
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    talk: impl Fn(TcpStream) -> F + Send + 'static,
) {
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => { talks.spawn(talk(stream)); }
            Some(_) = talks.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    let length = stream.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (delay, status) = match path.split('/').nth(1) {
        Some("shop") => (10, "200 OK"),
        Some("report") => (400, "200 OK"),
        Some("stuck") => (60_000, "200 OK"),
        Some("broken") => (10, "500 Internal Server Error"),
        _ => (10, "404 Not Found"),
    };
    sleep(Duration::from_millis(delay)).await;
    let _ = stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n").as_bytes()).await;
}
