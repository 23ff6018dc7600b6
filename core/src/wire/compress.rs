//! Compression of whole bodies.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder};

use crate::error::{Error, Result};
use crate::rule::within;

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum CompressionAlgorithm {
    #[default]
    Gzip,
    Zstd,
}

impl CompressionAlgorithm {
    /// Each with its name in the configuration and in `Content-Encoding`.
    pub const ALL: [(CompressionAlgorithm, &'static str); 2] =
        [(CompressionAlgorithm::Gzip, "gzip"), (CompressionAlgorithm::Zstd, "zstd")];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }

    /// The lowest and the highest level, and the one that is used unless another is asked for.
    fn levels(self) -> (u32, u32, u32) {
        match self {
            CompressionAlgorithm::Gzip => (1, 9, 6),
            CompressionAlgorithm::Zstd => (1, 19, 3),
        }
    }
}

/// The compression of a destination's bodies. A body that would not become smaller is sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compression {
    /// How.
    pub algorithm: CompressionAlgorithm,
    /// From 1 to 9 for gzip, to 19 for zstd. Default: 6 and 3.
    pub level: u32,
    /// Bodies with fewer bytes are sent as they are. Default: 1 KiB.
    pub bytes_min: usize,
}

impl Compression {
    /// With the default level and threshold.
    pub fn new(algorithm: CompressionAlgorithm) -> Compression {
        Compression { algorithm, level: algorithm.levels().2, bytes_min: 1024 }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let (min, max, _) = self.algorithm.levels();
        within("level", self.level as usize, min as usize, max as usize)
            .and_then(|()| within("bytes_min", self.bytes_min, 0, 64 << 20))
            .map_err(|e: Error| e.at("compression"))
    }

    /// The body, compressed; nothing if it is to be sent as it is.
    pub(super) fn compress(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.worth(body, |out| match self.algorithm {
            CompressionAlgorithm::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::new(self.level));
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            CompressionAlgorithm::Zstd => {
                let mut encoder = zstd::stream::Encoder::new(out, self.level as i32)?;
                encoder.set_pledged_src_size(Some(body.len() as u64))?;
                encoder.write_all(body)?;
                encoder.finish()
            }
        })
    }

    /// As [`Compression::compress`], as DEFLATE (RFC 1951) without a frame.
    pub(super) fn deflate(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.worth(body, |out| {
            let mut encoder = DeflateEncoder::new(out, flate2::Compression::new(self.level.min(9)));
            encoder.write_all(body).and_then(|()| encoder.finish())
        })
    }

    fn worth(&self, body: &[u8], write: impl FnOnce(Vec<u8>) -> std::io::Result<Vec<u8>>) -> Option<Vec<u8>> {
        if body.len() < self.bytes_min {
            return None;
        }
        // Writing into memory does not fail.
        write(Vec::with_capacity(body.len() / 2)).ok().filter(|c| c.len() < body.len())
    }
}
