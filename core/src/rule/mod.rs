//! stub
use std::time::Duration;
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// x
    pub consecutive_failures: u32,
    /// x
    pub open_min: Duration,
    /// x
    pub open_max: Duration,
}
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// x
    pub events_max: usize,
    /// x
    pub bytes_max: usize,
    /// x
    pub linger: Duration,
}
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// x
    pub backoff_min: Duration,
    /// x
    pub backoff_max: Duration,
    /// x
    pub age_max: Duration,
    /// x
    pub poison_attempts: u32,
}
