//! boathook: the command line of the engine.
fn main() {}
