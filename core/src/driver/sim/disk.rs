//! A disk that keeps what was synced, and of the rest what it likes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Rng, World};

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// How the disk misbehaves, each in per mille of the operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read fails.
    pub read_error: u64,
    /// A write fails; any part of it may have been done.
    pub write_error: u64,
    /// A sync fails. What it should have made durable is lost in part, and a later sync says nothing of it.
    pub sync_error: u64,
    /// An operation takes up to a second instead of up to a millisecond.
    pub slow: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// As reads see it.
    content: Vec<u8>,
    /// As it is after a loss of power, if nothing else survives.
    durable: Vec<u8>,
    /// Writes that no sync has covered, in the order in which they were done.
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Write {
    id: u64,
    at: usize,
    bytes: Vec<u8>,
    under_way: bool,
}

/// A change of a directory that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl Change {
    fn directory(&self) -> Option<&Path> {
        match self {
            Change::Link(p, _) | Change::Unlink(p) | Change::Rename(_, p, _) => p.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Link(p, node) => {
                names.insert(p.clone(), *node);
            }
            Change::Unlink(p) => {
                names.remove(p);
            }
            Change::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    changes: Vec<Change>,
    dirs: Vec<PathBuf>,
    locks: Vec<PathBuf>,
    next_write: u64,
}

/// See the module.
pub struct Disk {
    rng: RefCell<Rng>,
    state: RefCell<State>,
    faults: Cell<Faults>,
    capacity: Cell<u64>,
    /// Counts that tell what a run has met.
    pub counts: Cell<Counts>,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Times that power was lost.
    pub power_losses: u64,
    /// Writes that were not synced then, in sectors, and how many of those were lost.
    pub sectors_at_risk: u64,
    /// See above.
    pub sectors_lost: u64,
    /// Errors given.
    pub errors: u64,
    /// Of those, failed syncs.
    pub sync_errors: u64,
    /// Refused for want of space.
    pub no_space: u64,
    /// Files that were to be read and were not there: nobody keeps them from being removed while they are wanted.
    pub missing: u64,
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Disk {
    pub(super) fn new(rng: Rng) -> Disk {
        Disk {
            rng: RefCell::new(rng),
            state: RefCell::default(),
            faults: Cell::default(),
            capacity: Cell::new(u64::MAX),
            counts: Cell::default(),
        }
    }

    /// How it misbehaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    /// How many bytes it holds.
    pub fn set_capacity(&self, bytes: u64) {
        self.capacity.set(bytes);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let s = self.state.borrow();
        s.names.values().filter_map(|n| s.nodes.get(n)).map(|n| n.content.len() as u64).sum()
    }

    /// What a file holds; nothing fails here.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let s = self.state.borrow();
        s.names.get(path).and_then(|n| s.nodes.get(n)).map(|n| n.content.clone())
    }

    /// Flips one bit of what is durable somewhere in the files whose name `which` takes. Whether there was one to flip.
    pub fn flip_bit(&self, which: impl Fn(&Path) -> bool) -> bool {
        let mut s = self.state.borrow_mut();
        let files: Vec<u64> = s.names.iter().filter(|(p, _)| which(p)).map(|(_, n)| *n).collect();
        if files.is_empty() {
            return false;
        }
        let mut rng = self.rng.borrow_mut();
        let file = files[rng.below(files.len() as u64) as usize];
        let Some(node) = s.nodes.get_mut(&file).filter(|n| !n.content.is_empty()) else { return false };
        let bit = rng.below(node.content.len() as u64 * 8);
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        node.content[byte] ^= mask;
        if let Some(b) = node.durable.get_mut(byte) {
            *b ^= mask;
        }
        true
    }

    fn count(&self, f: impl FnOnce(&mut Counts)) {
        let mut c = self.counts.get();
        f(&mut c);
        self.counts.set(c);
    }

    fn strikes(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.rng.borrow_mut().below(1000) < per_mille
    }

    fn error(&self) -> io::Error {
        self.count(|c| c.errors += 1);
        io::Error::from_raw_os_error(libc::EIO)
    }

    /// Ends a process: its locks go. If the power is lost with it, so is what was not synced, or a part of it.
    pub(super) fn end_process(&self, world: &Rc<World>, power_lost: bool) {
        let mut late = Vec::new();
        let mut s = self.state.borrow_mut();
        s.locks.clear();
        let mut rng = self.rng.borrow_mut();
        if !power_lost {
            // What was under way goes on without the process: some of it is there now, the rest comes a little later.
            let State { nodes, next_write, .. } = &mut *s;
            for (number, node) in nodes {
                let mut landed = Vec::new();
                for w in node.pending.iter().filter(|w| w.under_way) {
                    let keep = rng.below(101);
                    for (i, sector) in w.bytes.chunks(SECTOR).enumerate().filter(|_| rng.percent(keep)) {
                        let at = w.at + i * SECTOR;
                        overwrite(&mut node.content, at, sector);
                        // Whoever sees it can make it durable.
                        *next_write += 1;
                        landed.push(Write { id: *next_write, at, bytes: sector.to_vec(), under_way: false });
                    }
                    let (world, number, id, ns) = (world.clone(), *number, w.id, rng.below(20_000_000));
                    late.push(async move {
                        world.pause(ns).await;
                        world.disk.end_write(number, id, false);
                    });
                }
                node.pending.append(&mut landed);
            }
            drop(rng);
            drop(s);
            late.into_iter().for_each(|l| world.spawn_outside(l));
            return;
        }
        self.count(|c| c.power_losses += 1);
        // All, nothing, or some.
        let keep = [0, 100, 50, 90, 10][rng.below(5) as usize];
        let State { nodes, names, durable_names, changes, .. } = &mut *s;
        for node in nodes.values_mut() {
            let mut content = std::mem::take(&mut node.durable);
            for w in &node.pending {
                let sectors = w.bytes.len().div_ceil(SECTOR) as u64;
                let mut w = w.clone();
                let kept = keep_sectors(&mut w, &mut content, &mut rng, keep);
                self.count(|c| {
                    c.sectors_at_risk += sectors;
                    c.sectors_lost += sectors - kept;
                });
            }
            node.pending.clear();
            node.durable.clone_from(&content);
            node.content = content;
        }
        let mut survived = std::mem::take(durable_names);
        for change in changes.drain(..) {
            if rng.percent(keep) {
                change.apply(&mut survived);
            }
        }
        *names = survived.clone();
        *durable_names = survived;
        let live: BTreeSet<u64> = names.values().copied().collect();
        nodes.retain(|n, _| live.contains(n));
    }

    fn create(&self, path: &Path) -> u64 {
        let mut s = self.state.borrow_mut();
        let node = s.next_node;
        s.next_node += 1;
        s.nodes.insert(node, Node::default());
        s.names.insert(path.to_owned(), node);
        s.changes.push(Change::Link(path.to_owned(), node));
        node
    }

    pub(crate) fn node(&self, path: &Path) -> io::Result<u64> {
        self.state.borrow().names.get(path).copied().ok_or_else(not_found)
    }

    fn room_for(&self, node: u64, end: usize) -> io::Result<()> {
        let have = self.state.borrow().nodes.get(&node).map_or(0, |n| n.content.len());
        if end > have && self.used() + (end - have) as u64 > self.capacity.get() {
            self.count(|c| c.no_space += 1);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    fn put(&self, node: u64, at: usize, bytes: &[u8]) {
        let id = self.begin_write(node, at, bytes);
        self.end_write(node, id, false);
    }

    fn begin_write(&self, node: u64, at: usize, bytes: &[u8]) -> u64 {
        let mut s = self.state.borrow_mut();
        s.next_write += 1;
        let id = s.next_write;
        if let Some(n) = s.nodes.get_mut(&node) {
            n.pending.push(Write { id, at, bytes: bytes.to_vec(), under_way: true });
        }
        id
    }

    /// A write is done, or has failed: then some of it came through, and nobody knows what.
    fn end_write(&self, node: u64, id: u64, failed: bool) {
        let mut s = self.state.borrow_mut();
        let mut rng = self.rng.borrow_mut();
        let Some(n) = s.nodes.get_mut(&node) else { return };
        let Some(i) = n.pending.iter().position(|w| w.id == id) else { return };
        let w = n.pending.remove(i);
        if !failed {
            overwrite(&mut n.content, w.at, &w.bytes);
            n.pending.push(Write { under_way: false, ..w });
            return;
        }
        for (i, sector) in w.bytes.chunks(SECTOR).enumerate() {
            if rng.percent(50) {
                let at = w.at + i * SECTOR;
                overwrite(&mut n.content, at, sector);
                n.pending.push(Write { id, at, bytes: sector.to_vec(), under_way: false });
            }
        }
    }

    /// The writes that a sync which begins now covers.
    fn done_writes(&self, node: u64) -> BTreeSet<u64> {
        let s = self.state.borrow();
        s.nodes
            .get(&node)
            .map_or_else(BTreeSet::new, |n| n.pending.iter().filter(|w| !w.under_way).map(|w| w.id).collect())
    }

    /// Makes writes durable, or half of them if it fails; and then a later sync does not try again.
    fn sync_node(&self, node: u64, covered: &BTreeSet<u64>) -> io::Result<()> {
        let fails = self.strikes(self.faults.get().sync_error);
        let mut s = self.state.borrow_mut();
        let Some(n) = s.nodes.get_mut(&node) else { return Ok(()) };
        let mut rng = self.rng.borrow_mut();
        n.pending.retain_mut(|w| {
            if w.under_way || !covered.contains(&w.id) {
                return true;
            }
            if fails {
                keep_sectors(w, &mut n.durable, &mut rng, 50);
            } else {
                overwrite(&mut n.durable, w.at, &w.bytes);
            }
            false
        });
        drop(rng);
        if fails {
            self.count(|c| c.sync_errors += 1);
            return Err(self.error());
        }
        Ok(())
    }
}

fn overwrite(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Does a write in part: each sector with a likelihood of `percent`. How many.
fn keep_sectors(w: &mut Write, content: &mut Vec<u8>, rng: &mut Rng, percent: u64) -> u64 {
    let mut kept = 0;
    for (i, sector) in w.bytes.chunks(SECTOR).enumerate() {
        if rng.percent(percent) {
            overwrite(content, w.at + i * SECTOR, sector);
            kept += 1;
        }
    }
    kept
}

/// Blocking calls, by the names that [`crate::driver::fs`] has for them.
impl Disk {
    pub(crate) fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut s = self.state.borrow_mut();
        if !s.dirs.iter().any(|d| d == dir) {
            s.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    pub(crate) fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut s = self.state.borrow_mut();
        let State { names, durable_names, changes, dirs, .. } = &mut *s;
        for all in [names, durable_names] {
            all.retain(|p, _| !p.starts_with(dir));
        }
        changes.retain(|c| !c.directory().is_some_and(|d| d.starts_with(dir)));
        dirs.retain(|d| !d.starts_with(dir));
        Ok(())
    }

    /// The length of a file and the bytes that are allocated to it.
    pub(crate) fn lengths(&self, path: &Path) -> io::Result<(u64, u64)> {
        let node = self.node(path)?;
        let bytes = self.state.borrow().nodes.get(&node).map_or(0, |n| n.content.len() as u64);
        Ok((bytes, bytes))
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let s = self.state.borrow();
        let names: BTreeSet<String> = s
            .names
            .keys()
            .chain(&s.dirs)
            .filter_map(|p| Some(p.strip_prefix(dir).ok()?.iter().next()?.to_str()?.to_owned()))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        if names.is_empty() && !s.dirs.iter().any(|d| d == dir) {
            return Err(not_found());
        }
        Ok(names)
    }

    /// Replaces `out` by up to `bytes` bytes of an open file.
    pub(crate) fn read_node(&self, node: u64, offset: u64, bytes: usize, out: &mut Vec<u8>) -> io::Result<()> {
        if self.strikes(self.faults.get().read_error) {
            return Err(self.error());
        }
        let s = self.state.borrow();
        let content = s.nodes.get(&node).map_or(&[][..], |n| &n.content);
        let from = (offset as usize).min(content.len());
        out.clear();
        out.extend_from_slice(&content[from..(from + bytes).min(content.len())]);
        Ok(())
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let node = self.node(path)?;
        if self.strikes(self.faults.get().read_error) {
            return Err(self.error());
        }
        Ok(self.state.borrow().nodes.get(&node).map(|n| n.content.clone()).unwrap_or_default())
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let node = match self.node(path) {
            Ok(n) => n,
            Err(_) => self.create(path),
        };
        self.room_for(node, bytes.len())?;
        if self.strikes(self.faults.get().write_error) {
            return Err(self.error());
        }
        if let Some(n) = self.state.borrow_mut().nodes.get_mut(&node) {
            n.content.clear();
            n.pending.clear();
            n.durable.clear();
        }
        self.put(node, 0, bytes);
        Ok(())
    }

    pub(crate) fn rewrite(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let node = self.node(path)?;
        self.room_for(node, bytes.len())?;
        if self.strikes(self.faults.get().write_error) {
            return Err(self.error());
        }
        self.put(node, 0, bytes);
        self.sync_node(node, &self.done_writes(node))
    }

    pub(crate) fn write_from(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let node = match self.node(path) {
            Ok(node) => node,
            Err(_) => self.create(path),
        };
        let position = position as usize;
        self.room_for(node, position + bytes.len())?;
        if self.strikes(self.faults.get().write_error) {
            return Err(self.error());
        }
        if let Some(n) = self.state.borrow_mut().nodes.get_mut(&node) {
            n.content.truncate(position);
        }
        self.put(node, position, bytes);
        self.sync_node(node, &self.done_writes(node))?;
        if let Some(n) = self.state.borrow_mut().nodes.get_mut(&node) {
            n.durable.truncate(n.content.len());
        }
        if position == 0 { self.sync_dir(path.parent().unwrap_or(Path::new("/"))) } else { Ok(()) }
    }

    pub(crate) fn replace(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.node(scratch).is_ok() {
            self.remove_file(scratch)?;
        }
        let node = self.create(scratch);
        self.room_for(node, bytes.len())?;
        self.put(node, 0, bytes);
        self.sync_node(node, &self.done_writes(node))?;
        self.rename(scratch, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut s = self.state.borrow_mut();
        let node = s.names.remove(from).ok_or_else(not_found)?;
        s.names.insert(to.to_owned(), node);
        s.changes.push(Change::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut s = self.state.borrow_mut();
        s.names.remove(path).ok_or_else(not_found)?;
        s.changes.push(Change::Unlink(path.to_owned()));
        Ok(())
    }

    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.strikes(self.faults.get().sync_error) {
            self.count(|c| c.sync_errors += 1);
            return Err(self.error());
        }
        let mut s = self.state.borrow_mut();
        let State { durable_names, changes, .. } = &mut *s;
        changes.retain(|c| {
            let here = c.directory() == Some(dir);
            if here {
                c.apply(durable_names);
            }
            !here
        });
        Ok(())
    }

    /// Takes a lock; `false` if it is held.
    pub(crate) fn lock(&self, path: &Path) -> bool {
        let mut s = self.state.borrow_mut();
        let free = !s.locks.iter().any(|l| l == path);
        if free {
            s.locks.push(path.to_owned());
        }
        free
    }

    pub(crate) fn unlock(&self, path: &Path) {
        self.state.borrow_mut().locks.retain(|l| l != path);
    }
}

/// An open file.
pub struct DiskFile {
    world: Rc<World>,
    node: u64,
    sync_failed: Cell<bool>,
    syncing: Cell<bool>,
}

impl std::fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskFile({})", self.node)
    }
}

impl DiskFile {
    async fn delay(world: &Rc<World>) {
        let slow = world.disk.strikes(world.disk.faults.get().slow);
        let ns = world.disk.rng.borrow_mut().between(10_000, if slow { 1_000_000_000 } else { 1_000_000 });
        world.pause(ns).await;
    }

    pub(crate) async fn create_new(world: &Rc<World>, path: &Path) -> io::Result<DiskFile> {
        Self::delay(world).await;
        if world.disk.node(path).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        Ok(DiskFile {
            world: world.clone(),
            node: world.disk.create(path),
            sync_failed: Cell::new(false),
            syncing: Cell::new(false),
        })
    }

    pub(crate) async fn open(world: &Rc<World>, path: &Path, create: bool) -> io::Result<DiskFile> {
        Self::delay(world).await;
        let node = match world.disk.node(path) {
            Ok(n) => n,
            Err(_) if create => world.disk.create(path),
            Err(e) => {
                world.disk.count(|c| c.missing += 1);
                return Err(e);
            }
        };
        Ok(DiskFile { world: world.clone(), node, sync_failed: Cell::new(false), syncing: Cell::new(false) })
    }

    pub(crate) async fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let disk = &self.world.disk;
        let at = at as usize;
        disk.room_for(self.node, at + bytes.len())?;
        let id = disk.begin_write(self.node, at, bytes);
        log::debug!("file {}: writes {} bytes at {at}", self.node, bytes.len());
        Self::delay(&self.world).await;
        let failed = disk.strikes(disk.faults.get().write_error);
        disk.end_write(self.node, id, failed);
        if failed { Err(disk.error()) } else { Ok(()) }
    }

    pub(crate) async fn read_at(&self, at: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        Self::delay(&self.world).await;
        let disk = &self.world.disk;
        if disk.strikes(disk.faults.get().read_error) {
            return Err(disk.error());
        }
        let s = disk.state.borrow();
        let content = s.nodes.get(&self.node).map_or(&[][..], |n| &n.content);
        let from = (at as usize).min(content.len());
        out.extend_from_slice(&content[from..(from + len).min(content.len())]);
        Ok(())
    }

    /// As [`DiskFile::sync_data`], with `then` called when it has succeeded; after a failure it fails for ever.
    pub(crate) async fn sync_once(&self, then: impl FnOnce()) -> io::Result<()> {
        // One at a time, as the real file has it.
        while self.syncing.replace(true) {
            self.world.pause(10_000).await;
        }
        let result = match self.sync_failed.get() {
            true => Err(io::Error::other("an earlier sync failed")),
            false => self.sync_data().await,
        };
        self.syncing.set(false);
        match &result {
            Ok(()) => then(),
            Err(_) => self.sync_failed.set(true),
        }
        result
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let covered = self.world.disk.done_writes(self.node);
        log::debug!("file {}: syncs {} writes", self.node, covered.len());
        Self::delay(&self.world).await;
        self.world.disk.sync_node(self.node, &covered)
    }
}
