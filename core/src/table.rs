//! A list by number of which copies share what is the same in them.

use std::sync::Arc;

const WIDTH: usize = 128;

type Leaf<T> = Vec<Option<T>>;
type Branch<T> = Vec<Arc<Leaf<T>>>;

/// Values by number, some of which are free.
///
/// A copy costs the same however many there are, up to a few million: it shares everything with the one that it was made of,
/// and a change copies [`WIDTH`] places three times.
#[derive(Debug)]
pub(crate) struct Table<T> {
    root: Vec<Arc<Branch<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { root: Vec::new() }
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table { root: self.root.clone() }
    }
}

fn place(number: u32) -> (usize, usize, usize) {
    let n = number as usize;
    (n / WIDTH / WIDTH, n / WIDTH % WIDTH, n % WIDTH)
}

impl<T: Clone> Table<T> {
    /// The value of a number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (a, b, c) = place(number);
        self.root.get(a)?.get(b)?.get(c)?.as_ref()
    }

    /// Gives a number a value, or frees it.
    pub(crate) fn set(&mut self, number: u32, value: Option<T>) {
        let (a, b, c) = place(number);
        if value.is_none() && self.get(number).is_none() {
            return;
        }
        if self.root.len() <= a {
            self.root.resize_with(a + 1, Arc::default);
        }
        let branch = Arc::make_mut(&mut self.root[a]);
        if branch.len() <= b {
            branch.resize_with(b + 1, Arc::default);
        }
        let leaf = Arc::make_mut(&mut branch[b]);
        if leaf.len() <= c {
            leaf.resize_with(c + 1, || None);
        }
        leaf[c] = value;
    }

    /// The values, in order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let leaves =
            self.root.iter().enumerate().flat_map(|(a, branch)| {
                branch.iter().enumerate().map(move |(b, leaf)| ((a * WIDTH + b) * WIDTH, leaf))
            });
        leaves.flat_map(|(first, leaf)| {
            leaf.iter().enumerate().filter_map(move |(c, value)| Some(((first + c) as u32, value.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_is_a_map_and_copies_do_not_change(
            steps in prop::collection::vec((0u32..40_000, prop::option::of(any::<u16>())), 0..300),
        ) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, value) in steps {
                table.set(number, value);
                match value {
                    Some(value) => drop(model.insert(number, value)),
                    None => drop(model.remove(&number)),
                }
                prop_assert_eq!(table.get(number).copied(), model.get(&number).copied());
                if number % 16 == 0 {
                    copies.push((table.clone(), model.clone()));
                }
            }
            copies.push((table, model));
            for (table, model) in copies {
                let all: Vec<(u32, u16)> = table.iter().map(|(n, v)| (n, *v)).collect();
                prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
