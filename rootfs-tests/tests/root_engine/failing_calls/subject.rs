//! The process whose calls fail: an engine that does what it is told, one command at a time.
//!
//! Commands come and answers go by the socket on descriptor 0, which the filter leaves alone.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use boathook_fs::rootfs::{MountSpec, mount_rootfs, unmount_rootfs};
use boathook_runtime::{Create, CreateOptions, Created, Engine, ErrorKind, Stdio, spec};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rootfs_tests::wait::{self, Deadline};

use super::errnos;
use crate::support::{LIMIT, sys};

/// The root file system's directory in the bundle, mounted and unmounted by the subject.
pub(super) const ROOT: &str = "root";

/// Serves until the socket is closed. `bundle` has the container's name; `state` is where its
/// record goes.
pub(crate) fn serve(bundle: &str, state: &str, kind: &str) -> io::Result<()> {
    let subject = Subject {
        bundle: PathBuf::from(bundle),
        state: PathBuf::from(state),
        terminal: kind == "terminal",
        prepared: kind == "prepared",
        created: None,
    };
    // Something that a careless program around the engine leaves open for its children.
    let leak = File::open("/")?;
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty())?;
    let socket = io::stdin();
    hand_over_listener(&socket)?;
    let mut subject = AssertUnwindSafe(subject);
    let mut buffer = [0; 64];
    loop {
        let length = rustix::io::read(&socket, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let answer = catch_unwind(AssertUnwindSafe(|| subject.obey(&command)));
        let answer = match answer {
            Ok(Ok(text)) => format!("ok {text}"),
            Ok(Err(text)) => format!("error {text}"),
            Err(_) => "panic".to_owned(),
        };
        rustix::io::write(&socket, answer.as_bytes())?;
    }
}

/// A container from its create to its delete, without the system call of this number or, as in
/// `NUMBER/ARGUMENT`, with that argument at 0 only; the answer is the last line of what is written.
pub(crate) fn without(call: &str, bundle: &str, state: &str) -> io::Result<()> {
    let (bundle, state) = (PathBuf::from(bundle), PathBuf::from(state));
    let number = |text: &str| text.parse().map_err(io::Error::other);
    match call.split_once('/') {
        None => sys::take_away(&[number(call)?], &[])?,
        Some((call, argument)) => {
            let argument = argument.parse().map_err(io::Error::other)?;
            sys::take_away(&[], &[(number(call)?, argument, u32::MAX)])?;
        }
    }
    let mut subject = Subject { bundle, state, terminal: false, prepared: false, created: None };
    let answer = subject.create_on(&[]).and_then(|_| {
        let started = subject.start();
        started.and(subject.delete())
    });
    match answer {
        Ok(_) => println!("ok"),
        Err(text) => println!("error {text}"),
    }
    Ok(())
}

/// From here on every call that is not left alone is asked about.
fn hand_over_listener(socket: &io::Stdin) -> io::Result<()> {
    let listener = sys::ask_about_calls(errnos::never_fail(), socket.as_fd())?;
    let rights = [listener.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    let data = [IoSlice::new(b"listener")];
    sendmsg::<()>(socket.as_raw_fd(), &data, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

struct Subject {
    bundle: PathBuf,
    state: PathBuf,
    terminal: bool,
    /// Whether the engine is prepared for more than one container.
    prepared: bool,
    created: Option<Created>,
}

impl Subject {
    fn obey(&mut self, command: &str) -> Result<String, String> {
        match command {
            "create" => self.create(),
            "start" => self.start(),
            "exec" => self.exec(),
            "find" => self.find(),
            "delete" => self.delete(),
            "reap" => {
                boathook_runtime::process::reap_orphans();
                Ok(String::new())
            }
            other => Err(format!("Internal no command {other:?}")),
        }
    }

    fn root(&self) -> PathBuf {
        self.bundle.join(ROOT)
    }

    /// As the shim does it: root file system, then container, and both are taken back if the
    /// second fails.
    fn create(&mut self) -> Result<String, String> {
        let overlay = overlay(&self.bundle);
        self.create_on(&[overlay])
    }

    fn create_on(&mut self, root: &[MountSpec]) -> Result<String, String> {
        let name = self.bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let spec = spec::load(&self.bundle).map_err(|error| told(&error))?;
        let rootfs = mount_rootfs(root, &self.root())
            .map_err(|error| format!("{:?} {error}", error.kind()))?;
        let stdio = match self.terminal {
            true => Stdio::Terminal,
            false => Stdio::Fds { stdin: None, stdout: None, stderr: None },
        };
        let engine = Engine::new(&self.state);
        if self.prepared {
            engine.prepare().map_err(|error| told(&error))?;
        }
        let created = engine
            .create(Create {
                id: &name,
                bundle: &self.bundle,
                spec: &spec,
                stdio,
                options: CreateOptions::default(),
                deadline: LIMIT,
            })
            .map_err(|error| told(&error))?;
        drop(rootfs.keep());
        let pid = created.process.pid();
        self.created = Some(created);
        Ok(pid.to_string())
    }

    fn start(&mut self) -> Result<String, String> {
        let created = self.created.as_ref().ok_or("Internal nothing was created")?;
        created.container.start(&created.process, LIMIT).map_err(|error| told(&error))?;
        Ok(String::new())
    }

    fn exec(&mut self) -> Result<String, String> {
        let created = self.created.as_ref().ok_or("Internal nothing was created")?;
        let json = fs::read(self.bundle.join("exec.json")).map_err(|e| format!("Internal {e}"))?;
        let process = spec::process_from_json(&json).map_err(|error| told(&error))?;
        let stdio = Stdio::Fds { stdin: None, stdout: None, stderr: None };
        let (process, _) =
            created.container.exec(&process, stdio, LIMIT).map_err(|error| told(&error))?;
        process.start(LIMIT).map_err(|error| told(&error))?;
        wait::readable(process.pidfd(), "the end of an exec", Deadline::after(LIMIT))
            .map_err(|error| format!("Harness {error}"))?;
        let status = process.reap().map_err(|error| told(&error))?;
        Ok(status.map_or_else(|| "alive".to_owned(), |status| status.code.to_string()))
    }

    /// What another process does that has only the record: says whether the container runs.
    fn find(&mut self) -> Result<String, String> {
        let name = self.bundle.file_name().unwrap_or_default().to_string_lossy();
        let found = Engine::new(&self.state).open(&name).map_err(|error| told(&error))?;
        match found.signal(libc::SIGCONT) {
            Ok(()) => Ok("running".to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok("ended".to_owned()),
            Err(error) => Err(told(&error)),
        }
    }

    /// May be repeated until it succeeds, as a Delete may.
    fn delete(&mut self) -> Result<String, String> {
        if let Some(created) = &self.created {
            created.container.delete(LIMIT).map_err(|error| told(&error))?;
            created.process.reap().map_err(|error| told(&error))?;
        }
        unmount_rootfs(&self.root()).map_err(|error| format!("{:?} {error}", error.kind()))?;
        self.created = None;
        Ok(String::new())
    }
}

fn told(error: &boathook_runtime::Error) -> String {
    format!("{:?} {error}", error.kind())
}

/// Directories of the bundle that the overlay is made of; the caller has made them.
fn overlay(bundle: &Path) -> MountSpec {
    let dir = |name: &str| bundle.join(name).display().to_string();
    MountSpec {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}", dir("rootfs")),
            format!("upperdir={}", dir("above")),
            format!("workdir={}", dir("beside")),
        ],
    }
}
