//! Guides: from nothing to a service, what is guaranteed, how keys are handed over, the operator's command, and what changes
//! for users who come from Python.

#[doc = include_str!("../docs/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/handover.md")]
pub mod handover {}

#[doc = include_str!("../docs/command.md")]
pub mod command {}

#[doc = include_str!("../docs/coming_from_aodh.md")]
pub mod coming_from_aodh {}

#[doc = include_str!("../docs/coming_from_taskflow.md")]
pub mod coming_from_taskflow {}

#[doc = include_str!("../docs/coming_from_tooz.md")]
pub mod coming_from_tooz {}

// Its code needs these.
#[cfg(all(feature = "http", feature = "metrics", feature = "zookeeper"))]
#[doc = include_str!("../docs/service.md")]
pub mod service {}
