//! What the figures were measured on, told so that a reader can compare
//! machines and nobody can name them.

use std::fmt;
use std::fs;

/// The facts about a machine that move these figures.
#[derive(Debug)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    memory_gib: u64,
    system: String,
    kernel: String,
    cgroups: String,
    virtual_machine: bool,
}

impl Machine {
    /// Reads them from procfs and sysfs; what cannot be read is called unknown.
    pub(crate) fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = value(&cpuinfo, "model name", ':').unwrap_or("unknown processor").to_owned();
        let memory = value(&read("/proc/meminfo"), "MemTotal", ':')
            .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0);
        let release = read("/etc/os-release");
        let system = value(&release, "PRETTY_NAME", '=').unwrap_or("unknown system");
        Self {
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory.div_ceil(1 << 20),
            system: system.trim_matches('"').to_owned(),
            kernel: kernel(&read("/proc/sys/kernel/osrelease")),
            cgroups: cgroups(&read("/proc/self/mountinfo")),
            virtual_machine: cpuinfo.contains(" hypervisor"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.virtual_machine { "virtual machine" } else { "machine" };
        write!(
            f,
            "{kind} with {} × {}, {} GiB of memory, {}, Linux {}, {}",
            self.cpus, self.cpu, self.memory_gib, self.system, self.kernel, self.cgroups
        )
    }
}

/// The load of the last minute: other work on the machine widens every figure.
pub(crate) fn load() -> String {
    read("/proc/loadavg").split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn value<'t>(text: &'t str, key: &str, separator: char) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(separator)?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Only the version: local builds carry names in the rest.
fn kernel(release: &str) -> String {
    let digits = release.trim().split(|c: char| c != '.' && !c.is_ascii_digit()).next();
    digits.unwrap_or_default().trim_end_matches('.').to_owned()
}

fn cgroups(mountinfo: &str) -> String {
    let of = |kind: &str| mountinfo.lines().filter(|l| l.contains(&format!(" - {kind} "))).count();
    match (of("cgroup"), of("cgroup2")) {
        (0, 0) => "no cgroups".into(),
        (0, _) => "cgroup v2".into(),
        (v1, 0) => format!("cgroup v1 ({v1} hierarchies)"),
        (v1, _) => format!("cgroup v1 ({v1} hierarchies) beside an empty v2"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_cut_from_the_kernel_release() {
        assert_eq!(kernel("6.1.0-25-amd64\n"), "6.1.0");
        assert_eq!(kernel("6.18.5+builder.example.org"), "6.18.5");
    }

    #[test]
    fn the_cgroup_mode_is_counted_from_mounts() {
        let v1 = "30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let v2 = "31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroups(v2), "cgroup v2");
        assert_eq!(cgroups(v1), "cgroup v1 (1 hierarchies)");
        assert_eq!(cgroups(&[v1, v2].concat()), "cgroup v1 (1 hierarchies) beside an empty v2");
    }
}
