//! How bytes reach a destination: names and addresses, connections, TLS, and the HTTP/1.1 codec.
//!
//! What is decided here is decided by state machines that open no socket and read no clock. The thin parts that do are the
//! lookup of names and the making of connections.

pub mod address;
pub mod http;
pub mod tls;
