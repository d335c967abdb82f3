//! The releases a node can be made of, and the cgroup layouts they offer.

use std::fmt;

use crate::error::Error;

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Linux 6.1, systemd 252, containerd 1.6.
    Bookworm,
    /// Linux 6.12, systemd 257, containerd 1.7.
    Trixie,
    /// The newest of each; containerd 2.
    Sid,
}

impl Suite {
    pub(crate) const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How systemd lays out the cgroup file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    V1,
    Hybrid,
    V2,
}

impl CgroupMode {
    const ALL: [Self; 3] = [Self::V1, Self::Hybrid, Self::V2];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }

    /// Fails where this release's systemd no longer has the layout.
    ///
    /// v1 and hybrid are gone from systemd 258 on; 256 and later want to be
    /// told that they are really meant.
    pub(crate) fn offered_by(self, suite: Suite) -> Result<(), Error> {
        if self == Self::V2 || suite != Suite::Sid {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "vm: --cgroup {self} with --suite {suite}: this release's systemd knows only v2"
        )))
    }

    /// What the kernel's command line says to get it.
    pub(crate) fn kernel_arguments(self) -> &'static str {
        match self {
            Self::V1 => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 \
                 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
            }
            Self::Hybrid => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0 \
                 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
            }
            Self::V2 => "systemd.unified_cgroup_hierarchy=1",
        }
    }
}

impl fmt::Display for CgroupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not_known() {
        for suite in Suite::ALL {
            assert_eq!(Suite::parse(suite.name()), Some(suite));
        }
        for mode in CgroupMode::ALL {
            assert_eq!(CgroupMode::parse(mode.name()), Some(mode));
        }
        assert_eq!(Suite::parse("buster"), None);
        assert_eq!(CgroupMode::parse("3"), None);
    }

    #[test]
    fn what_a_release_no_longer_has_is_refused_with_both_values() {
        let text = CgroupMode::V1.offered_by(Suite::Sid).unwrap_err().to_string();
        assert!(text.contains("v1") && text.contains("sid"), "{text}");
        assert!(CgroupMode::V1.offered_by(Suite::Trixie).is_ok());
        assert!(CgroupMode::V2.offered_by(Suite::Sid).is_ok());
    }
}
