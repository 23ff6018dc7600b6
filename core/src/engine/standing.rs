//! The states of destinations.

use std::sync::Arc;

use super::Engine;
use crate::auth::rotation::{self, NewSecret};
use crate::connect::custom::Handler;
use crate::error::{Error, ErrorKind, Result};
use crate::log::standing::{Order, Standing};
use crate::rule::Custom;
use crate::shard::{Command, Common};

impl Engine {
    /// Whether a destination gets anything, why not, and its last attempts that failed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination.
    pub fn destination_standing(&self, name: &str) -> Result<Standing> {
        self.common_of(name)?.standing_of(name).ok_or_else(|| unknown(name))
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

    /// Vouches for a destination that is pending: its endpoints count as having agreed to be sent events, to so many requests
    /// per minute if `per_minute` says so. Of one that is not pending nothing changes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination.
    pub fn confirm_destination(&self, name: &str, per_minute: Option<u32>) -> Result<()> {
        self.order(name, Order::Confirm(per_minute))
    }

    /// The same by an endpoint itself, which shows the token that it was sent (see
    /// [`crate::rule::Verification::callback`]). The rate is the one that was asked for, if `per_minute` does not say another.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if no endpoint of such a destination was sent this token and waits.
    pub fn confirm_by_token(&self, name: &str, token: &str, per_minute: Option<u32>) -> Result<()> {
        let common = self.common_of(name).ok();
        let number =
            common.and_then(|common| common.endpoints.show_code(name, token, per_minute)).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no endpoint was sent this token, or it has agreed already")
            })?;
        self.inner.shards.iter().for_each(|shard| shard.command(Command::Turn(number)));
        Ok(())
    }

    /// Rotates a secret of a destination: `given`, or a new one that is made. What was used before stays valid for
    /// `overlap`, up to 7 days ([`crate::auth::secret::ROTATION_OVERLAP`] is usual); receivers find signatures of both
    /// where the scheme can send several. It is kept in the data directory and takes the place of the configured secret until
    /// the configuration has another one. The new secret is answered, and never shown again. Blocks on files.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such destination; otherwise as [`crate::auth::rotation::rotate`].
    pub fn rotate_secret(
        &self,
        name: &str,
        given: Option<zeroize::Zeroizing<String>>,
        overlap: std::time::Duration,
    ) -> Result<NewSecret> {
        let endpoints = &self.common_of(name)?.endpoints;
        let settings = endpoints.settings(name).ok_or_else(|| unknown(name))?;
        let webhook = settings.kind.webhook().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("destination `{name}` has no secrets: the host serves it itself"))
        })?;
        let dir = &self.inner.config.data_dir;
        let unix = (crate::driver::system_ns() / 1_000_000_000) as i64;
        let _rotating = endpoints.rotating.lock();
        let new = rotation::rotate(dir, name, &webhook.auth, given, unix, overlap)?;
        if let Some(rotated) = rotation::Rotated::read(dir, name)?
            && let Some(number) = endpoints.set_secrets(name, rotated)
        {
            self.inner.shards.iter().for_each(|shard| shard.command(Command::Reconnect(number)));
        }
        Ok(new)
    }

    /// What the shards share, if there is such a destination.
    fn common_of(&self, name: &str) -> Result<&Common> {
        let is_there = self.inner.snapshot.load().destinations.by_name(name).is_some();
        self.inner.shards.first().filter(|_| is_there).map(|shard| &*shard.common).ok_or_else(|| unknown(name))
    }

    /// Gives the engine a function of the host for the custom destinations that name it ([`crate::rule::Custom`]), in the
    /// place of an earlier one of this name; with `None` there is none any more, and their events wait. The earlier one is not
    /// called again, and dropped when the call returns that may be under way; so is each when the engine has closed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name is not valid; [`ErrorKind::Closed`] if the engine is closed;
    /// [`ErrorKind::Io`] if there can be no thread for it; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn set_handler(&self, name: &str, handler: Option<Arc<dyn Handler>>) -> Result<()> {
        self.inner.check_process()?;
        self.inner.check_open()?;
        Custom::new(name).validate()?;
        let Some(shard) = self.inner.shards.first() else { return Ok(()) };
        shard.common.network.handlers.set(name, handler)
    }

    fn order(&self, name: &str, order: Order) -> Result<()> {
        let number = self.common_of(name)?.endpoints.obey(name, order).ok_or_else(|| unknown(name))?;
        self.inner.shards.iter().for_each(|shard| shard.command(Command::Turn(number)));
        Ok(())
    }
}

#[cold]
fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no destination `{}`", name.escape_debug()))
}
