//! Waits for a listing and for a moment, whichever comes first.

use std::time::Duration;

use tokio::time::timeout;

use super::listing::{Listing, Stopped};
use crate::clock::{Clock, Moment};

/// Waits until `probe` finds something. Calls it again after each change of the contents, and when the moment comes that
/// `next` returns: what is passed over until then may be found.
///
/// Cancel safe.
pub(crate) async fn until_due<T>(
    listing: &Listing,
    clock: &dyn Clock,
    next: impl Fn() -> Option<Moment>,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T, Stopped> {
    loop {
        let due = next();
        // Ends without a value when another moment is the next one.
        let found = listing.until(|| match probe() {
            None if next() == due => None,
            found => Some(found),
        });
        let found = match due {
            None => found.await?,
            Some(due) => {
                // At least a little, so that a timer which fires early does not cause a busy loop.
                let left = due.saturating_since(clock.now()).max(SHORTEST);
                match timeout(left, found).await {
                    Ok(found) => found?,
                    Err(_) => None,
                }
            }
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
}

/// The shortest wait for a moment.
const SHORTEST: Duration = Duration::from_millis(1);
