//! A load for the benches: requests of one connector, as fast as it makes them. No part of the interface.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::webhook::WebhookConnector;
use crate::config::{Network, NetworkConfig, Sockets};
use crate::delivery::{Connector, Outcome, Record};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::format::Format;
use crate::event::profile::Profile;
use crate::rule::Webhook;

/// Requests on each connection before anything is measured.
const WARM_UP: u64 = 50;

/// What is sent, where, and how.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Load {
    pub webhook: Webhook,
    pub sockets: Sockets,
    pub connections: usize,
    /// Of each request, with their separators.
    pub records: Vec<Record>,
    pub duration: Duration,
    /// So many requests on each connection, if the time is not over before.
    pub requests: u64,
    /// Each record is copied once before each request: what a way out that copies would cost.
    pub copied: bool,
    /// Where the shard runs.
    pub cpu: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Run {
    pub requests: u64,
    pub elapsed: Duration,
    /// Of the shard's thread.
    pub cpu: Duration,
}

/// Runs a load on a shard's thread of its own: each of its tasks makes one attempt after the other, as lanes do.
///
/// # Errors
/// If the shard or the connector cannot be, or an attempt fails.
pub fn run(load: Load) -> Result<Run> {
    let config = NetworkConfig { sockets: load.sockets, ..NetworkConfig::default() };
    let network = Arc::new(Network::new(&config));
    let (told, heard) = channel();
    let cpu = load.cpu;
    let shard = driver::spawn_shard("tidewire-bench", Some(cpu), move || async move {
        let _ = told.send(on_shard(load, &network).await);
    })?;
    let ended = || Error::new(ErrorKind::Internal, "the shard ended early");
    let run = heard.recv().map_err(|_| ended())?;
    shard.join()?;
    run
}

async fn on_shard(load: Load, network: &Arc<Network>) -> Result<Run> {
    let connector =
        WebhookConnector::new(&load.webhook, (Profile::Aws, &Format::default()), load.connections, network)?;
    let connector: Rc<dyn Connector> = Rc::new(connector);
    let all = async |requests: u64, end: Option<Instant>| {
        let tasks: Vec<_> = (0..load.connections)
            .map(|_| driver::spawn(requests_of(connector.clone(), load.records.clone(), load.copied, requests, end)))
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await?;
        }
        Ok::<_, crate::error::Error>(sum)
    };
    all(WARM_UP, None).await?;
    let (begun, cpu) = (driver::now(), thread_cpu());
    let requests = all(load.requests, Some(begun + load.duration)).await?;
    Ok(Run { requests, elapsed: driver::since(begun), cpu: thread_cpu().saturating_sub(cpu) })
}

async fn requests_of(
    connector: Rc<dyn Connector>,
    records: Vec<Record>,
    copied: bool,
    most: u64,
    end: Option<Instant>,
) -> Result<u64> {
    let mut done = 0;
    while done < most && end.is_none_or(|end| driver::now() < end) {
        let copies: Vec<Record> = match copied {
            true => records.iter().map(|r| Record { id: r.id, bytes: Bytes::copy_from_slice(&r.bytes) }).collect(),
            false => Vec::new(),
        };
        match connector.send(if copied { &copies } else { &records }).await {
            Outcome::Success => done += 1,
            other => return Err(Error::new(ErrorKind::Io, format!("an attempt failed: {other:?}"))),
        }
    }
    Ok(done)
}

/// What the calling thread has used of a processor.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
