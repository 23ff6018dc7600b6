//! The events of one document, kept until all of them are published.

use crate::error::Result;
use crate::event::frame::{self, Field};
use crate::event::{Event, FrameView, Layout};

/// Events in their compact form, one after the other.
#[derive(Default)]
pub(crate) struct Events {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Events {
    /// Adds an event that has passed [`crate::Engine::check`].
    pub(crate) fn push(&mut self, event: &Event<'_>) {
        let start = self.bytes.len();
        let layout = Layout::of(event);
        self.bytes.resize(start + layout.len(), 0);
        // An event without a time keeps none: it gets one when it is published.
        frame::encode(event, layout, 0, &mut self.bytes[start..]);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Hands the event of a place to `use_it`.
    ///
    /// # Errors
    /// As `use_it`.
    pub(crate) fn with<T>(&self, place: usize, use_it: impl FnOnce(&Event<'_>) -> Result<T>) -> Result<T> {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        let view = FrameView::trusted(&self.bytes[start..self.ends[place]]);
        let metadata: Vec<_> = view.metadata().collect();
        let tags: Vec<_> = view.tags().collect();
        use_it(&Event {
            event_type: view.event_type(),
            time_ns: view.time_ns(),
            bucket: view.bucket(),
            key: view.key(),
            version_id: view.text(Field::VersionId),
            size: view.size(),
            etag: view.text(Field::Etag),
            requester: view.text(Field::Requester),
            source_ip: view.text(Field::SourceIp),
            request_id: view.text(Field::RequestId),
            host_id: view.text(Field::HostId),
            region: view.text(Field::Region),
            content_type: view.text(Field::ContentType),
            method: view.text(Field::Method),
            user_agent: view.text(Field::UserAgent),
            bucket_owner: view.text(Field::BucketOwner),
            metadata: &metadata,
            tags: &tags,
            data: view.field(Field::Data),
            priority: view.priority(),
            origin: view.origin(),
            hops: view.hops(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventType, KnownType, Origin, Priority};

    #[test]
    fn an_event_comes_back_as_it_was() {
        let full = Event {
            event_type: EventType::Custom("acme:Scan"),
            time_ns: 5,
            bucket: "b",
            key: b"k\xff",
            version_id: "1",
            size: Some(0),
            etag: "2",
            requester: "3",
            source_ip: "4",
            request_id: "5",
            host_id: "6",
            region: "7",
            content_type: "8",
            method: "9",
            user_agent: "10",
            bucket_owner: "11",
            metadata: &[("a", "b"), ("c", "")],
            tags: &[("d", "e")],
            data: b"{}",
            priority: Priority::High,
            origin: Origin::Replica,
            hops: 3,
        };
        let bare = Event::new(KnownType::ObjectRemovedDelete.into(), "b", b"k");
        let mut events = Events::default();
        events.push(&full);
        events.push(&bare);
        for (place, event) in [&full, &bare].into_iter().enumerate() {
            let same = events.with(place, |e| Ok(format!("{e:?}") == format!("{event:?}")));
            assert_eq!(same.ok(), Some(true));
        }
    }
}
