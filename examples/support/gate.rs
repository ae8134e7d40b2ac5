//! [`Gate`]: a point at which a demonstration stops a process before it crashes it.

use tokio::sync::watch;

/// A point that a caller passes at once, unless the gate is closed.
#[derive(Debug, Clone, Default)]
pub struct Gate(watch::Sender<GateState>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum GateState {
    #[default]
    Open,
    Closed,
    /// Closed, and a caller waits.
    Reached,
}

impl Gate {
    /// Passes, or waits until it is open.
    pub async fn pass(&self) {
        let mut state = self.0.subscribe();
        self.0.send_if_modified(|state| {
            let is_first = *state == GateState::Closed;
            if is_first {
                *state = GateState::Reached;
            }
            is_first
        });
        let _ = state.wait_for(|state| *state == GateState::Open).await;
    }

    pub fn close(&self) {
        self.0.send_replace(GateState::Closed);
    }

    pub fn open(&self) {
        self.0.send_replace(GateState::Open);
    }

    /// Waits until a caller waits at the closed gate.
    pub async fn reached(&self) {
        let _ = self.0.subscribe().wait_for(|state| *state == GateState::Reached).await;
    }
}
