//! Which objects there were: a fold over events.
//!
//! Pure. The events of a key must come in their order; that of different keys matters only for renames.

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::event::frame::Field;
use crate::event::{EventId, EventType, FrameView, KnownType, Sequencer};

/// One version of an object, as its event told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version's id; empty for the one of an unversioned bucket (`null`).
    pub version_id: String,
    /// It is a delete marker.
    pub marker: bool,
    /// The size in bytes, where the event said it.
    pub size: Option<u64>,
    /// The entity tag.
    pub etag: String,
    /// When it was made, ns since the epoch.
    pub time_ns: u64,
    /// The event's place in the order of its key.
    pub sequencer: Sequencer,
    /// The event that made it.
    pub id: EventId,
}

/// The objects of one bucket whose keys begin with a prefix.
#[derive(Clone, Debug)]
pub struct Objects {
    bucket: String,
    prefix: Vec<u8>,
    /// Per key, its versions in the order in which they were made; never empty.
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
}

/// What an event does to the versions of its key.
enum Change {
    Create,
    Marker,
    Delete,
    DeleteAll,
    Rename,
}

fn change(t: EventType<'_>) -> Option<Change> {
    use KnownType::*;
    let EventType::Known(t) = t else { return None };
    Some(match t {
        ObjectCreatedPut
        | ObjectCreatedPost
        | ObjectCreatedCopy
        | ObjectCreatedCompleteMultipartUpload
        | ReplicaCreated => Change::Create,
        ObjectRemovedDeleteMarkerCreated | LifecycleExpirationDeleteMarkerCreated | ReplicaDeleteMarkerCreated => {
            Change::Marker
        }
        ObjectRemovedDelete | LifecycleExpirationDelete | ReplicaDeleted => Change::Delete,
        ObjectRemovedDeleteAllVersions => Change::DeleteAll,
        ObjectRenamed => Change::Rename,
        _ => return None,
    })
}

impl Objects {
    /// No objects yet.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<Vec<u8>>) -> Objects {
        Objects { bucket: bucket.into(), prefix: prefix.into(), keys: BTreeMap::new() }
    }

    /// Whether an event could change anything here.
    pub fn wants(&self, frame: &FrameView<'_>) -> bool {
        if frame.bucket() != self.bucket {
            return false;
        }
        match change(frame.event_type()) {
            // It may take a key away that has the prefix.
            Some(Change::Rename) => true,
            Some(_) => frame.key().starts_with(&self.prefix),
            None => frame.event_type() == EventType::Known(KnownType::BucketRemoved),
        }
    }

    /// Takes the next event.
    pub fn apply(&mut self, frame: &FrameView<'_>, id: EventId, sequencer: Sequencer) {
        if !self.wants(frame) {
            return;
        }
        let Some(change) = change(frame.event_type()) else {
            // The bucket itself was removed.
            self.keys.clear();
            return;
        };
        let version_id = match frame.text(Field::VersionId) {
            "null" => "",
            id => id,
        };
        let version = |marker| Version {
            version_id: version_id.to_owned(),
            marker,
            size: frame.size().filter(|_| !marker),
            etag: frame.text(Field::Etag).to_owned(),
            time_ns: frame.time_ns(),
            sequencer,
            id,
        };
        match change {
            Change::Create => self.add(frame.key(), version(false)),
            Change::Marker => self.add(frame.key(), version(true)),
            Change::Delete => {
                self.remove(frame.key(), version_id);
            }
            Change::DeleteAll => {
                self.keys.remove(frame.key());
            }
            Change::Rename => {
                let mut new = version(false);
                if let Some(source) = source_key(frame.field(Field::Data))
                    && let Some(old) = self.remove(source.as_bytes(), "")
                {
                    // What the event does not say, the object brings along.
                    new.size = new.size.or(old.size);
                    if new.etag.is_empty() {
                        new.etag = old.etag;
                    }
                }
                self.add(frame.key(), new);
            }
        }
    }

    fn add(&mut self, key: &[u8], version: Version) {
        if !key.starts_with(&self.prefix) {
            return;
        }
        let versions = self.keys.entry(key.to_vec()).or_default();
        match versions.iter().position(|v| v.version_id == version.version_id) {
            // The event of a version with an id of its own was published twice.
            Some(at) if !version.version_id.is_empty() => versions[at] = version,
            Some(at) => {
                versions.remove(at);
                versions.push(version);
            }
            None => versions.push(version),
        }
    }

    fn remove(&mut self, key: &[u8], version_id: &str) -> Option<Version> {
        let versions = self.keys.get_mut(key)?;
        let at = versions.iter().position(|v| v.version_id == version_id)?;
        let removed = versions.remove(at);
        if versions.is_empty() {
            self.keys.remove(key);
        }
        Some(removed)
    }

    /// The live objects in the order of their keys, each with its current version: what a listing of the bucket shows.
    pub fn live(&self) -> Live<'_> {
        Live(self.keys.iter())
    }

    /// The versions of a key, oldest first, delete markers among them.
    pub fn versions(&self, key: &[u8]) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }
}

/// See [`Objects::live`].
#[derive(Clone, Debug)]
pub struct Live<'a>(btree_map::Iter<'a, Vec<u8>, Vec<Version>>);

impl<'a> Iterator for Live<'a> {
    type Item = (&'a [u8], &'a Version);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.by_ref().find_map(|(key, versions)| {
            let current = versions.last().filter(|v| !v.marker)?;
            Some((key.as_slice(), current))
        })
    }
}

/// The key that an object was renamed from.
pub(crate) fn source_key(data: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Data {
        #[serde(rename = "sourceKey")]
        source_key: String,
    }
    serde_json::from_slice::<Data>(data).ok().map(|d| d.source_key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Event, frame};

    struct Fold {
        objects: Objects,
        count: u64,
    }

    impl Fold {
        fn new(prefix: &str) -> Fold {
            Fold { objects: Objects::new("b", prefix), count: 0 }
        }

        fn event(&mut self, e: Event<'_>) {
            self.count += 1;
            let bytes = frame::encode_to_vec(&e, self.count);
            let id = EventId { incarnation: 1, shard: 0, sequence: self.count };
            let sequencer = Sequencer { clock_ns: self.count, tie: 0, writer: 0 };
            self.objects.apply(&FrameView::parse(&bytes).unwrap(), id, sequencer);
        }

        fn change(&mut self, t: KnownType, key: &str, version: &str) {
            let mut e = Event::new(t.into(), "b", key.as_bytes());
            (e.version_id, e.size) = (version, Some(self.count + 1));
            self.event(e);
        }

        fn live(&self) -> Vec<(String, String)> {
            let text = |k: &[u8]| String::from_utf8(k.to_vec()).unwrap();
            self.objects.live().map(|(k, v)| (text(k), v.version_id.clone())).collect()
        }

        fn keys(&self) -> Vec<String> {
            self.live().into_iter().map(|(k, _)| k).collect()
        }
    }

    use KnownType::*;

    #[test]
    fn every_way_to_create_makes_an_object_live_and_a_removal_ends_it() {
        for create in [
            ObjectCreatedPut,
            ObjectCreatedPost,
            ObjectCreatedCopy,
            ObjectCreatedCompleteMultipartUpload,
            ReplicaCreated,
        ] {
            for remove in [
                ObjectRemovedDelete,
                ObjectRemovedDeleteMarkerCreated,
                ObjectRemovedDeleteAllVersions,
                LifecycleExpirationDelete,
                LifecycleExpirationDeleteMarkerCreated,
                ReplicaDeleted,
                ReplicaDeleteMarkerCreated,
            ] {
                let mut f = Fold::new("");
                f.change(create, "k", "");
                f.change(create, "other", "");
                assert_eq!(f.keys(), ["k", "other"], "{create:?}");
                f.change(remove, "k", "");
                assert_eq!(f.keys(), ["other"], "{remove:?}");
            }
        }
    }

    #[test]
    fn what_changes_no_object_changes_no_liveness() {
        let silent: Vec<KnownType> =
            KnownType::ALL.iter().copied().filter(|t| change((*t).into()).is_none() && *t != BucketRemoved).collect();
        assert!(silent.contains(&ObjectTaggingPut) && silent.contains(&ObjectAclPut), "{silent:?}");
        assert!(silent.contains(&LifecycleExpirationAbortMultipartUpload) && silent.contains(&ObjectRemovedNoop));
        let mut f = Fold::new("");
        f.change(ObjectCreatedPut, "live", "");
        for t in silent {
            f.change(t, "live", "");
            f.change(t, "never", "");
            assert_eq!(f.keys(), ["live"], "{t:?}");
        }
    }

    #[test]
    fn versions_are_told_apart() {
        let mut f = Fold::new("");
        f.change(ObjectCreatedPut, "k", "v1");
        f.change(ObjectCreatedPut, "k", "v2");
        assert_eq!(f.live(), [("k".into(), "v2".into())]);
        // A marker hides; taking the marker away shows again; taking the current version away shows the one before.
        f.change(ObjectRemovedDeleteMarkerCreated, "k", "m1");
        assert!(f.live().is_empty());
        assert_eq!(f.objects.versions(b"k").len(), 3);
        f.change(ObjectRemovedDelete, "k", "m1");
        assert_eq!(f.live(), [("k".into(), "v2".into())]);
        f.change(ObjectRemovedDelete, "k", "v2");
        assert_eq!(f.live(), [("k".into(), "v1".into())]);
        f.change(ObjectRemovedDelete, "k", "unknown");
        assert_eq!(f.live(), [("k".into(), "v1".into())]);
        f.change(ObjectRemovedDeleteAllVersions, "k", "");
        assert!(f.live().is_empty() && f.objects.versions(b"k").is_empty());
    }

    #[test]
    fn the_null_version_is_replaced_and_becomes_current() {
        let mut f = Fold::new("");
        f.change(ObjectCreatedPut, "k", "");
        f.change(ObjectCreatedPut, "k", "v1");
        f.change(ObjectCreatedPut, "k", "null");
        assert_eq!(f.live(), [("k".into(), "".into())]);
        assert_eq!(f.objects.versions(b"k").len(), 2);
        f.change(ObjectRemovedDeleteMarkerCreated, "k", "null");
        assert!(f.live().is_empty(), "versioning was suspended: the marker takes the null version's place");
        f.change(ObjectRemovedDelete, "k", "null");
        assert_eq!(f.live(), [("k".into(), "v1".into())]);
    }

    #[test]
    fn a_rename_takes_the_object_along() {
        let mut f = Fold::new("");
        let mut put = Event::new(ObjectCreatedPut.into(), "b", b"old");
        (put.size, put.etag) = (Some(42), "tag");
        f.event(put);
        let mut rename = Event::new(ObjectRenamed.into(), "b", b"new");
        rename.data = br#"{"sourceKey":"old"}"#;
        f.event(rename);
        assert_eq!(f.keys(), ["new"]);
        let (_, v) = f.objects.live().next().unwrap();
        assert_eq!((v.size, v.etag.as_str()), (Some(42), "tag"));
        // Into and out of the prefix.
        let mut f = Fold::new("a/");
        f.change(ObjectCreatedPut, "a/1", "");
        for (key, data) in [("b/1", &br#"{"sourceKey":"a/1"}"#[..]), ("a/2", br#"{"sourceKey":"c/9"}"#)] {
            let mut rename = Event::new(ObjectRenamed.into(), "b", key.as_bytes());
            rename.data = data;
            f.event(rename);
        }
        assert_eq!(f.keys(), ["a/2"]);
    }

    #[test]
    fn other_buckets_and_other_prefixes_are_not_here() {
        let mut f = Fold::new("in/");
        f.change(ObjectCreatedPut, "in/a", "");
        f.change(ObjectCreatedPut, "out/a", "");
        f.event(Event::new(ObjectCreatedPut.into(), "other", b"in/b"));
        f.event(Event::new(ObjectRemovedDelete.into(), "other", b"in/a"));
        f.event(Event::new(BucketRemoved.into(), "other", b""));
        assert_eq!(f.keys(), ["in/a"]);
        f.event(Event::new(BucketRemoved.into(), "b", b""));
        assert!(f.keys().is_empty());
    }

    /// One event: what, key, version; a rename's source is the key after.
    type Op = (usize, usize, usize);
    const KEYS: [&str; 3] = ["a", "b", "c"];
    const VERSIONS: [&str; 3] = ["", "v1", "v2"];

    /// Which versions are live, found by looking back from the end at each version alone.
    fn naive(ops: &[Op]) -> BTreeSet<(String, String)> {
        // What an event does to one version: makes it (object or marker), ends it, or nothing.
        let effect = |(what, key, version): Op, k: usize, v: usize| match what {
            0 if (key, version) == (k, v) => Some(Some(false)),
            1 if (key, version) == (k, v) => Some(Some(true)),
            2 if (key, version) == (k, v) => Some(None),
            3 if key == k => Some(None),
            4 if (key, 0) == (k, v) => Some(Some(false)),
            4 if ((key + 1) % 3, 0) == (k, v) => Some(None),
            5 => Some(None),
            _ => None,
        };
        let mut live = BTreeSet::new();
        for (k, name) in KEYS.iter().enumerate() {
            let mut current: Option<(usize, bool, usize)> = None;
            for v in 0..VERSIONS.len() {
                let effects: Vec<(usize, Option<bool>)> =
                    ops.iter().enumerate().filter_map(|(i, op)| Some((i, effect(*op, k, v)?))).collect();
                let Some((last, Some(marker))) = effects.last().copied() else { continue };
                // Its age counts from when it came to be; the null version is made anew each time.
                let since = effects.iter().rev().take_while(|(_, e)| e.is_some()).last().map_or(last, |(i, _)| *i);
                let made = if v == 0 { last } else { since };
                if current.is_none_or(|(at, ..)| made > at) {
                    current = Some((made, marker, v));
                }
            }
            if let Some((_, false, v)) = current {
                live.insert(((*name).to_owned(), VERSIONS[v].to_owned()));
            }
        }
        live
    }

    proptest! {
        #[test]
        fn the_fold_agrees_with_a_look_back(
            ops in proptest::collection::vec((0usize..60, 0usize..3, 0usize..3), 0..60)
        ) {
            // Mostly creations and deletions; a bucket is removed seldom.
            let ops: Vec<Op> = ops.into_iter().map(|(w, k, v)| (match w {
                0..24 => 0, 24..36 => 1, 36..50 => 2, 50..54 => 3, 54..59 => 4, _ => 5,
            }, k, v)).collect();
            let mut f = Fold::new("");
            for (what, key, version) in &ops {
                let data = format!(r#"{{"sourceKey":"{}"}}"#, KEYS[(key + 1) % 3]);
                let (t, key) = match what {
                    0 => (ObjectCreatedPut, KEYS[*key]),
                    1 => (ObjectRemovedDeleteMarkerCreated, KEYS[*key]),
                    2 => (ObjectRemovedDelete, KEYS[*key]),
                    3 => (ObjectRemovedDeleteAllVersions, KEYS[*key]),
                    4 => (ObjectRenamed, KEYS[*key]),
                    _ => (BucketRemoved, ""),
                };
                let mut e = Event::new(t.into(), "b", key.as_bytes());
                if t == ObjectRenamed {
                    e.data = data.as_bytes();
                } else {
                    e.version_id = VERSIONS[*version];
                }
                f.event(e);
            }
            prop_assert_eq!(f.live().into_iter().collect::<BTreeSet<_>>(), naive(&ops));
        }
    }
}
