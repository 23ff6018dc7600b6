//! Walks along keys through the tries of scopes (see [`super::scope`] for how these lie in memory): one at a time, or many
//! at once.
//!
//! Among many rules a walk waits for memory at each node, and where the next one is, only this one knows. So walks that do
//! not depend on each other take a step each in turn, and what the next step of each needs is on its way meanwhile (group
//! prefetching: Chen et al., ICDE 2004).

use super::bytes::{LANES, equals, prefetch, same_lanes};
use super::scope::{NODE_BYTES, PADDING, head};
use crate::le::u32_at;

/// Where a walk is: a node, and how much of the key lies behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) node: u32,
    pub(super) seen: u32,
}

/// A list of postings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Postings {
    start: u32,
    pub(super) len: u32,
}

impl Postings {
    #[inline]
    pub(super) fn of(self, block: &[u8]) -> &[u8] {
        &block[self.start as usize..][..self.len as usize]
    }
}

/// What a node has for a key.
pub(super) struct Visit {
    pub(super) postings: Postings,
    pub(super) next: Option<Step>,
}

/// As much of a block as is looked at in a usual node: one with a label and children of at most [`LANES`] bytes each. So
/// one look at the end of the block is enough for it.
const WINDOW: usize = BEFORE + NODE_BYTES + LANES + LANES + LANES * 4;
/// Bytes before the node, so that from the end of its label as many bytes can be looked at from there, too.
const BEFORE: usize = LANES - NODE_BYTES;
const _: () = assert!(WINDOW - BEFORE <= PADDING && BEFORE <= head::BYTES);

/// Goes to a node, from the beginning of the key to its end or with `FROM_END` the other way. `None` if its label is not
/// what comes next in the key.
#[inline(always)]
pub(super) fn visit<const FROM_END: bool>(block: &[u8], step: Step, key: &[u8]) -> Option<Visit> {
    let (node, seen) = (step.node as usize, step.seen as usize);
    let window = block.get(node - BEFORE..)?.first_chunk::<WINDOW>()?;
    let head = window[BEFORE..].first_chunk::<NODE_BYTES>().map_or(0, |head| u64::from_le_bytes(*head));
    let (label_len, children, postings) = (head as u16 as usize, (head >> 16) as u16 as usize, (head >> 32) as u32);
    let seen = seen + label_len;
    if seen > key.len() {
        return None;
    }
    let postings = Postings { start: (node + NODE_BYTES + label_len + children * 5) as u32, len: postings };
    if label_len > LANES || children > LANES {
        return visit_long::<FROM_END>(block, node, key, (label_len, children), seen).map(|link| Visit {
            postings,
            next: link.map(|link| Step { node: u32_at(block, link), seen: seen as u32 + 1 }),
        });
    }
    let label = BEFORE + NODE_BYTES;
    if !has_label::<FROM_END>(window, label, label_len, key, seen) {
        return None;
    }
    if children == 0 {
        return Some(Visit { postings, next: None });
    }
    let first_bytes = label + label_len;
    let next = byte_behind::<FROM_END>(key, seen).and_then(|b| {
        let same = same_lanes(lanes(window, first_bytes), &[*b; LANES]) & !(ALL_LANES << children);
        let link = first_bytes + children + (same | 1 << LANES).trailing_zeros() as usize % LANES * 4;
        (same != 0).then(|| Step { node: u32_at(window, link), seen: seen as u32 + 1 })
    });
    Some(Visit { postings, next })
}

/// The same for a node with a long label or many children; answers where the place of the next one stands.
#[inline(never)]
fn visit_long<const FROM_END: bool>(
    block: &[u8],
    node: usize,
    key: &[u8],
    (label_len, children): (usize, usize),
    seen: usize,
) -> Option<Option<usize>> {
    let label = node + NODE_BYTES;
    if !has_label::<FROM_END>(block, label, label_len, key, seen) {
        return None;
    }
    let first_bytes = label + label_len;
    let child = byte_behind::<FROM_END>(key, seen).and_then(|b| find_byte(block, first_bytes, children, *b));
    Some(child.map(|n| first_bytes + children + n * 4))
}

/// What comes next in the key, after `seen` bytes.
#[inline(always)]
fn byte_behind<const FROM_END: bool>(key: &[u8], seen: usize) -> Option<&u8> {
    if FROM_END { key[..key.len() - seen].last() } else { key.get(seen) }
}

#[inline(always)]
fn lanes(bytes: &[u8], at: usize) -> &[u8; LANES] {
    bytes[at..].first_chunk().unwrap_or(&[0; LANES])
}

/// Whether the label is the part of the key that ends after `seen` bytes.
#[inline(always)]
fn has_label<const FROM_END: bool>(block: &[u8], label: usize, len: usize, key: &[u8], seen: usize) -> bool {
    if FROM_END {
        let start = key.len() - seen;
        let end = start + len;
        if len <= LANES && end >= LANES {
            // The label is the last bytes of both.
            let same = same_lanes(lanes(block, label + len - LANES), lanes(key, end - LANES));
            return same >> (LANES - len) == ALL_LANES >> (LANES - len);
        }
        return equals(&key[start..end], &block[label..label + len]);
    }
    let start = seen - len;
    if len <= LANES && key.len() - start >= LANES {
        let same = same_lanes(lanes(block, label), lanes(key, start));
        return (same | ALL_LANES << len) & ALL_LANES == ALL_LANES;
    }
    equals(&key[start..seen], &block[label..label + len])
}

/// Whether the key begins with the text of so many bytes at this place of the block.
#[inline(always)]
pub(super) fn begins_at(block: &[u8], text: usize, len: usize, key: &[u8]) -> bool {
    len <= key.len() && has_label::<false>(block, text, len, key, len)
}

/// Whether the key ends with it.
#[inline(always)]
pub(super) fn ends_at(block: &[u8], text: usize, len: usize, key: &[u8]) -> bool {
    len <= key.len() && has_label::<true>(block, text, len, key, len)
}

const ALL_LANES: u32 = (1 << LANES) - 1;

/// Which of the `count` bytes from `at` on is this one.
#[inline(always)]
fn find_byte(block: &[u8], at: usize, count: usize, b: u8) -> Option<usize> {
    let mut start = 0;
    loop {
        let same = same_lanes(lanes(block, at + start), &[b; LANES]);
        let first = (same | 1 << LANES).trailing_zeros() as usize;
        if first < LANES.min(count - start) {
            return Some(start + first);
        }
        start += LANES;
        if start >= count {
            return None;
        }
    }
}

/// Walks that take steps in turn; used again and again, it allocates no more.
#[derive(Debug, Default)]
pub(super) struct Walks {
    forth: Vec<(Step, u32)>,
    back: Vec<(Step, u32)>,
    met: Vec<Met>,
    /// By list, the last of what its walks have met: its place in `met`, from 1.
    last: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    postings: Postings,
    /// What the list had before.
    before: u32,
}

impl Walks {
    /// Forgets all walks, and has so many lists of what the next ones meet.
    pub(super) fn clear(&mut self, lists: usize) {
        self.met.clear();
        self.last.clear();
        self.last.resize(lists, 0);
    }

    /// Has a list a walk from the beginning of its key, from this root.
    #[inline(always)]
    pub(super) fn begin(&mut self, list: usize, root: u32) {
        self.forth.push((Step { node: root, seen: 0 }, list as u32));
    }

    /// Has a list a walk from the end of its key, from this root.
    #[inline(always)]
    pub(super) fn begin_from_end(&mut self, list: usize, root: u32) {
        self.back.push((Step { node: root, seen: 0 }, list as u32));
    }

    /// Takes all walks to their ends, in these blocks and along these keys of the lists.
    pub(super) fn walk(&mut self, of: &[(&[u8], &[u8])]) {
        while !(self.forth.is_empty() && self.back.is_empty()) {
            step::<false>(&mut self.forth, &mut self.met, &mut self.last, of);
            step::<true>(&mut self.back, &mut self.met, &mut self.last, of);
        }
    }

    /// What the walks of a list have met.
    pub(super) fn met(&self, list: usize) -> impl Iterator<Item = Postings> {
        let mut at = self.last[list];
        std::iter::from_fn(move || {
            let met = self.met[at.checked_sub(1)? as usize];
            at = met.before;
            Some(met.postings)
        })
    }
}

/// One step of each walk.
#[inline(always)]
fn step<const FROM_END: bool>(
    walks: &mut Vec<(Step, u32)>,
    all_met: &mut Vec<Met>,
    last: &mut [u32],
    of: &[(&[u8], &[u8])],
) {
    let mut i = 0;
    while i < walks.len() {
        let (step, list) = walks[i];
        let (block, key) = of[list as usize];
        let visit = visit::<FROM_END>(block, step, key);
        if let Some(Visit { postings, .. }) = &visit
            && postings.len > 0
        {
            prefetch(block, postings.start as usize);
            all_met.push(Met { postings: *postings, before: last[list as usize] });
            last[list as usize] = all_met.len() as u32;
        }
        match visit.and_then(|v| v.next) {
            Some(next) => {
                // A few nodes are longer than what these two lines have of them.
                prefetch(block, next.node as usize);
                prefetch(block, next.node as usize + 64);
                walks[i].0 = next;
                i += 1;
            }
            None => drop(walks.swap_remove(i)),
        }
    }
}
