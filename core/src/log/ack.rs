//! Ack levels.

use crate::error::{Error, ErrorKind, Result};

/// How safe an event is when `publish` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ack {
    /// It is in the shard's ring: lost if the process dies now.
    Memory = 0,
    /// It was handed to the operating system or the device: survives the end of the process.
    Written = 1,
    /// It is durable: survives loss of power, as far as the device tells the truth about its cache.
    #[default]
    Synced = 2,
}

impl Ack {
    /// The level of a name: `memory`, `written` or `synced`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] that lists the three.
    pub fn parse(name: &str) -> Result<Ack> {
        match name {
            "memory" => Ok(Ack::Memory),
            "written" => Ok(Ack::Written),
            "synced" => Ok(Ack::Synced),
            _ => Err(Error::new(ErrorKind::InvalidArgument, format!("unknown ack level `{name}`"))
                .remedy("use memory, written or synced")),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Ack::Memory => "memory",
            Ack::Written => "written",
            Ack::Synced => "synced",
        }
    }

    /// The level of its number.
    pub(crate) fn from_number(number: u32) -> Ack {
        match number {
            0 => Ack::Memory,
            1 => Ack::Written,
            _ => Ack::Synced,
        }
    }
}
