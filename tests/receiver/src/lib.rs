//! A webhook receiver for tests and the demonstration: it answers as told, remembers what came, and says whether that
//! is what was promised.
//!
//! ```no_run
//! use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};
//! use std::time::Duration;
//!
//! let listen = "127.0.0.1:0".parse().expect("an address");
//! let receiver = Receiver::start(listen, Behaviour::FailFirst(2, 503)).expect("a receiver");
//! // ... deliver to receiver.url() ...
//! assert!(receiver.wait_for(100, Duration::from_secs(10)));
//! assert!(check_per_key_order(&receiver.records()).is_empty());
//! ```

mod behaviour;
mod dns;
mod hostile;
mod log;
mod record;
mod server;

pub use behaviour::{Behaviour, Hit, Reply};
pub use dns::{DnsAnswer, DnsServer};
pub use hostile::{Hostile, HostileSettings, Trick};
pub use log::{LogLine, read_log};
pub use record::{
    Record, Violation, check_per_key_order, compare_sequencers, decode_key, duplicates, missing, parse_body,
};
pub use server::{BODY_BYTES_MAX, LastRequest, Receiver, Settings, Tls};
