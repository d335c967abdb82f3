//! A container to be: bundle, root file system, config.

use std::fs;
use std::path::{Path, PathBuf};

use boathook_fs::rootfs::{MountSpec, mount_rootfs, unmount_rootfs};
use boathook_runtime::{Create, CreateOptions, Error, Result, Stdio, spec};
use rootfs_tests::bundle::Bundle;
use serde_json::{Value, json};

use super::payload;
use super::streams::Streams;
use super::{Arena, LIMIT, Live, sys};

/// A bundle with containerd's default config, to be changed and then run.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) id: String,
    /// What `config.json` will hold.
    pub(crate) config: Value,
    /// Choices beside the config.
    pub(crate) options: CreateOptions,
    bundle: Bundle,
}

/// How a process ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Standard output, of a process that must have succeeded.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end()
    }
}

impl<'a> Case<'a> {
    pub(crate) fn new(arena: &'a Arena, args: &[&str]) -> Self {
        let id = arena.new_id();
        let bundle = Bundle::empty(arena.dir(), &id, args).expect("a bundle");
        overlay(&arena.image(), &bundle);
        let mut config = bundle.config.clone();
        config["linux"]["cgroupsPath"] = json!(arena.cgroup(&id));
        Self { arena, id, config, options: CreateOptions::default(), bundle }
    }

    /// The bundle directory.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle.dir
    }

    /// A file of the root file system, as the host sees it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.bundle.rootfs().join(path.trim_start_matches('/'))
    }

    /// Adds a mount at the end.
    pub(crate) fn mount(&mut self, point: &str, kind: &str, source: &str, options: &[&str]) {
        let mount = json!({ "destination": point, "type": kind, "source": source,
            "options": options });
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Adds a bind mount of something of the host.
    pub(crate) fn bind(&mut self, source: &Path, point: &str, options: &[&str]) {
        self.mount(point, "bind", source.to_str().unwrap(), options);
    }

    /// Makes this program available in the container, for [`Case::payload`].
    pub(crate) fn with_payload(&mut self) {
        let program = std::env::current_exe().unwrap();
        self.bind(&program, payload::PLACE, &["bind", "ro"]);
    }

    /// The config's mount with this destination.
    pub(crate) fn mount_at(&mut self, point: &str) -> &mut Value {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.iter_mut().find(|mount| mount["destination"] == point).unwrap()
    }

    /// Removes the config's mount with this destination.
    pub(crate) fn without_mount(&mut self, point: &str) {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != point);
    }

    /// Takes a namespace away, or gives it a path.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let all = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        all.retain(|namespace| namespace["type"] != kind);
        if let Some(path) = path {
            all.push(json!({ "type": kind, "path": path }));
        }
    }

    /// Adds a namespace of the container's own.
    pub(crate) fn new_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": kind }));
    }

    /// Runs as this user.
    pub(crate) fn user(&mut self, uid: u32, gid: u32, groups: &[u32]) {
        self.config["process"]["user"] =
            json!({ "uid": uid, "gid": gid, "additionalGids": groups });
    }

    /// The same sets everywhere but in inheritable and ambient.
    pub(crate) fn capabilities(&mut self, names: &[&str]) {
        self.config["process"]["capabilities"] =
            json!({ "bounding": names, "permitted": names, "effective": names });
    }

    /// Writes `config.json` and creates the container with these streams.
    pub(crate) fn create_with(&self, stdio: Stdio) -> Result<Live> {
        self.save();
        let spec = spec::load(&self.bundle.dir)?;
        let created = self.arena.engine.create(Create {
            id: &self.id,
            bundle: &self.bundle.dir,
            spec: &spec,
            stdio,
            options: self.options,
            deadline: LIMIT,
        })?;
        Ok(Live::new(created, self.config["process"].clone()))
    }

    /// Creates the container with pipes.
    pub(crate) fn create(&self) -> Result<Live> {
        let (stdio, streams) = Streams::pipes();
        let mut live = self.create_with(stdio)?;
        live.streams = Some(streams);
        Ok(live)
    }

    /// Creates and starts the container.
    pub(crate) fn start(&self) -> Live {
        let live = self.create().unwrap_or_else(|error| panic!("create: {error}"));
        live.start();
        live
    }

    /// Runs the container to its end and deletes it.
    pub(crate) fn run(&self) -> Outcome {
        self.start().finish()
    }

    /// Creates the container as on a kernel without the system call `number`.
    pub(crate) fn create_without(&self, number: libc::c_long) -> Result<Live> {
        self.save();
        let (stdio, streams) = Streams::pipes();
        let (engine, id, options) = (self.arena.engine.clone(), self.id.as_str(), self.options);
        let bundle = self.bundle.dir.as_path();
        let created = std::thread::scope(|scope| {
            let create = move || {
                sys::take_away(&[number], &[]).expect("seccomp");
                let spec = spec::load(bundle)?;
                engine.create(Create { id, bundle, spec: &spec, stdio, options, deadline: LIMIT })
            };
            scope.spawn(create).join().expect("no panic")
        })?;
        let mut live = Live::new(created, self.config["process"].clone());
        live.streams = Some(streams);
        Ok(live)
    }

    /// The error of a create that must fail.
    #[track_caller]
    pub(crate) fn refused(&self) -> Error {
        match self.create() {
            Ok(_) => panic!("was created"),
            Err(error) => error,
        }
    }

    /// Writes `config.json`.
    pub(crate) fn save(&self) {
        fs::write(self.bundle.dir.join("config.json"), self.config.to_string()).unwrap();
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        let gone = unmount_rootfs(&self.bundle.rootfs());
        assert!(gone.is_ok() || std::thread::panicking(), "unmount the root: {gone:?}");
    }
}

fn overlay(image: &Path, bundle: &Bundle) {
    let part = |name: &str| {
        let dir = bundle.dir.join(name);
        fs::create_dir(&dir).unwrap();
        format!("{name}dir={}", dir.display())
    };
    let options = vec![format!("lowerdir={}", image.display()), part("upper"), part("work")];
    let spec = MountSpec {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    };
    mount_rootfs(&[spec], &bundle.rootfs()).expect("the overlay").keep();
}
