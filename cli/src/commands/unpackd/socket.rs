//! The socket: made here, for its owner alone, or handed over by whoever holds it for us
//! (sd_listen_fds(3)), so that calls wait while the program is started anew.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open, umask};

use crate::output::Failure;

/// The first descriptor that is handed over (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// A socket that is listened to; what was made here is removed in the end.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    /// `None` when it is somebody else's.
    path: Option<PathBuf>,
}

impl Socket {
    /// Takes the one that was handed over, else makes one at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if let Some(listener) = handed_over()? {
            return Ok(Self { listener, path: None });
        }
        let failed = |e: io::Error| Failure::Io(path.display().to_string(), e);
        if UnixStream::connect(path).is_ok() {
            return Err(Failure::Text(format!(
                "{}: somebody serves there already",
                path.display()
            )));
        }
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed)?;
        }
        // Nobody listens to it any more. What is no socket stays, and is in the way.
        if fs::symlink_metadata(path).is_ok_and(|meta| is_socket(&meta)) {
            fs::remove_file(path).map_err(failed)?;
        }
        // There is no moment at which others could connect.
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        Ok(Self { listener: bound.map_err(failed)?, path: Some(path.to_owned()) })
    }

    /// A second descriptor, which does not block.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(super) fn shown(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the socket that was handed over".to_owned(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_socket(meta: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type())
}

fn handed_over() -> Result<Option<UnixListener>, Failure> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let own = getpid();
    // The variables are inherited; they are meant for the process that they name.
    if number("LISTEN_PID") != Some(own.as_raw_nonzero().get()) {
        return Ok(None);
    }
    let count = number("LISTEN_FDS");
    if count != Some(1) {
        return Err(Failure::Text("LISTEN_FDS: one socket is needed".to_owned()));
    }
    let taken = || -> io::Result<UnixListener> {
        let me = pidfd_open(own, PidfdFlags::empty())?;
        let fd: OwnedFd = pidfd_getfd(me, FIRST, PidfdGetfdFlags::empty())?;
        if !rustix::net::sockopt::socket_acceptconn(&fd)?
            || rustix::net::sockopt::socket_domain(&fd)? != rustix::net::AddressFamily::UNIX
        {
            return Err(io::Error::other("not a unix socket that listens"));
        }
        Ok(UnixListener::from(fd))
    };
    taken().map(Some).map_err(|e| Failure::Io(format!("descriptor {FIRST}"), e))
}
