//! An event as C describes it.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use engine::event::frame::Field;
use engine::event::{EVENT_BYTES_MAX, FrameView};
use engine::{AnyEngine, DetailsWanted, Error, ErrorKind, Event, EventType, KnownType, Origin, Priority, Result};

use crate::args::{Versioned, first_size, null, null_data, read_all, tidewire_bytes_t, tidewire_pair_t, too_long};
use crate::numbers;
use crate::raw::{tidewire_details_wanted_t, tidewire_event_type_t, tidewire_origin_t, tidewire_priority_t};

/// One thing that happened to one resource. Initialise with `TIDEWIRE_EVENT_INIT` and set what is known; what does not
/// apply stays empty. For `struct_size` see `tidewire_options_t`.
///
/// The library copies what it needs before `tidewire_publish` returns. `key` and `data` are any bytes, all others are
/// UTF-8 of at most 4096 bytes, unless they say otherwise. The whole event takes at most 64 KiB
/// (`engine.event_bytes_max`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_event_t {
    /// `sizeof(tidewire_event_t)`.
    pub struct_size: usize,
    /// What happened, by number; or `TIDEWIRE_EVENT_NAMED`, then by `event_type_name`.
    pub event_type: tidewire_event_type_t,
    /// How important it is when not everything can be delivered at once.
    pub priority: tidewire_priority_t,
    /// Who caused it.
    pub origin: tidewire_origin_t,
    /// How many notification handlers this event has already passed through (loop guard).
    pub hops: u8,
    /// Not 0 if `size` is known.
    pub has_size: u8,
    /// Must be 0.
    pub reserved: u16,
    /// When it happened, in nanoseconds since the Unix epoch; 0 means now.
    pub time_ns: u64,
    /// The object's size in bytes, if `has_size` is not 0.
    pub size: u64,
    /// What happened, by name, if `event_type` is `TIDEWIRE_EVENT_NAMED`; empty otherwise. At most 128 bytes.
    pub event_type_name: tidewire_bytes_t,
    /// The bucket, 1 to 255 bytes. Empty only for `System:*` events.
    pub bucket: tidewire_bytes_t,
    /// The key, 1 to 1024 bytes for events of objects. Events with equal bucket and key are delivered in order.
    pub key: tidewire_bytes_t,
    /// The object's version; empty if the bucket is not versioned.
    pub version_id: tidewire_bytes_t,
    /// The entity tag, without quotes.
    pub etag: tidewire_bytes_t,
    /// Who asked for the operation (principal id).
    pub requester: tidewire_bytes_t,
    /// The address that the request came from.
    pub source_ip: tidewire_bytes_t,
    /// The id of the request (`x-amz-request-id`).
    pub request_id: tidewire_bytes_t,
    /// The second trace id of the request (`x-amz-id-2`).
    pub host_id: tidewire_bytes_t,
    /// The region; empty means the region of the engine.
    pub region: tidewire_bytes_t,
    /// The object's content type.
    pub content_type: tidewire_bytes_t,
    /// The operation as the API names it, such as `PutObject`.
    pub method: tidewire_bytes_t,
    /// The client's user agent.
    pub user_agent: tidewire_bytes_t,
    /// The principal that owns the bucket.
    pub bucket_owner: tidewire_bytes_t,
    /// Data of the host or of the event type's schema: a JSON document, or empty.
    pub data: tidewire_bytes_t,
    /// User metadata, names without `x-amz-meta-`: `metadata_count` pairs.
    pub metadata: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub metadata_count: usize,
    /// Object tags: `tags_count` pairs.
    pub tags: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub tags_count: usize,
    /// Fetches metadata and tags that are not given above, if they are of use: see `tidewire_fetch_callback_t`. NULL if there
    /// are none but those.
    pub fetch: tidewire_fetch_callback_t,
    /// Handed to `fetch`.
    pub fetch_data: *mut c_void,
}

/// Metadata and tags of an event.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_details_t {
    /// User metadata, names without `x-amz-meta-`: `metadata_count` pairs.
    pub metadata: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub metadata_count: usize,
    /// Object tags: `tags_count` pairs.
    pub tags: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub tags_count: usize,
}

/// Fetches details of an event that the host does not have at hand. It is called within the call that the event is given to,
/// by the same thread, once at most: if a rule that may want the event, by its type, bucket and key, looks at metadata or tags
/// or keeps the event, or a destination that it would go to has them in its records. It is not called by `tidewire_reserve`
/// and its like: see `tidewire_details_wanted`.
///
/// `wanted`: the sum of the `TIDEWIRE_DETAILS_` that are of use and that the event does not have.
/// `details_out`: all zero; to be filled with those. What its pointers lead to stays as it is until the call that the event was
/// given to returns.
///
/// Answers 0. With any other answer the event is refused (`TIDEWIRE_INVALID_EVENT`).
pub type tidewire_fetch_callback_t = Option<
    unsafe extern "C" fn(
        fetch_data: *mut c_void,
        wanted: tidewire_details_wanted_t,
        details_out: *mut tidewire_details_t,
    ) -> c_int,
>;

/// Whom an event's details are fetched for.
#[derive(Clone, Copy)]
pub(crate) enum Fetch<'a> {
    /// Nobody: they are not known yet.
    Never,
    /// A filter that stands alone.
    Always,
    /// The rules of an engine.
    For(&'a AnyEngine),
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_event_t {
    const INIT: &'static str = "TIDEWIRE_EVENT_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_event_t, tags_count: usize);
}

/// The pairs of an event that goes out.
#[derive(Default)]
pub(crate) struct PairsOf {
    metadata: Vec<tidewire_pair_t>,
    tags: Vec<tidewire_pair_t>,
}

/// Hands several events of the caller to `use_them`.
///
/// # Safety
/// `events` is NULL or points to `count` structs of one size, with fields as described.
pub(crate) unsafe fn with_events<T>(
    events: *const tidewire_event_t,
    count: usize,
    fetch: Fetch<'_>,
    use_them: impl FnOnce(&[Event<'_>]) -> Result<T>,
) -> Result<T> {
    if events.is_null() && count > 0 {
        return Err(null("events"));
    }
    // SAFETY: as for this function.
    let all = unsafe { read_all(events, count, "events")? };
    let mut pairs: Vec<(Pairs<'_>, Pairs<'_>)> = all.iter().map(|_| Default::default()).collect();
    let mut views = Vec::with_capacity(count);
    for (n, (event, (metadata, tags))) in all.iter().zip(&mut pairs).enumerate() {
        // SAFETY: as for this function.
        views.push(unsafe { event.view(fetch, metadata, tags).map_err(|e| e.at(format!("events[{n}]")))? });
    }
    use_them(&views)
}

/// As many pairs are taken without asking for memory.
const PAIRS_INLINE: usize = 16;
const PAIRS_MAX: usize = u16::MAX as usize;

/// Where the pairs of an event are put.
pub(crate) struct Pairs<'a> {
    /// Most events have none, so nothing is put there before.
    inline: [MaybeUninit<(&'a str, &'a str)>; PAIRS_INLINE],
    spilled: Vec<(&'a str, &'a str)>,
}

impl Default for Pairs<'_> {
    #[inline]
    fn default() -> Self {
        Pairs { inline: [const { MaybeUninit::uninit() }; PAIRS_INLINE], spilled: Vec::new() }
    }
}

impl tidewire_event_t {
    /// An event that goes out; it points into `event` and `pairs`.
    pub(crate) fn of(event: &FrameView<'_>, pairs: &mut PairsOf) -> tidewire_event_t {
        let of_text = |field| tidewire_bytes_t::of(event.text(field).as_bytes());
        let pair = |(name, value): (&str, &str)| tidewire_pair_t {
            name: tidewire_bytes_t::of(name.as_bytes()),
            value: tidewire_bytes_t::of(value.as_bytes()),
        };
        pairs.metadata = event.metadata().map(pair).collect();
        pairs.tags = event.tags().map(pair).collect();
        let (event_type, event_type_name) = match event.event_type() {
            EventType::Known(t) => (t as u32, tidewire_bytes_t::of(b"")),
            EventType::Custom(name) => {
                (numbers::tidewire_event_type_t::TIDEWIRE_EVENT_NAMED as u32, tidewire_bytes_t::of(name.as_bytes()))
            }
        };
        tidewire_event_t {
            struct_size: size_of::<tidewire_event_t>(),
            event_type,
            priority: match event.priority() {
                Priority::Normal => numbers::tidewire_priority_t::TIDEWIRE_PRIORITY_NORMAL as u32,
                Priority::Low => numbers::tidewire_priority_t::TIDEWIRE_PRIORITY_LOW as u32,
                Priority::High => numbers::tidewire_priority_t::TIDEWIRE_PRIORITY_HIGH as u32,
            },
            origin: match event.origin() {
                Origin::User => numbers::tidewire_origin_t::TIDEWIRE_ORIGIN_USER as u32,
                Origin::Replica => numbers::tidewire_origin_t::TIDEWIRE_ORIGIN_REPLICA as u32,
                Origin::Lifecycle => numbers::tidewire_origin_t::TIDEWIRE_ORIGIN_LIFECYCLE as u32,
            },
            hops: event.hops(),
            has_size: u8::from(event.size().is_some()),
            reserved: 0,
            time_ns: event.time_ns(),
            size: event.size().unwrap_or(0),
            event_type_name,
            bucket: tidewire_bytes_t::of(event.bucket().as_bytes()),
            key: tidewire_bytes_t::of(event.key()),
            version_id: of_text(Field::VersionId),
            etag: of_text(Field::Etag),
            requester: of_text(Field::Requester),
            source_ip: of_text(Field::SourceIp),
            request_id: of_text(Field::RequestId),
            host_id: of_text(Field::HostId),
            region: of_text(Field::Region),
            content_type: of_text(Field::ContentType),
            method: of_text(Field::Method),
            user_agent: of_text(Field::UserAgent),
            bucket_owner: of_text(Field::BucketOwner),
            data: tidewire_bytes_t::of(event.field(Field::Data)),
            metadata: pairs.metadata.as_ptr(),
            metadata_count: pairs.metadata.len(),
            tags: pairs.tags.as_ptr(),
            tags_count: pairs.tags.len(),
            fetch: None,
            fetch_data: std::ptr::null_mut(),
        }
    }

    /// An event of the same type, bucket and key, of which nothing more is known.
    ///
    /// # Safety
    /// The fields are as described, for `'a`.
    pub(crate) unsafe fn resource<'a>(&self) -> Result<Event<'a>> {
        // SAFETY: as for this function.
        let (bucket, event_type) = unsafe { self.bucket_and_type()? };
        // SAFETY: as for this function.
        let key = unsafe { self.key.get(ErrorKind::InvalidEvent, "key", EVENT_BYTES_MAX)? };
        Ok(Event::new(event_type, bucket, key))
    }

    /// The bucket and type.
    ///
    /// # Safety
    /// The fields are as described, for `'a`.
    pub(crate) unsafe fn bucket_and_type<'a>(&self) -> Result<(&'a str, EventType<'a>)> {
        // SAFETY: as for this function.
        unsafe { Ok((text(self.bucket, "bucket")?, self.event_type()?)) }
    }

    /// The event. Its limits are not checked here, but no field is read that is longer than any limit.
    ///
    /// # Safety
    /// The fields are as described, for `'a`.
    // An event is large, and is not to be moved once more.
    #[inline(always)]
    pub(crate) unsafe fn view<'a>(
        &self,
        fetch: Fetch<'_>,
        metadata: &'a mut Pairs<'a>,
        tags: &'a mut Pairs<'a>,
    ) -> Result<Event<'a>> {
        let mut e = Event::default();
        // SAFETY: as for this function.
        unsafe {
            e.event_type = self.event_type()?;
            e.bucket = text(self.bucket, "bucket")?;
            e.key = self.key.get(ErrorKind::InvalidEvent, "key", EVENT_BYTES_MAX)?;
            e.version_id = text(self.version_id, "version_id")?;
            e.etag = text(self.etag, "etag")?;
            e.requester = text(self.requester, "requester")?;
            e.source_ip = text(self.source_ip, "source_ip")?;
            e.request_id = text(self.request_id, "request_id")?;
            e.host_id = text(self.host_id, "host_id")?;
            e.region = text(self.region, "region")?;
            e.content_type = text(self.content_type, "content_type")?;
            e.method = text(self.method, "method")?;
            e.user_agent = text(self.user_agent, "user_agent")?;
            e.bucket_owner = text(self.bucket_owner, "bucket_owner")?;
            e.data = self.data.get(ErrorKind::InvalidEvent, "data", EVENT_BYTES_MAX)?;
            let details = if self.fetch.is_some() { self.fetched(fetch, &e)? } else { self.details() };
            e.metadata = metadata.fill(details.metadata, details.metadata_count, "metadata")?;
            e.tags = tags.fill(details.tags, details.tags_count, "tags")?;
        }
        e.time_ns = self.time_ns;
        e.size = (self.has_size != 0).then_some(self.size);
        e.priority = self.priority()?;
        e.origin = self.origin()?;
        e.hops = self.hops;
        if self.reserved != 0 {
            return Err(unknown("reserved", u32::from(self.reserved), "set it to 0"));
        }
        Ok(e)
    }

    fn details(&self) -> tidewire_details_t {
        let tidewire_event_t { metadata, metadata_count, tags, tags_count, .. } = *self;
        tidewire_details_t { metadata, metadata_count, tags, tags_count }
    }

    /// The event's own details, and those that are of use and can be fetched.
    ///
    /// # Safety
    /// `fetch` is as described.
    #[cold]
    unsafe fn fetched(&self, fetch: Fetch<'_>, event: &Event<'_>) -> Result<tidewire_details_t> {
        let mut details = self.details();
        let wanted = match fetch {
            Fetch::Never => return Ok(details),
            Fetch::Always => DetailsWanted::ALL,
            Fetch::For(engine) => engine.details_wanted(event)?,
        };
        let metadata = wanted.metadata && details.metadata_count == 0;
        let tags = wanted.tags && details.tags_count == 0;
        let missing = flags(DetailsWanted { metadata, tags });
        let Some(callback) = self.fetch.filter(|_| missing != 0) else { return Ok(details) };
        let null = std::ptr::null();
        let mut got = tidewire_details_t { metadata: null, metadata_count: 0, tags: null, tags_count: 0 };
        // SAFETY: it may be written; the host promises the rest.
        let answer = unsafe { callback(self.fetch_data, missing, &mut got) };
        if answer != 0 {
            return Err(Error::invalid_event(format!(
                "the host could not fetch metadata or tags: it answered {answer}"
            ))
            .at("fetch")
            .remedy("publish the event again, or without them"));
        }
        if metadata {
            (details.metadata, details.metadata_count) = (got.metadata, got.metadata_count);
        }
        if tags {
            (details.tags, details.tags_count) = (got.tags, got.tags_count);
        }
        Ok(details)
    }

    /// # Safety
    /// `event_type_name` is as described, for `'a`.
    unsafe fn event_type<'a>(&self) -> Result<EventType<'a>> {
        if self.event_type == numbers::tidewire_event_type_t::TIDEWIRE_EVENT_NAMED as u32 {
            // SAFETY: as for this function.
            let name = unsafe { text(self.event_type_name, "event_type_name")? };
            if name.is_empty() {
                return Err(Error::invalid_event("the event has no type")
                    .at("event_type")
                    .remedy("set event_type, or event_type_name"));
            }
            return EventType::parse(name);
        }
        if !self.event_type_name.is_empty() {
            return Err(Error::invalid_event("the event has a type by number and one by name")
                .at("event_type_name")
                .remedy("leave one of them empty"));
        }
        let known = u16::try_from(self.event_type).ok().and_then(KnownType::from_code);
        known.map(EventType::Known).ok_or_else(|| {
            unknown("event_type", self.event_type, "use a TIDEWIRE_EVENT_ constant, or a library as new as the header")
        })
    }

    fn priority(&self) -> Result<Priority> {
        use numbers::tidewire_priority_t as p;
        match self.priority {
            n if n == p::TIDEWIRE_PRIORITY_NORMAL as u32 => Ok(Priority::Normal),
            n if n == p::TIDEWIRE_PRIORITY_LOW as u32 => Ok(Priority::Low),
            n if n == p::TIDEWIRE_PRIORITY_HIGH as u32 => Ok(Priority::High),
            n => Err(unknown("priority", n, "use a TIDEWIRE_PRIORITY_ constant")),
        }
    }

    fn origin(&self) -> Result<Origin> {
        use numbers::tidewire_origin_t as o;
        match self.origin {
            n if n == o::TIDEWIRE_ORIGIN_USER as u32 => Ok(Origin::User),
            n if n == o::TIDEWIRE_ORIGIN_REPLICA as u32 => Ok(Origin::Replica),
            n if n == o::TIDEWIRE_ORIGIN_LIFECYCLE as u32 => Ok(Origin::Lifecycle),
            n => Err(unknown("origin", n, "use a TIDEWIRE_ORIGIN_ constant")),
        }
    }
}

pub(crate) fn flags(wanted: DetailsWanted) -> tidewire_details_wanted_t {
    use numbers::tidewire_details_wanted_t as d;
    let flag = |is: bool, flag: d| if is { flag as u32 } else { d::TIDEWIRE_DETAILS_NONE as u32 };
    flag(wanted.metadata, d::TIDEWIRE_DETAILS_METADATA) | flag(wanted.tags, d::TIDEWIRE_DETAILS_TAGS)
}

impl<'a> Pairs<'a> {
    /// # Safety
    /// `pairs` is NULL or points to `count` pairs, each as described, for `'a`.
    #[inline]
    pub(crate) unsafe fn fill(
        &'a mut self,
        pairs: *const tidewire_pair_t,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [(&'a str, &'a str)]> {
        if count == 0 {
            return Ok(&[]);
        }
        // SAFETY: as for this function.
        unsafe { self.filled(pairs, count, field) }
    }

    /// # Safety
    /// As for [`Pairs::fill`].
    unsafe fn filled(
        &'a mut self,
        pairs: *const tidewire_pair_t,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [(&'a str, &'a str)]> {
        if pairs.is_null() {
            return Err(null_data(field, count));
        }
        if count > PAIRS_MAX {
            return Err(Error::invalid_event(format!("{field} has {count} entries, more than {PAIRS_MAX}")).at(field));
        }
        let is_inline = count <= PAIRS_INLINE;
        if !is_inline {
            self.spilled.reserve_exact(count);
        }
        // An event cannot be larger than this, so do not read on for nothing.
        let mut left = EVENT_BYTES_MAX;
        for i in 0..count {
            // SAFETY: `count` pairs are readable, by contract.
            let pair = unsafe { pairs.add(i).read_unaligned() };
            // SAFETY: as for this function.
            let (name, value) = unsafe {
                (
                    pair.name.text(ErrorKind::InvalidEvent, format_args!("{field}[{i}].name"), left)?,
                    pair.value.text(ErrorKind::InvalidEvent, format_args!("{field}[{i}].value"), left)?,
                )
            };
            let len = name.len() + value.len();
            left = left.checked_sub(len).ok_or_else(|| {
                too_long(ErrorKind::InvalidEvent, field, EVENT_BYTES_MAX - left + len, EVENT_BYTES_MAX)
            })?;
            if is_inline {
                self.inline[i].write((name, value));
            } else {
                self.spilled.push((name, value));
            }
        }
        if is_inline {
            // SAFETY: the first `count` were written above.
            return Ok(unsafe { std::slice::from_raw_parts(self.inline.as_ptr().cast(), count) });
        }
        Ok(&self.spilled)
    }
}

/// # Safety
/// `bytes` is as described, for `'a`.
#[inline]
pub(crate) unsafe fn text<'a>(bytes: tidewire_bytes_t, field: &'static str) -> Result<&'a str> {
    // SAFETY: as for this function.
    unsafe { bytes.text(ErrorKind::InvalidEvent, field, EVENT_BYTES_MAX) }
}

#[cold]
pub(crate) fn unknown(field: &str, number: u32, remedy: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{field} is {number}, which means nothing")).at(field).remedy(remedy)
}
