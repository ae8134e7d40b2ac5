//! Nothing to use: a package needs a library or a program, and this one is there for its `benches`.
