//! The table of steps. The engine encodes from it, init decodes from it, and
//! `boathook plan` prints from it: a step that is not here does not exist.

use core::ffi::CStr;

use crate::wire::{Field, Ids, List, Malformed, Reader, Sink, Slot, Value};

macro_rules! steps {
    (<$lt:lifetime> $( $(#[$doc:meta])* $op:literal $name:ident { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        /// One thing that init does; each maps to a short, fixed sequence of system calls.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Step<$lt> { $( $(#[$doc])* $name { $( $(#[$fdoc])* $field: $ty ),* } ),* }

        impl<$lt> Step<$lt> {
            /// The step's name as people see it.
            pub fn name(&self) -> &'static str {
                match self { $( Step::$name { .. } => stringify!($name) ),* }
            }

            /// Appends the encoded step to `out`.
            pub fn put(&self, out: &mut dyn Sink) {
                match self { $( Step::$name { $( $field ),* } => {
                    Field::put(&($op as u32), out);
                    $( Field::put($field, out); )*
                } ),* }
            }

            /// Reads one step.
            ///
            /// # Errors
            /// [`Malformed`] for an unknown opcode or broken fields.
            pub fn get(from: &mut Reader<$lt>) -> Result<Self, Malformed> {
                match u32::get(from)? {
                    $( $op => Ok(Step::$name { $( $field: Field::get(from)? ),* }), )*
                    _ => Err(Malformed),
                }
            }

            /// Calls `visit` with each field's name and value, in order.
            pub fn fields(&self, visit: &mut dyn FnMut(&'static str, Value<$lt>)) {
                match self { $( Step::$name { $( $field ),* } => {
                    $( visit(stringify!($field), Field::value($field)); )*
                    let _ = visit;
                } ),* }
            }
        }
    };
}

steps! { <'a>
    /// Joins a v1 cgroup by writing `0` to its `tasks` file: only the calling
    /// thread moves, without the lock that a write to `cgroup.procs` takes.
    1 JoinCgroup {
        /// The `tasks` file, open for writing.
        tasks: Slot,
    }
    /// setns(2) with a namespace's descriptor or with a pidfd.
    2 SetNs {
        /// Namespace file or pidfd.
        ns: Slot,
        /// `CLONE_NEW*` bits: one for a namespace file, several for a pidfd.
        kinds: u32,
    }
    /// unshare(2).
    3 Unshare {
        /// `CLONE_NEW*` bits.
        flags: u32,
    }
    /// Sets the propagation of everything in the new mount namespace.
    4 Propagation {
        /// `MS_SLAVE`, `MS_PRIVATE`, ... with or without `MS_REC`.
        flags: u64,
    }
    /// Makes a detached mount of a file system type.
    5 NewFs {
        /// Where its descriptor is put.
        slot: Slot,
        /// File system type, such as `proc`.
        fstype: &'a CStr,
        /// Source shown in mountinfo; empty for none.
        source: &'a CStr,
        /// `key=value` or `flag`, in order.
        options: List<'a>,
        /// `MOUNT_ATTR_*` of the mount.
        attrs: u64,
    }
    /// mount_setattr(2) on a tree.
    6 SetAttr {
        /// A detached or attached tree.
        tree: Slot,
        /// `MOUNT_ATTR_*` to set.
        set: u64,
        /// `MOUNT_ATTR_*` to clear.
        clear: u64,
        /// `MS_*` propagation, or 0.
        propagation: u64,
        /// 1: on every mount of the tree.
        recursive: u32,
    }
    /// Attaches the root file system's tree; it is the root that all later
    /// paths are resolved in.
    7 MountRoot {
        /// The detached tree of the root file system.
        tree: Slot,
        /// Where: `/`, or the bundle's own directory for hooks that look there.
        at: &'a CStr,
    }
    /// Takes the current root as the root that paths are resolved in (exec).
    8 UseRoot {}
    /// Attaches a tree at a path of the container; a mount point that is not
    /// there is made as a directory or an empty file, whichever the tree is.
    9 Attach {
        /// The detached tree.
        tree: Slot,
        /// Path in the container.
        path: &'a CStr,
        /// 1: no component may be a symbolic link (kernel file systems).
        strict: u32,
        /// 1: the tree's root takes the permission bits of the directory that
        /// it covers, as for a tmpfs without a mode of its own.
        keep_mode: u32,
    }
    /// Makes a directory and its parents where they are missing.
    10 MakeDir {
        /// Path in the container.
        path: &'a CStr,
        /// Permission bits of what is made.
        mode: u32,
    }
    /// Makes a device node; an equal one may exist.
    11 Node {
        /// Path in the container.
        path: &'a CStr,
        /// File type and permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    }
    /// Makes a symbolic link; an existing file is left unless `replace` is 1.
    12 Link {
        /// What the link says.
        target: &'a CStr,
        /// Path in the container.
        path: &'a CStr,
        /// 1: an existing file is removed first.
        replace: u32,
    }
    /// Covers a path: a directory with an empty read-only tmpfs, a file with
    /// the host's null device. A missing path is left alone.
    13 Mask {
        /// Path in the container.
        path: &'a CStr,
        /// An empty read-only directory tree.
        dir: Slot,
        /// A tree that is the null device.
        file: Slot,
    }
    /// Makes a path read-only by a bind mount on itself. A missing path is
    /// left alone.
    14 Readonly {
        /// Path in the container.
        path: &'a CStr,
    }
    /// pivot_root(2) into the root and detaches the old one.
    15 Pivot {}
    /// chroot(2) into the root, for hosts whose root cannot be pivoted.
    16 Chroot {}
    /// sethostname(2).
    17 Hostname {
        /// The name.
        name: &'a CStr,
    }
    /// setdomainname(2).
    18 Domainname {
        /// The name.
        name: &'a CStr,
    }
    /// Writes a sysctl through a proc file system that only init holds.
    19 Sysctl {
        /// A proc tree.
        proc: Slot,
        /// Path below it, such as `sys/net/ipv4/ip_forward`.
        path: &'a CStr,
        /// What is written.
        value: &'a CStr,
    }
    /// Brings the loopback device of a new network namespace up.
    20 Loopback {}
    /// setsid(2).
    21 Session {}
    /// A new session keyring; not an error where the kernel has none.
    22 Keyring {
        /// Its name.
        name: &'a CStr,
    }
    /// Opens a terminal in the container's devpts, makes it the standard
    /// streams, and sends the master to the engine.
    23 Terminal {
        /// Columns; 0 with `height` 0 keeps the kernel's default.
        width: u32,
        /// Rows.
        height: u32,
        /// 1: it is also mounted on /dev/console.
        console: u32,
    }
    /// Puts three descriptors on 0, 1 and 2.
    24 Stdio {
        /// Standard input.
        stdin: Slot,
        /// Standard output.
        stdout: Slot,
        /// Standard error.
        stderr: Slot,
    }
    /// Gives pipes and terminals on 0, 1 and 2 to the user, so that
    /// /dev/stdout can be opened again.
    25 StdioOwner {
        /// The process's user.
        uid: u32,
    }
    /// setrlimit(2); no later step may name a slot.
    26 Rlimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    }
    /// Takes all CPUs that the cgroup allows, whatever the engine was bound to.
    27 ResetAffinity {}
    /// umask(2).
    28 Umask {
        /// Permission bits to take away.
        mask: u32,
    }
    /// prctl(PR_SET_NO_NEW_PRIVS).
    29 NoNewPrivs {}
    /// Working directory: entered now or, where only the user may, after
    /// `Identity`; it must lie below the root.
    30 Cwd {
        /// Path in the container.
        path: &'a CStr,
    }
    /// Groups, user and the five capability sets.
    31 Identity {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups, exactly these.
        groups: Ids<'a>,
        /// Capability bits that stay in the bounding set.
        bounding: u64,
        /// Effective set.
        effective: u64,
        /// Permitted set.
        permitted: u64,
        /// Inheritable set.
        inheritable: u64,
        /// Ambient set.
        ambient: u64,
    }
    /// The program to run: looked for now, with the user's rights, so that a
    /// missing one is an error of Create.
    32 Program {
        /// What is executed; empty for the first argument.
        file: &'a CStr,
        /// argv.
        args: List<'a>,
        /// Environment.
        env: List<'a>,
        /// User whose home is taken from /etc/passwd when HOME is not set;
        /// 0xffffffff adds nothing to the environment.
        uid: u32,
    }
    /// Reports that all is done and waits for the engine's byte.
    33 Ready {}
    /// execve(2) of the program.
    34 Exec {}
    /// Waits for the engine's hooks to be run, by one more byte.
    35 Hold {}
    /// sched_setaffinity(2) with exactly these CPUs.
    40 Affinity {
        /// Words of 32 bits.
        cpus: Ids<'a>,
    }
    /// sched_setattr(2).
    41 Scheduler {
        /// `SCHED_*`.
        policy: u32,
        /// `SCHED_FLAG_*`.
        flags: u64,
        /// Nice value, two's complement.
        nice: u32,
        /// Real-time priority.
        priority: u32,
        /// Nanoseconds of SCHED_DEADLINE.
        runtime: u64,
        /// Nanoseconds of SCHED_DEADLINE.
        deadline: u64,
        /// Nanoseconds of SCHED_DEADLINE.
        period: u64,
    }
    /// ioprio_set(2) of the process group.
    42 IoPriority {
        /// Class and level as the kernel packs them.
        value: u32,
    }
    /// set_mempolicy(2).
    43 MemoryPolicy {
        /// `MPOL_*` with `MPOL_F_*`.
        mode: u32,
        /// Words of 32 bits, a whole number of pairs.
        nodes: Ids<'a>,
    }
    /// personality(2).
    44 Personality {
        /// `PER_*`.
        domain: u32,
    }
    /// Writes the label of the next exec to a file of the process's own
    /// directory in a proc file system that only init holds.
    45 Label {
        /// A proc tree.
        proc: Slot,
        /// File below the process's directory.
        file: &'a CStr,
        /// The file on kernels that lack the first.
        older: &'a CStr,
        /// What is written.
        value: &'a CStr,
    }
    /// Has the engine give the new user namespace its ids: nobody inside of it
    /// may. Without them no id of this process is known there.
    60 IdMaps {
        /// Lines of `/proc/PID/uid_map`: first id inside, first outside, count.
        uids: &'a CStr,
        /// Lines of `/proc/PID/gid_map`.
        gids: &'a CStr,
    }
    /// Has the engine compare the ids of a joined user namespace with what the
    /// config expects of it.
    61 CheckMaps {
        /// As for `IdMaps`.
        uids: &'a CStr,
        /// As for `IdMaps`.
        gids: &'a CStr,
    }
    /// Becomes user and group 0 of the user namespace, without other groups:
    /// what is made from here on belongs to them.
    62 NamespaceRoot {}
    /// Has the engine set the clocks of the new time namespace, which the next
    /// child lives in.
    63 TimeOffsets {
        /// Lines of `/proc/PID/timens_offsets`: clock, seconds, nanoseconds.
        offsets: &'a CStr,
    }
    /// Goes on in a copy of this process, which is born in the pid and time
    /// namespaces entered before and is the engine's own child; this one ends.
    64 Birth {
        /// 1: no later step names a slot, and none is open in the copy.
        last: u32,
    }
    /// Has the copy of the next `Birth` join a v1 cgroup: the one that counts
    /// processes, so that this one is never counted.
    69 JoinAtBirth {
        /// The `tasks` file, open for writing.
        tasks: Slot,
    }
    /// Makes the terminal on standard input the controlling one.
    65 TakeTerminal {}
    /// Makes a detached proc file system of a pid namespace that this process
    /// itself is not in.
    66 NewProc {
        /// Where its descriptor is put.
        slot: Slot,
        /// The pid namespace, which children are born in already.
        pids: Slot,
        /// As for `NewFs`.
        source: &'a CStr,
        /// As for `NewFs`.
        options: List<'a>,
        /// As for `NewFs`.
        attrs: u64,
    }
    /// Makes a detached sysfs or, where the network namespace belongs to
    /// another user namespace and the kernel refuses, takes the host's.
    67 NewSysfs {
        /// Where its descriptor is put.
        slot: Slot,
        /// A detached copy of the host's.
        host: Slot,
        /// As for `NewFs`.
        source: &'a CStr,
        /// As for `NewFs`.
        options: List<'a>,
        /// As for `NewFs`.
        attrs: u64,
    }
    /// Raises a hard limit that is lower than this, while init still may.
    68 RaiseLimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Hard limit.
        hard: u64,
    }
    /// seccomp(2) with a filter: from here on only the exec, and the report of
    /// its failure, are left to do.
    50 Seccomp {
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Instructions, eight bytes each.
        program: &'a [u8],
    }
    /// Maps the ids of a detached mount (mount_setattr, Linux 5.12).
    80 IdMap {
        /// The detached tree.
        tree: Slot,
        /// A user namespace that has the mappings.
        userns: Slot,
    }
    /// Copies what is at a path of the container into a tree that is going to
    /// cover it: files with owner, mode and times. A missing path is nothing.
    81 CopyUp {
        /// The detached tree.
        tree: Slot,
        /// Path in the container.
        path: &'a CStr,
    }
    /// Changes options of the file system that an earlier step made.
    82 Reconfigure {
        /// Its mount.
        tree: Slot,
        /// Where it is mounted, for messages.
        path: &'a CStr,
        /// `key=value` or `flag`, in order.
        options: List<'a>,
    }
    /// Has the engine move network devices of the host into this process's
    /// network namespace.
    83 NetDevices {
        /// What they are called on the host.
        names: List<'a>,
        /// What they are called here, in the same order.
        inside: List<'a>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Header;
    use proptest::prelude::*;
    use std::ffi::CString;
    use std::vec::Vec;

    struct Buffer(Vec<u8>);
    impl Sink for Buffer {
        fn put(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }

    fn encode(step: &Step<'_>) -> Vec<u8> {
        let mut out = Buffer(Vec::new());
        step.put(&mut out);
        out.0
    }

    proptest! {
        #[test]
        fn a_program_survives_the_wire(
            args in prop::collection::vec("[^\0]{0,40}", 0..20),
            env in prop::collection::vec("[A-Z]{1,8}=[^\0]{0,40}", 0..20),
            uid: u32,
        ) {
            let own = |v: &[String]| -> Vec<CString> {
                v.iter().map(|s| CString::new(s.as_str()).unwrap()).collect()
            };
            let (args, env) = (own(&args), own(&env));
            let args: Vec<&CStr> = args.iter().map(|s| s.as_c_str()).collect();
            let env: Vec<&CStr> = env.iter().map(|s| s.as_c_str()).collect();
            let step = Step::Program { file: c"", args: List::Strings(&args), env: List::Strings(&env), uid };
            let bytes = encode(&step);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Step::get(&mut reader).unwrap(), step);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn an_identity_survives_the_wire(
            uid: u32, gid: u32, groups in prop::collection::vec(any::<u32>(), 0..70),
            bounding: u64, effective: u64, permitted: u64, inheritable: u64, ambient: u64,
        ) {
            let step = Step::Identity {
                uid, gid, groups: Ids::Slice(&groups), bounding, effective, permitted, inheritable, ambient,
            };
            let bytes = encode(&step);
            prop_assert_eq!(Step::get(&mut Reader::new(&bytes)).unwrap(), step);
        }

        #[test]
        fn no_bytes_make_the_decoder_fail_otherwise_than_by_saying_so(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut reader = Reader::new(&bytes);
            let _ = Header::get(&mut reader);
            while let Ok(step) = Step::get(&mut reader) {
                step.fields(&mut |_, value| { let _ = std::format!("{value:?}"); });
            }
        }

        #[test]
        fn a_plan_cut_short_is_malformed(cut in 0_usize..30) {
            let step = Step::Link { target: c"/proc/self/fd", path: c"/dev/fd", replace: 1 };
            let bytes = encode(&step);
            prop_assume!(cut < bytes.len());
            prop_assert_eq!(Step::get(&mut Reader::new(&bytes[..cut])), Err(Malformed));
        }
    }

    #[test]
    fn a_string_with_a_nul_inside_is_refused() {
        let mut bytes = encode(&Step::Hostname { name: c"abc" });
        let at = bytes.len() - 3;
        bytes[at] = 0;
        assert_eq!(Step::get(&mut Reader::new(&bytes)), Err(Malformed));
    }

    #[test]
    fn a_slot_beyond_the_table_is_refused() {
        let bytes = encode(&Step::MountRoot { tree: Slot::sent(crate::wire::MAX_SLOTS), at: c"/" });
        assert_eq!(Step::get(&mut Reader::new(&bytes)), Err(Malformed));
    }
}
