//! Ways in other than publishing from code: events posted over HTTP, and changes of files in a directory.
//!
//! A source publishes into an [`crate::Engine`] that its owner opened, runs in a thread of its own, and is stopped by
//! its owner before the engine is closed.

#[cfg(feature = "source-directory")]
pub mod directory;
#[cfg(feature = "source-http")]
pub mod http;
