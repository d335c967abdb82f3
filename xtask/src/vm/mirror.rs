//! Where this machine's apt gets Debian from: the address is never ours.

use std::process::Command;

use crate::error::Error;
use crate::process;

/// Names the archive where apt's configuration does not tell.
const VARIABLE: &str = "BOATHOOK_DEBIAN_MIRROR";

/// The archive's address.
///
/// # Errors
/// When neither apt nor the variable names one.
pub(crate) fn address() -> Result<String, Error> {
    if let Ok(address) = std::env::var(VARIABLE) {
        return Ok(address);
    }
    let format = "$(SITE)|$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CREATED_BY)";
    let targets =
        process::capture(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    main_archive(&targets).map(str::to_owned).ok_or_else(|| {
        Error::failed(format!(
            "apt names no Debian archive (`apt-get update` may help); set {VARIABLE} to its address"
        ))
    })
}

/// The first site with Debian's own main section; security has a label of its own.
fn main_archive(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let (site, rest) = line.split_once('|')?;
        (rest == "Debian|Debian|main|Packages").then_some(site)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_archives_and_other_sections_are_passed_over() {
        let targets = "https://tools.invalid/apt|Tools|Tools|main|Packages\n\
                       http://security.invalid|Debian|Debian-Security|main|Packages\n\
                       http://archive.invalid|Debian|Debian|contrib|Packages\n\
                       http://archive.invalid/debian|Debian|Debian|main|Packages\n";
        assert_eq!(main_archive(targets), Some("http://archive.invalid/debian"));
        assert_eq!(main_archive(""), None);
    }
}
