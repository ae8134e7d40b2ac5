//! Groups with exclusive shares under faults of real servers, links and processes.
//!
//! Agents are processes of their own: this binary, executed again. Each writes down when it acted on which key, and an
//! oracle compares what all of them did. The three servers and the links break at random in the meantime.

mod agent;
mod crew;
mod faults;
mod journal;
mod oracle;
mod oracle_tests;
mod report;
mod scenarios;
mod season;
mod timeline;
mod tokens;

#[path = "../support/mod.rs"]
mod support;
