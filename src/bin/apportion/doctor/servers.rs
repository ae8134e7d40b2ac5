//! The servers, by their commands of four letters, as far as they allow them.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use apportion::Config;

use crate::findings::Finding;

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// What a server says of itself.
#[derive(Debug, Default)]
struct Server {
    version: Option<String>,
    mode: Option<String>,
}

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    if config.is_encrypted() {
        let what =
            "could not find out: versions and settings of the servers, because the connections are encrypted";
        return vec![Finding::note("not_found_out", what)];
    }
    let mut found = Vec::new();
    let mut servers = Vec::new();
    for host in config.hosts() {
        // Nothing else is under way that would have to go on meanwhile.
        let (server, findings) = tokio::task::block_in_place(|| examine_one(host, config));
        servers.push(server);
        found.extend(findings);
    }
    let versions: Vec<_> = servers.iter().filter_map(|server| server.version.as_ref()).collect();
    if versions.windows(2).any(|pair| pair[0] != pair[1]) {
        found.push(Finding::note("versions_differ", "the servers have different versions"));
    }
    if servers.iter().any(|server| server.mode.as_deref() == Some("standalone")) {
        let what = "a server runs alone: while it is down, no member may act for long";
        found.push(Finding::note("one_server", what));
    }
    found
}

/// The text that the server answers to `word`.
fn ask(host: &str, word: &str) -> Result<String, String> {
    let addresses = host.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "its name has no address".to_owned();
    for address in addresses {
        let asking = || {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            stream.write_all(word.as_bytes())?;
            let mut answer = Vec::new();
            stream.take(64 * 1024).read_to_end(&mut answer)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        match asking() {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn examine_one(host: &str, config: &Config) -> (Server, Vec<Finding>) {
    let mut server = Server::default();
    let mut found = Vec::new();
    let answer = match ask(host, "srvr") {
        Ok(answer) => answer,
        Err(error) => {
            let advice = "Sessions are opened at the other servers, if there are any";
            let what = format!("{host} does not answer: {error}");
            return (server, vec![Finding::problem("no_answer", what, advice)]);
        }
    };
    let field = |name: &str| {
        let line = answer.lines().find(|line| line.starts_with(name))?;
        Some(line[name.len()..].trim().to_owned())
    };
    if answer.contains("not currently serving") {
        let advice = "It has no quorum, or is starting: look at the other servers and at its log";
        let what = format!("{host} does not serve requests");
        return (server, vec![Finding::problem("not_serving", what, advice)]);
    }
    if answer.contains("whitelist") || answer.is_empty() {
        let what = format!(
            "could not find out: version and mode of {host}. It answers with `4lw.commands.whitelist=srvr,conf`"
        );
        found.push(Finding::note("not_found_out", what));
    } else {
        let version = field("Zookeeper version:")
            .map(|text| text.split([',', '-']).next().unwrap_or_default().trim().to_owned());
        let mode = field("Mode:");
        let latency = field("Latency min/avg/max:").unwrap_or_else(|| "?".into());
        let what = format!(
            "{host}: ZooKeeper {}, {}, latency min/avg/max {latency} ms, {} znodes",
            version.as_deref().unwrap_or("?"),
            mode.as_deref().unwrap_or("?"),
            field("Node count:").unwrap_or_else(|| "?".into())
        );
        found.push(Finding::note("server", what));
        found.extend(version.as_deref().and_then(|version| judge_version(host, version)));
        (server.version, server.mode) = (version, mode);
    }
    match ask(host, "conf") {
        Ok(answer) if answer.contains("tickTime") => found.extend(judge_settings(host, &answer, config)),
        _ => {
            let what = format!(
                "could not find out: the settings of {host}. It answers with `4lw.commands.whitelist=srvr,conf`"
            );
            found.push(Finding::note("not_found_out", what));
        }
    }
    (server, found)
}

fn judge_version(host: &str, version: &str) -> Option<Finding> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version_of = (parts.next()?, parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version_of < (3, 6, 0) {
        return Some(Finding::problem(
            "old_version",
            format!("{host}: ZooKeeper {version} is too old for job boards"),
            "Boards need 3.6; recommended are 3.8.4, 3.9.2 and later",
        ));
    }
    let is_safe = version_of >= (3, 9, 2) || ((3, 8, 4)..(3, 9, 0)).contains(&version_of);
    (!is_safe).then(|| {
        let what = format!(
            "{host}: ZooKeeper {version} shows persistent watches the paths of znodes that the client may not list \
             (CVE-2024-23944); 3.8.4, 3.9.2 and later do not"
        );
        Finding::note("cve_2024_23944", what)
    })
}

/// What is unsafe, or too small, in the settings that the server shows.
fn judge_settings(host: &str, answer: &str, config: &Config) -> Vec<Finding> {
    let number = |name: &str| -> Option<u64> {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        line.trim().parse().ok()
    };
    let mut found = Vec::new();
    let tick = number("tickTime").map(Duration::from_millis);
    if let Some(tick) = tick.filter(|tick| *tick > config.server_tick) {
        found.push(Finding::problem(
            "tick_time",
            format!(
                "{host}: tickTime is {tick:?}, and the URL says server_tick={:?}: the deadline of each share is too late",
                config.server_tick
            ),
            "Set server_tick in the URL of all members to the tickTime of the servers",
        ));
    }
    let timeout = config.session_timeout;
    let bounds = [("minSessionTimeout", true), ("maxSessionTimeout", false)];
    for (name, is_least) in bounds {
        let Some(bound) = number(name).map(Duration::from_millis) else { continue };
        if is_least && timeout < bound || !is_least && timeout > bound {
            found.push(Finding::problem(
                "session_timeout_bounds",
                format!(
                    "{host}: {name} is {bound:?}, so sessions do not get the timeout {timeout:?} of the URL"
                ),
                format!("Set timeout in the URL, or {name} in the servers"),
            ));
        }
    }
    if let Some(most) = number("maxClientCnxns").filter(|most| (1..=60).contains(most)) {
        let what = format!(
            "{host}: maxClientCnxns is {most}: so many connections from one address, so members on one host may be refused"
        );
        found.push(Finding::note("max_client_cnxns", what));
    }
    found
}
