//! The stop signal of a container's image, which only the daemon knows, and all the other signals,
//! which are none of a stop's business.

use crate::cri::Sandbox;
use crate::support::{Record, Subject, exec, record};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::error::{Context, Result};
use rootfs_tests::image::{BUSYBOX, QUITTER};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use std::fs;
use std::path::PathBuf;

/// Signals as a service uses them, and SIGTERM, which is nothing but a signal to some images.
const ALL: [&str; 5] = ["HUP", "USR1", "USR2", "TERM", "QUIT"];

/// Says what it got, and ends with code 5 on `last`.
fn listener(last: &str) -> String {
    let traps = ALL.map(|name| format!("trap 'echo {name} >>/out/log' {name};"));
    format!(
        "{} trap 'echo {last} >>/out/log; exit 5' {last}; echo ready >>/out/log; \
         while :; do sleep 1000 & wait; done",
        traps.join(" ")
    )
}

/// Sends each signal but `last`; each arrives, and none begins a stop.
fn others_pass(scene: &Scene<'_>, subject: &Subject, id: &str, last: &str) -> Result<()> {
    subject.logged("ready")?;
    for name in ALL.iter().filter(|name| **name != last) {
        scene.ctr.ok(&["task", "kill", "--signal", &format!("SIG{name}"), id])?;
        subject.logged(name)?;
    }
    let names = record(scene.ctr.namespace(), id)?.names();
    ensure_eq!(names, ["started"], "after the other signals");
    Ok(())
}

fn signal_of(record: &Record) -> i64 {
    record.0["policy"]["signal"].as_i64().unwrap_or_default()
}

/// The image's begins the stop, and CRI sends it; without one it is SIGTERM.
pub(crate) fn image_signal_in_a_pod(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let pod = Sandbox::start(scene, &scene.id, &[])?;
    for (name, image, last, number) in
        [("quitter", QUITTER, "QUIT", 3), ("usual", BUSYBOX, "TERM", 15)]
    {
        let key = format!("pre-stop.boathook.dev/{name}");
        let hook = exec("echo hook >>/out/log");
        let annotations = [(key.as_str(), hook.as_str())];
        let (id, subject) = pod.run(scene, (name, image), &annotations, &listener(last))?;
        ensure_eq!(signal_of(&record(CRI_NAMESPACE, &id)?), number, "stop signal of {name}");
        others_pass(scene, &subject, &id, last)?;
        pod.cri.stop(&id, 60)?;
        ensure_eq!(pod.cri.container_status(&id)?.exit_code, 5, "exit code of {name}");
        let log = subject.lines("log");
        ensure!(log.ends_with(&["hook".to_owned(), last.to_owned()]), "log of {name}: {log:?}");
    }
    pod.end()
}

/// The same with `ctr`, whose `task kill` sends the image's signal by itself.
pub(crate) fn image_signal_of_ctr(scene: &mut Scene<'_>) -> Result<()> {
    let hook = exec("echo hook >>/out/log");
    for (kind, stop, last, number) in
        [("image", "{}", "QUIT", 3), ("annotation", r#"{"signal":"USR2"}"#, "USR2", 12)]
    {
        let subject = Subject::new(scene, &format!("{}-{kind}", scene.id))?;
        let options = subject.options(&[("pre-stop", &hook), ("stop", stop)], &[]);
        let mut args = vec!["run", "-d", "--runtime", scene.runtime.ctr()];
        args.extend(options.iter().map(String::as_str));
        let script = listener(last);
        args.extend([QUITTER, &subject.id, "sh", "-c", &script]);
        scene.ctr.ok(&args)?;
        ensure_eq!(signal_of(&subject.record(scene)?), number, "stop signal of {kind}");
        others_pass(scene, &subject, &subject.id, last)?;
        match kind {
            "image" => scene.ctr.ok(&["task", "kill", &subject.id]).map(drop)?,
            _ => subject.kill(scene, &format!("SIG{last}"))?,
        }
        ensure_eq!(subject.end(scene)?.1, 5, "exit code of {kind}");
        let log = subject.lines("log");
        ensure!(log.ends_with(&["hook".to_owned(), last.to_owned()]), "log of {kind}: {log:?}");
    }
    Ok(())
}

/// The daemon's socket, under another name for a while.
struct Hidden {
    socket: PathBuf,
    aside: PathBuf,
}

impl Hidden {
    fn hide(socket: PathBuf) -> Result<Self> {
        let aside = socket.with_extension("aside");
        fs::rename(&socket, &aside).during(|| "hide the daemon's socket")?;
        Ok(Self { socket, aside })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::rename(&self.aside, &self.socket);
    }
}

/// Where the daemon does not answer the shim, a container is made all the same, and whatever CRI
/// sends to end it does.
pub(crate) fn image_signal_unknown(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let pod = Sandbox::start(scene, &scene.id, &[])?;
    let hook = exec("echo hook >>/out/log");
    let annotations = [("pre-stop.boathook.dev/quitter", hook.as_str())];
    // CRI's connection stands; the shim would need one of its own.
    let hidden = Hidden::hide(scene.daemon.socket())?;
    let started = pod.run(scene, ("quitter", QUITTER), &annotations, &listener("QUIT"));
    drop(hidden);
    let (id, subject) = started?;
    ensure_eq!(signal_of(&record(CRI_NAMESPACE, &id)?), 0, "nothing is known");
    subject.logged("ready")?;
    // Of job control, and the shell ignores it.
    scene.ctr.ok(&["task", "kill", "--signal", "SIGURG", &id])?;
    ensure_eq!(record(CRI_NAMESPACE, &id)?.names(), ["started"], "after SIGURG");
    pod.cri.stop(&id, 60)?;
    wait::until("the end", PATIENCE, || {
        Ok((pod.cri.container_status(&id)?.exit_code == 5).then_some(()))
    })?;
    ensure_eq!(subject.lines("log"), ["ready", "hook", "QUIT"], "log");
    pod.end()
}
