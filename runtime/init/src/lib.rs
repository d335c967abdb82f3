//! The container-side program of boathook, and the one table of steps that it
//! shares with the engine.
#![no_std]
