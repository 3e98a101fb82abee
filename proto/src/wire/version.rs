//! Version and feature negotiation in Hello and Welcome.

/// Lowest and highest protocol version that this build speaks.
pub const SUPPORTED: (u16, u16) = (1, 1);

/// Feature bits that this build offers; none are defined in version 1.
pub const FEATURES: u64 = 0;

/// What a link speaks after negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Protocol version.
    pub version: u16,
    /// Feature bits that both sides offered.
    pub features: u64,
}

/// No version is spoken by both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer speaks versions {theirs:?}, this side {ours:?}: upgrade the older one")]
pub struct NoCommonVersion {
    /// What the peer offered.
    pub theirs: (u16, u16),
    /// What this side offers.
    pub ours: (u16, u16),
}

/// The highest version in both ranges and the common features.
///
/// # Errors
/// When the ranges do not meet; an inverted range meets nothing.
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16), features: u64) -> Result<Agreed, NoCommonVersion> {
    let lowest = ours.0.max(theirs.0);
    let version = ours.1.min(theirs.1);
    if version < lowest {
        return Err(NoCommonVersion { theirs, ours });
    }
    Ok(Agreed { version, features: features & FEATURES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        assert_eq!(negotiate((1, 3), (2, 9), 0).unwrap().version, 3);
        assert_eq!(negotiate((2, 9), (1, 3), 0).unwrap().version, 3);
        assert_eq!(negotiate((1, 1), (1, 1), u64::MAX).unwrap().features, FEATURES);
    }

    #[test]
    fn ranges_that_do_not_meet_are_refused() {
        for theirs in [(2, 3), (0, 0), (3, 1)] {
            assert_eq!(negotiate((1, 1), theirs, 0), Err(NoCommonVersion { theirs, ours: (1, 1) }));
        }
    }
}
