//! bpf(2) from a test's point of view: what is attached, somebody else's
//! program, and a kernel without replacement.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The ids of the device programs attached to the cgroup at `path`.
pub(crate) fn attached(path: &Path) -> Vec<u32> {
    let dir = File::open(path).unwrap();
    let mut ids = [0_u32; 64];
    let mut attr = sys::Attr([0; 32]);
    attr.0[0] = u64::from(dir.as_raw_fd() as u32) | sys::CGROUP_DEVICE << 32;
    attr.0[2] = ids.as_mut_ptr() as u64;
    attr.0[3] = ids.len() as u64;
    sys::bpf(16, &mut attr).unwrap();
    ids[..attr.0[3] as u32 as usize].to_vec()
}

/// Attaches a program that allows everything and is not the runtime's.
pub(crate) fn attach_other(path: &Path) {
    // r0 = 1; exit
    let code: [u64; 2] = [0x1_0000_00b7, 0x95];
    let mut attr = sys::Attr([0; 32]);
    attr.0[0] = 15 | 2 << 32;
    attr.0[1] = code.as_ptr() as u64;
    attr.0[2] = c"GPL".as_ptr() as u64;
    attr.0[6] = u64::from_ne_bytes(*b"another\0");
    attr.0[8] = sys::CGROUP_DEVICE << 32;
    let program = sys::bpf(5, &mut attr).unwrap();
    let dir = File::open(path).unwrap();
    let mut attr = sys::Attr([0; 32]);
    attr.0[0] = u64::from(dir.as_raw_fd() as u32) | (program as u64) << 32;
    attr.0[1] = sys::CGROUP_DEVICE | 2 << 32;
    sys::bpf(8, &mut attr).unwrap();
    drop(sys::own(program));
}

/// Runs `work` on a thread for which the kernel is older than 5.6: attaching
/// with `BPF_F_REPLACE` is refused. Returns how often it was.
pub(crate) fn without_replacement(work: impl FnOnce() + Send) -> usize {
    let (send, receive) = std::sync::mpsc::channel::<OwnedFd>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            send.send(sys::notify_of_bpf()).unwrap();
            drop(send);
            work();
        });
        let listener = receive.recv().unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        sys::refuse_replacement(&listener, &memory)
    })
}

mod sys {
    #![allow(unsafe_code)]

    use std::fs::File;
    use std::io;
    use std::mem::zeroed;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::os::unix::fs::FileExt;

    use rustix::event::{PollFd, PollFlags, poll};

    pub(super) const CGROUP_DEVICE: u64 = 6;
    const PROG_ATTACH: u64 = 8;
    const REPLACE: u32 = 4;

    #[repr(C)]
    pub(super) struct Attr(pub(super) [u64; 32]);

    pub(super) fn bpf(command: i32, attr: &mut Attr) -> io::Result<i32> {
        // SAFETY: the callers' pointers are to locals that outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<Attr>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
    }

    pub(super) fn own(fd: i32) -> OwnedFd {
        // SAFETY: bpf(2) has just made it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// From now on each bpf(2) of this thread waits for an answer on the listener.
    pub(super) fn notify_of_bpf() -> OwnedFd {
        let word =
            |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut filter = [
            word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            word(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
            word(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
            word(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: numbers, and a filter that outlives the call; both concern this thread alone.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let fd = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            );
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd as i32)
        }
    }

    /// Answers until the thread has ended.
    pub(super) fn refuse_replacement(listener: &OwnedFd, memory: &File) -> usize {
        let mut refused = 0;
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            if !fds[0].revents().contains(PollFlags::IN) {
                return refused;
            }
            // SAFETY: all-zero is a valid value of both, which the kernel reads and fills.
            let (mut asked, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
                unsafe { (zeroed(), zeroed()) };
            // SAFETY: `asked` is what this request fills.
            let result = unsafe {
                libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked)
            };
            if result != 0 {
                continue;
            }
            answer.id = asked.id;
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            if asked.data.args[0] == PROG_ATTACH {
                let mut flags = [0; 4];
                memory.read_exact_at(&mut flags, asked.data.args[1] + 12).unwrap();
                if u32::from_ne_bytes(flags) & REPLACE != 0 {
                    (answer.flags, answer.error) = (0, -libc::EINVAL);
                    refused += 1;
                }
            }
            // SAFETY: `answer` is what this request reads.
            unsafe {
                libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
            };
        }
    }
}
