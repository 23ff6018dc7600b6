//! What is measured, each as a function from an event to the numbers of rules.

use std::hint::black_box;

use tidewire::event::FrameView;
use tidewire::filter::{MatchMemory, Matcher};
use tidewire::rule::Rule;
use tidewire_benches::workload::{self, Condition, Happening, Wish};

/// An event in the forms that engines take.
pub struct Sample {
    pub happening: Happening,
    /// The number of its type among [`workload::type_names`].
    pub event_type: usize,
    pub frame: Vec<u8>,
}

impl Sample {
    pub fn new(happening: Happening) -> Sample {
        let event_type = workload::type_names().position(|t| t == happening.event_type).expect("a type");
        Sample { event_type, frame: happening.frame(), happening }
    }
}

/// One way to match.
pub struct Engine {
    /// Whether it answers as the plain scan does; else it is a limit.
    pub checked: bool,
    /// The bytes of its index, where it knows.
    pub bytes: Option<usize>,
    /// Matches these events and tells how many rules they met together.
    pub run: Box<dyn FnMut(&[Sample]) -> usize>,
    found: Box<dyn FnMut(&Sample) -> Vec<u32>>,
}

impl Engine {
    /// From what appends the rules that an event meets.
    fn new(each: impl FnMut(&Sample, &mut Vec<u32>) + 'static) -> Engine {
        let each = std::rc::Rc::new(std::cell::RefCell::new(each));
        let same = each.clone();
        let mut out = Vec::new();
        Engine {
            checked: true,
            bytes: None,
            run: Box::new(move |samples| {
                let each = &mut *each.borrow_mut();
                let mut found = 0;
                for sample in samples {
                    out.clear();
                    each(sample, &mut out);
                    found += black_box(&out).len();
                }
                found
            }),
            found: Box::new(move |sample| {
                let mut out = Vec::new();
                (same.borrow_mut())(sample, &mut out);
                out.sort_unstable();
                out
            }),
        }
    }

    /// The rules that one event meets, ascending.
    pub fn once(&mut self, sample: &Sample) -> Vec<u32> {
        (self.found)(sample)
    }
}

/// Tidewire, of events as they are in its ring and log.
pub fn tidewire(rules: &[Rule]) -> Engine {
    let matcher = Matcher::compile(rules).expect("rules");
    let bytes = matcher.bytes();
    let mut memory = MatchMemory::default();
    let engine = Engine::new(move |sample, out| matcher.matches(&FrameView::trusted(&sample.frame), &mut memory, out));
    Engine { bytes: Some(bytes), ..engine }
}

/// The limit: one pass over the key.
pub fn memchr() -> Engine {
    let engine = Engine::new(|sample, _| {
        black_box(memchr::memchr(0, black_box(sample.happening.key.as_bytes())));
    });
    Engine { checked: false, ..engine }
}

/// Which of the types each name or wildcard means, as bits.
fn type_bits(wish: &Wish) -> u16 {
    let means = |name: &str, t: &str| match name.strip_suffix('*') {
        Some(start) => t.starts_with(start),
        None => t == name,
    };
    let bits = workload::type_names().enumerate().filter(|(_, t)| wish.events.iter().any(|name| means(name, t)));
    bits.fold(0, |bits, (i, _)| bits | 1 << i)
}

/// One rule after the other, bucket and type first.
pub fn linear(wishes: &[Wish]) -> Engine {
    let rules: Vec<(Option<String>, u16, Vec<Condition>)> =
        wishes.iter().map(|w| (w.bucket.clone(), type_bits(w), w.conditions())).collect();
    Engine::new(move |sample, out| {
        for (i, (bucket, types, conditions)) in rules.iter().enumerate() {
            if types & (1 << sample.event_type) != 0
                && bucket.as_deref().is_none_or(|b| b == sample.happening.bucket)
                && conditions.iter().all(|c| holds(c, &sample.happening))
            {
                out.push(i as u32);
            }
        }
    })
}

fn holds(condition: &Condition, h: &Happening) -> bool {
    let has = |pairs: &[(&str, String)], name: &str, value: &str| pairs.iter().any(|(k, v)| *k == name && v == value);
    match condition {
        Condition::Prefix(x) => h.key.starts_with(x.as_str()),
        Condition::Suffix(x) => h.key.ends_with(x.as_str()),
        Condition::Exact(x) => h.key == *x,
        Condition::Wildcard(x) => glob(x.as_bytes(), h.key.as_bytes()),
        Condition::Size(size) => {
            h.size.is_some_and(|n| size.min.is_none_or(|min| n >= min) && size.max.is_none_or(|max| n <= max))
        }
        Condition::Tags(tags) => tags.iter().all(|(k, v)| has(&h.tags, k, v)),
        Condition::Metadata(metadata) => metadata.iter().all(|(k, v)| has(&h.metadata, k, v)),
        Condition::Requester(x) => h.requester == *x,
        Condition::All(all) => all.iter().all(|c| holds(c, h)),
        Condition::Any(any) => any.iter().any(|c| holds(c, h)),
        Condition::Not(inner) => !holds(inner, h),
    }
}

/// Whether the text fits the pattern, in which `*` stands for any text. Goes back to the last star only, so that the time
/// is at most the product of the lengths and mostly their sum.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, tried)) = star {
            star = Some((after, tried + 1));
            (p, t) = (after, tried + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}
