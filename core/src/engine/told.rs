//! What an engine tells of itself, as JSON: the same for C, Python and other processes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DestinationStats, Engine, ReplayState, Stats};
use crate::connect::test_destination;
use crate::error::{Error, ErrorKind, Result};
use crate::rule::{LiveRule, Owner};

impl Engine {
    /// [`Engine::stats`], with the names of its fields but for `latency_us`, which has some quantiles.
    pub fn stats_json(&self) -> Value {
        stats_json(&self.stats())
    }

    /// One rule: its document, its version, whose it is, why it is not in force, how many events it has matched.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn rule_json(&self, bucket: Option<&str>, id: &str) -> Result<Value> {
        let found = self.rule(bucket, id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such rule").at(format!("rule `{}`", id.escape_debug()))
        })?;
        Ok(of_rule(&found))
    }

    /// All rules, as [`Engine::rule_json`] tells of one, and their version.
    pub fn rules_json(&self) -> Value {
        let version = self.rules_version();
        let rules: Vec<Value> = self.rules().iter().map(|r| of_rule(r)).collect();
        json!({ "version": version, "rules": rules })
    }

    /// The destinations: name, version, whose they are, why they are not in force.
    pub fn destinations_json(&self) -> Value {
        let all = self.destinations();
        let all = all.iter().map(|d| {
            json!({
                "name": d.destination.name,
                "version": d.version,
                "owner": owner(d.owner),
                "inactive": d.inactive.as_ref().map(ToString::to_string),
            })
        });
        all.collect()
    }

    /// What [`test_destination`] reports of a destination in force.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], and as [`test_destination`].
    pub fn destination_test_json(&self, name: &str) -> Result<Value> {
        let found = self.destinations().into_iter().find(|d| d.destination.name == name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no destination `{}`", name.escape_debug()))
        })?;
        let report = test_destination(&found.destination, self.config())?;
        let us = |t: Duration| u64::try_from(t.as_micros()).unwrap_or(u64::MAX);
        let steps: Vec<Value> = report.steps.iter().map(|s| json!({ "what": s.what, "took_us": us(s.took) })).collect();
        Ok(json!({ "ok": report.failure.is_none(), "failure": report.failure, "steps": steps }))
    }

    /// The replays under way, and how far they are.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`].
    pub fn replays_json(&self) -> Result<Value> {
        Ok(self.replays()?.iter().map(|r| replay_json(r.name(), &r.progress())).collect())
    }
}

/// How far a replay is.
pub(crate) fn replay_json(name: &str, p: &super::ReplayProgress) -> Value {
    let state = match p.state {
        ReplayState::Running => "running",
        ReplayState::Waiting => "waiting",
        ReplayState::Done => "done",
        ReplayState::Cancelled => "cancelled",
        ReplayState::Failed => "failed",
    };
    json!({
        "name": name,
        "state": state,
        "read": p.read,
        "found": p.found,
        "delivered": p.delivered,
        "dead_lettered": p.dead_lettered,
        "retried": p.retried,
        "missing": p.missing,
        "last_error": p.last_error,
    })
}

fn owner(of: Owner) -> &'static str {
    match of {
        Owner::Configuration => "configuration",
        Owner::Callers => "callers",
        Owner::Engine => "engine",
    }
}

fn of_rule(live: &LiveRule) -> Value {
    json!({
        "rule": live.rule().to_json(),
        "version": live.version(),
        "owner": owner(live.owner()),
        "inactive": live.inactive().map(ToString::to_string),
        "matched": live.matched(),
    })
}

fn stats_json(s: &Stats) -> Value {
    json!({
        "shards": s.shards,
        "unhealthy": s.unhealthy,
        "accepted": s.accepted,
        "refused_full": s.refused_full,
        "invalid": s.invalid,
        "no_match": s.no_match,
        "stored": s.stored,
        "routed": s.routed,
        "delivered": s.delivered,
        "dead_lettered": s.dead_lettered,
        "waiting": s.waiting,
        "log_bytes": s.log_bytes,
        "commits": s.commits,
        "syncs": s.syncs,
        "segments": s.segments,
        "damaged": s.damaged,
        "ring_used_bytes": s.ring_used_bytes,
        "held_bytes": s.held_bytes,
        "clients": s.clients,
        "clients_lost": s.clients_lost,
        "enriched": s.enriched,
        "enrich_timeouts": s.enrich_timeouts,
        "enrich_failed": s.enrich_failed,
        "enrich_panicked": s.enrich_panicked,
        "enrich_skipped": s.enrich_skipped,
        "latency_us": {
            "p50": s.latency.value_at_quantile(0.5),
            "p99": s.latency.value_at_quantile(0.99),
            "p999": s.latency.value_at_quantile(0.999),
            "max": s.latency.max(),
        },
        "destinations": s.destinations.iter().map(destination_json).collect::<Vec<_>>(),
    })
}

fn destination_json(d: &DestinationStats) -> Value {
    json!({
        "name": d.name,
        "routed": d.routed,
        "delivered": d.delivered,
        "retried": d.retried,
        "dead_lettered": d.dead_lettered,
        "requests": d.requests,
        "failures": d.failures,
        "waiting": d.waiting,
        "connections": d.connections,
        "last_error": d.last_error,
    })
}

/// How an engine's latencies are told to another process: the values that came, and how often.
pub(crate) mod latency {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::shard::stats::new_histogram;

    pub(crate) fn serialize<S: Serializer>(h: &Histogram<u64>, s: S) -> Result<S::Ok, S::Error> {
        let counts: Vec<(u64, u64)> = h.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        counts.serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Histogram<u64>, D::Error> {
        let mut h = new_histogram();
        for (value, count) in Vec::<(u64, u64)>::deserialize(d)? {
            // What is beyond its range is no latency.
            let _ = h.record_n(value, count);
        }
        Ok(h)
    }
}
