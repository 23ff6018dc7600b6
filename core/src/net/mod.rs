//! How bytes reach a destination: names and addresses, connections, TLS, and the HTTP/1.1 codec.
//!
//! What is decided here is decided by state machines that open no socket and read no clock. The thin parts that do are the
//! lookup of names and the making of connections.

pub mod address;
pub(crate) mod dial;
pub mod http;
pub mod pool;
pub mod proxy;
pub mod resolve;
pub(crate) mod stream;
pub mod tls;

pub use crate::driver::{SocketCounts, socket_counts};
