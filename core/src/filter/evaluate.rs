//! What a filter means, said plainly: the tree is walked and each test is made. The compiled form must agree.

use memchr::memmem;

use super::expression::{Field, Filter, Test};
use super::number::Number;
use super::subject::{DataMemory, Kind, Subject, Value};
use crate::event::FrameView;

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
        }
    }

    /// As [`Filter::matches`], for a frame.
    pub fn matches_frame(&self, frame: FrameView<'_>) -> bool {
        self.matches(&mut Subject::new(frame, &mut DataMemory::default()))
    }
}
