//! Files of a shard.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::glommio as ring;
#[cfg(feature = "sim")]
use super::sim;

/// Memory that direct I/O can use, aligned to a block. Of one shard's thread.
pub enum Buffer {
    /// Of the io_uring runtime.
    Ring(Rc<ring::Buffer>),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(Vec<u8>),
}

impl Buffer {
    /// The bytes.
    #[cfg(feature = "sim")]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Buffer::Ring(b) => b.as_bytes(),
            Buffer::Sim(b) => b,
        }
    }

    /// The bytes, before they are given to a file; none while they are being written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Ring(b) => Rc::get_mut(b).map_or(&mut [], ring::Buffer::as_bytes_mut),
            #[cfg(feature = "sim")]
            Buffer::Sim(b) => b,
        }
    }
}

/// A buffer of `bytes`, a multiple of a block. Its contents are arbitrary.
pub fn allocate_buffer(bytes: usize) -> Buffer {
    #[cfg(feature = "sim")]
    if sim::active() {
        return Buffer::Sim(vec![0xA5; bytes]);
    }
    Buffer::Ring(Rc::new(ring::allocate_buffer(bytes)))
}

/// A file for the log: direct I/O where the file system has it, ordinary I/O elsewhere.
#[derive(Debug)]
pub enum DiskFile {
    /// Of the io_uring runtime.
    Ring(ring::DiskFile),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::disk::DiskFile),
}

impl DiskFile {
    /// Opens or creates a file for writing, keeping what it has.
    pub async fn open_or_create(path: &Path) -> io::Result<DiskFile> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            return sim::disk::DiskFile::open(&world, path, true).await.map(DiskFile::Sim);
        }
        ring::DiskFile::open_or_create(path).await.map(DiskFile::Ring)
    }

    /// Opens a file for reading.
    pub async fn open(path: &Path) -> io::Result<DiskFile> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            return sim::disk::DiskFile::open(&world, path, false).await.map(DiskFile::Sim);
        }
        ring::DiskFile::open(path).await.map(DiskFile::Ring)
    }

    /// Writes a whole buffer at a position; both are multiples of a block.
    pub async fn write_at(&self, buf: &Buffer, position: u64) -> io::Result<()> {
        match (self, buf) {
            (DiskFile::Ring(f), Buffer::Ring(b)) => f.write_at(b.clone(), position).await,
            #[cfg(feature = "sim")]
            (DiskFile::Sim(f), b) => f.write_at(b.as_bytes(), position).await,
            #[cfg(feature = "sim")]
            (DiskFile::Ring(_), Buffer::Sim(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Reads up to `len` bytes at a position; fewer at the end of the file. Both are multiples of a block.
    pub async fn read_at(&self, position: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            DiskFile::Ring(f) => f.read_at(position, len, out).await,
            #[cfg(feature = "sim")]
            DiskFile::Sim(f) => f.read_at(position, len, out).await,
        }
    }

    /// Makes durable what was written before the call.
    pub async fn sync_data(&self) -> io::Result<()> {
        match self {
            DiskFile::Ring(f) => f.sync_data().await,
            #[cfg(feature = "sim")]
            DiskFile::Sim(f) => f.sync_data().await,
        }
    }

    /// Closes it.
    pub async fn close(self) -> io::Result<()> {
        match self {
            DiskFile::Ring(f) => f.close().await,
            #[cfg(feature = "sim")]
            DiskFile::Sim(_) => Ok(()),
        }
    }
}
