//! Rules and destinations while the engine runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::kept::{Before, Kept};
use super::{Engine, Inner, Life, closed};
use crate::auth;
use crate::config::{Config, EngineConfig, Keep, RulesKept};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Compiler, Rules};
use crate::log::names::Names;
use crate::rule::{
    Arns, Backlog, Destination, Edit, Expect, Format, Key, LiveDestination, LiveRule, LiveRules, Notification,
    NotificationOptions, Numbers, Owner, Plan, Rule, RuleSet, Webhook, key, write_document,
};
use crate::shard::snapshot::Snapshot;

/// From so many changes on, and a quarter of all rules, everything is compiled anew: that is quicker.
const CHANGES_MANY: usize = 1024;
/// The memory of the index is measured when one in so many rules has changed.
const MEASURED_PART: usize = 8;

/// What is known of the rules as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RulesStats {
    /// Grows with each change of rules and destinations.
    pub version: u64,
    /// Rules, the engine's own left out.
    pub rules: u64,
    /// Of those, the ones that are not in force ([`LiveRule::inactive`]).
    pub inactive: u64,
    /// Destinations in force.
    pub destinations: u64,
    /// Bytes of memory that the index of the rules takes.
    pub index_bytes: u64,
    /// How often the index was changed.
    pub builds: u64,
    /// How long the last change took: planning, compiling, and writing it down if it is kept.
    pub build_time: Duration,
    /// Events that shards have matched against the rules.
    pub evaluations: u64,
    /// How many ns that takes, the mean of one event in 64; `None` before the first.
    pub evaluation_ns: Option<f64>,
}

/// What makes one snapshot after the other.
#[derive(Debug)]
pub(super) struct Control {
    live: LiveRules,
    compiler: Compiler,
    /// Where callers' rules are kept, if the engine keeps them.
    kept: Option<Kept>,
    hands_over: bool,
    keep_all: bool,
    /// Snapshots that somebody may still have: whoever lets go of the last one pays for that, and it shall not be a shard.
    earlier: Vec<Arc<Snapshot>>,
    /// Rules that have changed since it was looked how much memory the index takes.
    unmeasured: usize,
    builds: u64,
    build_time: Duration,
    merging: bool,
    merger: Option<JoinHandle<()>>,
}

/// Gives names their numbers, and remembers which destinations are new.
struct Numbered<'a> {
    names: &'a mut Names,
    new: Vec<u32>,
}

impl Numbers for Numbered<'_> {
    fn assign(&mut self, destinations: &[&str], rules: &[&str]) -> Result<(Vec<u32>, Vec<u32>)> {
        let given = self.names.assign(destinations, rules)?;
        self.new.extend(given.new_destinations);
        Ok((given.destinations, given.rules))
    }

    fn renumber(&mut self, destination: &str) -> Result<u32> {
        let number = self.names.reserve(destination)?;
        self.new.push(number);
        Ok(number)
    }
}

impl Control {
    /// The rules that an engine is opened with: the configuration, what callers put in earlier runs, and its own. Answers
    /// which destinations the directory never had before.
    pub(super) fn open(
        set: RuleSet,
        keepers: Vec<Rule>,
        kept: Option<(Kept, Before)>,
        config: &EngineConfig,
        names: &mut Names,
    ) -> Result<(Control, Vec<u32>)> {
        let mut control = Control {
            live: LiveRules::new(config.retention.keep != Keep::Nothing, config.filter),
            compiler: Compiler::compile(&[])?,
            kept: None,
            hands_over: false,
            keep_all: config.retention.keep == Keep::All,
            earlier: Vec::new(),
            unmeasured: 0,
            builds: 0,
            build_time: Duration::ZERO,
            merging: false,
            merger: None,
        };
        let (kept, before) = kept.map_or((None, None), |(kept, before)| (Some(kept), Some(before)));
        let mut before = before.unwrap_or_default();
        for (number, gone) in &before.edit.retired {
            // A crash came in between.
            if names.destination_number(&gone.name) == Some(*number) {
                names.retire(&gone.name, None)?;
            }
        }
        // Those for which nothing waits any more are forgotten.
        let former: BTreeSet<u32> = names.former().collect();
        before.edit.retired.retain(|number, _| former.contains(number));
        control.live.resume(before.version, before.bucket_versions);
        let configuration = control.live.configuring(set);
        let mut new = control.edit(Owner::Configuration, configuration, names)?;
        new.extend(control.edit(Owner::Callers, before.edit, names)?);
        let keepers = control.live.replacing(Owner::Engine, keepers);
        new.extend(control.edit(Owner::Engine, keepers, names)?);
        for rule in control.live.all_of(Owner::Callers) {
            if let Some(e) = rule.inactive() {
                log::warn!("not in force: {e}");
            }
        }
        control.kept = kept;
        Ok((control, new))
    }

    /// Makes a change. Answers which destinations are new to the directory.
    fn edit(&mut self, owner: Owner, edit: Edit, names: &mut Names) -> Result<Vec<u32>> {
        let begun = driver::now();
        let mut numbered = Numbered { names, new: Vec::new() };
        let plan = self.live.plan(owner, edit, &mut numbered)?;
        let new = numbered.new;
        if plan.is_empty(&self.live) {
            return Ok(new);
        }
        self.live.account(&plan)?;
        if let Err(e) = self.compile(&plan) {
            self.live.account_back(&plan);
            return Err(e);
        }
        if let Some(kept) = self.kept.as_mut().filter(|_| owner == Owner::Callers)
            && let Err(e) = kept.append(&plan)
        {
            self.compile_back(&plan);
            self.live.account_back(&plan);
            return Err(e);
        }
        for (number, gone) in &plan.retired {
            let successor = plan.destinations.by_name(&gone.name).map(|d| d.number);
            if names.destination_number(&gone.name) == Some(*number)
                && let Err(e) = names.retire(&gone.name, successor)
            {
                log::warn!("{e}"); // Done at the next opening.
            }
        }
        self.live.take(plan);
        if let Some(kept) = self.kept.as_mut().filter(|_| owner == Owner::Callers) {
            kept.tidy(&self.live);
        }
        self.hands_over |= self.live.destinations().hand_over();
        self.builds += 1;
        self.build_time = driver::since(begun);
        Ok(new)
    }

    /// Makes the compiler forget a change that was not made.
    fn compile_back(&mut self, plan: &Plan) {
        let table = self.live.table();
        let come: Vec<(u32, &Rule)> = plan.come().into_iter().filter_map(|p| Some((p, plan.table.rule(p)?))).collect();
        let gone: Vec<u32> = plan.gone().into_iter().map(|(place, _)| place).collect();
        let undone = self.compiler.change(&come, &gone, table).or_else(|_| {
            self.compiler = Compiler::compile_numbered(table.iter().map(|(place, _)| place), table)?;
            Ok::<(), Error>(())
        });
        if let Err(e) = undone {
            log::error!("rules that were not put are in force: {e}");
        }
    }

    fn compile(&mut self, plan: &Plan) -> Result<()> {
        if plan.changes() >= CHANGES_MANY && plan.changes() >= self.live.len() / 4 {
            let places = plan.table.iter().map(|(place, _)| place);
            let compiler = Compiler::compile_numbered(places, &plan.table)?;
            self.live.limits().check_memory(compiler.matcher())?;
            (self.compiler, self.unmeasured) = (compiler, 0);
            return Ok(());
        }
        self.compiler.change(&plan.gone(), &plan.come(), &plan.table)?;
        // Measuring walks through everything, so it must be worth it.
        self.unmeasured += plan.changes();
        if self.unmeasured * MEASURED_PART >= self.live.len() {
            self.unmeasured = 0;
            if let Err(e) = self.live.limits().check_memory(self.compiler.matcher()) {
                self.compile_back(plan);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Makes it certain that what callers have put is kept as it is here, whatever failed before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.kept.as_mut().map_or(Ok(()), Kept::renew)
    }

    /// The present state as shards and publishers see it.
    pub(super) fn snapshot(&self, names: &Names) -> Snapshot {
        Snapshot {
            version: self.live.version(),
            matcher: self.compiler.matcher().clone(),
            rules: self.live.table().clone(),
            destinations: self.live.destinations().clone(),
            types: self.live.types().clone(),
            names: names.by_number().clone(),
            hands_over: self.hands_over,
            retains: self.live.retains(),
            keep_all: self.keep_all,
        }
    }

    /// What must be waited for after the lock is given back.
    pub(super) fn take_merger(&mut self) -> Option<JoinHandle<()>> {
        self.merger.take()
    }
}

/// The notification document of a bucket: see [`Engine::bucket_notification`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct BucketNotification {
    /// The document; one without configurations if nothing was put.
    pub text: String,
    /// The version of the bucket's rules; `None` if it never had any.
    pub version: Option<u64>,
    /// The ids of rules that were put for the bucket by other ways, and that no document can say.
    pub left_out: Vec<String>,
}

impl Engine {
    /// Replaces the configuration as a whole: its rules and destinations. What callers have put stays
    /// ([`Engine::put_rule`]); where it does not fit any more it is kept, and not in force until it does.
    ///
    /// Events that were matched before keep their destinations; a destination that is not there any more delivers what it
    /// already had.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a rule that retains while the log is not kept or that is beyond the limits of
    /// [`EngineConfig::filter`], [`ErrorKind::Io`] and the like if
    /// the numbers of new names cannot be stored; then nothing has changed.
    pub fn replace_rules(&self, rules: RuleSet) -> Result<()> {
        self.inner.config.check_rules(&rules)?;
        self.change_rules(Owner::Configuration, |live| Ok(live.configuring(rules)), |_| ())
    }

    /// Reads one rule for [`Engine::put_rule`], as [`Config::rule_of_text`] does, with the engine's event types and limits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the place.
    pub fn rule_of_text(&self, text: &str) -> Result<Rule> {
        Config::rule_of_text(text, &self.inner.config)
    }

    /// Puts one rule, new or in the place of the one that it has in its bucket. The others stay as they are, and what it
    /// costs depends on the rules of its bucket alone. An event that is published after this has returned is matched by the
    /// new rule, and one that was published before it was called by the earlier one. Answers the rule's version.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the rule is wrong; [`ErrorKind::Conflict`] if `expect` does not hold, or the rule
    /// belongs to the configuration; [`ErrorKind::Io`] and the like if it cannot be stored; [`ErrorKind::Closed`],
    /// [`ErrorKind::WrongProcess`]. Then nothing has changed.
    pub fn put_rule(&self, rule: Rule, expect: Expect) -> Result<u64> {
        let key = key(rule.bucket.as_deref(), &rule.id);
        self.change_rules(
            Owner::Callers,
            |live| {
                live.check_rule(&key, expect)?;
                Ok(edit([(key.clone(), Some(rule))]))
            },
            |live| live.get(Owner::Callers, &key).map_or(0, |r| r.version()),
        )
    }

    /// Deletes a rule that was put. `bucket` is `None` for a rule of every bucket. What it has matched is delivered all the
    /// same.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; otherwise as [`Engine::put_rule`].
    pub fn delete_rule(&self, bucket: Option<&str>, id: &str, expect: Expect) -> Result<()> {
        let key = key(bucket, id);
        self.change_rules(
            Owner::Callers,
            |live| {
                live.check_rule(&key, expect)?;
                if live.get(Owner::Callers, &key).is_none() {
                    let configured = live.get(Owner::Configuration, &key).is_some();
                    let error = Error::new(ErrorKind::NotFound, "there is no such rule that was put");
                    let error = error.at(format!("rule `{}`", id.escape_debug()));
                    return Err(if configured {
                        error.remedy("it is in the configuration; remove it there")
                    } else {
                        error
                    });
                }
                Ok(edit([(key, None)]))
            },
            |_| (),
        )
    }

    /// Replaces all rules that were put for one bucket, as when a notification document of S3 is stored; `None` is those of
    /// every bucket. Answers the version of the bucket's rules.
    ///
    /// `expect` is about that version: [`Expect::Absent`] is a bucket that never had any.
    ///
    /// # Errors
    /// As [`Engine::put_rule`]; also [`ErrorKind::InvalidConfig`] if a rule is of another bucket, or two have one id.
    pub fn put_bucket_rules(&self, bucket: Option<&str>, rules: Vec<Rule>, expect: Expect) -> Result<u64> {
        let name = bucket.unwrap_or_default();
        let what = || match bucket {
            Some(bucket) => format!("the rules of bucket `{}`", bucket.escape_debug()),
            None => "the rules of every bucket".to_owned(),
        };
        let mut new = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.bucket.as_deref() != bucket {
                let error = Error::invalid_config("the rule is of another bucket")
                    .at(format!("rule `{}`", rule.id.escape_debug()));
                return Err(error.remedy("put the rules of each bucket by themselves"));
            }
            new.push((key(bucket, &rule.id), Some(rule)));
        }
        let count = new.len();
        self.change_rules(
            Owner::Callers,
            |live| {
                expect.check(live.bucket_version(name), what)?;
                let before: Vec<Key> = live.of_bucket(Owner::Callers, name).map(|r| key(bucket, r.id())).collect();
                let edit = edit(before.into_iter().map(|key| (key, None)).chain(new));
                if edit.rules.values().flatten().count() < count {
                    let error = Error::invalid_config("two rules have the same id").at(what());
                    return Err(error.remedy("rename one of them"));
                }
                Ok(edit)
            },
            |live| live.bucket_version(name).unwrap_or(0),
        )
    }

    /// Puts the notification document of a bucket, in XML or JSON, as `PutBucketNotificationConfiguration` of S3 does: all
    /// rules that were put for the bucket are replaced by those that it has. An empty one switches the bucket's
    /// notifications off, but for rules of the configuration and of every bucket. Its ARNs may name the destinations in
    /// force (`arn:tidewire:…:NAME`, `arn:minio:sqs:…`) and those of [`EngineConfig::arns`]. `format` is told by the first
    /// character if it is `None`. Answers the version of the bucket's rules.
    ///
    /// # Errors
    /// As [`Engine::put_bucket_rules`]; [`ErrorKind::InvalidConfig`] with line and column if the document is wrong. What to
    /// answer the client of S3 tells [`Error::s3_code`] of each.
    pub fn put_bucket_notification(
        &self,
        bucket: &str,
        text: &str,
        format: Option<Format>,
        options: &NotificationOptions,
        expect: Expect,
    ) -> Result<u64> {
        let rules = self.check_bucket_notification(bucket, text, format, options)?;
        self.put_bucket_rules(Some(bucket), rules, expect)
    }

    /// The rules that [`Engine::put_bucket_notification`] would make of a document; nothing changes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with line and column; [`ErrorKind::WrongProcess`].
    pub fn check_bucket_notification(
        &self,
        bucket: &str,
        text: &str,
        format: Option<Format>,
        options: &NotificationOptions,
    ) -> Result<Vec<Rule>> {
        self.inner.check_process()?;
        let config = &self.inner.config;
        let names: BTreeSet<String> = {
            let snapshot = self.inner.snapshot.load();
            let in_force = snapshot.destinations.all().filter(|d| d.inactive.is_none());
            in_force.map(|d| d.destination.name.clone()).collect()
        };
        // One that leads to a destination which is gone is no ARN that is known.
        let aliases = config.arns.iter().filter(|(_, name)| names.contains(*name));
        let aliases = aliases.map(|(arn, name)| (arn.clone(), name.clone())).collect();
        let arns = Arns::new(names, aliases)?;
        let name = "notification document";
        Notification { bucket, text, name, format, options, arns: &arns, types: &config.event_types }.rules()
    }

    /// The notification document of a bucket: what was put, with ids for configurations that had none. Rules that were put
    /// by other ways stand in it where a document can say what they say.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`].
    pub fn bucket_notification(&self, bucket: &str, format: Format) -> Result<BucketNotification> {
        self.inner.check_process()?;
        let (rules, version) = self.bucket_rules(Some(bucket));
        let rules: Vec<_> = rules.iter().map(|live| live.whole()).collect();
        let (text, left_out) = write_document(&rules, format);
        Ok(BucketNotification { text, version, left_out })
    }

    /// Puts one destination, new or in the place of the one of its name. Answers its version.
    ///
    /// `backlog` says what becomes of what waits for it, if its settings are others now. With [`Backlog::Keep`] what waits
    /// goes on with them; with the others it has, and counts, a queue of its own from then on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if it is wrong, or a rule does not fit it; [`ErrorKind::Conflict`] if `expect` does not
    /// hold, or the configuration has one of its name; [`ErrorKind::NotFound`] if there is no destination to move to;
    /// otherwise as [`Engine::put_rule`]. Then nothing has changed.
    ///
    /// It is kept in the data directory with the secrets that are given as text, in files that only their owner can read. Give
    /// secrets as [`crate::auth::Secret::env`] or [`crate::auth::Secret::file`] where that is not good enough. Those that a
    /// function of the host answers cannot be kept, and are refused unless the rules are the host's ([`RulesKept::Host`]).
    pub fn put_destination(&self, destination: Destination, expect: Expect, backlog: &Backlog) -> Result<u64> {
        self.inner.config.network.check(&destination)?;
        let name = destination.name.clone();
        let is_kept = self.inner.config.rules == RulesKept::Stored;
        let unix = (driver::system_ns() / 1_000_000_000) as i64;
        let check = |webhook: &Webhook| {
            auth::check_put(&webhook.auth, is_kept, unix)?;
            if let Some(e) = &webhook.encryption {
                auth::check_secrets_put(e.secrets(), "encryption", is_kept, unix)?;
            }
            webhook.tls.check_files()?;
            webhook.tls.check_time(unix)
        };
        destination.kind.webhook().map_or(Ok(()), check).map_err(|e| e.at(destination.label()))?;
        let put = (name.clone(), Some((Arc::new(destination), None)));
        let edit = Edit { destinations: [put].into_iter().collect(), backlog: backlog.clone(), ..Edit::default() };
        self.change_rules(
            Owner::Callers,
            |live| {
                live.check_destination(&name, expect)?;
                let order = live.destinations().by_name(&name).map(|d| d.destination.order);
                live.check_backlog(&name, order, backlog)?;
                Ok(edit)
            },
            |live| live.destinations().by_name(&name).map_or(0, |d| d.version),
        )
    }

    /// Deletes a destination that was put. `backlog` says what becomes of what waits for it, which may take longer than this
    /// run; its counts stay in the statistics until the next.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Conflict`] if `expect` does not hold, or rules that were put
    /// send to it; otherwise as [`Engine::put_destination`].
    pub fn delete_destination(&self, name: &str, expect: Expect, backlog: &Backlog) -> Result<()> {
        let at = |e: Error| e.at(format!("destination `{}`", name.escape_debug()));
        self.change_rules(
            Owner::Callers,
            |live| {
                live.check_destination(name, expect)?;
                let mine = live.destinations().all().find(|d| d.owner == Owner::Callers && d.destination.name == name);
                let Some(mine) = mine else {
                    let configured = live.destinations().by_name(name).is_some();
                    let error = at(Error::new(ErrorKind::NotFound, "there is no such destination that was put"));
                    let remedy = "it is in the configuration; remove it there";
                    return Err(if configured { error.remedy(remedy) } else { error });
                };
                let senders = live.senders(name);
                if !senders.is_empty() && mine.inactive.is_none() {
                    let error =
                        at(Error::new(ErrorKind::Conflict, format!("rules send to it: {}", senders.join(", "))));
                    return Err(error.remedy("delete or change them first"));
                }
                live.check_backlog(name, Some(mine.destination.order), backlog)?;
                let destinations = [(name.to_owned(), None)].into_iter().collect();
                Ok(Edit { destinations, backlog: backlog.clone(), ..Edit::default() })
            },
            |_| (),
        )
    }

    /// A rule: the one that was put, or else the one of the configuration. `bucket` is `None` for a rule of every bucket.
    pub fn rule(&self, bucket: Option<&str>, id: &str) -> Option<Arc<LiveRule>> {
        let life = self.inner.life.lock();
        let key = key(bucket, id);
        let of = |owner| life.control.live.get(owner, &key).cloned();
        of(Owner::Callers).or_else(|| of(Owner::Configuration))
    }

    /// The rules that were put for a bucket, by id, and their version; `None` is those of every bucket. The version is `None`
    /// if it never had any.
    pub fn bucket_rules(&self, bucket: Option<&str>) -> (Vec<Arc<LiveRule>>, Option<u64>) {
        let life = self.inner.life.lock();
        let (live, name) = (&life.control.live, bucket.unwrap_or_default());
        (live.of_bucket(Owner::Callers, name).cloned().collect(), live.bucket_version(name))
    }

    /// All rules but the engine's own, also those that are not in force.
    pub fn rules(&self) -> Vec<Arc<LiveRule>> {
        let snapshot = self.inner.snapshot.load();
        snapshot.rules.iter().map(|(_, r)| r.clone()).filter(|r| r.owner() != Owner::Engine).collect()
    }

    /// All destinations, also those that are not in force, by name.
    pub fn destinations(&self) -> Vec<LiveDestination> {
        self.inner.snapshot.load().destinations.all().cloned().collect()
    }

    /// What is known of the rules as a whole. Walks through the index; not for every event. Of each rule,
    /// [`LiveRule::matched`] tells how many events it has wanted.
    pub fn rules_stats(&self) -> RulesStats {
        let snapshot = self.inner.snapshot.load_full();
        let mut s = {
            let life = self.inner.life.lock();
            let control = &life.control;
            let engines = control.live.all_of(Owner::Engine).count();
            RulesStats {
                version: control.live.version(),
                rules: (control.live.len() - engines) as u64,
                inactive: control.live.inactive() as u64,
                destinations: snapshot.destinations.by_number().count() as u64,
                builds: control.builds,
                build_time: control.build_time,
                ..RulesStats::default()
            }
        };
        s.index_bytes = snapshot.matcher.bytes() as u64;
        let (mut timed, mut ns) = (0, 0);
        for shard in &self.inner.shards {
            s.evaluations += shard.stats.evaluations.get();
            timed += shard.stats.evaluations_timed.get();
            ns += shard.stats.evaluations_ns.get();
        }
        s.evaluation_ns = (timed > 0).then(|| ns as f64 / timed as f64);
        s
    }

    /// Grows with each change of rules and destinations.
    pub fn rules_version(&self) -> u64 {
        self.inner.snapshot.load().version
    }

    /// Changes rules and tells the shards.
    fn change_rules<R>(
        &self,
        owner: Owner,
        edit: impl FnOnce(&LiveRules) -> Result<Edit>,
        then: impl FnOnce(&LiveRules) -> R,
    ) -> Result<R> {
        let inner = &*self.inner;
        inner.check_process()?;
        inner.after_clients(super::OnFull::Block(super::CLIENTS_WAIT))?;
        let result = {
            let mut life = inner.life.lock();
            let before = life.control.live.version();
            if owner == Owner::Callers {
                // Also who is told that nothing had to be changed, or nothing is there, must find it so later.
                life.control.renew()?;
            }
            life.edit_rules(owner, edit)?;
            if life.control.live.version() != before {
                inner.publish_rules(&mut life);
            }
            then(&life.control.live)
        };
        self.merge_rules();
        Ok(result)
    }

    /// Merges what has become large, on a thread of its own, until nothing is left to merge.
    fn merge_rules(&self) {
        let mut life = self.inner.life.lock();
        if life.control.merging || life.dir.is_none() {
            return;
        }
        let Some(first) = life.control.compiler.begin_merge() else { return };
        life.control.merging = true;
        let engine = Arc::downgrade(&self.inner);
        let work = move || {
            let mut next = Some(first);
            while let Some(merge) = next.take() {
                let Some(inner) = engine.upgrade() else { return };
                let table = inner.life.lock().control.live.table().clone();
                let merged = merge.compile(&table);
                // Declared before the lock, so dropped after it is given back: changes wait for that.
                let mut _replaced = None;
                let mut life = inner.life.lock();
                let control = &mut life.control;
                match merged.and_then(|merged| control.compiler.end_merge(merged)) {
                    Ok(of_before) => {
                        next = control.compiler.begin_merge();
                        inner.publish_rules(&mut life);
                        _replaced = Some(of_before);
                    }
                    Err(e) => {
                        log::error!("merging rules: {e}");
                        control.compiler.abandon_merge(merge);
                    }
                }
                if inner.closed.load(std::sync::atomic::Ordering::SeqCst) {
                    next = None;
                }
                life.control.merging = next.is_some();
            }
        };
        if !driver::has_threads() {
            drop(life);
            return work();
        }
        let _mask = driver::BlockedSignals::new();
        match std::thread::Builder::new().name("tidewire-rules".into()).spawn(work) {
            // The one before has ended, or is about to: it was the last to say that nothing is being merged.
            Ok(thread) => life.control.merger = Some(thread),
            Err(e) => {
                log::warn!("{}", Error::io("cannot start a thread to merge rules", &e));
                life.control.merging = false;
            }
        }
    }
}

fn edit(rules: impl IntoIterator<Item = (Key, Option<Rule>)>) -> Edit {
    let rules = rules.into_iter().map(|(key, rule)| (key, rule.map(|r| (r, None))));
    Edit { rules: rules.collect(), ..Edit::default() }
}

impl Life {
    /// Changes the rules; [`Inner::publish_rules`] puts that into force.
    pub(super) fn edit_rules(&mut self, owner: Owner, edit: impl FnOnce(&LiveRules) -> Result<Edit>) -> Result<()> {
        let Some(dir) = self.dir.as_mut() else { return Err(closed()) };
        let edit = edit(&self.control.live)?;
        self.control.edit(owner, edit, &mut dir.names)?;
        Ok(())
    }
}

impl Inner {
    /// Puts the rules as they are into force.
    pub(super) fn publish_rules(&self, life: &mut Life) {
        let Some(dir) = life.dir.as_ref() else { return };
        let snapshot = Arc::new(life.control.snapshot(&dir.names));
        let earlier = self.snapshot.swap(snapshot.clone());
        if let Some(entrance) = self.front.entrance.get() {
            entrance.everywhere.follow(&snapshot);
        }
        if let Some(server) = self.server() {
            server.follow(self);
        }
        if let Some(first) = self.shards.first()
            && !Arc::ptr_eq(&earlier.destinations, &snapshot.destinations)
        {
            first.common.endpoints.follow(&earlier.destinations, &snapshot.destinations);
        }
        for shard in &self.shards {
            shard.change_rules(snapshot.clone());
        }
        life.control.earlier.push(earlier);
        life.control.earlier.retain(|s| Arc::strong_count(s) > 1);
    }
}

#[cfg(test)]
mod tests;
