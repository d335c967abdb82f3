//! A hook that says when it runs and waits to be told to go on.
//!
//! ```text
//! hook ── "here" ──► said (fifo) ──► the test
//! hook ◄── "go" ──── go (fifo) ◄──── the test
//! ```
//! The test holds both fifos open in both directions: it never blocks on them, and a hook that is
//! killed takes nothing with it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::wait::{self, Deadline, PATIENCE};
use rootfs_tests::{ensure_eq, host};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::{Value, json};

/// Where a gate can be: each a hook of the OCI specification, in the order of a container's life.
pub(crate) const STAGES: [&str; 5] =
    ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub(crate) struct Gate {
    stage: &'static str,
    said: File,
    go: File,
}

impl Gate {
    /// Makes the fifos in the container's root, where hooks of the host and of the container find
    /// them, and puts the hook into the config.
    pub(crate) fn new(stage: &'static str, rootfs: &Path, config: &mut Value) -> Result<Self> {
        let dir = rootfs.join("gate");
        fs::create_dir_all(&dir).during(|| "make the gate's directory")?;
        let said = fifo(&dir.join(format!("{stage}.said")))?;
        let go = fifo(&dir.join(format!("{stage}.go")))?;
        let seen = if stage == "startContainer" { Path::new("/gate") } else { &dir };
        let seen = seen.join(stage).display().to_string();
        let script = format!("echo here > {seen}.said; read word < {seen}.go");
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        let hooks = config.as_object_mut().map(|it| it.entry("hooks").or_insert(json!({})));
        let hooks = hooks.and_then(Value::as_object_mut);
        hooks.ok_or_else(|| Error::check("config.json is no object"))?.insert(stage.into(), hook);
        Ok(Self { stage, said, go })
    }

    /// A gate in a Start of an exec that has this log URI: its logging program is not ready before
    /// it may go on. The directory is made.
    pub(crate) fn before_an_exec(dir: &Path) -> Result<(Self, String)> {
        fs::create_dir_all(dir).during(|| "make the gate's directory")?;
        let said = fifo(&dir.join("said"))?;
        let go = fifo(&dir.join("go"))?;
        let (place, program) = (dir.display(), dir.join("logger"));
        let script = format!(
            "#!/bin/sh\necho here > {place}/said; read word < {place}/go\n\
             exec 5>&-\ncat <&3 >&2 &\ncat <&4 >&2\nwait\n"
        );
        fs::write(&program, script).during(|| "write a logging program")?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&program, mode).during(|| "make the program executable")?;
        Ok((Self { stage: "exec", said, go }, format!("binary://{}?a=b", program.display())))
    }

    /// Waits until the hook runs.
    pub(crate) fn reached(&self) -> Result<()> {
        let what = format!("the hook {}", self.stage);
        wait::readable(&self.said, &what, Deadline::after(PATIENCE))?;
        let mut text = [0; 16];
        let count = (&self.said).read(&mut text).during(|| what)?;
        ensure_eq!(text.get(..count), Some(&b"here\n"[..]), "what the hook said");
        Ok(())
    }

    /// Lets the hook go on, whether it runs already or not yet.
    pub(crate) fn open(&self) -> Result<()> {
        (&self.go).write_all(b"go\n").during(|| "open the gate")
    }
}

fn fifo(path: &Path) -> Result<File> {
    let what = || format!("make the fifo {}", path.display());
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).during(what)?;
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    File::options().read(true).write(true).custom_flags(flags).open(path).during(what)
}

/// Waits until no hook of a gate runs any more.
pub(crate) fn no_hook_left() -> Result<()> {
    host::none_left("the end of every hook", |line| line.contains("read word <"))
}
