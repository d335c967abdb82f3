//! What a program needs to leave a long-lived child behind: a fork that is
//! only allowed while nothing can go wrong with it, and control over the
//! memory the child keeps.

use crate::{Error, ErrorKind, Result};

mod segments;
#[allow(unsafe_code)]
mod sys;

/// Which side of [`fork`] the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that called; the value is the child's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// Duplicates the calling process (`fork(2)`), for a child that goes on
/// without an `execve`.
///
/// # Errors
/// [`ErrorKind::WrongState`] when the process has more than one thread: the
/// others would not exist in the child, and locks they hold (the allocator's
/// first of all) would stay locked for ever. Otherwise the kernel's refusal.
pub fn fork() -> Result<Fork> {
    match thread_count()? {
        1 => {
            let pid = sys::fork().map_err(|e| Error::sys("fork", e))?;
            Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid) })
        }
        n => Err(Error::new(
            ErrorKind::WrongState,
            format!("fork is only possible with one thread, this process has {n}"),
        )),
    }
}

/// Closes every descriptor but the three standard streams. A program that
/// leaves a child behind must not keep what its caller happened to have open
/// without `O_CLOEXEC`: pipes would never end, mounts stay busy.
///
/// To be called first in `main`, before anything is opened.
pub fn close_inherited() {
    sys::close_from(3);
}

/// Keeps the heap of a process with short-lived helper threads small: one
/// arena for all of them instead of one for each, and freed memory at the end
/// of the heap goes back to the kernel early. Call it before any thread starts.
pub fn keep_heap_small() {
    sys::one_arena();
}

/// Gives back what an idle process does not need: free pages of the heap, and
/// the pages of its own code and constants. Those stay in the page cache and
/// come back by a minor fault each when they are used again.
///
/// Worth its 0.1 ms after a burst of work, before idling: without it a server
/// keeps all the code mapped that was ever used, about ten times of what
/// waiting needs.
pub fn give_back_memory() {
    sys::malloc_trim();
    for segment in segments::read_only() {
        sys::drop_pages(segment);
    }
}

/// Threads of this process: `/proc/self/task` has one directory for each
/// (proc(5)).
fn thread_count() -> Result<usize> {
    let tasks =
        std::fs::read_dir("/proc/self/task").map_err(|e| Error::sys("read /proc/self/task", e))?;
    Ok(tasks.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fork_refuses_a_process_with_threads() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let error = fork().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState);
        drop(release);
        assert!(other.join().unwrap().is_err());
    }
}
