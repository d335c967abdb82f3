//! Ways out of a container that other runtimes have had, each tried on this one.
//!
//! A test's head says which rule keeps it green and what it looked like with the rule taken away.

pub(crate) mod images;
pub(crate) mod neighbours;
pub(crate) mod races;
pub(crate) mod roots;
