use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Pair = (String, String);

/// Everything of an event, owned.
#[derive(Clone, Debug)]
struct Sample {
    event_type: Result<KnownType, String>,
    time_ns: u64,
    key: Vec<u8>,
    size: Option<u64>,
    texts: Vec<String>,
    metadata: Vec<Pair>,
    tags: Vec<Pair>,
    data: Vec<u8>,
    priority: u8,
    origin: u8,
    hops: u8,
}

fn refs(pairs: &[Pair]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

impl Sample {
    fn with<T>(&self, use_event: impl FnOnce(Event<'_>) -> T) -> T {
        let (metadata, tags) = (refs(&self.metadata), refs(&self.tags));
        let t = |i: usize| self.texts[i].as_str();
        use_event(Event {
            event_type: match &self.event_type {
                Ok(known) => EventType::Known(*known),
                Err(name) => EventType::Custom(name),
            },
            time_ns: self.time_ns,
            bucket: t(0),
            key: &self.key,
            version_id: t(1),
            size: self.size,
            etag: t(2),
            requester: t(3),
            source_ip: t(4),
            request_id: t(5),
            host_id: t(6),
            region: t(7),
            content_type: t(8),
            method: t(9),
            user_agent: t(10),
            bucket_owner: t(11),
            metadata: &metadata,
            tags: &tags,
            data: &self.data,
            priority: Priority::from_u8(self.priority),
            origin: Origin::from_u8(self.origin),
            hops: self.hops,
        })
    }
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    vec((".{1,8}", ".{0,8}"), 0..4)
}

fn sample() -> impl Strategy<Value = Sample> {
    let event_type =
        prop_oneof![proptest::sample::select(KnownType::ALL).prop_map(Ok), "[a-z]{1,5}:[A-Za-z]{1,9}".prop_map(Err),];
    (
        (event_type, any::<u64>(), vec(any::<u8>(), 0..40), any::<Option<u64>>(), vec(".{0,10}", 12)),
        (pairs(), pairs(), vec(any::<u8>(), 0..30), 0u8..3, 0u8..3, any::<u8>()),
    )
        .prop_map(|((event_type, time_ns, key, size, texts), (metadata, tags, data, priority, origin, hops))| {
            Sample { event_type, time_ns, key, size, texts, metadata, tags, data, priority, origin, hops }
        })
}

/// Calls every accessor; the sum keeps the calls from being optimized away.
fn read_all(view: &FrameView<'_>) -> usize {
    let texts = [
        Field::Bucket,
        Field::VersionId,
        Field::Etag,
        Field::Requester,
        Field::SourceIp,
        Field::RequestId,
        Field::HostId,
        Field::Region,
        Field::ContentType,
        Field::TypeName,
        Field::Method,
        Field::UserAgent,
        Field::BucketOwner,
    ];
    texts.iter().map(|f| view.text(*f).len()).sum::<usize>()
        + view.field(Field::Data).len()
        + view.key().len()
        + view.event_type().name().len()
        + view.metadata().chain(view.tags()).map(|(k, v)| k.len() + v.len()).sum::<usize>()
        + view.size().unwrap_or(0) as usize % 2
        + view.time_ns() as usize % 2
        + view.priority() as usize
        + view.origin() as usize
        + view.hops() as usize
        + view.resource_hash() as usize % 2
        + view.as_bytes().len()
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(sample in sample(), now: u64) {
        sample.with(|e| {
            let bytes = encode_to_vec(&e, now);
            prop_assert_eq!(bytes.len(), encoded_len(&e));
            let checked = FrameView::parse(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
            for view in [checked, FrameView::trusted(&bytes)] {
                prop_assert_eq!(view.event_type(), e.event_type);
                prop_assert_eq!(view.time_ns(), if e.time_ns == 0 { now } else { e.time_ns });
                prop_assert_eq!((view.bucket(), view.key(), view.size()), (e.bucket, e.key, e.size));
                for (field, text) in [
                    (Field::VersionId, e.version_id),
                    (Field::Etag, e.etag),
                    (Field::Requester, e.requester),
                    (Field::SourceIp, e.source_ip),
                    (Field::RequestId, e.request_id),
                    (Field::HostId, e.host_id),
                    (Field::Region, e.region),
                    (Field::ContentType, e.content_type),
                    (Field::Method, e.method),
                    (Field::UserAgent, e.user_agent),
                    (Field::BucketOwner, e.bucket_owner),
                ] {
                    prop_assert_eq!(view.text(field), text, "{:?}", field);
                }
                prop_assert_eq!(view.metadata().collect::<Vec<_>>(), e.metadata);
                prop_assert_eq!(view.tags().collect::<Vec<_>>(), e.tags);
                prop_assert_eq!(view.field(Field::Data), e.data);
                prop_assert_eq!((view.priority(), view.origin(), view.hops()), (e.priority, e.origin, e.hops));
                prop_assert_eq!(view.resource_hash(), crate::event::resource_hash(e.bucket.as_bytes(), e.key));
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_truncation_is_taken_for_a_frame(sample in sample()) {
        let bytes = sample.with(|e| encode_to_vec(&e, 1));
        for len in 0..bytes.len() {
            prop_assert!(FrameView::parse(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
        }
    }

    #[test]
    fn one_changed_byte_never_leads_out_of_bounds(sample in sample(), value: u8) {
        let bytes = sample.with(|e| encode_to_vec(&e, 1));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            if let Ok(view) = FrameView::parse(&damaged) {
                read_all(&view);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_lead_out_of_bounds(mut bytes in vec(any::<u8>(), 0..200), present: u32) {
        // Past the first checks, which few random bytes would pass.
        if bytes.len() >= 32 {
            let len = bytes.len() as u32;
            bytes[0] = 1;
            bytes[2..4].copy_from_slice(&1u16.to_le_bytes());
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
            bytes[18..20].copy_from_slice(&32u16.to_le_bytes());
            bytes[20..24].copy_from_slice(&(present & 0x1F).to_le_bytes());
        }
        if let Ok(view) = FrameView::parse(&bytes) {
            read_all(&view);
        }
    }
}

fn put() -> Vec<u8> {
    encode_to_vec(&Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k"), 5)
}

/// The layout is on disks: this test fails if it changes.
#[test]
fn layout_is_the_documented_one() {
    let mut expected = vec![1, 1, 1, 0, 42, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 3, 0, 0, 0];
    expected.extend([0; 8]);
    expected.extend([41, 0, 0, 0, 42, 0, 0, 0, b'b', b'k']);
    assert_eq!(put(), expected);
}

#[test]
fn size_zero_differs_from_no_size() {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
    assert_eq!(FrameView::trusted(&encode_to_vec(&e, 1)).size(), None);
    e.size = Some(0);
    assert_eq!(FrameView::trusted(&encode_to_vec(&e, 1)).size(), Some(0));
}

#[test]
fn newer_frames_are_told_from_damage() {
    let kind = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = put();
        change(&mut bytes);
        FrameView::parse(&bytes).map(|_| ()).map_err(|e| e.kind())
    };
    assert_eq!(kind(&|_| ()), Ok(()));
    assert_eq!(kind(&|b| b[0] = 2), Err(ErrorKind::NewerFormat));
    assert_eq!(kind(&|b| b[0] = 0), Err(ErrorKind::Corrupt));
    assert_eq!(kind(&|b| b[2] = 250), Err(ErrorKind::NewerFormat));
    assert_eq!(kind(&|b| b[2] = 0), Err(ErrorKind::Corrupt));
    assert_eq!(kind(&|b| b[18] = 31), Err(ErrorKind::Corrupt));
    assert_eq!(kind(&|b| b[32] = 43), Err(ErrorKind::Corrupt));
    assert_eq!(kind(&|b| b[36] = 41), Err(ErrorKind::Corrupt));
    assert_eq!(kind(&|b| b[40] = 0xFF), Err(ErrorKind::Corrupt), "a bucket that is not UTF-8");
    assert_eq!(kind(&|b| b[41] = 0xFF), Ok(()), "a key need not be UTF-8");
    assert_eq!(kind(&|b| b.push(0)), Err(ErrorKind::Corrupt));
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let mut bytes = put();
    // Field 30 with one byte, after the others.
    bytes.splice(40..40, [47, 0, 0, 0]);
    bytes.push(b'x');
    bytes[4] = 47;
    bytes[23] |= 1 << 6;
    bytes[32] = 45;
    bytes[36] = 46;
    let view = FrameView::parse(&bytes).expect("still a frame");
    assert_eq!((view.bucket(), view.key()), ("b", &b"k"[..]));
    read_all(&view);
}

#[test]
fn damaged_metadata_is_found() {
    let e = Event { metadata: &[("name", "value")], ..Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k") };
    let bytes = encode_to_vec(&e, 1);
    assert!(FrameView::parse(&bytes).is_ok());
    let at = bytes.len() - (2 + 4 + 9);
    for (offset, value) in [(0, 2), (0, 0), (2, 5), (4, 4), (4, 200), (6, 0xFF)] {
        let mut damaged = bytes.clone();
        damaged[at + offset] = value;
        assert!(FrameView::parse(&damaged).is_err(), "byte {offset} = {value}");
    }
}
