//! An evaluator of this crate: this binary, executed again, which runs one test with an [`Order`] in its environment.
//!
//! It acts on all items of its share at once, for a while, then asks for its share again. Commands on its stdin:
//! `{"do": "join"}`, `{"do": "leave"}`, `{"do": "status"}`. It says when its guards of which keys were valid.

use std::{collections::BTreeMap, env, time::Duration};

use apportion::{
    Config, Group, Held, KeySet, PartitionCoordinator,
    clock::{BootClock, Clock as _},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::support::driven::{Driven, commands, say};

/// The variable of the environment that has the order.
const ORDER: &str = "APPORTION_INTEROP_EVALUATOR";
/// How long one action takes.
pub(crate) const WORK: Duration = Duration::from_millis(50);

/// What an evaluator has to do.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Order {
    /// Where the servers are; empty: no server.
    pub(crate) url: String,
    pub(crate) group: String,
    pub(crate) id: String,
    /// The keys are `alarm-<n>`, for the numbers below this.
    pub(crate) keys: u32,
    pub(crate) weight: u32,
    pub(crate) plain_grace: Duration,
    /// Whether the group has the ring of tooz, and not that of aodh.
    pub(crate) has_tooz_ring: bool,
}

impl Order {
    /// Starts the process. It says `{"ready": true}`.
    pub(crate) fn start(&self) -> Driven {
        let order = serde_json::to_value(self).expect("it has text keys");
        Driven::myself("evaluator::an_evaluator_acts_until_its_stdin_ends", ORDER, &order)
    }
}

/// The host's clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    u64::try_from(BootClock.now().since_origin().as_nanos()).expect("584 years fit")
}

#[test]
fn an_evaluator_acts_until_its_stdin_ends() {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(order) = env::var(ORDER) {
        workers.block_on(run(serde_json::from_str(&order).unwrap()));
        return;
    }
    // Without an order: an evaluator without servers, which owns all keys.
    workers.block_on(async {
        let order = Order {
            url: String::new(),
            group: "alone".into(),
            id: "alone".into(),
            keys: 3,
            weight: 1,
            plain_grace: Duration::ZERO,
            has_tooz_ring: false,
        };
        let mut evaluator = order.start();
        assert_eq!(evaluator.says().await, json!({"ready": true}));
        assert!(evaluator.ask(json!({"do": "join"})).await["joined"].is_u64());
        let change = evaluator.says().await;
        assert_eq!(change["started"], json!([0, 1, 2]), "{change}");
        assert!(evaluator.ask(json!({"do": "leave"})).await["ended"].is_array());
        assert!(evaluator.says().await["left"].is_u64());
    });
}

async fn run(order: Order) {
    let mut commands = commands();
    say(&json!({"ready": true}));
    let mut service = None;
    while let Some(command) = commands.recv().await {
        match (command["do"].as_str(), &service) {
            (Some("join"), None) => service = Some(Service::start(&order).await),
            (Some("leave"), Some(_)) => service.take().expect("it is there").stop().await,
            (Some("status"), Some(service)) => say(&json!({"status": service.group.status()})),
            _ => panic!("{command}"),
        }
    }
}

/// One life of the service, from its start to its end.
struct Service {
    coordinator: PartitionCoordinator,
    group: Group,
    ends: CancellationToken,
    acting: JoinSet<()>,
}

impl Service {
    async fn start(order: &Order) -> Service {
        let coordinator = if order.url.is_empty() {
            PartitionCoordinator::standalone()
        } else {
            let config = if order.has_tooz_ring { Config::tooz(32) } else { Config::aodh() };
            let config = config.url(&order.url).unwrap().member_id(&*order.id);
            PartitionCoordinator::start(config).unwrap()
        };
        let join = coordinator.join(&order.group).weight(order.weight).plain_grace(order.plain_grace);
        let group = join.await.unwrap();
        say(&json!({"joined": now()}));
        let ends = CancellationToken::new();
        let mut acting = JoinSet::new();
        acting.spawn(act(group.clone(), order.keys, ends.clone()));
        Service { coordinator, group, ends, acting }
    }

    async fn stop(self) {
        self.ends.cancel();
        self.acting.join_all().await;
        self.coordinator.shutdown().await.unwrap();
        say(&json!({"left": now()}));
    }
}

/// Acts on all keys of its share at once, and says what has changed.
async fn act(group: Group, keys: u32, ends: CancellationToken) {
    let keys: &'static KeySet<String> =
        Box::leak(Box::new((0..keys).map(|number| format!("alarm-{number}")).collect()));
    let number = |key: &str| key.trim_start_matches("alarm-").parse::<u32>().expect("keys are numbered");
    let mut held: BTreeMap<u32, Held<&String>> = BTreeMap::new();
    let mut since = now();
    loop {
        let is_last = ends.run_until_cancelled(sleep(WORK)).await.is_none();
        // Read first: the guards are valid at this moment or a later one.
        let checked = now();
        let (valid, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut held).into_iter().partition(|(_, guard)| guard.is_valid());
        let valid: Vec<_> = valid.into_keys().collect();
        let lost: Vec<_> = lost.into_keys().collect();
        let mut is_exclusive = false;
        if !is_last {
            match group.share(keys).await {
                Ok(share) => {
                    is_exclusive = share.is_exclusive();
                    held.extend(share.into_iter().map(|guard| (number(&guard), guard)));
                }
                Err(error) => say(&json!({"error": error.to_string()})),
            }
        }
        let at = now();
        held.retain(|_, guard| guard.is_valid());
        let ended: Vec<_> = valid.iter().filter(|key| !held.contains_key(key)).collect();
        let started: Vec<_> = held.keys().filter(|key| valid.binary_search(key).is_err()).collect();
        if is_last || !(ended.is_empty() && started.is_empty() && lost.is_empty()) {
            say(&json!({
                "checked": checked, "ended": ended, "lost": lost, "lost_at": since,
                "at": at, "started": started, "is_exclusive": is_exclusive,
            }));
        }
        since = at;
        if is_last {
            return;
        }
    }
}
