//! What is made of secrets, and made anew when they may have changed.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Signer;
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::Sealer;

/// Secrets are not looked at more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What knows when it should be made anew.
pub(super) trait Watching: Send + Sync + 'static {
    /// Whether that can be at all.
    fn watches(&self) -> bool;
    /// Whether it is so now. May block.
    fn is_outdated(&self) -> bool;
}

impl Watching for Signer {
    fn watches(&self) -> bool {
        Signer::watches(self)
    }

    fn is_outdated(&self) -> bool {
        Signer::is_outdated(self)
    }
}

impl Watching for Sealer {
    fn watches(&self) -> bool {
        Sealer::watches(self)
    }

    fn is_outdated(&self) -> bool {
        Sealer::is_outdated(self)
    }
}

/// See the module. One for each use and shard.
pub(super) struct Reread<T> {
    present: RefCell<Option<Arc<T>>>,
    /// When the secrets were looked at last.
    looked: Cell<Instant>,
    /// Why they could not be read then.
    trouble: RefCell<String>,
}

impl<T: Watching> Reread<T> {
    /// Nothing is read yet.
    pub(super) fn new() -> Reread<T> {
        Reread { present: RefCell::default(), looked: Cell::new(driver::now()), trouble: RefCell::default() }
    }

    /// What `load` makes, which may block; made anew if a secret may have changed. `host` is whom it is for.
    pub(super) async fn get(&self, host: &str, load: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Arc<T>> {
        let present = self.present.borrow().clone();
        let now = driver::now();
        if let Some(present) = &present
            && (!present.watches() || now.duration_since(self.looked.get()) < LOOK_EVERY)
        {
            return Ok(present.clone());
        }
        self.looked.set(now);
        let before = present.clone();
        let read = driver::blocking(move || match before {
            Some(present) if !present.is_outdated() => Ok(None),
            _ => load().map(Some),
        });
        match (read.await.map(|new| new.map(Arc::new)), present) {
            (Ok(Some(new)), _) => {
                self.trouble.borrow_mut().clear();
                *self.present.borrow_mut() = Some(new.clone());
                Ok(new)
            }
            (Ok(None), Some(present)) => Ok(present),
            // A file that is being replaced, or a vault that is away: what was read before is most likely still good.
            (Err(e), Some(present)) => {
                let text = e.to_string();
                if *self.trouble.borrow() != text {
                    log::warn!("a secret for {host} cannot be read again, the earlier one stays in use: {text}");
                    *self.trouble.borrow_mut() = text;
                }
                Ok(present)
            }
            (Err(e), None) => Err(e),
            (Ok(None), None) => Err(Error::new(ErrorKind::Internal, "the secrets were not read")),
        }
    }
}
