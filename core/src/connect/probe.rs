//! A test event for a destination, sent with its own settings and without an engine.

use std::sync::Arc;

use bytes::BytesMut;

use super::trace::TestStep;
use super::webhook::WebhookConnector;
use crate::config::{EngineConfig, Network};
use crate::delivery::{Connector, Outcome, Record};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::profile::{RecordContext, Story};
use crate::event::{Event, EventId, FrameView, KnownType, Sequencer, frame};
use crate::rule::Destination;

/// What came of a test event.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TestReport {
    /// The steps in their order: the name, the connection, TLS, the request, the answer.
    pub steps: Vec<TestStep>,
    /// Why the destination did not take it; `None` if it did.
    pub failure: Option<String>,
}

/// Sends one event to a destination, of the type `s3:TestEvent`, or of `s3:ObjectCreated:Put` where its profile has no
/// record for that; its bucket is `tidewire-test`, its key `test`. Takes as long as the destination's `timeout` at most. What
/// an engine knows of the destination is neither asked nor changed. A thread is made for it.
///
/// # Errors
/// If nothing could be tried: a file cannot be read, or there can be no thread.
pub fn test_destination(destination: &Destination, engine: &EngineConfig) -> Result<TestReport> {
    destination.validate()?;
    let (destination, config) = (destination.clone(), engine.clone());
    let (done, result) = std::sync::mpsc::channel();
    let thread = driver::spawn_shard("tidewire-test", None, move || async move {
        let _ = done.send(send(&destination, &config).await);
    })?;
    let ended = thread.join();
    match result.try_recv() {
        Ok(report) => report,
        Err(_) => Err(ended.err().unwrap_or_else(|| Error::new(ErrorKind::Internal, "the test's thread ended early"))),
    }
}

async fn send(destination: &Destination, config: &EngineConfig) -> Result<TestReport> {
    let network = Arc::new(Network::new(&config.network));
    let record = match test_record(destination, config)? {
        Ok(record) => record,
        Err(reason) => return Ok(TestReport { steps: Vec::new(), failure: Some(reason) }),
    };
    let Some(webhook) = destination.kind.webhook() else {
        let reason = format!("{} takes it, which only the program has that it is a part of", destination.kind.shown());
        return Ok(TestReport { steps: Vec::new(), failure: Some(reason) });
    };
    let connector = WebhookConnector::new(webhook, (destination.profile, &destination.format), 1, &network)?;
    connector.trace().begin();
    let outcome = connector.send(&[record]).await;
    let failure = match outcome {
        Outcome::Success => None,
        Outcome::Retry { reason, .. }
        | Outcome::Throttle { reason, .. }
        | Outcome::Denied { reason, .. }
        | Outcome::Gone { reason, .. }
        | Outcome::Partial { reason, .. }
        | Outcome::Poison { reason, .. }
        | Outcome::Undeliverable { reason } => Some(reason),
        Outcome::Unwritable { events } => events.into_iter().map(|(_, reason)| reason).next(),
    };
    Ok(TestReport { steps: connector.trace().end(), failure })
}

/// The bucket of test events.
pub(super) const TEST_BUCKET: &str = "tidewire-test";

/// The id of a test event made now.
pub(super) fn test_id() -> EventId {
    EventId { incarnation: driver::wall_ns(), shard: 0, sequence: 1 }
}

/// The record of a test event as the destination has it, or why it has none.
pub(super) fn test_record(
    destination: &Destination,
    config: &EngineConfig,
) -> Result<std::result::Result<Record, String>> {
    let test: crate::event::EventType<'_> = KnownType::TestEvent.into();
    let kind = if destination.profile.expressible(test) { test } else { KnownType::ObjectCreatedPut.into() };
    let mut event = Event::new(kind, TEST_BUCKET, b"test");
    event.size = Some(0);
    let now_ns = driver::wall_ns();
    let bytes = frame::encode_to_vec(&event, now_ns);
    let frame = FrameView::parse(&bytes)?;
    let id = test_id();
    let mut out = BytesMut::new();
    out.extend_from_slice(destination.format.separator(destination.profile));
    let context = RecordContext {
        id,
        sequencer: Sequencer { clock_ns: now_ns, tie: 0, writer: 0 },
        rule: "",
        region: &config.region,
        event_source: &config.event_source,
    };
    let story = Story { replay: None, note: None, left_out: &[] };
    if let Err(reason) = destination.format.write(destination.profile, &frame, &context, &story, &mut out) {
        return Ok(Err(reason));
    }
    Ok(Ok(Record { id, bytes: out.freeze() }))
}
