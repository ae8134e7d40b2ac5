//! Ends the session of another client early: takes it up on a second connection, with its password, and closes it.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{SECOND, proxy::Granted};

/// Closes the session at the server on this port. Whether it was there.
pub async fn close(port: u16, session: Granted) -> io::Result<bool> {
    let closing = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        // The protocol version, the last transaction that was seen, the timeout, the session, its password, and that
        // the server may not be read-only.
        let mut request = vec![0; 12];
        request.extend(4000_u32.to_be_bytes());
        request.extend(session.id);
        request.extend(16_u32.to_be_bytes());
        request.extend(session.password);
        request.push(0);
        send(&mut stream, &request).await?;
        let reply = receive(&mut stream).await?;
        if reply.get(8..16) != Some(&session.id) {
            return Ok(false);
        }
        // The number of the request, and "close".
        let close = [1_i32.to_be_bytes(), (-11_i32).to_be_bytes()].concat();
        send(&mut stream, &close).await?;
        // The server may close the connection before it answers.
        match receive(&mut stream).await {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(true),
        }
    };
    tokio::time::timeout(3 * SECOND, closing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    stream.write_all(&[&length, message].concat()).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut message = vec![0; usize::try_from(length).expect("32 bits fit")];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
