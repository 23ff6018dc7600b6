//! The states of destinations.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::log::standing::{Order, Standing};
use crate::shard::Command;

impl Engine {
    /// Whether a destination gets anything, why not, and its last attempts that failed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination.
    pub fn destination_standing(&self, name: &str) -> Result<Standing> {
        let found = self.inner.shards.first().and_then(|shard| shard.common.standing_of(name));
        found.ok_or_else(|| unknown(name))
    }

    /// Sends a destination nothing until it is resumed; its events wait. It stays so through restarts, from a second after
    /// this at the latest.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination.
    pub fn suspend_destination(&self, name: &str) -> Result<()> {
        self.order(name, Order::Suspend)
    }

    /// Sends to a destination again, at once, whatever was in the way: it was suspended or disabled, or is left alone because
    /// it failed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination.
    pub fn resume_destination(&self, name: &str) -> Result<()> {
        self.order(name, Order::Resume)
    }

    fn order(&self, name: &str, order: Order) -> Result<()> {
        let number = self.inner.shards.first().and_then(|shard| shard.common.endpoints.obey(name, order));
        let number = number.ok_or_else(|| unknown(name))?;
        self.inner.shards.iter().for_each(|shard| shard.command(Command::Turn(number)));
        Ok(())
    }
}

#[cold]
fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no destination `{}`", name.escape_debug()))
}
