//! Which events somebody wants who reads the log.

use crate::error::Result;
use crate::event::{EventPattern, EventTypes, FrameView};
use crate::filter::Filter;
use crate::rule::{Rule, check_bucket};

/// Which events a replay, a group of consumers or a tail is about: those of a bucket, of some types, that pass a filter. What
/// is not said is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    bucket: Option<String>,
    event_names: Vec<String>,
    /// Of the names; of no account if there are none.
    events: EventPattern,
    filter: Filter,
}

impl EventFilter {
    /// Every event.
    pub fn all() -> EventFilter {
        EventFilter::default()
    }

    /// The same, of this bucket only.
    #[must_use]
    pub fn with_bucket(mut self, bucket: impl Into<String>) -> EventFilter {
        self.bucket = Some(bucket.into());
        self
    }

    /// The same, with this condition in place of the one there was.
    #[must_use]
    pub fn with_key(mut self, key: Filter) -> EventFilter {
        self.filter = key;
        self
    }

    /// The same, with this condition in addition.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> EventFilter {
        let both = [std::mem::take(&mut self.filter), filter];
        self.filter = Filter::all(both.into_iter().filter(|f| !f.is_empty()));
        self
    }

    /// The same, with these types in addition: names and wildcards as in rules. Without any, all types are wanted.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if a name is unknown to `types`.
    pub fn with_events<S: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = S>,
        types: &EventTypes,
    ) -> Result<EventFilter> {
        for name in names {
            self.events.add(name.as_ref(), types).map_err(|e| e.at("events"))?;
            self.event_names.push(name.as_ref().to_owned());
        }
        Ok(self)
    }

    /// The bucket, if there is only one.
    pub fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// The names and wildcards of types, as given.
    pub fn event_names(&self) -> &[String] {
        &self.event_names
    }

    /// The condition beside bucket and types.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Checks names and lengths.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        if let Some(bucket) = &self.bucket {
            check_bucket(bucket)?;
        }
        self.filter.validate()
    }

    /// Whether the event is wanted.
    #[inline]
    pub fn matches(&self, frame: &FrameView<'_>) -> bool {
        self.bucket.as_deref().is_none_or(|b| b == frame.bucket())
            && (self.event_names.is_empty() || self.events.contains(frame.event_type()))
            && self.filter.matches_frame(*frame)
    }

    /// A rule that keeps what this wants.
    pub(crate) fn keeper(&self, id: String, types: &EventTypes) -> Result<Rule> {
        let all = ["*".to_owned()];
        let names = if self.event_names.is_empty() { &all[..] } else { &self.event_names };
        let mut rule = Rule::new(id, names, types)?;
        (rule.bucket, rule.filter, rule.retain) = (self.bucket.clone(), self.filter.clone(), true);
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, KnownType, frame};

    fn wants(filter: &EventFilter, t: KnownType, bucket: &str, key: &str) -> bool {
        let bytes = frame::encode_to_vec(&Event::new(t.into(), bucket, key.as_bytes()), 1);
        filter.matches(&FrameView::parse(&bytes).unwrap())
    }

    #[test]
    fn each_condition_counts_and_what_is_not_said_is_none() {
        use KnownType::*;
        let types = EventTypes::default();
        assert!(wants(&EventFilter::all(), SystemHealthOk, "", ""));
        let f = EventFilter::all().with_bucket("b").with_key(Filter::new("in/", ".jpg"));
        assert!(wants(&f, ObjectTaggingPut, "b", "in/a.jpg"));
        assert!(!wants(&f, ObjectTaggingPut, "c", "in/a.jpg"));
        assert!(!wants(&f, ObjectTaggingPut, "b", "out/a.jpg"));
        assert!(!wants(&f, ObjectTaggingPut, "b", "in/a.png"));
        let f = f.with_events(["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"], &types).unwrap();
        assert!(wants(&f, ObjectCreatedCopy, "b", "in/a.jpg") && wants(&f, ObjectRemovedDelete, "b", "in/a.jpg"));
        assert!(!wants(&f, ObjectTaggingPut, "b", "in/a.jpg"));
        f.validate().unwrap();
        let f = f.with_filter(Filter::new("", "a.jpg").not());
        assert!(wants(&f, ObjectCreatedCopy, "b", "in/b.jpg") && !wants(&f, ObjectCreatedCopy, "b", "in/a.jpg"));
        assert!(!wants(&f, ObjectCreatedCopy, "b", "out/b.jpg"), "the earlier condition stays");
        assert_eq!(*EventFilter::all().with_filter(Filter::new("p", "")).filter(), Filter::new("p", ""));
        assert!(EventFilter::all().with_events(["s3:Objectcreated:*"], &types).is_err());
        assert!(EventFilter::all().with_bucket("a/b").validate().is_err());
        assert!(EventFilter::all().with_key(Filter::new(vec![0; 2000], "")).validate().is_err());
    }

    #[test]
    fn the_rule_that_keeps_wants_the_same() {
        let types = EventTypes::default();
        let f = EventFilter::all().with_bucket("b").with_key(Filter::new("p", "s"));
        let rule = f.keeper("x".into(), &types).unwrap();
        assert!(rule.retain && rule.destinations.is_empty());
        assert_eq!((rule.bucket.as_deref(), &rule.filter), (Some("b"), f.filter()));
        assert!(rule.events.contains(KnownType::SystemHealthOk.into()), "all types");
        let f = f.with_events(["System:*"], &types).unwrap();
        assert!(!f.keeper("x".into(), &types).unwrap().events.contains(KnownType::ObjectCreatedPut.into()));
    }
}
