//! Runs this crate on command, for a program in another language that takes turns with it. `scripts/bench-python board`
//! starts it.
//!
//! Starts a ZooKeeper server and prints its address, then answers commands from the standard input with seconds:
//! `post PATH COUNT`, `consume PATH WORKERS COUNT`, `iterate PATH COUNT` with two numbers (from connecting to the
//! list, and the list once more), `queue ROOT COUNT` with two (put, take and finish).

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/work.rs"]
mod work;

use std::{
    error::Error,
    io::{BufRead, Write, stdin, stdout},
    time::Duration,
};

use support::Server;
use work::{Place, block_on, consume, finish, iterate, post, put};

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_none_or(|arg| arg != "serve") {
        println!("this one takes turns with Python: scripts/bench-python board");
        return Ok(());
    }
    let server = block_on(Server::start());
    println!("{}", server.connect_string());
    let place = Place::Server(server.connect_string());
    for line in stdin().lock().lines() {
        let took = answer(&place, &line?)?;
        let seconds: Vec<_> = took.iter().map(|took| format!("{:.6}", took.as_secs_f64())).collect();
        println!("{}", seconds.join(" "));
        stdout().flush()?;
    }
    Ok(())
}

fn answer(place: &Place, line: &str) -> Result<Vec<Duration>, Box<dyn Error>> {
    Ok(match line.split(' ').collect::<Vec<_>>()[..] {
        ["post", path, count] => vec![post(place, path, count.parse()?)],
        ["consume", path, workers, count] => vec![consume(place, path, workers.parse()?, count.parse()?)],
        ["iterate", path, count] => iterate(place, path, count.parse()?).into(),
        ["queue", root, count] => {
            let count = count.parse()?;
            vec![put(place, root, count), finish(place, root, 1, count)]
        }
        _ => return Err(format!("unknown command `{line}`").into()),
    })
}
