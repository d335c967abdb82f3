//! The pod of the demo: a web server and a visitor that share a network, driven
//! through CRI the way the kubelet does it.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use rootfs_tests::containerd::Daemon;
use rootfs_tests::cri::{ContainerConfig, Cri, PodSandboxConfig};
use rootfs_tests::memory::Usage;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{Error, Result, ensure, ensure_eq, host};

/// What the page says and the visitor has to read.
const GREETING: &str = "hello from the other container";
/// The kubelet's default, in seconds; both containers end at once when asked.
const GRACE: i64 = 30;

/// One thing to do with the pod; the answer is what a reader may see of it.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Pod) -> Result<String>,
}

/// Until the pod does its work.
pub(crate) const BEGIN: &[Step] = &[
    Step { name: "sandbox: network and pause container", run: Pod::sandbox },
    Step { name: "container `web`: create, start", run: Pod::web },
    Step { name: "container `visitor`: create, start", run: Pod::visitor },
    Step { name: "exec in `web`", run: Pod::exec },
    Step { name: "log of `visitor`", run: Pod::log },
    Step { name: "stats of `web`", run: Pod::stats },
];

/// Until nothing of it is there.
pub(crate) const END: &[Step] = &[
    Step { name: "stop both containers", run: Pod::stop_containers },
    Step { name: "remove both containers", run: Pod::remove_containers },
    Step { name: "stop the sandbox", run: Pod::stop },
    Step { name: "remove the sandbox", run: Pod::remove },
];

/// One pod on one handler.
pub(crate) struct Pod {
    cri: Rc<Cri>,
    handler: &'static str,
    config: PodSandboxConfig,
    logs: PathBuf,
    sandbox: String,
    web: String,
    visitor: String,
}

impl Pod {
    /// Nothing runs yet.
    pub(crate) fn new(
        cri: &Rc<Cri>,
        daemon: &Daemon,
        handler: &'static str,
        name: &str,
    ) -> Result<Self> {
        let name = format!("{name}-{handler}");
        let logs = daemon.logs().join(&name);
        fs::create_dir(&logs)
            .map_err(|source| Error::Io { what: format!("mkdir {}", logs.display()), source })?;
        let config = PodSandboxConfig::simple(&name, "/", &logs);
        let none = String::new;
        Ok(Self {
            cri: Rc::clone(cri),
            handler,
            config,
            logs,
            sandbox: none(),
            web: none(),
            visitor: none(),
        })
    }

    /// What the pod's shim costs while the containers do nothing.
    pub(crate) fn shim_memory(&self) -> Result<Usage> {
        let shims = host::processes(|line| {
            line.contains("containerd-shim-") && line.contains(&self.sandbox)
        });
        let [shim] = shims.as_slice() else {
            return Err(Error::check(format!("one shim was expected for the pod, not {shims:?}")));
        };
        Usage::of(*shim)
    }

    fn sandbox(&mut self) -> Result<String> {
        self.sandbox = self.cri.run_pod(&self.config, self.handler)?;
        Ok(String::new())
    }

    fn web(&mut self) -> Result<String> {
        // The shell is process 1: it must pass the signal on, as a server does by itself.
        let script = format!(
            "trap 'exit 0' TERM; mkdir /www; echo '{GREETING}' >/www/index.html; \
             httpd -f -p 8080 -h /www & wait"
        );
        self.web = self.container("web", &script)?;
        Ok(String::new())
    }

    fn visitor(&mut self) -> Result<String> {
        let script = "trap 'exit 0' TERM; \
             until wget -q -O - http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.01; done; \
             sleep 2147483647 & wait";
        self.visitor = self.container("visitor", script)?;
        Ok(String::new())
    }

    fn container(&self, name: &str, script: &str) -> Result<String> {
        let mut config = ContainerConfig::simple(name, &["/bin/sh", "-c", script]);
        // The runc shim does not know them; on boathook they are part of the times.
        for (what, file) in [("post-start", "/started"), ("pre-stop", "/stopping")] {
            let handler = format!(r#"{{"exec":{{"command":["touch","{file}"]}}}}"#);
            config.annotations.insert(format!("{what}.boathook.dev/{name}"), handler);
        }
        self.cri.run(&self.sandbox, &config, &self.config)
    }

    fn exec(&mut self) -> Result<String> {
        let answer = self.cri.exec(&self.web, &["cat", "/proc/1/comm"], 10)?;
        let said = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        ensure_eq!((answer.exit_code, said.as_str()), (0, "sh"), "the exec in `web`");
        Ok(format!("its process 1 is `{said}`"))
    }

    /// The visitor's log in CRI's format: time, stream, tag, text.
    fn log(&mut self) -> Result<String> {
        let path = self.logs.join("visitor.log");
        wait::until("the page in the visitor's log", PATIENCE, || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Ok(text
                .lines()
                .any(|line| line.ends_with(&format!("stdout F {GREETING}")))
                .then_some(()))
        })?;
        Ok(format!("\"{GREETING}\""))
    }

    fn stats(&mut self) -> Result<String> {
        let stats = self.cri.stats(&self.web)?;
        let bytes = stats.memory.and_then(|m| m.working_set_bytes).map_or(0, |v| v.value);
        let cpu = stats.cpu.and_then(|c| c.usage_core_nano_seconds).map_or(0, |v| v.value);
        ensure!(bytes > 0 && cpu > 0, "stats of `web` say {bytes} bytes and {cpu} ns");
        Ok(format!("{} KiB in use, {:.1} ms of processor time", bytes >> 10, cpu as f64 / 1e6))
    }

    fn stop_containers(&mut self) -> Result<String> {
        for container in [&self.visitor, &self.web] {
            self.cri.stop(container, GRACE)?;
        }
        let codes =
            [&self.web, &self.visitor].map(|id| Ok(self.cri.container_status(id)?.exit_code));
        let [web, visitor] = codes;
        let codes: (i32, i32) = (web?, visitor?);
        ensure_eq!(codes, (0, 0), "exit codes of `web` and `visitor`");
        Ok("both ended by themselves, exit code 0".into())
    }

    fn remove_containers(&mut self) -> Result<String> {
        self.cri.remove(&self.visitor)?;
        self.cri.remove(&self.web)?;
        Ok(String::new())
    }

    fn stop(&mut self) -> Result<String> {
        self.cri.stop_pod(&self.sandbox)?;
        Ok(String::new())
    }

    fn remove(&mut self) -> Result<String> {
        self.cri.remove_pod(&self.sandbox)?;
        Ok(String::new())
    }
}
