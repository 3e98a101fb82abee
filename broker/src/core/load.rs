//! The load that a broker reports with each probe answer.

use super::limits::Limits;

/// What is in use now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Paths open or opening.
    pub paths: usize,
    /// Registrations.
    pub registrations: usize,
    /// Control links.
    pub control_links: usize,
}

/// Load per mille: the fullest of what is limited.
pub fn load_per_mille(usage: Usage, limits: &Limits) -> u16 {
    let share = |used: usize, limit: usize| used.saturating_mul(1000) / limit.max(1);
    let fullest = share(usage.paths, limits.paths)
        .max(share(usage.registrations, limits.registrations))
        .max(share(usage.control_links, limits.control_links));
    u16::try_from(fullest.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_resource_is_the_load() {
        let limits = Limits { paths: 100, registrations: 1_000, control_links: 2_000, ..Limits::default() };
        let load = |paths, registrations, control_links| {
            load_per_mille(Usage { paths, registrations, control_links }, &limits)
        };
        assert_eq!(load(0, 0, 0), 0);
        assert_eq!(load(10, 50, 0), 100);
        assert_eq!(load(10, 900, 0), 900);
        assert_eq!(load(0, 0, 1_999), 999);
        assert_eq!(load(500, 0, 0), 1_000);
    }
}
