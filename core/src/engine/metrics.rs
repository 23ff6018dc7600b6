//! What an engine has counted, in the texts that Prometheus and its kin scrape.

use std::fmt;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{DestinationStats, Engine, RulesStats, Stats};
use crate::error::Result;

/// The upper ends of the buckets of latencies, in microseconds.
const LATENCY_BUCKETS_US: [u64; 16] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// The form of a text of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricsFormat {
    /// Prometheus' text format, version 0.0.4. The default.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The media type to answer it with.
    pub fn media_type(self) -> &'static str {
        match self {
            MetricsFormat::Prometheus => prometheus_text::CONTENT_TYPE,
            MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a request with this `Accept` header is best answered with.
    pub fn accepted(accept: &str) -> MetricsFormat {
        let named = accept.split(',').filter_map(|part| part.split(';').next());
        match named.into_iter().any(|name| name.trim().eq_ignore_ascii_case("application/openmetrics-text")) {
            true => MetricsFormat::OpenMetrics,
            false => MetricsFormat::Prometheus,
        }
    }
}

impl Engine {
    /// What the engine has counted since it was opened, as a text to be scraped: all names begin with `tidewire_`, and what
    /// is about a destination has the label `destination`. The numbers are taken one after the other while the engine runs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongProcess`].
    pub fn prometheus(&self, format: MetricsFormat) -> Result<String> {
        self.check_process()?;
        Ok(Counted { stats: self.stats(), rules: self.rules_stats() }.into_text(format))
    }
}

#[derive(Debug)]
struct Counted {
    stats: Stats,
    rules: RulesStats,
}

impl Counted {
    fn into_text(self, format: MetricsFormat) -> String {
        let mut registry = Registry::with_prefix("tidewire");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        // It is written to memory, which does not fail.
        let _ = match format {
            MetricsFormat::Prometheus => prometheus_text::encode(&mut out, &registry),
            MetricsFormat::OpenMetrics => text::encode(&mut out, &registry),
        };
        out
    }
}

type Of<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Of an engine, what only grows. The encoder adds `_total`.
const COUNTERS: &[Of<Stats>] = &[
    ("events_accepted", "Events taken from the rings", |s| s.accepted),
    ("events_invalid", "Events refused because they were not valid", |s| s.invalid),
    ("events_no_match", "Events that no rule wanted", |s| s.no_match),
    ("events_duplicate", "Events not accepted because they were accepted before", |s| s.duplicates),
    ("events_stored", "Events written to the log", |s| s.stored),
    ("deliveries_routed", "Deliveries that the stored events call for", |s| s.routed),
    ("deliveries_delivered", "Deliveries done", |s| s.delivered),
    ("deliveries_dead_lettered", "Deliveries given up", |s| s.dead_lettered),
    ("deliveries_dropped", "Deliveries dropped by a policy, or because the log was damaged", |s| s.dropped),
    ("dedup_evicted", "Keys of the window forgotten before their time", |s| s.dedup_evicted),
    ("log_written_bytes", "Bytes of records written to the log", |s| s.log_bytes),
    ("log_commits", "Groups written to the log", |s| s.commits),
    ("log_syncs", "Times the log was made durable", |s| s.syncs),
    ("log_moves", "Times the log went on in a new segment because a write or a sync failed", |s| s.log_moves),
    ("log_damaged", "Damaged stretches found in the log", |s| s.damaged),
    ("dead_letters_lost", "Dead letters dropped because there were too many or they were too old", |s| {
        s.dead_letters_lost
    }),
    ("dead_letters_redriven", "Dead letters put back into the log", |s| s.dead_letters_redriven),
    ("dead_letters_purged", "Dead letters removed on request", |s| s.dead_letters_purged),
    ("clients_lost", "Events accepted from other processes that could not be taken in", |s| s.clients_lost),
    ("enriched", "Events that the enricher saw", |s| s.enriched),
    ("enrich_timeouts", "Events for which the enricher took too long", |s| s.enrich_timeouts),
    ("enrich_failed", "Events for which the enricher failed", |s| s.enrich_failed),
    ("enrich_panicked", "Events for which the enricher panicked", |s| s.enrich_panicked),
    ("enrich_skipped", "Events that the enricher did not see, because it was not free", |s| s.enrich_skipped),
];

/// Of an engine, what comes and goes.
const GAUGES: &[Of<Stats>] = &[
    ("shards", "Shards that take events", |s| s.shards),
    ("shards_unhealthy", "Shards whose log failed or waits", |s| s.unhealthy.len() as u64),
    ("deliveries_inherited", "Deliveries that earlier runs left", |s| s.inherited),
    ("deliveries_waiting", "Deliveries that are not done yet", |s| s.waiting),
    ("ring_used_bytes", "Bytes in the rings", |s| s.ring_used_bytes),
    ("ring_reserved_bytes", "Bytes of the rings kept free for reservations", |s| s.ring_reserved_bytes),
    ("reservations", "Reservations that are neither committed nor aborted", |s| s.reservations),
    ("in_doubt", "Intents of earlier runs, and of clients that are gone, that the host has not resolved", |s| {
        s.in_doubt
    }),
    ("held_bytes", "Bytes of rendered records held for delivery", |s| s.held_bytes),
    ("log_segments", "Segment files of the log", |s| s.segments),
    ("log_disk_bytes", "Bytes of the files of the log, spare ones included", |s| s.log_disk_bytes),
    ("log_warning", "1 if the files of the log take so much that events will soon be shed or refused", |s| {
        s.log_warning.into()
    }),
    ("losses_untold", "Losses that were counted, but of which the audit could not tell yet", |s| s.losses_untold),
    ("dead_letters", "Dead letters that are kept", |s| s.dead_letters_kept),
    ("dead_letters_bytes", "Bytes of the files of dead letters", |s| s.dead_letters_bytes),
    ("dead_letters_warning", "1 if a shard has so many dead letters that the oldest will soon be dropped", |s| {
        s.dead_letters_warning.into()
    }),
    ("tasks", "Tasks of the shards", |s| s.tasks),
    ("clients", "Other processes that are connected to the engine", |s| s.clients),
];

/// Of the rules.
const RULES_COUNTERS: &[Of<RulesStats>] = &[
    ("rules_builds", "Changes of the index of the rules", |r| r.builds),
    ("rules_evaluations", "Events matched against the rules", |r| r.evaluations),
];
const RULES_GAUGES: &[Of<RulesStats>] = &[
    ("rules", "Rules", |r| r.rules),
    ("rules_inactive", "Rules that are not in force", |r| r.inactive),
    ("rules_version", "Grows with each change of rules and destinations", |r| r.version),
    ("rules_index_bytes", "Bytes of memory that the index of the rules takes", |r| r.index_bytes),
];

/// Of a destination.
const DESTINATION_COUNTERS: &[Of<DestinationStats>] = &[
    ("destination_routed", "Deliveries called for", |d| d.routed),
    ("destination_delivered", "Deliveries done", |d| d.delivered),
    ("destination_handed_over", "Events handed over to the shard that delivers them", |d| d.handed_over),
    ("destination_retried", "Deliveries put off for another attempt", |d| d.retried),
    ("destination_dead_lettered", "Deliveries given up", |d| d.dead_lettered),
    ("destination_dropped", "Deliveries dropped by a policy, or because the log was damaged", |d| d.dropped),
    ("destination_refused", "Events refused to publishers because the queue was full", |d| d.refused),
    ("destination_requests", "Requests sent", |d| d.requests),
    ("destination_failures", "Requests that failed", |d| d.failures),
    ("destination_connections", "Connections made", |d| d.connections),
];
const DESTINATION_GAUGES: &[Of<DestinationStats>] = &[
    ("destination_inherited", "Deliveries that earlier runs left", |d| d.inherited),
    ("destination_waiting", "Deliveries that are not done yet", |d| d.waiting),
    ("destination_waiting_bytes", "Bytes of the log that they take", |d| d.waiting_bytes),
    ("destination_queue_warning", "1 if the queue is so full that events will soon be shed or refused", |d| {
        d.queue_warning.into()
    }),
];

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Counted { stats, rules } = self;
        alone(&mut encoder, MetricType::Counter, COUNTERS, stats)?;
        alone(&mut encoder, MetricType::Gauge, GAUGES, stats)?;
        alone(&mut encoder, MetricType::Counter, RULES_COUNTERS, rules)?;
        alone(&mut encoder, MetricType::Gauge, RULES_GAUGES, rules)?;
        if let Some(ns) = rules.evaluation_ns {
            let help = "Mean time that matching an event takes";
            let gauge = ConstGauge::new(ns / 1e9);
            gauge.encode(encoder.encode_descriptor("rules_evaluation_seconds", help, None, MetricType::Gauge)?)?;
        }
        let help = "Events refused for want of space, by where it was wanted";
        let mut refused = encoder.encode_descriptor("events_refused", help, None, MetricType::Counter)?;
        for (place, count) in
            [("ring", stats.refused_full), ("queue", stats.refused_queue), ("bucket_share", stats.refused_unfair)]
        {
            ConstCounter::new(count).encode(refused.encode_family(&[("place", place)])?)?;
        }
        let help = "From acceptance by the shard to the destination's answer";
        let mut latency = encoder.encode_descriptor("delivery_latency_seconds", help, None, MetricType::Histogram)?;
        let (sum, buckets) = buckets(&stats.latency);
        latency.encode_histogram::<NoLabelSet>(sum, stats.latency.len(), &buckets, None)?;

        of_destinations(&mut encoder, MetricType::Counter, DESTINATION_COUNTERS, stats)?;
        of_destinations(&mut encoder, MetricType::Gauge, DESTINATION_GAUGES, stats)?;
        let help = "Losses, by reason";
        let mut losses = encoder.encode_descriptor("destination_losses", help, None, MetricType::Counter)?;
        for d in &stats.destinations {
            for (reason, count) in &d.losses {
                let labels = [("destination", d.name.as_str()), ("reason", reason.name())];
                ConstCounter::new(*count).encode(losses.encode_family(&labels)?)?;
            }
        }
        let help = "When a certificate expires, in seconds since the Unix epoch";
        let name = "destination_certificate_expires_seconds";
        let mut expires = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for d in &stats.destinations {
            for (whose, at) in [("client", d.certificates.client_expires), ("server", d.certificates.server_expires)] {
                let Some(at) = at else { continue };
                let labels = [("destination", d.name.as_str()), ("of", whose)];
                ConstGauge::new(at).encode(expires.encode_family(&labels)?)?;
            }
        }
        let help = "The version of Tidewire";
        let mut build = encoder.encode_descriptor("build", help, None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

fn alone<T>(encoder: &mut DescriptorEncoder<'_>, of: MetricType, list: &[Of<T>], from: &T) -> fmt::Result {
    for (name, help, value) in list {
        let metric = encoder.encode_descriptor(name, help, None, of)?;
        match of {
            MetricType::Counter => ConstCounter::new(value(from)).encode(metric)?,
            _ => ConstGauge::new(value(from)).encode(metric)?,
        }
    }
    Ok(())
}

fn of_destinations(
    encoder: &mut DescriptorEncoder<'_>,
    of: MetricType,
    list: &[Of<DestinationStats>],
    stats: &Stats,
) -> fmt::Result {
    for (name, help, value) in list {
        let mut metric = encoder.encode_descriptor(name, help, None, of)?;
        for d in &stats.destinations {
            let labels = [("destination", d.name.as_str())];
            let metric = metric.encode_family(&labels)?;
            match of {
                MetricType::Counter => ConstCounter::new(value(d)).encode(metric)?,
                _ => ConstGauge::new(value(d)).encode(metric)?,
            }
        }
    }
    Ok(())
}

/// The sum of all in seconds, and how many are in each bucket.
fn buckets(latency: &Histogram<u64>) -> (f64, Vec<(f64, u64)>) {
    let mut counts = [0; LATENCY_BUCKETS_US.len() + 1];
    let mut sum = 0.0;
    for step in latency.iter_recorded() {
        // Values that are alike count as the least of them.
        let us = latency.lowest_equivalent(step.value_iterated_to());
        let count = step.count_since_last_iteration();
        let at = LATENCY_BUCKETS_US.iter().position(|end| us <= *end).unwrap_or(LATENCY_BUCKETS_US.len());
        counts[at] += count;
        sum += us as f64 / 1e6 * count as f64;
    }
    let ends = LATENCY_BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    (sum, ends.zip(counts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::losses::LossReason;

    fn counted() -> Counted {
        let mut latency = super::super::stats::new_histogram();
        for us in [900, 1_000, 1_100, 400_000_000] {
            latency.record(us).unwrap();
        }
        let odd = DestinationStats {
            name: "a\"b\\c\nd".into(),
            delivered: 7,
            waiting: 3,
            losses: [(LossReason::TooOld, 2)].into(),
            ..DestinationStats::default()
        };
        let stats = Stats { accepted: 11, refused_queue: 5, latency, destinations: vec![odd], ..Stats::default() };
        Counted { stats, rules: RulesStats { evaluation_ns: Some(150.0), ..RulesStats::default() } }
    }

    #[test]
    fn every_number_has_its_name_and_its_labels() {
        for format in [MetricsFormat::Prometheus, MetricsFormat::OpenMetrics] {
            let text = counted().into_text(format);
            for line in [
                "tidewire_events_accepted_total 11",
                "tidewire_events_refused_total{place=\"queue\"} 5",
                "tidewire_destination_delivered_total{destination=\"a\\\"b\\\\c\\nd\"} 7",
                "tidewire_destination_waiting{destination=\"a\\\"b\\\\c\\nd\"} 3",
                "tidewire_destination_losses_total{destination=\"a\\\"b\\\\c\\nd\",reason=\"too_old\"} 2",
                "tidewire_delivery_latency_seconds_bucket{le=\"0.001\"} 2",
                "tidewire_delivery_latency_seconds_bucket{le=\"0.0025\"} 3",
                "tidewire_delivery_latency_seconds_bucket{le=\"2.5\"} 3",
                "tidewire_delivery_latency_seconds_bucket{le=\"+Inf\"} 4",
                "tidewire_delivery_latency_seconds_count 4",
            ] {
                assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
            }
            assert_eq!(text.ends_with("# EOF\n"), format == MetricsFormat::OpenMetrics);
            let mut names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "each once");
        }
    }

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        for (accept, format) in [
            ("", MetricsFormat::Prometheus),
            ("*/*", MetricsFormat::Prometheus),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", MetricsFormat::Prometheus),
            ("Application/OpenMetrics-Text; version=1.0.0,text/plain;q=0.5", MetricsFormat::OpenMetrics),
        ] {
            assert_eq!(MetricsFormat::accepted(accept), format, "{accept}");
        }
    }
}
