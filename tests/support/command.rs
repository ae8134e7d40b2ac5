//! The operator's command as a process.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How a run of the command has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Longer than the command takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The command with these arguments, against the servers of this URL.
pub fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apportion"));
    command.env("APPORTION_URL", url).env_remove("NO_COLOR").args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub async fn run(url: &str, arguments: &[&str]) -> Ran {
    run_with(url, arguments, "").await
}

/// Runs it to its end, with this on its standard input.
pub async fn run_with(url: &str, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(url, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let ended = async {
        let wrote = async {
            // A command that does not read it has closed it.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        tokio::join!(wrote, child.wait_with_output()).1
    };
    let output = timeout(LIMIT, ended).await.expect("it ends").expect("it can be waited for");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    let code = output.status.code().expect("it exits");
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// What it has written, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The lines of a table, with one space between cells, and ages as `AGE`.
    pub fn lines(&self) -> Vec<String> {
        self.out.lines().map(stable).collect()
    }
}

/// One space between words, and each duration as `AGE`.
fn stable(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut stable: Vec<&str> = Vec::new();
    for word in words {
        let (unit, rest) = word.split_at(word.find(',').unwrap_or(word.len()));
        let is_unit = ["ms", "s", "min", "h"].contains(&unit);
        match stable.last_mut() {
            Some(last) if is_unit && last.parse::<u64>().is_ok() => {
                *last = if rest == "," { "AGE," } else { "AGE" }
            }
            _ => stable.push(word),
        }
    }
    stable.join(" ")
}
