//! Retention: how long segments stay that every lane has passed.
//!
//! A segment is kept or released as a whole, oldest first. The newest one, which is being written, is never released.

/// What the configuration says, for one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Segments stay although they are passed. If not, the rest is of no account.
    pub keep: bool,
    /// How old the newest record of a segment gets before the segment goes, in ns; `None` sets no such limit.
    pub age_max_ns: Option<u64>,
    /// How many bytes of segments stay; `None` sets no such limit.
    pub bytes_max: Option<u64>,
}

/// What matters of a segment here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its last sequence.
    pub last_sequence: u64,
    /// No record of it has a clock above this, ns since the epoch.
    pub newest_ns: u64,
}

impl Limits {
    /// Whether retention lets a segment go. `total_bytes` are those of this segment and of all later ones.
    pub fn releases(&self, segment: &Kept, now_ns: u64, total_bytes: u64) -> bool {
        !self.keep
            || self.age_max_ns.is_some_and(|max| now_ns.saturating_sub(segment.newest_ns) > max)
            || self.bytes_max.is_some_and(|max| total_bytes > max)
    }
}

/// Who still needs the log: a group of consumers, a replay, a snapshot being made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Everything up to this sequence is no longer needed.
    pub passed: u64,
    /// Beyond so many bytes of log it is held no longer, needed or not.
    pub bytes_max: Option<u64>,
    /// Beyond this age of a segment's newest record it is held no longer, in ns.
    pub age_max_ns: Option<u64>,
}

impl Hold {
    /// Whether the segment must stay. `total_bytes` are those of this segment and of all later ones.
    pub fn holds(&self, segment: &Kept, now_ns: u64, total_bytes: u64) -> bool {
        self.passed < segment.last_sequence
            && self.bytes_max.is_none_or(|max| total_bytes <= max)
            && self.age_max_ns.is_none_or(|max| now_ns.saturating_sub(segment.newest_ns) <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Kept = Kept { last_sequence: 100, newest_ns: 1_000 };

    #[test]
    fn without_retention_what_is_passed_goes() {
        assert!(Limits::default().releases(&SEGMENT, 0, 0));
        // Limits without `keep` keep nothing.
        let limits = Limits { keep: false, age_max_ns: Some(u64::MAX), bytes_max: Some(u64::MAX) };
        assert!(limits.releases(&SEGMENT, 1_000, 1));
    }

    #[test]
    fn without_limits_everything_stays() {
        let limits = Limits { keep: true, ..Limits::default() };
        assert!(!limits.releases(&SEGMENT, u64::MAX, u64::MAX));
    }

    #[test]
    fn either_limit_releases() {
        let limits = Limits { keep: true, age_max_ns: Some(50), bytes_max: Some(10) };
        assert!(!limits.releases(&SEGMENT, 1_050, 10));
        assert!(limits.releases(&SEGMENT, 1_051, 10));
        assert!(limits.releases(&SEGMENT, 1_050, 11));
        // A clock that was set back releases nothing.
        assert!(!limits.releases(&SEGMENT, 0, 10));
    }

    #[test]
    fn a_hold_keeps_what_is_not_passed_within_its_bounds() {
        let hold = Hold { passed: 99, bytes_max: Some(10), age_max_ns: Some(50) };
        assert!(hold.holds(&SEGMENT, 1_050, 10));
        assert!(!Hold { passed: 100, ..hold }.holds(&SEGMENT, 1_050, 10));
        assert!(!hold.holds(&SEGMENT, 1_051, 10));
        assert!(!hold.holds(&SEGMENT, 1_050, 11));
        assert!(Hold { passed: 0, ..Hold::default() }.holds(&SEGMENT, u64::MAX, u64::MAX));
    }
}
