//! [`Gate`]: where a demonstration holds up what it is about to crash.

use tokio::sync::watch;

/// A point that is passed at once, unless somebody has closed it.
#[derive(Debug, Clone, Default)]
pub struct Gate(watch::Sender<Door>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    Closed,
    /// Closed, and somebody is there.
    Knocked,
}

impl Gate {
    /// Passes, or waits until it is open.
    pub async fn pass(&self) {
        let mut door = self.0.subscribe();
        self.0.send_if_modified(|door| {
            let is_first = *door == Door::Closed;
            if is_first {
                *door = Door::Knocked;
            }
            is_first
        });
        let _ = door.wait_for(|door| *door == Door::Open).await;
    }

    pub fn close(&self) {
        self.0.send_replace(Door::Closed);
    }

    pub fn open(&self) {
        self.0.send_replace(Door::Open);
    }

    /// Waits until somebody stands before the closed gate.
    pub async fn reached(&self) {
        let _ = self.0.subscribe().wait_for(|door| *door == Door::Knocked).await;
    }
}
