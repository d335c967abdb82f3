//! Ways out of a container that other runtimes have had, each tried on this one.
//!
//! A test's head says which rule keeps it green and what it looked like with the rule taken away.

pub(crate) mod images;
pub(crate) mod neighbours;
pub(crate) mod races;
pub(crate) mod roots;

use crate::support::arena::UNPREPARED;
use crate::support::harness::again;
use crate::support::{Arena, tests};

tests!(first_container);

/// The first container of a shim begins with the host's mounts, so that a name that is looked up
/// wrongly leads to the host's files; the others' escapes end in nothing before any rule matters.
/// Red if one of the tests of images and roots is.
fn first_container(_: &Arena) {
    again(&[UNPREPARED], &["escapes::images"], 10);
    again(&[UNPREPARED], &["escapes::roots"], 2);
}
