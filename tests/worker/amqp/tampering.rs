//! A proxy that reads the frames of AMQP between a client and a real broker, and plays a broker that does otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Class and method of a method frame.
type Method = (u16, u16);
pub(super) const TUNE: Method = (10, 30);
pub(super) const TUNE_OK: Method = (10, 31);
pub(super) const OPEN: Method = (10, 40);
const QUEUE_DECLARE: Method = (50, 10);

#[derive(Debug, Default)]
struct Plan {
    /// How many connections still break at which method.
    breaks: AtomicUsize,
    breaks_at: std::sync::Mutex<Method>,
    refuses_transient: AtomicBool,
    refusals: AtomicUsize,
}

/// The proxy. Dropping it closes all connections.
#[derive(Debug)]
pub(super) struct Tampering {
    port: u16,
    plan: Arc<Plan>,
    _tasks: JoinSet<()>,
}

impl Tampering {
    /// A proxy to the broker at `broker`, which passes everything on.
    pub(super) async fn start(broker: u16) -> Tampering {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::<Plan>::default();
        let mut tasks = JoinSet::new();
        let shared = plan.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, broker, shared.clone()));
            }
        });
        Tampering { port, plan, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}/?heartbeat=1", self.port)
    }

    /// The next `connections` connections break when this method comes, from either side: in turn they are closed and
    /// reset.
    pub(super) fn breaks_at(&self, method: Method, connections: usize) {
        *self.plan.breaks_at.lock().unwrap() = method;
        self.plan.breaks.store(connections, SeqCst);
    }

    /// How many connections are still to break.
    pub(super) fn breaks_left(&self) -> usize {
        self.plan.breaks.load(SeqCst)
    }

    /// From now on it answers as RabbitMQ 4.3 to the declaration of a queue that is neither durable nor exclusive.
    pub(super) fn refuses_transient_queues(&self) {
        self.plan.refuses_transient.store(true, SeqCst);
    }

    /// How many declarations were refused.
    pub(super) fn refusals(&self) -> usize {
        self.plan.refusals.load(SeqCst)
    }
}

enum End {
    /// One side has closed the connection.
    Closed,
    Reset,
    Refused,
}

async fn connection(mut client: TcpStream, broker: u16, plan: Arc<Plan>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            end = pass(from_client, to_server, true, &plan) => end,
            end = pass(from_server, to_client, false, &plan) => end,
        }
    };
    match end {
        End::Closed => {}
        End::Reset => drop(client.set_zero_linger()),
        End::Refused => {
            let _ = client.write_all(&refusal()).await;
            // Reads the client's `close-ok`, as a broker does.
            let _ = client.read(&mut [0; 1024]).await;
        }
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWrite + Unpin,
    is_client: bool,
    plan: &Plan,
) -> End {
    // The protocol header of the client has no frame.
    let mut header = [0; 8];
    if is_client && (from.read_exact(&mut header).await.is_err() || to.write_all(&header).await.is_err()) {
        return End::Closed;
    }
    loop {
        let mut head = [0; 7];
        if from.read_exact(&mut head).await.is_err() {
            return End::Closed;
        }
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut rest = vec![0; size + 1];
        if from.read_exact(&mut rest).await.is_err() {
            return End::Closed;
        }
        if head[0] == 1 && size >= 4 {
            let number = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
            let method = (number(0), number(2));
            let is_due = method == *plan.breaks_at.lock().unwrap();
            let left = if is_due { plan.breaks.load(SeqCst) } else { 0 };
            if left > 0 {
                plan.breaks.store(left - 1, SeqCst);
                // The client gets what comes before the end.
                if !is_client {
                    let _ = to.write_all(&[&head[..], &rest].concat()).await;
                    let _ = to.flush().await;
                }
                return if left % 2 == 1 { End::Reset } else { End::Closed };
            }
            if is_client && method == QUEUE_DECLARE && plan.refuses_transient.load(SeqCst) {
                let bits = rest[7 + usize::from(rest[6])];
                let (passive, durable, exclusive) = (bits & 1, bits & 2, bits & 4);
                if passive | durable | exclusive == 0 {
                    plan.refusals.fetch_add(1, SeqCst);
                    return End::Refused;
                }
            }
        }
        if to.write_all(&[&head[..], &rest].concat()).await.is_err() {
            return End::Closed;
        }
    }
}

/// `connection.close` with the code and text of RabbitMQ 4.3.
fn refusal() -> Vec<u8> {
    let text = b"INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.";
    let mut payload = vec![0, 10, 0, 50];
    payload.extend(541_u16.to_be_bytes());
    payload.push(u8::try_from(text.len()).unwrap());
    payload.extend(text);
    payload.extend([0, 50, 0, 10]);
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}
