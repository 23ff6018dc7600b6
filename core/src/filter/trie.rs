//! A compressed byte trie that finds every stored string that a key starts (or ends) with, in one walk over the key.

/// Strings with values. `FROM_END` decides the side: `false` finds the prefixes of a key, `true` its suffixes.
///
/// Children of a node lie side by side, so that a step is one search among their first bytes. All numbers are u32: a
/// single node may well hold more than 2^16 values.
#[derive(Clone, Debug)]
pub(super) struct Trie<T, const FROM_END: bool> {
    nodes: Vec<Node>,
    /// The byte that each node's label begins with on the walk (its last byte if `FROM_END`).
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
    values: Vec<T>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The node's bytes beyond its parent, in `labels`, in the order of the key.
    label: (u32, u32),
    children: (u32, u32),
    values: (u32, u32),
}

fn slice<T>(of: &[T], range: (u32, u32)) -> &[T] {
    &of[range.0 as usize..range.1 as usize]
}

impl<T: Copy, const FROM_END: bool> Trie<T, FROM_END> {
    /// The trie of these strings; a string may come several times.
    pub(super) fn build(mut items: Vec<(&[u8], T)>) -> Self {
        if FROM_END {
            items.sort_by(|a, b| a.0.iter().rev().cmp(b.0.iter().rev()));
        } else {
            items.sort_by(|a, b| a.0.cmp(b.0));
        }
        let mut trie = Trie { nodes: vec![Node::default()], first_bytes: vec![0], labels: vec![], values: vec![] };
        // A queue rather than recursion: nested prefixes may be a thousand levels deep.
        let mut queue = std::collections::VecDeque::from([(0usize, 0usize, items.len(), 0usize)]);
        while let Some((node, mut low, high, depth)) = queue.pop_front() {
            let start = trie.values.len() as u32;
            while low < high && items[low].0.len() == depth {
                trie.values.push(items[low].1);
                low += 1;
            }
            trie.nodes[node].values = (start, trie.values.len() as u32);
            let first_child = trie.nodes.len() as u32;
            while low < high {
                let first = Self::byte(items[low].0, depth);
                let count = items[low..high].iter().take_while(|(s, _)| Self::byte(s, depth) == first).count();
                let next = low + count;
                let (a, b) = (items[low].0, items[next - 1].0);
                // Sorted, so what the first and the last share, all share.
                let end = (depth..a.len().min(b.len())).find(|&i| Self::byte(a, i) != Self::byte(b, i));
                let end = end.unwrap_or(a.len().min(b.len()));
                let label = if FROM_END { &a[a.len() - end..a.len() - depth] } else { &a[depth..end] };
                let label_start = trie.labels.len() as u32;
                trie.labels.extend_from_slice(label);
                queue.push_back((trie.nodes.len(), low, next, end));
                trie.nodes.push(Node { label: (label_start, trie.labels.len() as u32), ..Node::default() });
                trie.first_bytes.push(first);
                low = next;
            }
            trie.nodes[node].children = (first_child, trie.nodes.len() as u32);
        }
        trie
    }

    fn byte(s: &[u8], at: usize) -> u8 {
        if FROM_END { s[s.len() - 1 - at] } else { s[at] }
    }

    /// Calls `found` with the value of every string that the key starts (ends) with, the empty string included.
    #[inline]
    pub(super) fn walk(&self, key: &[u8], mut found: impl FnMut(&T)) {
        let mut rest = key;
        let mut node = &self.nodes[0];
        loop {
            slice(&self.values, node.values).iter().for_each(&mut found);
            let next = if FROM_END { rest.last() } else { rest.first() };
            let Some(&next) = next else { return };
            let Some(i) = memchr::memchr(next, slice(&self.first_bytes, node.children)) else { return };
            node = &self.nodes[node.children.0 as usize + i];
            let label = slice(&self.labels, node.label);
            let beyond = if FROM_END { rest.strip_suffix(label) } else { rest.strip_prefix(label) };
            let Some(beyond) = beyond else { return };
            rest = beyond;
        }
    }

    /// Whether there is no string at all.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
