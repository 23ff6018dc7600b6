//! What bodies are joined of.

use bytes::{Bytes, BytesMut};

use crate::delivery::Record;
use crate::event::format::{Format, open_parcel};
use crate::event::profile::Profile;

/// What a body is joined of, besides the records.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    pub(super) head: &'static [u8],
    pub(super) separator: &'static [u8],
    pub(super) tail: &'static [u8],
    /// A record brings headers: it is a parcel, alone in its request.
    pub(super) parcels: bool,
    /// A request carries one event.
    pub(super) single: bool,
}

/// Headers that a record brings, and the pieces of a body.
pub(super) type Opened<'r> = (Vec<(&'r str, &'r str)>, Vec<Bytes>);

impl Parts {
    pub(super) fn of(format: &Format, profile: Profile) -> Parts {
        Parts {
            head: format.batch_head(profile),
            separator: format.separator(profile),
            tail: format.batch_tail(profile),
            parcels: format.has_parcels(profile),
            single: format.is_single(profile),
        }
    }

    /// The body of these records. `None` if one that should be a parcel is none.
    pub(super) fn open<'r>(&self, records: &'r [Record]) -> Option<Opened<'r>> {
        if let [record] = records
            && self.parcels
        {
            let (headers, body) = open_parcel(&record.bytes)?;
            let body = record.bytes.slice_ref(body);
            return Some((headers, vec![Bytes::from_static(self.head), body, Bytes::from_static(self.tail)]));
        }
        Some((Vec::new(), self.pieces(Bytes::from_static(self.head), records)))
    }

    /// A body that begins with `head`. Each record comes with the separator before it; the first one goes without.
    pub(super) fn pieces(&self, head: Bytes, records: &[Record]) -> Vec<Bytes> {
        let mut out = Vec::with_capacity(records.len() + 2);
        out.push(head);
        let start = |i| if i == 0 { self.separator.len() } else { 0 };
        out.extend(records.iter().enumerate().map(|(i, r)| r.bytes.slice(start(i)..)));
        out.push(Bytes::from_static(self.tail));
        out
    }

    /// Appends the records and what follows them.
    pub(super) fn join(&self, records: &[Record], out: &mut BytesMut) {
        for (i, record) in records.iter().enumerate() {
            out.extend_from_slice(&record.bytes[if i == 0 { self.separator.len() } else { 0 }..]);
        }
        out.extend_from_slice(self.tail);
    }

    /// A record by itself.
    pub(super) fn record(&self, record: &Record) -> Bytes {
        match open_parcel(&record.bytes).filter(|_| self.parcels) {
            Some((_, body)) => record.bytes.slice_ref(body),
            None => record.bytes.slice(self.separator.len()..),
        }
    }
}
