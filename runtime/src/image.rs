//! The container-side program as a sealed descriptor.

use std::io::Write;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{Error, Result};

/// The program's bytes, built by this crate's build script.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/boathook-init"));

/// A memfd that holds the program and can be neither written nor resized by
/// anybody who gets hold of it, the container's root through /proc/1/exe
/// included (CVE-2019-5736).
///
/// # Errors
/// When the kernel refuses a memfd.
pub(crate) fn sealed_program() -> Result<OwnedFd> {
    sealed("boathook-init", PROGRAM, MemfdFlags::EXEC)
}

/// A memfd with `content`, sealed. `MFD_EXEC` and its opposite exist since
/// Linux 6.3; before, every memfd could be executed.
pub(crate) fn sealed(name: &str, content: &[u8], exec: MemfdFlags) -> Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create(name, base | exec)
        .or_else(|error| match error {
            rustix::io::Errno::INVAL => memfd_create(name, base),
            other => Err(other),
        })
        .map_err(|e| Error::sys(format!("memfd_create({name})"), e))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content).map_err(|e| Error::sys(format!("write to memfd {name}"), e))?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
        .map_err(|e| Error::sys(format!("seal memfd {name}"), e))?;
    Ok(OwnedFd::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn the_program_cannot_be_written_or_cut() {
        let file = std::fs::File::from(sealed_program().unwrap());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(&magic, b"\x7fELF");
    }
}
