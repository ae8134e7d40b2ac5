//! [`Survey`]: which addresses the servers have at this moment, and which of them answer.
//!
//! The client crate connects to a name through the first of its addresses that accepts. An address that drops packets, or
//! accepts and is silent, costs it a fifth of the session timeout each time, and the order of the addresses stays the
//! same. So it gets each address of such a name as a host of its own, and those that do not answer are left out, as long
//! as others do. Any majority of an ensemble has a server in common with the one that answers now.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};

use super::{
    host::{HostPort, Hosts},
    probe::{Encryption, Problem, probe},
};

/// What was found out about all hosts.
#[derive(Debug)]
pub(super) struct Survey(Vec<Found>);

/// What was found out about one host.
#[derive(Debug)]
struct Found {
    host: HostPort,
    /// `None` as long as it is not known.
    addresses: Option<Result<Vec<Address>, String>>,
}

#[derive(Debug)]
struct Address {
    at: SocketAddr,
    /// `None` as long as there is no answer.
    answer: Option<Result<(), Problem>>,
}

/// How much an entry of the list for the client crate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// It answers.
    Alive,
    /// An attempt fails at once, and may succeed later.
    Quick,
    /// An attempt takes long.
    Slow,
}

/// Names whose addresses are given instead of being looked up.
pub(super) type Given = Vec<(String, Vec<IpAddr>)>;

enum Event {
    Resolved(usize, Result<Vec<SocketAddr>, String>),
    Answered(usize, SocketAddr, Result<(), Problem>),
}

impl Survey {
    /// Looks up the names of all hosts, and asks all addresses at the same time. Each of the two steps takes at most
    /// `share`; as soon as one address answers, the others have a quarter of it left.
    pub(super) async fn take(
        hosts: &Hosts,
        given: &Given,
        encryption: Option<&Encryption>,
        share: Duration,
    ) -> Survey {
        let mut survey =
            Survey(hosts.iter().map(|host| Found { host: host.clone(), addresses: None }).collect());
        let mut work: FuturesUnordered<BoxFuture<'_, Event>> = hosts
            .iter()
            .enumerate()
            .map(|(at, host)| async move { Event::Resolved(at, lookup(host, given, share).await) }.boxed())
            .collect();
        let mut end = std::pin::pin!(sleep(2 * share));
        let mut is_first = true;
        loop {
            let event = tokio::select! {
                biased;
                event = work.next() => event,
                () = &mut end => None,
            };
            match event {
                None => return survey,
                Some(Event::Resolved(at, Err(problem))) => survey.0[at].addresses = Some(Err(problem)),
                Some(Event::Resolved(at, Ok(addresses))) => {
                    for &address in &addresses {
                        let name = hosts.iter().nth(at).map_or("", HostPort::host);
                        let probing = async move {
                            Event::Answered(at, address, probe(address, name, encryption, share).await)
                        };
                        work.push(probing.boxed());
                    }
                    let addresses = addresses.into_iter().map(|at| Address { at, answer: None });
                    survey.0[at].addresses = Some(Ok(addresses.collect()));
                }
                Some(Event::Answered(at, address, answer)) => {
                    if answer.is_ok() && std::mem::replace(&mut is_first, false) {
                        end.set(sleep(share / 4));
                    }
                    let addresses = survey.0[at].addresses.as_mut().and_then(|found| found.as_mut().ok());
                    let found = addresses.into_iter().flatten().find(|found| found.at == address);
                    found.expect("it was resolved before").answer = Some(answer);
                }
            }
        }
    }

    /// This survey with what an earlier one has found at addresses that did not answer now. The later one has less time.
    pub(super) fn after(mut self, earlier: Survey) -> Survey {
        for (found, before) in self.0.iter_mut().zip(earlier.0) {
            let Some(Ok(addresses)) = &mut found.addresses else { continue };
            let before = before.addresses.and_then(Result::ok).unwrap_or_default();
            for address in addresses.iter_mut().filter(|address| address.worth() == Worth::Slow) {
                let same = before.iter().find(|before| before.at == address.at);
                if let Some(Address { answer: Some(Err(problem)), .. }) = same {
                    address.answer = Some(Err(problem.clone()));
                }
            }
        }
        self
    }

    /// The hosts for the client crate, which tries them in random order.
    ///
    /// A name with one address stays a name: the crate looks it up again at each reconnect. It does so for one with
    /// several addresses, too, unless one of them would cost time. With TLS the name is needed to check the certificate.
    pub(super) fn hosts(&self, is_encrypted: bool) -> Hosts {
        let entries: Vec<_> = self.0.iter().flat_map(|found| found.entries(is_encrypted)).collect();
        let some_are_alive = entries.iter().any(|(_, worth)| *worth == Worth::Alive);
        let chosen = entries.into_iter().filter(|(_, worth)| !some_are_alive || *worth != Worth::Slow);
        Hosts::new(chosen.map(|(host, _)| host))
            .expect("there is a host, and one that is alive is not left out")
    }
}

impl Found {
    fn entries(&self, is_encrypted: bool) -> Vec<(HostPort, Worth)> {
        let host = || self.host.clone();
        let addresses = match &self.addresses {
            None => return vec![(host(), Worth::Slow)],
            Some(Err(_)) => return vec![(host(), Worth::Quick)],
            Some(Ok(addresses)) => addresses,
        };
        let worth = addresses.iter().map(Address::worth);
        if addresses.len() < 2 || is_encrypted {
            return vec![(host(), worth.min().unwrap_or(Worth::Quick))];
        }
        let mut is_complete = worth.clone().all(|worth| worth != Worth::Slow);
        let mut entries = Vec::new();
        for (address, worth) in addresses.iter().zip(worth.clone()) {
            match HostPort::new(&address.at.ip().to_string(), address.at.port()) {
                Ok(host) => entries.push((host, worth)),
                Err(_) => is_complete = true,
            }
        }
        if is_complete {
            entries.push((host(), worth.min().unwrap_or(Worth::Quick)));
        }
        entries
    }
}

impl Address {
    fn worth(&self) -> Worth {
        match &self.answer {
            Some(Ok(())) => Worth::Alive,
            None | Some(Err(Problem::Silent)) => Worth::Slow,
            Some(Err(_)) => Worth::Quick,
        }
    }
}

/// Says for each host why no session was opened there.
impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Found { host, addresses }) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            let addresses = match addresses {
                None => {
                    write!(f, "{host}: its name is not resolved in time")?;
                    continue;
                }
                Some(Err(problem)) => {
                    write!(f, "{host}: its name does not resolve: {problem}")?;
                    continue;
                }
                Some(Ok(addresses)) => addresses,
            };
            for (index, Address { at, answer }) in addresses.iter().enumerate() {
                f.write_str(if index == 0 { "" } else { ", " })?;
                match addresses.len() {
                    1 => write!(f, "{host}: ")?,
                    _ => write!(f, "{host} ({}): ", at.ip())?,
                }
                match answer {
                    None => write!(f, "{}", Problem::Silent)?,
                    Some(Err(problem)) => write!(f, "{problem}")?,
                    Some(Ok(())) => f.write_str("a server answers, but opens no session")?,
                }
            }
        }
        Ok(())
    }
}

/// The addresses of a host, each once.
async fn lookup(host: &HostPort, given: &Given, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let given = given.iter().find(|(name, _)| name == host.host());
    let looking_up = async {
        match given {
            Some((_, addresses)) => {
                Ok(addresses.iter().map(|address| SocketAddr::new(*address, host.port())).collect())
            }
            None => async_net::resolve((host.host(), host.port())).await,
        }
    };
    let found: io::Result<Vec<_>> =
        timeout(limit, looking_up).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let mut addresses = found.map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    addresses.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    if addresses.is_empty() { Err("it has no address".into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, answers: &[(&str, Option<Result<(), Problem>>)]) -> Found {
        let host: HostPort = host.parse().unwrap();
        let address = |(ip, answer): &(&str, Option<Result<(), Problem>>)| Address {
            at: SocketAddr::new(ip.parse().unwrap(), host.port()),
            answer: answer.clone(),
        };
        let addresses = Some(Ok(answers.iter().map(address).collect()));
        Found { host: host.clone(), addresses }
    }

    fn refused() -> Option<Result<(), Problem>> {
        Some(Err(Problem::Connect(io::ErrorKind::ConnectionRefused, "refused".into())))
    }

    #[test]
    fn addresses_that_do_not_answer_are_left_out_while_others_do() {
        let survey = Survey(vec![
            found("a", &[("10.0.0.1", None), ("10.0.0.2", Some(Ok(()))), ("10.0.0.3", refused())]),
            found("b", &[("10.0.1.1", Some(Err(Problem::Silent)))]),
            found("c:1", &[("10.0.2.1", refused())]),
            found("d", &[("::1", Some(Ok(()))), ("127.0.0.1", Some(Ok(())))]),
        ]);
        assert_eq!(
            survey.hosts(false).to_string(),
            "10.0.0.2:2181,10.0.0.3:2181,c:1,[::1]:2181,127.0.0.1:2181,d:2181"
        );
        assert_eq!(survey.hosts(true).to_string(), "a:2181,c:1,d:2181", "a certificate is that of a name");
    }

    #[test]
    fn all_are_kept_if_none_answers() {
        let survey = Survey(vec![
            found("a", &[("10.0.0.1", None), ("10.0.0.2", refused())]),
            Found { host: "b".parse().unwrap(), addresses: None },
            Found { host: "c".parse().unwrap(), addresses: Some(Err("unknown".into())) },
        ]);
        assert_eq!(survey.hosts(false).to_string(), "10.0.0.1:2181,10.0.0.2:2181,b:2181,c:2181");
    }

    #[test]
    fn what_was_found_before_counts_where_nothing_answers_now() {
        let before = Survey(vec![
            found("a", &[("10.0.0.1", refused()), ("10.0.0.2", Some(Err(Problem::NotServing)))]),
            found("b", &[("10.0.1.1", Some(Ok(())))]),
        ]);
        let now = Survey(vec![
            found("a", &[("10.0.0.2", None), ("10.0.0.1", Some(Err(Problem::Closed)))]),
            found("b", &[("10.0.1.1", None)]),
        ]);
        assert_eq!(
            now.after(before).to_string(),
            "a:2181 (10.0.0.2): it does not serve requests at the moment, a:2181 (10.0.0.1): it closes the \
             connection without an answer; b:2181: no answer"
        );
    }

    #[test]
    fn the_report_names_each_host_and_address() {
        let survey = Survey(vec![
            Found { host: "c".parse().unwrap(), addresses: Some(Err("unknown".into())) },
            found("a", &[("10.0.0.1", None), ("10.0.0.2", refused())]),
            found("d", &[("10.0.0.3", Some(Ok(())))]),
        ]);
        assert_eq!(
            survey.to_string(),
            "c:2181: its name does not resolve: unknown; a:2181 (10.0.0.1): no answer, a:2181 (10.0.0.2): \
             connection refused; d:2181: a server answers, but opens no session"
        );
    }
}
