//! The kernel of the fuzz target: every answer comes out of the input, and what
//! a real kernel would read or write through a pointer is read or written, so
//! that a wrong pointer or length is an error of memory here.
//!
//! It is compiled for fuzzing only; no program has it.

use core::cell::RefCell;
use core::ffi::{CStr, c_char};
use std::boxed::Box;
use std::vec::Vec;

use crate::consts::{
    AT_FDCWD, DEVPTS_SUPER_MAGIC, EACCES, EAGAIN, EEXIST, EINTR, EINVAL, ELOOP, ENOENT, ENOSYS,
    ENOTDIR, EPERM, O_CLOEXEC, PROC_SUPER_MAGIC, RESOLVE_BENEATH, RESOLVE_IN_ROOT, S_IFCHR,
    S_IFDIR, S_IFREG, SCM_RIGHTS, SOL_SOCKET,
};
use crate::run::FDS_PER_MESSAGE;
use crate::sys::nr;

/// errnos worth telling apart; the steps look for most of them.
const ERRNOS: [u32; 10] =
    [ENOENT, EEXIST, EACCES, EINVAL, EINTR, EAGAIN, ENOSYS, EPERM, ELOOP, ENOTDIR];

/// One run's kernel.
struct Kernel {
    /// Answers that are left, taken from the end. Without any, calls succeed.
    answers: Vec<u8>,
    /// The mapped plan.
    plan: &'static [u8],
    /// Anonymous mappings, freed with the run.
    memory: Vec<Box<[usize]>>,
}

std::thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Runs the interpreter on `plan`, with the kernel's answers out of `answers`.
pub fn run(plan: &[u8], answers: &[u8]) {
    // SAFETY: the interpreter and the kernel that hold the plan end with this function; a panic in
    // between ends the process, as the fuzzer's programs abort.
    let plan = unsafe { core::mem::transmute::<&[u8], &'static [u8]>(plan) };
    let kernel = Kernel { answers: answers.to_vec(), plan, memory: Vec::new() };
    KERNEL.set(Some(kernel));
    crate::run::interpret();
    KERNEL.set(None);
}

/// Stands for the `syscall` instruction.
///
/// # Safety
/// As for the instruction.
pub(crate) unsafe fn kernel(number: u32, args: [usize; 6]) -> isize {
    KERNEL.with_borrow_mut(|kernel| match kernel {
        // SAFETY: the caller vouches for the number and the arguments of its call.
        Some(kernel) => unsafe { kernel.call(number, args) },
        None => -(ENOSYS as isize),
    })
}

impl Kernel {
    fn byte(&mut self) -> u8 {
        self.answers.pop().unwrap_or(0)
    }

    /// # Safety
    /// As for the instruction.
    unsafe fn call(&mut self, number: u32, a: [usize; 6]) -> isize {
        // SAFETY: the caller vouches for the pointers of its call.
        unsafe { Self::read_arguments(number, a) };
        let verdict = self.byte();
        // Closing, and what the tests of init's own start need, never fails.
        if verdict >= 0xa0 && !matches!(number, nr::CLOSE | nr::MMAP) {
            return -(ERRNOS[usize::from(verdict) % ERRNOS.len()] as isize);
        }
        // SAFETY: as above.
        unsafe { self.succeed(number, a) }
    }

    /// Reads what the kernel would read.
    ///
    /// # Safety
    /// As for the instruction.
    unsafe fn read_arguments(number: u32, a: [usize; 6]) {
        // SAFETY: the caller vouches for the pointers of its call.
        unsafe {
            match number {
                nr::OPENAT2 => check_open(a[0] as i32, string(a[1]), bytes(a[2], a[3])),
                nr::EXECVE => {
                    string(a[0]);
                    strings(a[1]);
                    strings(a[2]);
                }
                nr::MKDIRAT | nr::MKNODAT | nr::UNLINKAT => one_name(string(a[1])),
                nr::SYMLINKAT => {
                    string(a[0]);
                    one_name(string(a[2]));
                }
                nr::WRITE => sum(bytes(a[1], a[2])),
                nr::FGETXATTR => {
                    string(a[1]);
                }
                nr::FSETXATTR => {
                    string(a[1]);
                    sum(bytes(a[2], a[3]));
                }
                nr::SETHOSTNAME | nr::SETDOMAINNAME => sum(bytes(a[0], a[1])),
                nr::SETGROUPS => sum(bytes(a[1], a[0] * 4)),
                nr::SCHED_SETAFFINITY => sum(bytes(a[2], a[1])),
                nr::SET_MEMPOLICY => sum(bytes(a[1], a[2].saturating_sub(1).div_ceil(8))),
                nr::UTIMENSAT => sum(bytes(a[2], 32)),
                nr::SECCOMP => check_filter(a[2]),
                nr::FSCONFIG => {
                    // The command 1 sets a string, 0 a flag.
                    if a[1] < 2 {
                        string(a[2]);
                    }
                    if a[1] == 1 {
                        string(a[3]);
                    }
                }
                nr::MOVE_MOUNT => {
                    string(a[1]);
                    string(a[3]);
                }
                nr::FSOPEN | nr::CHDIR | nr::CHROOT | nr::UMOUNT2 => {
                    string(a[0]);
                }
                _ => {}
            }
        }
    }

    /// # Safety
    /// As for the instruction.
    unsafe fn succeed(&mut self, number: u32, a: [usize; 6]) -> isize {
        // SAFETY: the caller vouches for the buffers of its call.
        unsafe {
            match number {
                nr::MMAP => return self.map(a[1], a[4] as i32),
                nr::FSTAT => self.stat(a[1]),
                nr::FSTATFS => {
                    let magic = [PROC_SUPER_MAGIC, DEVPTS_SUPER_MAGIC, 0][self.byte() as usize % 3];
                    (a[1] as *mut [u64; 15]).write([magic; 15]);
                }
                nr::READ => return self.fill(a[1], a[2]),
                nr::FGETXATTR => return self.fill(a[2], a[3]),
                // Without a buffer: how long the list is.
                nr::FLISTXATTR if a[2] == 0 => return isize::from(self.byte() & 1),
                nr::FLISTXATTR => return self.fill(a[1], a[2]),
                nr::READLINKAT => return self.fill(a[2], a[3]),
                nr::GETDENTS64 => return self.list(a[1], a[2]),
                nr::GETCWD => {
                    let text: &[u8] = if self.byte() & 1 == 0 { b"/a\0" } else { b"(unreach\0" };
                    assert!(text.len() <= a[1], "{} bytes for a directory's name", a[1]);
                    core::ptr::copy_nonoverlapping(text.as_ptr(), a[0] as *mut u8, text.len());
                    return text.len() as isize;
                }
                nr::RECVMSG => return self.message(a[1]),
                nr::FCNTL
                | nr::FSOPEN
                | nr::FSPICK
                | nr::FSMOUNT
                | nr::OPEN_TREE
                | nr::OPENAT2
                | nr::IOCTL
                | nr::SECCOMP
                | nr::GETPID
                | nr::SOCKET => return 100 + self.byte() as isize,
                _ => {}
            }
        }
        0
    }

    fn map(&mut self, len: usize, fd: i32) -> isize {
        if fd >= 0 {
            assert!(len <= self.plan.len().max(1), "more of the plan is mapped than there is");
            return self.plan.as_ptr() as isize;
        }
        // A real kernel would give this much; the fuzzer's memory is better spent.
        if len > 1 << 22 {
            return -12;
        }
        self.memory.push(std::vec![0; len.div_ceil(size_of::<usize>())].into_boxed_slice());
        // Taken where it stays: moving a box takes the pointers into it their right.
        self.memory.last_mut().map_or(0, |memory| memory.as_mut_ptr() as isize)
    }

    /// # Safety
    /// `buffer` is a place for a `struct stat`.
    unsafe fn stat(&mut self, buffer: usize) {
        let mode = [S_IFDIR, S_IFREG, S_IFCHR][self.byte() as usize % 3];
        let mut stat = crate::sys::Stat::default();
        stat.mode = mode | u32::from(self.byte());
        stat.rdev = crate::sys::makedev(u32::from(self.byte() % 8), u32::from(self.byte() % 4));
        stat.size = self.plan.len() as i64;
        // SAFETY: the caller vouches for the buffer.
        unsafe { (buffer as *mut crate::sys::Stat).write(stat) }
    }

    /// # Safety
    /// `buffer` has room for `room` bytes.
    unsafe fn fill(&mut self, buffer: usize, room: usize) -> isize {
        let count = usize::from(self.byte()).min(room).min(self.answers.len());
        for at in 0..count {
            let byte = self.byte();
            // SAFETY: `at` is below `room`, and the caller vouches for that many bytes.
            unsafe { (buffer as *mut u8).add(at).write(byte) }
        }
        // One byte is the engine's answer; no byte at all would end the process.
        if room == 1 { 1 } else { count as isize }
    }

    /// A few entries of a directory, as the kernel lays them out: names without a slash.
    ///
    /// # Safety
    /// `buffer` has room for `room` bytes.
    unsafe fn list(&mut self, buffer: usize, room: usize) -> isize {
        const ENTRY: usize = 24;
        let count = usize::from(self.byte() % 3).min(room / ENTRY);
        for index in 0..count {
            let mut entry = [0_u8; ENTRY];
            entry[16] = ENTRY as u8;
            entry[19] = b'a' + self.byte() % 26;
            // SAFETY: `index` entries and this one fit into `room`, which the caller vouches for.
            unsafe { (buffer as *mut [u8; ENTRY]).add(index).write(entry) }
        }
        (count * ENTRY) as isize
    }

    /// The engine's message: two numbers and some descriptors.
    ///
    /// # Safety
    /// `header` is a pointer to a `struct msghdr` with one part and a control buffer, aligned to
    /// eight bytes, both of the lengths that it says.
    unsafe fn message(&mut self, header: usize) -> isize {
        let count = usize::from(self.byte()) % (FDS_PER_MESSAGE + 1);
        let words = [u32::from(self.byte()) * 41, u32::from(self.byte() & 1)];
        // SAFETY: the fields of `struct msghdr` in order; what is written is within the lengths
        // that were looked at, and the caller vouches for those.
        unsafe {
            let fields = header as *mut [usize; 7];
            let part = (*fields)[2] as *const [usize; 2];
            assert_eq!((*part)[1], 8);
            ((*part)[0] as *mut [u32; 2]).write(words);
            let (control, room) = ((*fields)[4], (*fields)[5]);
            assert!(room >= 16 + 4 * FDS_PER_MESSAGE);
            if count == 0 {
                (*fields)[5] = 0;
                return 8;
            }
            (control as *mut usize).write(16 + 4 * count);
            ((control + 8) as *mut [u32; 2]).write([SOL_SOCKET, SCM_RIGHTS]);
            for at in 0..count {
                ((control + 16) as *mut i32).add(at).write(300 + at as i32);
            }
        }
        8
    }
}

/// Nothing is looked up without the flag, and nothing with a directory in
/// its way is looked up below a descriptor without a rule to stay there.
fn check_open(dir: i32, path: &CStr, how: &[u8]) {
    let (words, _) = how.as_chunks::<8>();
    let word = |at: usize| u64::from_ne_bytes(words[at]);
    let (flags, resolve) = (word(0), word(2));
    assert!(flags & O_CLOEXEC != 0, "{path:?} is opened without close-on-exec");
    let name = path.to_bytes();
    let single = !name.contains(&b'/') && name != b"..";
    let confined = resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH) != 0;
    assert!(confined || single || dir == AT_FDCWD, "{path:?} may leave its directory");
}

/// # Safety
/// `program` is a pointer to a `struct sock_fprog` whose instructions can be read.
unsafe fn check_filter(program: usize) {
    // SAFETY: the caller vouches for the header and for what it points to.
    unsafe {
        let count = (program as *const u16).read();
        let first = (program as *const usize).add(1).read();
        sum(bytes(first, usize::from(count) * 8));
    }
}

/// # Safety
/// `at` is a string of C that stays as it is while the result is in use.
unsafe fn string<'a>(at: usize) -> &'a CStr {
    // SAFETY: the caller vouches for it.
    let text = unsafe { CStr::from_ptr(at as *const c_char) };
    sum(text.to_bytes());
    text
}

/// # Safety
/// `at` is a list of pointers to strings of C, ended by a null pointer.
unsafe fn strings(mut at: usize) {
    // SAFETY: the caller vouches for the list and its end.
    unsafe {
        while (at as *const usize).read() != 0 {
            string((at as *const usize).read());
            at += size_of::<usize>();
        }
    }
}

/// # Safety
/// `len` bytes can be read at `at`, unless it is null, and stay as they are while the result is in
/// use.
unsafe fn bytes<'a>(at: usize, len: usize) -> &'a [u8] {
    if len == 0 || at == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { core::slice::from_raw_parts(at as *const u8, len) }
}

/// Reads every byte where the sanitizer sees it.
fn sum(bytes: &[u8]) {
    core::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
}

/// What is made or removed is a name in an open directory, never a path.
fn one_name(name: &CStr) {
    assert!(!name.to_bytes().contains(&b'/'), "{name:?} is a path");
}
