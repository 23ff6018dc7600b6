//! Events and notification rules as a store has them, made from a seed: the same seed gives the same everywhere.
//!
//! Keys are real-looking: logs by date, images, a lake of tables, blobs, backups, and documents with awkward names. Rules
//! are drawn from the same name space. The number of tenants grows with the rules, about 25 rules for each bucket, so that
//! an event finds about as many matches among a million rules as among a hundred, and an engine's own growth is seen.

use std::collections::BTreeMap;

use serde::Serialize;
use tidewire::event::EventTypes;
use tidewire::event::frame;
use tidewire::filter::{Bound, Field, Filter, Number, Range, Test};
use tidewire::{Event, EventType};

const TENANTS: [&str; 10] =
    ["acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "wonka", "tyrell", "cyberdyne"];
const SERVICES: [&str; 10] = ["api", "web", "auth", "billing", "ingest", "search", "mail", "cdn", "etl", "ml"];
const TABLES: [&str; 8] = ["orders", "clicks", "users", "sessions", "payments", "inventory", "shipments", "ratings"];
const WORDS: [&str; 11] = [
    "holiday",
    "report",
    "résumé",
    "写真",
    "отчёт",
    "été 2024",
    "a+b",
    "100% done",
    "k=v&x:y",
    "naïve café",
    "🎉party",
];
const IMAGES: [&str; 6] = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic"];
const CLASSES: [&str; 3] = ["hot", "warm", "cold"];
/// The types that events have, with their weights.
const TYPES: [(&str, u64); 10] = [
    ("s3:ObjectCreated:Put", 58),
    ("s3:ObjectCreated:CompleteMultipartUpload", 8),
    ("s3:ObjectCreated:Copy", 4),
    ("s3:ObjectCreated:Post", 1),
    ("s3:ObjectRemoved:Delete", 14),
    ("s3:ObjectRemoved:DeleteMarkerCreated", 5),
    ("s3:ObjectTagging:Put", 3),
    ("s3:LifecycleExpiration:Delete", 4),
    ("s3:LifecycleTransition", 2),
    ("s3:ObjectRestore:Completed", 1),
];
/// The types that rules want.
const WANTED: [&[&str]; 4] = [
    &["s3:ObjectCreated:*"],
    &["s3:ObjectRemoved:*"],
    &["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
    &["s3:ObjectCreated:Put"],
];
/// Distinct keys of the events, and how uneven they are drawn.
const KEYS: u64 = 1_000_000;
const ZIPF: f64 = 0.9;

/// The names of the types that events have.
pub fn type_names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(name, _)| *name)
}

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From 0 until before 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// From 0 until before `n`, the lower the likelier.
    fn zipf(&mut self, n: u64, exponent: f64) -> u64 {
        let rest = 1.0 - exponent;
        let x = (((n as f64).powf(rest) - 1.0) * self.unit() + 1.0).powf(1.0 / rest);
        (x as u64).saturating_sub(1).min(n - 1)
    }
}

/// A key of the name space.
#[derive(Clone, Debug)]
struct Object {
    bucket: String,
    key: String,
    extension: &'static str,
}

/// How many tenants there are for so many rules.
fn tenants_for(rules: usize) -> u64 {
    (rules as u64 / 75).max(2)
}

impl Object {
    fn of(number: u64, seed: u64, tenants: u64) -> Object {
        let mut r = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let t = r.below(tenants);
        let mut tenant = TENANTS[t as usize % TENANTS.len()].to_owned();
        if t >= TENANTS.len() as u64 {
            tenant += &(t / TENANTS.len() as u64).to_string();
        }
        let (year, month) = (2023 + r.below(3), 1 + r.below(12));
        let (day, hour) = (1 + r.below(28), r.below(24));
        let (key, extension) = match r.below(100) {
            0..30 => {
                let service = r.pick(&SERVICES);
                let (part, id) = (r.below(64), r.next());
                let name = format!("{service}-{part:02}-{id:016x}.log.gz");
                (format!("logs/{tenant}/{service}/{year}/{month:02}/{day:02}/{hour:02}/{name}"), ".log.gz")
            }
            30..55 => {
                let extension = r.pick(&IMAGES);
                let album = r.below(5000);
                let form = r.pick(&["orig", "thumb", "large"]);
                let id = r.next() & 0xFFFF_FFFF;
                (format!("images/{tenant}/{album:05}/{form}/{id:08x}{extension}"), extension)
            }
            55..75 => {
                let table = r.pick(&TABLES);
                let (part, id) = (r.below(500), r.next());
                let dirs = format!("lake/{tenant}/{table}/year={year}/month={month:02}/day={day:02}");
                (format!("{dirs}/part-{part:05}-{id:016x}.parquet"), ".parquet")
            }
            75..87 => {
                let (high, low) = (r.next(), r.next());
                let x = format!("{high:016x}{low:016x}");
                let uuid = [&x[..8], &x[8..12], &x[12..16], &x[16..20], &x[20..]].join("-");
                (format!("{}/{}/{uuid}", &x[..2], &x[2..4]), "")
            }
            87..94 => {
                let extension = r.pick(&[".tar.zst", ".bak", ".json"]);
                let service = r.pick(&SERVICES);
                let time = format!("{year}-{month:02}-{day:02}T{hour:02}:00:00Z");
                (format!("backup/{tenant}/{service}/{time}/full{extension}"), extension)
            }
            _ => {
                let extension = r.pick(&[".pdf", ".docx", ".jpg"]);
                let word = r.pick(&WORDS);
                let number = r.below(1000);
                (format!("home/{tenant}/my documents/{word} {number}{extension}"), extension)
            }
        };
        let stage = r.pick(&["prod", "dev", "archive"]);
        Object { bucket: format!("{tenant}-{stage}"), key, extension }
    }
}

/// An event; as JSON it is a line that Tidewire's native form reads.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// The name of the type.
    #[serde(rename = "type")]
    pub event_type: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// When, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The version.
    pub version_id: String,
    /// Who asked.
    pub requester: String,
    /// From where.
    pub source_ip: String,
    /// Of creations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of creations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Of creations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'static str>,
    /// Of one in four; names begin with `x-amz-meta-`.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub metadata: Vec<(&'static str, String)>,
    /// Of one in five.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub tags: Vec<(&'static str, String)>,
}

fn as_map<S: serde::Serializer>(pairs: &[(&'static str, String)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(pairs.iter().map(|(k, v)| (k, v)))
}

/// So many events for a set of so many rules.
pub fn happenings(n: usize, seed: u64, for_rules: usize) -> impl Iterator<Item = Happening> {
    let tenants = tenants_for(for_rules);
    let mut r = Random(seed);
    let mut time_ns = 1_700_000_000_000_000_000;
    (0..n).map(move |_| {
        let object = Object::of(r.zipf(KEYS, ZIPF), seed, tenants);
        time_ns += 1 + r.below(200_000);
        let mut weight = r.below(TYPES.iter().map(|(_, w)| w).sum());
        let chosen = TYPES.iter().find(|(_, w)| {
            let here = weight < *w;
            weight = weight.wrapping_sub(*w);
            here
        });
        let event_type = chosen.map_or("", |(name, _)| *name);
        let (high, low) = (r.next(), r.next());
        let requester = format!("AWS:AIDA{:04}EXAMPLE", r.below(500));
        let (net, host) = ((r.below(4), r.below(256)), 1 + r.below(254));
        let mut happening = Happening {
            event_type,
            bucket: object.bucket,
            key: object.key,
            time_ns,
            version_id: format!("{high:016x}{low:016x}"),
            requester,
            source_ip: format!("10.{}.{}.{host}", net.0, net.1),
            size: None,
            etag: None,
            content_type: None,
            metadata: Vec::new(),
            tags: Vec::new(),
        };
        if event_type.starts_with("s3:ObjectCreated") {
            // As a power with a base that is not known, for which the compiler has no other function.
            happening.size = Some(std::hint::black_box(2.0f64).powf(r.unit() * 30.0) as u64);
            let (high, low) = (r.next(), r.next());
            happening.etag = Some(format!("{high:016x}{low:016x}"));
            happening.content_type = Some(match object.extension {
                ".jpg" => "image/jpeg",
                ".png" => "image/png",
                ".parquet" => "application/vnd.apache.parquet",
                ".log.gz" => "application/gzip",
                ".json" => "application/json",
                _ => "application/octet-stream",
            });
        }
        if r.below(4) == 0 {
            let owner = r.pick(&SERVICES).to_owned();
            happening.metadata = vec![("x-amz-meta-owner", owner), ("x-amz-meta-job", r.below(10_000).to_string())];
        }
        if r.below(5) == 0 {
            let class = r.pick(&CLASSES).to_owned();
            happening.tags = vec![("class", class), ("team", r.pick(&TENANTS).to_owned())];
        }
        happening
    })
}

/// The name of metadata without what it begins with in HTTP.
pub fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("x-amz-meta-").unwrap_or(name)
}

impl Happening {
    /// The same, with the names of metadata as Tidewire has them.
    #[must_use]
    pub fn with_bare_metadata(mut self) -> Happening {
        self.metadata.iter_mut().for_each(|(name, _)| *name = bare(name));
        self
    }

    /// The event as Tidewire's frame.
    ///
    /// # Panics
    /// If the type has no valid name.
    pub fn frame(&self) -> Vec<u8> {
        self.with_event(|event| frame::encode_to_vec(&event, self.time_ns))
    }

    /// The event as Tidewire takes it. Its time is not set: it is that of its publication.
    ///
    /// # Panics
    /// If the type has no valid name.
    pub fn with_event<T>(&self, act: impl FnOnce(Event<'_>) -> T) -> T {
        let event_type = EventType::parse(self.event_type).expect("the name of a type");
        let mut event = Event::new(event_type, &self.bucket, self.key.as_bytes());
        let metadata: Vec<(&str, &str)> = self.metadata.iter().map(|(k, v)| (bare(k), v.as_str())).collect();
        let tags: Vec<(&str, &str)> = self.tags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        event.version_id = &self.version_id;
        event.requester = &self.requester;
        event.source_ip = &self.source_ip;
        event.size = self.size;
        event.etag = self.etag.as_deref().unwrap_or_default();
        event.content_type = self.content_type.unwrap_or_default();
        (event.metadata, event.tags) = (&metadata, &tags);
        act(event)
    }
}

/// What kinds of rules there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Prefix, suffix, both, the whole key and wildcards, a third of them in every bucket.
    Full,
    /// The same, each in one bucket.
    Scoped,
    /// Wildcards `*word*` and `*word*word*`, each in one bucket.
    Infix,
    /// Prefix, suffix and the like, joined with a condition on tag, metadata, size or requester; each in one bucket.
    Boolean,
}

impl Mix {
    /// All.
    pub const ALL: [Mix; 4] = [Mix::Full, Mix::Scoped, Mix::Infix, Mix::Boolean];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Mix::Full => "full",
            Mix::Scoped => "scoped",
            Mix::Infix => "infix",
            Mix::Boolean => "boolean",
        }
    }

    /// The mix of a name.
    pub fn parse(name: &str) -> Option<Mix> {
        Mix::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Numbers between two, both included.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// At least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// A condition of a rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The key begins with this.
    Prefix(String),
    /// The key ends with this.
    Suffix(String),
    /// The key is this.
    Exact(String),
    /// The key fits this pattern, in which `*` stands for any text.
    Wildcard(String),
    /// The size is known and within.
    Size(Size),
    /// These tags are there.
    Tags(BTreeMap<&'static str, &'static str>),
    /// This metadata is there.
    Metadata(BTreeMap<&'static str, &'static str>),
    /// This is who asked.
    Requester(String),
    /// Each holds.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct Wish {
    /// The id: `rule-` and the number, from 0.
    pub id: String,
    /// Names of event types, and their wildcards.
    pub events: &'static [&'static str],
    /// The bucket; without it, every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// A condition on the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A condition on the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// A condition on the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// A condition on the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wildcard: Option<String>,
    /// A condition of another kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Condition>,
}

/// Conditions on keys like this one.
fn key_conditions(r: &mut Random, object: &Object) -> Vec<Condition> {
    let (key, extension) = (&object.key, object.extension);
    let parts: Vec<&str> = key.split('/').collect();
    let depth = (2 + r.below((parts.len() as u64).saturating_sub(2).max(1))) as usize;
    let depth = depth.min(parts.len() - 1);
    let prefix = parts[..depth].join("/") + "/";
    let kind = r.below(100);
    let last = |text: &str, n: usize| text.chars().skip(text.chars().count().saturating_sub(n)).collect::<String>();
    match kind {
        0..40 => vec![Condition::Prefix(prefix)],
        // A few digits of the name too: else one such rule is met by a whole kind of keys.
        40..50 if !key.starts_with("backup/") && !key.starts_with("home/") => {
            vec![Condition::Suffix(last(key, extension.len() + 6))]
        }
        40..80 => {
            let suffix = if extension.is_empty() { last(parts[parts.len() - 1], 4) } else { extension.to_owned() };
            vec![Condition::Prefix(prefix), Condition::Suffix(suffix)]
        }
        80..90 => vec![Condition::Exact(key.clone())],
        _ => {
            let mut parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
            if parts.len() > 3 {
                let at = 2 + r.below(parts.len() as u64 - 3) as usize;
                parts[at] = "*".into();
            }
            let last = parts.len() - 1;
            parts[last] = format!("*{extension}");
            vec![Condition::Wildcard(parts.join("/"))]
        }
    }
}

fn infix(r: &mut Random, key: &str) -> String {
    let words: Vec<&str> = key.split(['-', '_', '.', '/']).filter(|w| w.chars().count() > 2).collect();
    let at = r.below((words.len() as u64).saturating_sub(1).max(1)) as usize;
    match r.below(2) {
        1 => format!("*{}*", words[at]),
        _ => format!("*{}*{}*", words[at], words[(at + 1).min(words.len() - 1)]),
    }
}

fn further_condition(r: &mut Random) -> Condition {
    let size = |min, max| Condition::Size(Size { min, max });
    // All of them are drawn, and one is taken.
    let at_least = size(Some(1 << r.below(20)), None);
    let class = Condition::Tags([("class", r.pick(&CLASSES))].into());
    let owner = Condition::Metadata([("x-amz-meta-owner", r.pick(&SERVICES))].into());
    let requester = Condition::Requester(format!("AWS:AIDA{:04}EXAMPLE", r.below(500)));
    let team = Condition::Tags([("team", r.pick(&TENANTS))].into());
    let at_most = size(None, Some(1 << (10 + r.below(20))));
    match r.below(5) {
        0 => at_least,
        1 => class,
        2 => owner,
        3 => Condition::Not(Box::new(requester)),
        _ => Condition::Any(vec![team, at_most]),
    }
}

/// So many rules.
pub fn wishes(n: usize, seed: u64, mix: Mix) -> impl Iterator<Item = Wish> {
    let mut r = Random(seed ^ 0xA5A5_A5A5);
    let tenants = tenants_for(n);
    (0..n).map(move |i| {
        let object = Object::of(r.below(KEYS), seed, tenants);
        let mut wish = Wish {
            id: format!("rule-{i}"),
            events: r.pick(&WANTED),
            bucket: None,
            prefix: None,
            suffix: None,
            exact: None,
            wildcard: None,
            filter: None,
        };
        if mix != Mix::Full || r.below(3) != 0 {
            wish.bucket = Some(object.bucket.clone());
        }
        match mix {
            Mix::Infix => wish.wildcard = Some(infix(&mut r, &object.key)),
            Mix::Boolean => {
                let mut all = key_conditions(&mut r, &object);
                all.push(further_condition(&mut r));
                wish.filter = Some(Condition::All(all));
            }
            Mix::Full | Mix::Scoped => {
                for condition in key_conditions(&mut r, &object) {
                    match condition {
                        Condition::Prefix(x) => wish.prefix = Some(x),
                        Condition::Suffix(x) => wish.suffix = Some(x),
                        Condition::Exact(x) => wish.exact = Some(x),
                        Condition::Wildcard(x) => wish.wildcard = Some(x),
                        _ => {}
                    }
                }
            }
        }
        wish
    })
}

impl Wish {
    /// All conditions but those on bucket and type.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        all.extend(self.prefix.clone().map(Condition::Prefix));
        all.extend(self.suffix.clone().map(Condition::Suffix));
        all.extend(self.exact.clone().map(Condition::Exact));
        all.extend(self.wildcard.clone().map(Condition::Wildcard));
        all.extend(self.filter.clone());
        all
    }

    /// The rule as Tidewire takes it.
    ///
    /// # Panics
    /// If it does not take it.
    pub fn rule(&self, types: &EventTypes) -> tidewire::rule::Rule {
        let mut rule = tidewire::rule::Rule::new(self.id.as_str(), self.events, types).expect("names of types");
        rule.bucket = self.bucket.clone();
        rule.filter = Filter::all(self.conditions().iter().map(Condition::filter));
        rule
    }
}

impl Condition {
    fn filter(&self) -> Filter {
        let pairs = |pairs: &BTreeMap<&str, &str>, field: &dyn Fn(&str) -> Field| {
            Filter::all(pairs.iter().map(|(k, v)| Filter::Is(field(k), Test::equals(v))))
        };
        match self {
            Condition::Prefix(x) => Filter::Is(Field::Key, Test::prefix(x)),
            Condition::Suffix(x) => Filter::Is(Field::Key, Test::suffix(x)),
            Condition::Exact(x) => Filter::Is(Field::Key, Test::equals(x)),
            Condition::Wildcard(x) => Filter::Is(Field::Key, Test::wildcard(x).expect("a wildcard")),
            Condition::Size(Size { min, max }) => {
                let bound = |n: &Option<u64>| n.map_or(Bound::Open, |n| Bound::Included(Number::from(n)));
                Filter::Is(Field::Size, Test::Number(Range { low: bound(min), high: bound(max) }))
            }
            Condition::Tags(tags) => pairs(tags, &|k| Field::Tag(k.into())),
            Condition::Metadata(metadata) => pairs(metadata, &|k| Field::metadata(k)),
            Condition::Requester(x) => Filter::Is(Field::Requester, Test::equals(x)),
            Condition::All(all) => Filter::all(all.iter().map(Condition::filter)),
            Condition::Any(any) => Filter::any(any.iter().map(Condition::filter)),
            Condition::Not(inner) => inner.filter().not(),
        }
    }
}

/// The value as a line of JSON.
///
/// # Panics
/// Never: what is made here is plain data.
pub fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over the lines with their ends.
    fn checksum(lines: impl Iterator<Item = String>) -> u64 {
        let fold = |hash: u64, b: &u8| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        lines.fold(0xcbf2_9ce4_8422_2325, |hash, line| fold(line.as_bytes().iter().fold(hash, fold), &b'\n'))
    }

    #[test]
    fn the_rules_of_a_seed_are_always_the_same() {
        let of = |mix| checksum(wishes(500, 1, mix).map(|w| line(&w)));
        assert_eq!(
            Mix::ALL.map(of),
            [0x4502_7756_0418_eda0, 0xb8b9_8f3a_41d1_e2b7, 0x0f28_9679_409a_20eb, 0xd220_ac2b_bf2d_b18a]
        );
    }

    #[test]
    fn the_events_of_a_seed_are_always_the_same() {
        let of = |rules| checksum(happenings(500, 1, rules).map(|h| line(&h)));
        assert_eq!(
            [100, 1000, 1_000_000].map(of),
            [0xca2b_2d24_6d5b_f567, 0xb7a1_51c0_bcaf_da01, 0x794c_201c_0452_db0e]
        );
    }

    #[test]
    fn another_seed_gives_others() {
        let of = |seed| checksum(wishes(10, seed, Mix::Full).map(|w| line(&w)));
        assert_ne!(of(1), of(2));
    }
}
