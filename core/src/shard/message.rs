//! What a record of the ring says beside its frame.
//!
//! Most records are the frame of an event that somebody published, and the tag says what ack level is waited for. What is
//! rarer has a prefix before the frame, and a bit in the tag that says so:
//!
//! ```text
//! u8 kind, as in the log     u8 which of the following are there: 1 = ticket, 2 = route, 4 = extensions
//! u64 ticket                 u32 destination, u32 rule, as in the log    extensions, as in the log
//! ```

use crate::le::u32_at;
use crate::log::Ack;
use crate::log::record::{Extensions, Kind, Route};

/// The tag of a ring's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u32);

const ACK: u32 = 3;
const PREFIXED: u32 = 4;

impl Tag {
    /// Of a frame without a prefix.
    #[inline]
    pub(crate) fn plain(ack: Ack) -> Tag {
        Tag(ack as u32)
    }

    /// Of a record that begins with a prefix.
    pub(crate) fn prefixed(ack: Ack) -> Tag {
        Tag(ack as u32 | PREFIXED)
    }

    #[inline]
    pub(crate) fn from_number(number: u32) -> Tag {
        Tag(number)
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// What somebody waits for.
    #[inline]
    pub(crate) fn ack(self) -> Ack {
        Ack::from_number(self.0 & ACK)
    }

    #[inline]
    pub(crate) fn is_prefixed(self) -> bool {
        self.0 & PREFIXED != 0
    }
}

const TICKET: u8 = 1;
const ROUTE: u8 = 2;
const EXTENSIONS: u8 = 4;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// What the record shall become in the log.
    pub(crate) kind: Kind,
    /// What the host knows an intent by until it has a sequence.
    pub(crate) ticket: Option<u64>,
    /// Where the event goes, if another shard has matched it.
    pub(crate) route: Option<Route>,
    /// What the log's record has besides.
    pub(crate) extensions: Extensions,
}

impl Prefix {
    /// With nothing but a kind.
    pub(crate) fn new(kind: Kind) -> Prefix {
        Prefix { kind, ticket: None, route: None, extensions: Extensions::default() }
    }

    /// Its length in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        2 + self.ticket.map_or(0, |_| 8) + self.route.map_or(0, |_| 8) + self.extensions.encoded_len()
    }

    /// Writes it into the front of `out` and returns the rest.
    ///
    /// # Panics
    /// If `out` is shorter than [`Prefix::encoded_len`].
    pub(crate) fn encode<'a>(&self, out: &'a mut [u8]) -> &'a mut [u8] {
        let extra = self.extensions.encoded_len();
        out[0] = self.kind as u8;
        out[1] = u8::from(self.ticket.is_some()) * TICKET
            + u8::from(self.route.is_some()) * ROUTE
            + u8::from(extra > 0) * EXTENSIONS;
        let mut at = 2;
        if let Some(ticket) = self.ticket {
            out[at..at + 8].copy_from_slice(&ticket.to_le_bytes());
            at += 8;
        }
        if let Some(route) = self.route {
            let (destination, rule) = route.to_words();
            out[at..at + 4].copy_from_slice(&destination.to_le_bytes());
            out[at + 4..at + 8].copy_from_slice(&rule.to_le_bytes());
            at += 8;
        }
        let (extensions, rest) = out[at..].split_at_mut(extra);
        if extra > 0 {
            self.extensions.encode(extensions);
        }
        rest
    }

    /// Reads the prefix at the front of `bytes`, which this process wrote, and returns it with the rest.
    ///
    /// # Panics
    /// If it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> (Prefix, &[u8]) {
        let mut prefix = Prefix::new(Kind::from_number(bytes[0]).unwrap_or(Kind::Mark));
        let flags = bytes[1];
        let mut rest = &bytes[2..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head
        };
        if flags & TICKET != 0 {
            prefix.ticket = take(8).try_into().ok().map(u64::from_le_bytes);
        }
        if flags & ROUTE != 0 {
            let b = take(8);
            prefix.route = Some(Route::from_words(u32_at(b, 0), u32_at(b, 4)));
        }
        if flags & EXTENSIONS != 0 {
            let len = u16::from_le_bytes([rest[0], rest[1]]) as usize;
            let (head, tail) = rest.split_at(len);
            rest = tail;
            prefix.extensions = Extensions::decode(head);
        }
        (prefix, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Priority;
    use crate::log::record::Origin;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prefixes_come_out_as_they_went_in(
            ticket in proptest::option::of(any::<u64>()),
            route in proptest::option::of((any::<u32>(), 0u32..1 << 30, any::<bool>())),
            resolves in proptest::option::of(any::<u64>()),
            dedup in proptest::option::of(any::<u128>()),
            origin in proptest::option::of((any::<u64>(), any::<u16>(), any::<u64>())),
            frame in proptest::collection::vec(any::<u8>(), 0..50),
            kind in 1u8..=6,
        ) {
            let prefix = Prefix {
                kind: Kind::from_number(kind).unwrap(),
                ticket,
                route: route.map(|(destination, rule, high)| Route {
                    priority: if high { Priority::High } else { Priority::Normal },
                    ..Route::new(destination, rule)
                }),
                extensions: Extensions {
                    resolves,
                    dedup,
                    origin: origin.map(|(incarnation, shard, sequence)| Origin {
                        incarnation, shard, sequence, clock_ns: 7, tie: 8,
                    }),
                    ..Extensions::default()
                },
            };
            let mut bytes = vec![0; prefix.encoded_len() + frame.len()];
            prefix.encode(&mut bytes).copy_from_slice(&frame);
            prop_assert_eq!(Prefix::decode(&bytes), (prefix, &frame[..]));
        }
    }

    #[test]
    fn the_ack_level_stays_readable_beside_the_prefix_bit() {
        for ack in [Ack::Memory, Ack::Written, Ack::Synced] {
            for (tag, prefixed) in [(Tag::plain(ack), false), (Tag::prefixed(ack), true)] {
                let tag = Tag::from_number(tag.number());
                assert_eq!((tag.ack(), tag.is_prefixed()), (ack, prefixed));
            }
        }
    }
}
