//! Work that is claimed by priority: the work queue.
