//! Takes system calls away from the calling thread, to see the fallbacks at work.
#![allow(unsafe_code)]

/// From now on each of `calls` answers ENOSYS on this thread.
pub(crate) fn take_away(calls: &[libc::c_long]) {
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let plain = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let ret = libc::BPF_RET | libc::BPF_K;
    let errno = libc::SECCOMP_RET_ERRNO | (libc::ENOSYS as u32);
    let mut program = vec![plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        program.push(jump(u32::try_from(*call).unwrap(), 0, 1));
        program.push(plain(ret, errno));
    }
    program.push(plain(ret, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: prctl takes numbers only here; it changes this thread alone.
    let ret = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(ret, 0);
    // SAFETY: `filter` points to `program`, which lives until after the call; the kernel copies
    // it and checks it.
    let ret =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
}
