//! What a filter means, said plainly: the tree is walked and each test is made. The compiled form must agree.

use memchr::memmem;

use super::expression::{Field, Filter, Test};
use super::number::Number;
use super::subject::{DataMemory, Kind, Subject, Value};
use crate::error::Result;
use crate::event::{EVENT_BYTES_MAX, Event, FrameView, frame};

impl Test {
    /// Whether one value passes.
    pub(super) fn passes(&self, kind: Kind, value: Value<'_>) -> bool {
        match (self, value) {
            (Test::Exists, _) => true,
            (Test::Absent, _) => false,
            (Test::Equals(x), Value::Text(v)) => **x == *v,
            (Test::Prefix(x), Value::Text(v)) => v.starts_with(x),
            (Test::Suffix(x), Value::Text(v)) => v.ends_with(x),
            (Test::Contains(x), Value::Text(v)) => memmem::find(v, x).is_some(),
            (Test::Wildcard(w), Value::Text(v)) => w.matches(v),
            (Test::Regex(r), Value::Text(v)) => r.matches(v),
            (Test::IgnoreCase(affix, x), Value::Text(v)) => x.fits(*affix, v),
            (Test::Cidr(net), Value::Text(v)) => in_network(net, v),
            (Test::Number(range), Value::Number(n)) => range.contains(n),
            (Test::Number(range), Value::Text(v)) => {
                matches!(kind, Kind::Metadata | Kind::Tag) && Number::parse(v).is_some_and(|n| range.contains(n))
            }
            (Test::Window(w), Value::Number(Number::Int(n))) => u64::try_from(n).is_ok_and(|n| w.contains(n)),
            (Test::Bool(x), Value::Bool(v)) => *x == v,
            (Test::Null, Value::Null) => true,
            (Test::NoneOf(tests), v) => !tests.iter().any(|t| t.passes(kind, v)),
            _ => false,
        }
    }
}

/// Whether the text is an IP address within the network. IPv4 addresses written as IPv6 ones (`::ffff:10.0.0.1`) are
/// taken for what they are.
pub(super) fn in_network(net: &ipnet::IpNet, text: &[u8]) -> bool {
    let address = std::str::from_utf8(text).ok().and_then(|t| t.parse::<std::net::IpAddr>().ok());
    address.is_some_and(|a| net.contains(&a.to_canonical()) || net.contains(&a))
}

impl Field {
    /// Whether some value passes the test.
    pub(super) fn is(&self, test: &Test, subject: &mut Subject<'_>) -> bool {
        let kind = self.kind();
        let selector = self.selector();
        match test {
            Test::Absent => !subject.any(kind, &selector, &mut |_| true),
            test => subject.any(kind, &selector, &mut |v| test.passes(kind, v)),
        }
    }
}

impl Filter {
    /// Whether the event passes, by walking the tree. For many filters, or many events, compile them:
    /// [`super::Matcher`].
    pub fn matches(&self, subject: &mut Subject<'_>) -> bool {
        match self {
            Filter::All(all) => all.iter().all(|f| f.matches(subject)),
            Filter::Any(any) => any.iter().any(|f| f.matches(subject)),
            Filter::Not(inner) => !inner.matches(subject),
            Filter::Is(field, test) => field.is(test, subject),
            Filter::Cel(cel) => cel.passes(subject),
        }
    }

    /// As [`Filter::matches`], for a frame.
    pub fn matches_frame(&self, frame: FrameView<'_>) -> bool {
        self.matches(&mut Subject::new(frame, &mut DataMemory::default()))
    }

    /// As [`Filter::matches`], for an event that is in no engine. `now_ns` is when it happened if it does not say.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] as [`Event::validate`].
    pub fn matches_event(&self, event: &Event<'_>, now_ns: u64) -> Result<bool> {
        with_frame(event, now_ns, |frame| self.matches_frame(frame))
    }
}

/// Does something with the frame of an event.
pub(super) fn with_frame<T>(event: &Event<'_>, now_ns: u64, f: impl FnOnce(FrameView<'_>) -> T) -> Result<T> {
    event.validate(EVENT_BYTES_MAX)?;
    Ok(f(FrameView::trusted(&frame::encode_to_vec(event, now_ns))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::KnownType;

    #[test]
    fn events_are_checked_before_they_are_matched() {
        let filter = Filter::new("a", "");
        let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"a/b");
        assert!(filter.matches_event(&event, 5).unwrap() && filter.explain_event(&event, 5).unwrap().is_empty());
        event.key = b"x";
        assert!(!filter.matches_event(&event, 5).unwrap());
        assert!(filter.explain_event(&event, 5).unwrap()[0].to_string().contains("key is \"x\""));
        let at_five = Filter::from((Field::Time, Test::number(5u64)));
        assert!(at_five.matches_event(&event, 5).unwrap() && !at_five.matches_event(&event, 6).unwrap());
        let long = [b'k'; 70_000];
        event.key = &long;
        assert_eq!(filter.matches_event(&event, 5).unwrap_err().kind(), crate::ErrorKind::InvalidEvent);
        assert!(filter.explain_event(&event, 5).is_err());
    }
}
