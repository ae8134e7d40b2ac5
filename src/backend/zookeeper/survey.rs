//! [`Survey`]: why no session was opened, for each host.

use std::{fmt, net::SocketAddr, pin::pin, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{
    host::HostPort,
    probe::{Encryption, Problem, probe},
    resolve::Addresses,
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

enum Event {
    Resolved(usize, Result<Vec<SocketAddr>, String>),
    Answered(usize, SocketAddr, Result<(), Problem>),
}

impl Survey {
    /// Looks up the names of all hosts, and asks all addresses at the same time. Each of the two steps takes at most
    /// `share`.
    pub(super) async fn take(known: &Addresses, encryption: Option<&Encryption>, share: Duration) -> Survey {
        let hosts = known.hosts();
        let mut survey =
            Survey(hosts.iter().map(|host| Found { host: host.clone(), addresses: None }).collect());
        let mut work: FuturesUnordered<BoxFuture<'_, Event>> = hosts
            .iter()
            .enumerate()
            .map(|(at, host)| async move { Event::Resolved(at, known.resolve(host, share).await) }.boxed())
            .collect();
        let mut end = pin!(sleep(2 * share));
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
                    let addresses = survey.0[at].addresses.as_mut().and_then(|found| found.as_mut().ok());
                    let found = addresses.into_iter().flatten().find(|found| found.at == address);
                    found.expect("it was resolved before").answer = Some(answer);
                }
            }
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_report_names_each_host_and_address() {
        let found = |host: &str, answers: &[(&str, Option<Result<(), Problem>>)]| {
            let host: HostPort = host.parse().unwrap();
            let address = |(ip, answer): &(&str, Option<Result<(), Problem>>)| Address {
                at: SocketAddr::new(ip.parse().unwrap(), host.port()),
                answer: answer.clone(),
            };
            let addresses = Some(Ok(answers.iter().map(address).collect()));
            Found { host: host.clone(), addresses }
        };
        let refused = || Some(Err(Problem::Connect(io::ErrorKind::ConnectionRefused, "refused".into())));
        let survey = Survey(vec![
            Found { host: "b".parse().unwrap(), addresses: None },
            Found { host: "c".parse().unwrap(), addresses: Some(Err("unknown".into())) },
            found("a", &[("10.0.0.1", None), ("10.0.0.2", refused())]),
            found("d", &[("10.0.0.3", Some(Ok(())))]),
        ]);
        assert_eq!(
            survey.to_string(),
            "b:2181: its name is not resolved in time; c:2181: its name does not resolve: unknown; a:2181 (10.0.0.1): \
             no answer, a:2181 (10.0.0.2): connection refused; d:2181: a server answers, but opens no session"
        );
    }
}
