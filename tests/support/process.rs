//! Examples as processes, which end with the test process, however that ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Runs "$@" until it ends, or the pipe on stdin does, as it does with the test process. What it writes goes to $out,
/// its exit code to $out.code.
const GUARD: &str = r#"
trap '' INT TERM HUP
out=$1; shift
rm -f "$out.code"
"$@" </dev/null >>"$out" 2>&1 &
pid=$!
echo $pid
exec 3<&0 >/dev/null
(read -r word <&3; kill -9 $pid) &
reader=$!
wait $pid
echo $? >"$out.code"
kill -9 $reader
"#;

/// A process of an example. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    guard: Child,
    pid: u32,
    out: PathBuf,
}

impl Process {
    /// Starts an example; what it writes is appended to the file `out`.
    pub fn start(example: &str, out: &Path, args: &[&str]) -> Process {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(out)
            .arg(find(example))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut line = String::new();
        let stdout = guard.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the shell writes a line");
        let pid = line.trim().parse().expect("the shell writes a process id");
        Process { guard, pid, out: out.into() }
    }

    /// Sends a signal, such as `KILL`.
    pub fn signal(&self, signal: &str) {
        let script = format!("kill -{signal} {}", self.pid);
        let status = Command::new("sh").args(["-c", &script]).status().expect("there is a shell");
        assert!(status.success(), "{script}");
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// How it ended; `None` as long as it runs.
    pub fn exit_code(&self) -> Option<i32> {
        let mut file = self.out.clone().into_os_string();
        file.push(".code");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// The examples lie beside the tests: `cargo test` builds both.
fn find(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test has a file");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let example = folder.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(
        example.exists(),
        "there is no {}: `cargo test` builds it, but `cargo test --test fleet` does not; run `cargo build --examples`",
        example.display()
    );
    example
}
