//! What reaches endpoints, in which shape and order, and how the network between misbehaves.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/h2_server.rs"]
mod h2_server;
#[path = "../common/nginx.rs"]
mod nginx;

mod auth;
mod custom;
mod destinations;
mod endpoints;
mod formats;
mod http2;
mod network;
mod order;
mod profiles;
mod records;
mod tls;
mod verification;
mod webhook;
