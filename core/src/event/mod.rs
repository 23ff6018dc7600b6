//! What happened: the event as a host describes it, its types, its compact frame, and the records written from it.

mod types;

pub mod format;
pub mod frame;
pub mod id;
pub mod ingest;
pub mod profile;

pub use frame::{FrameView, Layout};
pub use id::{EventId, Sequencer};
pub use types::{EventPattern, EventType, EventTypes, KnownType, Scope};

use crate::error::{Error, Result};

/// The longest key, in bytes (the limit of S3).
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest bucket name, in bytes. S3 allows 63; older and other stores allow up to 255.
pub const BUCKET_BYTES_MAX: usize = 255;
/// The largest encoded event that is accepted, in bytes, unless the configuration says less.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// The longest of the short text fields (version id, etag, requester and the like), in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Who caused the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// A request of a user or an application.
    #[default]
    User = 0,
    /// The store itself, applying a change that came from another site.
    Replica = 1,
    /// The store itself, applying a lifecycle rule.
    Lifecycle = 2,
}

impl Origin {
    pub(crate) fn from_u8(n: u8) -> Origin {
        match n {
            1 => Origin::Replica,
            2 => Origin::Lifecycle,
            _ => Origin::User,
        }
    }
}

/// How important an event is when not everything can be delivered at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// Waits or is shed first.
    Low = 0,
    /// The ordinary case.
    #[default]
    Normal = 1,
    /// Goes on while others wait.
    High = 2,
}

impl Priority {
    pub(crate) fn from_u8(n: u8) -> Priority {
        match n {
            0 => Priority::Low,
            2 => Priority::High,
            _ => Priority::Normal,
        }
    }
}

/// One thing that happened to one resource, as the host describes it.
///
/// Everything is borrowed: [`crate::Engine::publish`] copies what it needs, once, into the ring. Fields that do not
/// apply stay empty and are left out of the records.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened.
    pub event_type: EventType<'a>,
    /// When it happened, in nanoseconds since the Unix epoch; 0 means now.
    pub time_ns: u64,
    /// The bucket, 1 to 255 bytes. Empty only for `System:*` events.
    pub bucket: &'a str,
    /// The key, as raw bytes, 1 to 1024 of them for events of objects. It need not be UTF-8.
    pub key: &'a [u8],
    /// The object's version; empty if the bucket is not versioned.
    pub version_id: &'a str,
    /// The object's size in bytes, where known.
    pub size: Option<u64>,
    /// The entity tag, without quotes.
    pub etag: &'a str,
    /// Who asked for the operation (principal id).
    pub requester: &'a str,
    /// The address that the request came from.
    pub source_ip: &'a str,
    /// The id of the request (`x-amz-request-id`).
    pub request_id: &'a str,
    /// The second trace id of the request (`x-amz-id-2`).
    pub host_id: &'a str,
    /// The region; empty means the region of the engine.
    pub region: &'a str,
    /// The object's content type.
    pub content_type: &'a str,
    /// The operation as the API names it, such as `PutObject`.
    pub method: &'a str,
    /// The client's user agent.
    pub user_agent: &'a str,
    /// The principal that owns the bucket.
    pub bucket_owner: &'a str,
    /// User metadata, names without `x-amz-meta-`.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Object tags.
    pub tags: &'a [(&'a str, &'a str)],
    /// Data of the host or of the event type's schema: a JSON document, or empty.
    pub data: &'a [u8],
    /// How important it is when not everything can be delivered at once.
    pub priority: Priority,
    /// Who caused it.
    pub origin: Origin,
    /// How many notification handlers this event has already passed through (loop guard).
    pub hops: u8,
}

impl<'a> Event<'a> {
    /// An event of `event_type` on `key` in `bucket`, with nothing else known.
    pub fn new(event_type: EventType<'a>, bucket: &'a str, key: &'a [u8]) -> Self {
        Event { event_type, bucket, key, ..Event::default() }
    }

    /// Checks names and lengths, and that the encoded form is at most `bytes_max`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] that names the field, its length and the limit.
    pub fn validate(&self, bytes_max: usize) -> Result<()> {
        self.check_seldom(bytes_max).map(|_| ())
    }

    /// As [`Event::check`], for callers that do not run for each event: a copy of their own would keep the compiler from
    /// giving one to the caller that does.
    #[inline(never)]
    pub(crate) fn check_seldom(&self, bytes_max: usize) -> Result<Layout> {
        self.check(bytes_max)
    }

    /// As [`Event::validate`]; answers the layout that encoding needs.
    #[inline(always)]
    pub(crate) fn check(&self, bytes_max: usize) -> Result<Layout> {
        let layout = Layout::of(self);
        // A frame that is small as a whole has no field that is too long by itself, but for bucket and key.
        if layout.len() <= bytes_max.min(TEXT_BYTES_MAX)
            && matches!(self.bucket.len(), 1..=BUCKET_BYTES_MAX)
            && matches!(self.key.len(), 1..=KEY_BYTES_MAX)
            && matches!(self.event_type, EventType::Known(_))
            && !layout.nameless
            && self.data.is_empty()
        {
            return Ok(layout);
        }
        self.check_each(layout, bytes_max).map(|()| layout)
    }

    #[cold]
    fn check_each(&self, layout: Layout, bytes_max: usize) -> Result<()> {
        let scope = self.event_type.scope();
        if let EventType::Custom(name) = self.event_type
            && (name.is_empty() || name.len() > types::TYPE_NAME_BYTES_MAX)
        {
            return Err(Error::invalid_event(format!(
                "the event type's name has {} bytes, not 1 to {}",
                name.len(),
                types::TYPE_NAME_BYTES_MAX
            ))
            .at("event_type")
            .remedy("use a name of the registry, or one that the host registered"));
        }
        if self.bucket.is_empty() && scope != Scope::System {
            return Err(Error::invalid_event("bucket is empty")
                .at("bucket")
                .remedy("name the bucket; only System:* events have none"));
        }
        if self.bucket.len() > BUCKET_BYTES_MAX {
            return Err(too_long("bucket", self.bucket.len(), BUCKET_BYTES_MAX));
        }
        if self.key.is_empty() && scope == Scope::Object {
            return Err(Error::invalid_event(format!(
                "key is empty, and {} is an event of an object",
                self.event_type
            ))
            .at("key")
            .remedy("give the key, 1 to 1024 bytes"));
        }
        if self.key.len() > KEY_BYTES_MAX {
            return Err(too_long("key", self.key.len(), KEY_BYTES_MAX));
        }
        for (name, text) in [
            ("version_id", self.version_id),
            ("etag", self.etag),
            ("requester", self.requester),
            ("source_ip", self.source_ip),
            ("request_id", self.request_id),
            ("host_id", self.host_id),
            ("region", self.region),
            ("content_type", self.content_type),
            ("method", self.method),
            ("user_agent", self.user_agent),
            ("bucket_owner", self.bucket_owner),
        ] {
            if text.len() > TEXT_BYTES_MAX {
                return Err(too_long(name, text.len(), TEXT_BYTES_MAX));
            }
        }
        for (name, pairs) in [("metadata", self.metadata), ("tags", self.tags)] {
            if pairs.len() > u16::MAX as usize {
                return Err(too_long(name, pairs.len(), u16::MAX as usize));
            }
            for (k, v) in pairs {
                if k.is_empty() {
                    return Err(Error::invalid_event(format!("{name} has an entry without a name")).at(name));
                }
                if k.len().max(v.len()) > u16::MAX as usize {
                    return Err(too_long(name, k.len().max(v.len()), u16::MAX as usize));
                }
            }
        }
        if !self.data.is_empty()
            && let Err(e) = serde_json::from_slice::<serde::de::IgnoredAny>(self.data)
        {
            return Err(Error::invalid_event(format!("data is no JSON document: {e}"))
                .at("data")
                .remedy("give one JSON value, or leave data empty"));
        }
        let len = layout.len();
        if len > bytes_max {
            return Err(Error::invalid_event(format!("the event takes {len} bytes encoded, more than {bytes_max}"))
                .remedy("shorten metadata, tags or data, or raise engine.event_bytes_max (at most 64KiB)"));
        }
        Ok(())
    }
}

#[cold]
fn too_long(field: &str, len: usize, max: usize) -> Error {
    Error::invalid_event(format!("{field} has {len} bytes, more than {max}")).at(field).remedy("shorten it")
}

/// The shard key of a resource: the order of events is kept among those with equal bucket and key.
///
/// XXH3 with the bucket's length as the seed, so that `("ab", "c")` and `("a", "bc")` differ. The value decides which
/// shard's log holds an event, so it must never change between versions.
pub fn resource_hash(bucket: &[u8], key: &[u8]) -> u64 {
    let b = xxhash_rust::xxh3::xxh3_64_with_seed(bucket, bucket.len() as u64);
    xxhash_rust::xxh3::xxh3_64_with_seed(key, b)
}

#[cfg(test)]
mod tests;
