//! Standard streams that are pipes, files, or nothing.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use boathook_runtime::Stdio;
use rootfs_tests::image::USER;

use super::support::{Arena, tests};

tests!(
    pipes_belong_to_the_user,
    files_of_the_host_keep_their_owner,
    none_is_the_null_device,
    an_engine_without_standard_streams,
);

/// Red if a user's program cannot open /dev/stdout and /dev/stderr, as log settings of many images
/// do.
fn pipes_belong_to_the_user(arena: &Arena) {
    let mut case = arena.sh("for fd in 0 1 2; do stat -L -c %u /proc/self/fd/$fd; done; \
         echo out > /dev/stdout; echo err > /dev/stderr");
    case.user(USER, USER, &[]);
    let outcome = case.run();
    assert_eq!(outcome.text(), format!("{USER}\n{USER}\n{USER}\nout"));
    assert_eq!(outcome.err, "err\n");
}

/// CVE-2026-88265: red if a stream that is a file or device of the host is given to the
/// container's user. (Seen red with regular files given away in `console::give_stdio`.)
fn files_of_the_host_keep_their_owner(arena: &Arena) {
    let path = arena.dir().join("log");
    let null = || fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let mut case = arena.sh("echo to a file; echo and another >&2");
    case.user(USER, USER, &[]);
    let log = fs::File::create(&path).unwrap();
    let live = case
        .create_with(Stdio::Fds {
            stdin: Some(null().into()),
            stdout: Some(OwnedFd::from(log.try_clone().unwrap())),
            stderr: Some(OwnedFd::from(log)),
        })
        .unwrap();
    live.start();
    assert_eq!(live.wait(), 0);
    live.delete();
    assert_eq!(fs::read_to_string(&path).unwrap(), "to a file\nand another\n");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
}

/// Red if a stream that nobody gave is the engine's own.
fn none_is_the_null_device(arena: &Arena) {
    let case = arena.sh("cat; echo lost; exec sleep 1000");
    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
    let live = case.create_with(none).unwrap();
    live.start();
    for fd in 0..3 {
        let found = fs::metadata(format!("/proc/{}/fd/{fd}", live.process.pid())).unwrap();
        assert_eq!(found.rdev(), fs::metadata("/dev/null").unwrap().rdev(), "{fd}");
    }
    live.delete();
}

/// Red if descriptors of the plan land on the numbers 0 to 2, where the program's streams are put
/// over them: a daemon may run with all three closed.
fn an_engine_without_standard_streams(arena: &Arena) {
    let saved = [0, 1, 2].map(super::support::sys::Closed::new);
    let case = arena.sh("cat; echo out; echo err >&2");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.run()));
    drop(saved);
    let outcome = outcome.unwrap();
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "out\n", "err\n"));
}
