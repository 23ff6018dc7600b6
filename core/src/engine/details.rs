//! Metadata and tags that a host fetches only where something needs them.

use crate::error::Result;
use crate::event::Event;
use crate::shard::snapshot::{DetailsWanted, Scratch};

use super::Engine;

impl Engine {
    /// Whether a host to which metadata or tags of an object are not at hand should fetch them before it publishes an event
    /// with this type, bucket and key; what else the event has is not looked at. Neither is wanted if no rule can want the
    /// event.
    ///
    /// It costs about what it costs to match an event. Rules that are changed before the event is published find what it has
    /// then.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongProcess`] in a forked child.
    pub fn details_wanted(&self, event: &Event<'_>) -> Result<DetailsWanted> {
        let entrance = self.inner.entrance()?;
        if !self.inner.interested(entrance, event.bucket, event.event_type) {
            return Ok(DetailsWanted::default());
        }
        // Nothing but this is certain, whatever the host has filled in so far.
        let known = Event::new(event.event_type, event.bucket, event.key);
        Ok(self.inner.snapshot.load().details_wanted(&known, &mut Scratch::default()))
    }
}
