//! Empty: a package needs a library or a program, and this one exists for its `benches`.
