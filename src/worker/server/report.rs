//! Tells the executors of this crate periodically which of their requests the worker has, and sends the last results
//! again to one whose connection broke.

use std::sync::Arc;

use tokio::time::sleep;

use super::shared::Shared;
use crate::worker::{
    message::{Inventory, Response},
    transport::{Message, TransportError},
};

pub(super) async fn report(shared: Arc<Shared>) {
    let reporting = async {
        loop {
            tokio::select! {
                biased;
                () = shared.changed.notified() => {}
                () = sleep(shared.heartbeat) => {}
            }
            let was_full = shared.fullness.report();
            for executor in shared.executors.of_this_crate() {
                send_inventory(&shared, &executor, !(was_full || shared.fullness.is_or_was())).await;
            }
        }
    };
    shared.draining.run_until_cancelled(reporting).await;
}

/// Tells one executor which of its requests the worker has.
pub(super) async fn send_inventory(shared: &Shared, executor: &str, has_room: bool) {
    let inventory = shared.inventory(executor, has_room);
    let message = Message::new(Inventory::KIND, inventory.to_json());
    match shared.link.send_once(executor, message.mandatory()).await {
        Ok(()) => {}
        Err(TransportError::NoConsumer { .. }) => shared.executors.forget(executor),
        Err(error) => tracing::debug!(executor, %error, "an inventory could not be sent"),
    }
}

/// Sends the last results again. The executor ignores those that it has.
pub(super) async fn send_results_again(shared: &Shared, executor: &str) {
    for result in shared.results.of(executor) {
        let message =
            Message::new(Response::KIND, result.body.clone()).correlation_id(&*result.correlation_id);
        match shared.link.send(executor, message.mandatory()).await {
            Ok(()) => {}
            // The others may be smaller.
            Err(error @ TransportError::Refused { .. }) => {
                tracing::warn!(executor, id = result.correlation_id, %error, "a result could not be sent again");
            }
            Err(error) => {
                tracing::warn!(executor, %error, "results could not be sent again");
                return;
            }
        }
    }
}
