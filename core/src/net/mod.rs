//! How bytes reach a destination: the HTTP/1.1 codec and the TLS settings.
//!
//! Nothing here opens a socket or reads a clock; the drivers do that, and hand bytes in and out.

pub mod http;
pub mod tls;
