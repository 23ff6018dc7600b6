//! What becomes of destinations is told to the one of the operator, as events that go to it alone.

use super::Shard;
use super::endpoints::{News, Notice};
use crate::driver::wall_ns;
use crate::event::{Event, KnownType, Priority, frame};
use crate::log::record::{Extensions, Kind, Route};

impl News {
    fn event_type(self) -> KnownType {
        match self {
            News::Pending => KnownType::SystemDestinationPending,
            News::Verified => KnownType::SystemDestinationVerified,
            News::Suspended => KnownType::SystemDestinationSuspended,
            News::Disabled => KnownType::SystemDestinationDisabled,
            News::Resumed => KnownType::SystemDestinationResumed,
            News::Failing(_) => KnownType::SystemDestinationFailing,
            News::BreakerOpened => KnownType::SystemDestinationBreakerOpened,
        }
    }
}

impl Shard {
    /// Appends an event for the operator's destination to the log. Nothing is told of that destination itself, or where
    /// the log or its queue does not take it: it stands in the process's log in any case.
    pub(super) fn tell_operator(&self, notice: &Notice) {
        let Some(name) = self.config.operator_destination.as_deref().filter(|name| *name != notice.name) else {
            return;
        };
        let progress = &self.shared.progress;
        if progress.failure().is_some() || progress.stalled().is_some() || self.appending_ended.get() {
            return;
        }
        let kind = notice.what.event_type();
        let destination = {
            let snapshot = self.snapshot.borrow();
            let number = snapshot.destination_number(name);
            let d = number.and_then(|n| snapshot.destination(n));
            let fits = d.is_some_and(|d| d.format.template.is_some() || d.profile.expressible(kind.into()));
            number.filter(|_| fits)
        };
        let Some(destination) = destination.filter(|n| !self.is_full_for(*n, Priority::Normal)) else {
            log::warn!("the operator's destination `{name}` cannot be told of `{}`", notice.name);
            return;
        };
        let mut data = serde_json::json!({"destination": notice.name, "reason": notice.reason});
        if let (News::Failing(percent), Some(data)) = (notice.what, data.as_object_mut()) {
            data.insert("percent".into(), percent.into());
        }
        let data = data.to_string();
        let mut event = Event::new(kind.into(), "", notice.name.as_bytes());
        event.data = data.as_bytes();
        let wall = wall_ns();
        let frame = frame::encode_to_vec(&event, wall);
        let route = Route { destination, rule: 0, priority: Priority::Normal };
        self.append(Kind::Event, route, &Extensions::default(), &frame, wall);
        self.commit_wanted.notify();
    }
}
