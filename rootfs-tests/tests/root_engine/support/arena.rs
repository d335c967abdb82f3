//! The ground that all tests stand on, and the arena that each has for itself.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use boathook_runtime::Engine;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rootfs_tests::image;
use rootfs_tests::packages::{Packages, Release};

use super::Case;

thread_local! {
    static GROUND: RefCell<Option<Rc<Ground>>> = const { RefCell::new(None) };
}

/// A private mount namespace with a tmpfs for everything, and the image's files in it.
#[derive(Debug)]
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    /// Part of every name that a test gives away, so that the census knows ours.
    pub(crate) tag: String,
    count: Cell<usize>,
}

/// Unmounts and removes everything when the last test is over.
pub(crate) struct GroundGuard(Rc<Ground>);

impl Ground {
    /// Prepares the process; called once, while it has one thread.
    #[must_use]
    pub(crate) fn prepare() -> GroundGuard {
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare mounts");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("privacy");
        // Orphans of containers without a pid namespace come to us, where the census sees them.
        nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
        let packages = Packages::get(Release::Bookworm).expect("Debian's busybox");
        let dir = tempfile::tempdir().expect("a temporary directory");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        let ground =
            Rc::new(Self { dir, tag: format!("bhe{}", std::process::id()), count: Cell::new(0) });
        fs::create_dir(ground.image()).expect("mkdir");
        image::unpack(&packages.busybox(), &ground.image()).expect("unpack the image");
        GROUND.set(Some(Rc::clone(&ground)));
        GroundGuard(ground)
    }

    /// The ground of this process.
    pub(crate) fn current() -> Rc<Self> {
        GROUND.with_borrow(Clone::clone).expect("prepared on this thread")
    }

    /// The image's files; never written to.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Where tests put theirs.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for GroundGuard {
    fn drop(&mut self) {
        GROUND.set(None);
        let _ = umount2(self.0.dir.path(), MntFlags::MNT_DETACH);
        let _ = rootfs_tests::host::remove_cgroup(&self.0.tag);
    }
}

/// What one test has: a directory, an engine, names.
#[derive(Debug)]
pub(crate) struct Arena {
    ground: Rc<Ground>,
    dir: PathBuf,
    /// The engine under test, with its records in [`Arena::state`].
    pub(crate) engine: Engine,
    count: Cell<usize>,
}

impl Arena {
    pub(crate) fn new(ground: Rc<Ground>) -> Self {
        let number = ground.count.get();
        ground.count.set(number + 1);
        let dir = ground.path().join(number.to_string());
        fs::create_dir(&dir).expect("mkdir");
        let engine = Engine::new(&dir.join("state"));
        if prepared() {
            engine.prepare().expect("a mount namespace to begin with");
        }
        Self { ground, dir, engine, count: Cell::new(0) }
    }

    /// A directory for the test.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new directory with a name.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("mkdir");
        dir
    }

    /// The engine's records; there is none before the first container and after the last.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The image's files; never written to.
    pub(crate) fn image(&self) -> PathBuf {
        self.ground.image()
    }

    /// A name that no other container has.
    pub(crate) fn new_id(&self) -> String {
        let number = self.count.get();
        self.count.set(number + 1);
        let test = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{}-{test}-{number}", self.ground.tag)
    }

    /// The cgroup path of an id.
    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.ground.tag)
    }

    /// A container that is going to run `args` on a writable view of the image.
    pub(crate) fn case(&self, args: &[&str]) -> Case<'_> {
        Case::new(self, args)
    }

    /// A container that is going to run a shell script.
    pub(crate) fn sh(&self, script: &str) -> Case<'_> {
        self.case(&["/bin/sh", "-c", script])
    }

    /// A container whose first process does nothing until it is killed.
    pub(crate) fn sleeper(&self) -> Case<'_> {
        self.case(&["/bin/sleep", "1000000"])
    }

    /// Ends the test: the engine's records must be gone by now.
    pub(crate) fn end(self) {
        let state = self.state();
        assert!(!state.exists(), "left in the state directory: {:?}", list(&state));
        drop(self.engine);
        fs::remove_dir_all(&self.dir).expect("remove the arena");
    }
}

/// Set for a run of this program whose engines have every container begin with the host's mounts.
pub(crate) const UNPREPARED: &str = "ROOT_ENGINE_UNPREPARED";

fn prepared() -> bool {
    std::env::var_os(UNPREPARED).is_none()
}

fn list(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).map(|all| all.flatten().collect()).unwrap_or_else(|_| vec![]);
    entries.iter().map(|entry| entry.path().display().to_string()).collect()
}
