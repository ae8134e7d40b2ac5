//! The explorer: visits every state that a small fleet can be in, breadth first, and finds the shortest way to one in
//! which two members may act on one key.

mod canonical;
mod moves;

mod scope;
mod scopes;
mod search;
mod store;
mod world;
