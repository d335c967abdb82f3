//! One command a file.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod image;
pub(crate) mod layer;
pub(crate) mod lifecycle;
pub(crate) mod plan;
pub(crate) mod unpackd;
