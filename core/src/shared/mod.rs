//! Several processes over one engine.
//!
//! The process that has the engine listens at a Unix socket ([`SharedConfig`]); others connect to it ([`Client`]) and have the
//! same calls. What they publish goes through memory that client and server share, a ring for each client, so that a call
//! costs no system call unless the server sleeps, and a client that dies halfway leaves nothing behind but what it had
//! published. Everything else goes over the socket.
//!
//! - Events of one resource key are delivered in the order of the calls, whatever processes they were made in: a call that
//!   begins after another one has returned comes after it.
//!   That holds across engines, too: the next one waits for the clients of the last one before it takes anything in.
//! - The ack levels are those of the engine. `memory` means that the event is in the ring, which the server takes in although
//!   the client dies. What the server has not taken when it dies itself is given to the next one; of what it had taken and
//!   not acknowledged nobody knows, and who waits is told so ([`crate::ErrorKind::Disconnected`]).
//! - A reservation without a durable intent is the client's alone, and ends with it. One with a durable intent is in doubt as
//!   soon as the client has gone ([`crate::Engine::in_doubt`]).
//! - A client connects again by itself, for ever. Meanwhile calls wait as long as they may, and then say so.

mod any;
mod calls;
mod client;
mod memory;
mod presence;
mod ring;
mod server;
mod status;
mod sync;
mod wire;

use std::path::PathBuf;

pub use any::{AnyConsumer, AnyEngine, AnyReplay, AnyTail};
pub(crate) use client::Promise;
pub use client::{Client, ClientOptions, Pending};
pub(crate) use server::{Listening, Server};

use crate::error::{Error, Result};
use crate::rule::within;

/// How other processes get at an engine: `[engine.shared]` of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedConfig {
    /// The path of the Unix socket to listen at, at most 107 bytes. A socket that a process which is gone has left there is
    /// replaced. Beside it a file is kept whose name ends with `.lock`.
    pub socket: PathBuf,
    /// The rights of the socket's file: who may write to it may connect. Default: `0o600`.
    pub mode: u32,
    /// The users who may connect besides the process's own and root, if the file lets them. Default: none.
    pub uids: Vec<u32>,
    /// The size of each client's ring in bytes: a power of two from 256 KiB to 64 MiB. Default: 1 MiB.
    pub ring_bytes: usize,
    /// How many processes may be connected, 1 to 4096. Default: 256.
    pub clients_max: usize,
}

/// The most processes that may be connected.
const CLIENTS_MAX: usize = 4096;
/// The longest path of a socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl SharedConfig {
    /// The defaults, at this socket.
    pub fn new(socket: impl Into<PathBuf>) -> SharedConfig {
        SharedConfig { socket: socket.into(), mode: 0o600, uids: Vec::new(), ring_bytes: 1 << 20, clients_max: 256 }
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`]; its place is the key, as in `engine.shared.socket`.
    pub(crate) fn validate(&self) -> Result<()> {
        check_socket_path(&self.socket).map_err(|e| e.at("engine.shared.socket"))?;
        if self.mode > 0o777 {
            return Err(Error::invalid_config(format!("engine.shared.mode is {:o}", self.mode))
                .at("engine.shared.mode")
                .remedy("give the rights of a file in octal, such as \"0660\""));
        }
        within("engine.shared.ring_bytes", self.ring_bytes, 256 << 10, 64 << 20)?;
        if !self.ring_bytes.is_power_of_two() {
            let near = self.ring_bytes.next_power_of_two();
            let what = format!("engine.shared.ring_bytes is {}, not a power of two", self.ring_bytes);
            return Err(Error::invalid_config(what)
                .at("engine.shared.ring_bytes")
                .remedy(format!("choose {} or {near}", near / 2)));
        }
        within("engine.shared.clients_max", self.clients_max, 1, CLIENTS_MAX)
    }
}

fn check_socket_path(path: &std::path::Path) -> Result<()> {
    let len = path.as_os_str().len();
    if len == 0 || len > SOCKET_PATH_BYTES_MAX {
        return Err(Error::invalid_config(format!(
            "the path of a socket has {len} bytes, not 1 to {SOCKET_PATH_BYTES_MAX}"
        ))
        .remedy("choose a shorter one, such as /run/tidewire/engine.sock"));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid_config("the path of a socket has a NUL in it").remedy("leave it out"));
    }
    Ok(())
}

/// The monotonic clock, which all processes of a machine read alike, in nanoseconds.
#[inline]
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct may be written. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
