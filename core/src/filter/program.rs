//! The straight-line form of a filter: one operation per test, each with the place to go on at if it holds and if not.
//!
//! ```text
//! u8 operations, then of each: u8 test, u8 field, u8 next if it holds, u8 next if not, u16 operand, from the start
//! operands, each until the next: of fields with selectors u16 length and the selector; what the test compares with
//! ```
//!
//! One that this is too narrow for begins with a byte of 0, then has u16 operations, u16 places and u32 operands
//! ([`Layout`]).
//!
//! Places are operations, or [`ACCEPT`] and [`REJECT`] (in a byte its two last values). They only ever point forward, so
//! that a program makes each test at most once.

use std::collections::HashMap;
use std::hash::Hash;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::bytes;
use super::cel::Cel;
use super::evaluate::in_network;
use super::expression::{Affix, Field, Filter, Test};
use super::number::{Bound, Number, Range};
use super::pattern::{self, Regex};
use super::subject::{Kind, Subject, Value};
use super::window::Window;

use crate::le::{u16_at, u32_at};

const ACCEPT: u16 = u16::MAX;
const REJECT: u16 = u16::MAX - 1;

/// How wide the places and operands of a program are.
struct Layout {
    /// Before the operations.
    head_bytes: usize,
    op_bytes: usize,
    operations_max: usize,
    bytes_max: usize,
}

const NARROW: Layout = Layout { head_bytes: 1, op_bytes: 6, operations_max: 0xFE, bytes_max: 0xFFFF };
const WIDE: Layout =
    Layout { head_bytes: 3, op_bytes: 10, operations_max: REJECT as usize, bytes_max: u32::MAX as usize };

mod code {
    pub(super) const EXISTS: u8 = 1;
    pub(super) const ABSENT: u8 = 2;
    pub(super) const EQUALS: u8 = 3;
    pub(super) const PREFIX: u8 = 4;
    pub(super) const SUFFIX: u8 = 5;
    pub(super) const CONTAINS: u8 = 6;
    pub(super) const WILDCARD: u8 = 7;
    pub(super) const REGEX: u8 = 8;
    pub(super) const IGNORE_CASE: u8 = 9;
    pub(super) const CIDR: u8 = 10;
    pub(super) const NUMBER: u8 = 11;
    pub(super) const WINDOW: u8 = 12;
    pub(super) const BOOL: u8 = 13;
    pub(super) const NULL: u8 = 14;
    pub(super) const NONE_OF: u8 = 15;
    pub(super) const CEL: u8 = 16;
}

/// A place that is not known yet.
#[derive(Clone, Copy, Debug)]
enum Target {
    Known(u16),
    Label(usize),
}

/// What programs refer to by numbers: regular expressions, and expressions that are evaluated.
#[derive(Debug, Default)]
pub(super) struct Tables {
    regexes: Vec<Regex>,
    expressions: Vec<Cel>,
}

impl Tables {
    pub(super) const NONE: Tables = Tables { regexes: Vec::new(), expressions: Vec::new() };

    pub(super) fn is_empty(&self) -> bool {
        self.regexes.is_empty() && self.expressions.is_empty()
    }

    /// The address and the memory of each.
    pub(super) fn shared(&self) -> impl Iterator<Item = (usize, usize)> {
        let regexes = self.regexes.iter().map(|r| (r.address(), r.bytes()));
        regexes.chain(self.expressions.iter().map(|e| (e.address(), e.bytes())))
    }
}

/// The tables while programs are written: what is alike has one number.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tables: Tables,
    regexes: HashMap<Regex, u32>,
    expressions: HashMap<Cel, u32>,
    /// Of one program after the other.
    memory: Parts,
}

/// An operation that is not in its place yet: test, field, where to go on, where its operand begins.
type RawOp = (u8, u8, Target, Target, u32);

/// What a program is put together from.
#[derive(Debug, Default)]
struct Parts {
    ops: Vec<RawOp>,
    operands: Vec<u8>,
    /// Where each label stands.
    labels: Vec<u16>,
}

impl Shared {
    fn regex(&mut self, r: &Regex) -> u32 {
        number(r, &mut self.regexes, &mut self.tables.regexes)
    }

    fn expression(&mut self, e: &Cel) -> u32 {
        number(e, &mut self.expressions, &mut self.tables.expressions)
    }

    /// The tables; no more can come.
    pub(super) fn into_tables(self) -> Tables {
        self.tables
    }
}

fn number<T: Clone + Eq + Hash>(of: &T, numbers: &mut HashMap<T, u32>, list: &mut Vec<T>) -> u32 {
    if let Some(number) = numbers.get(of) {
        return *number;
    }
    let number = list.len() as u32;
    list.push(of.clone());
    numbers.insert(of.clone(), number);
    number
}

/// Writes programs.
struct Writer<'a> {
    parts: Parts,
    shared: &'a mut Shared,
    /// The condition of each operation, if that is asked for.
    conditions: Option<Vec<Filter>>,
}

/// Appends the program of "all of these hold" to `out`; none of them may be constant. Expressions are put into
/// `shared`, which the program refers to.
pub(super) fn encode(all: &[&Filter], shared: &mut Shared, out: &mut Vec<u8>) {
    let mut w = Writer { parts: std::mem::take(&mut shared.memory), shared, conditions: None };
    w.all(all.iter().copied(), Target::Known(ACCEPT), Target::Known(REJECT));
    let Parts { ops, operands, .. } = &w.parts;
    let fits = |l: &Layout| {
        ops.len() <= l.operations_max && l.head_bytes + ops.len() * l.op_bytes + operands.len() <= l.bytes_max
    };
    let is_narrow = fits(&NARROW);
    let layout = if is_narrow { NARROW } else { WIDE };
    let base = (layout.head_bytes + ops.len() * layout.op_bytes) as u32;
    if is_narrow {
        out.push(ops.len() as u8);
    } else {
        out.push(0);
        out.extend_from_slice(&(ops.len() as u16).to_le_bytes());
    }
    for (test, field, yes, no, operand) in ops {
        let (places, operand) = ([yes, no].map(|t| w.place(*t)), base + operand);
        out.extend_from_slice(&[*test, *field]);
        if is_narrow {
            // The two that are no operations are the last of a byte, too.
            out.extend_from_slice(&places.map(|p| p as u8));
            out.extend_from_slice(&(operand as u16).to_le_bytes());
        } else {
            out.extend(places.iter().flat_map(|p| p.to_le_bytes()));
            out.extend_from_slice(&operand.to_le_bytes());
        }
    }
    out.extend_from_slice(operands);
    let mut parts = w.parts;
    parts.ops.clear();
    parts.operands.clear();
    parts.labels.clear();
    shared.memory = parts;
}

/// Where a program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The event passes.
    Accept,
    /// The event does not pass.
    Reject,
    /// At the step of this number; it is a later one.
    Step(usize),
}

/// One step of a program: a test of one field, or an expression that is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is tested: a [`Filter::Is`] or a [`Filter::Cel`].
    pub condition: Filter,
    /// Where it goes on if that holds.
    pub then: Next,
    /// Where it goes on if not.
    pub otherwise: Next,
}

/// The program that [`encode`] makes of the same, to look at.
pub(super) fn listing(all: &[&Filter]) -> Vec<Step> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut shared = Shared::default();
    let mut w = Writer { parts: Parts::default(), shared: &mut shared, conditions: Some(Vec::new()) };
    w.all(all.iter().copied(), Target::Known(ACCEPT), Target::Known(REJECT));
    let next = |t: Target| match w.place(t) {
        ACCEPT => Next::Accept,
        REJECT => Next::Reject,
        step => Next::Step(step.into()),
    };
    let conditions = w.conditions.iter().flatten().cloned();
    let steps = w.parts.ops.iter().zip(conditions);
    steps.map(|((_, _, yes, no, _), condition)| Step { condition, then: next(*yes), otherwise: next(*no) }).collect()
}

/// What a test costs, roughly: cheap ones are made first.
fn cost(f: &Filter) -> u32 {
    match f {
        Filter::All(list) | Filter::Any(list) => list.iter().map(cost).sum::<u32>().max(1),
        Filter::Not(inner) => cost(inner),
        Filter::Is(field, test) => {
            let field = match field {
                Field::Data(_) => 40,
                Field::Metadata(_) | Field::Tag(_) => 3,
                _ => 1,
            };
            let test = match test {
                Test::Regex(_) => 20,
                Test::Wildcard(_) | Test::Contains(_) | Test::IgnoreCase(..) | Test::Cidr(_) => 4,
                Test::NoneOf(list) => list.len() as u32,
                _ => 1,
            };
            field + test
        }
        // Always the last.
        Filter::Cel(cel) => 10_000 + cel.nodes() as u32,
    }
}

impl Writer<'_> {
    fn place(&self, t: Target) -> u16 {
        match t {
            Target::Known(place) => place,
            Target::Label(l) => self.parts.labels[l],
        }
    }

    /// A series of filters; after each but the last it goes on with the next, where `next` says so.
    fn series<'f>(
        &mut self,
        list: impl Iterator<Item = &'f Filter>,
        mut each: impl FnMut(&mut Self, &'f Filter, Option<Target>),
    ) {
        let mut list: SmallVec<[&Filter; 8]> = list.collect();
        list.sort_by_key(|f| cost(f));
        for (i, f) in list.iter().enumerate() {
            if i + 1 == list.len() {
                each(self, f, None);
            } else {
                let label = self.parts.labels.len();
                self.parts.labels.push(0);
                each(self, f, Some(Target::Label(label)));
                self.parts.labels[label] = self.parts.ops.len() as u16;
            }
        }
    }

    fn all<'f>(&mut self, list: impl Iterator<Item = &'f Filter>, yes: Target, no: Target) {
        self.series(list, |w, f, next| w.filter(f, next.unwrap_or(yes), no));
    }

    fn filter(&mut self, f: &Filter, yes: Target, no: Target) {
        match f {
            Filter::All(list) => self.all(list.iter(), yes, no),
            Filter::Any(list) => self.series(list.iter(), |w, f, next| w.filter(f, yes, next.unwrap_or(no))),
            Filter::Not(inner) => self.filter(inner, no, yes),
            Filter::Is(field, test) => {
                let operand = self.parts.operands.len() as u32;
                if field.kind().has_selector() {
                    let selector = field.selector();
                    self.parts.operands.extend_from_slice(&(selector.len() as u16).to_le_bytes());
                    self.parts.operands.extend_from_slice(&selector);
                }
                let code = encode_test(test, self.shared, &mut self.parts.operands);
                self.parts.ops.push((code, field.kind() as u8, yes, no, operand));
                if let Some(conditions) = &mut self.conditions {
                    conditions.push(f.clone());
                }
            }
            Filter::Cel(cel) => {
                let operand = self.parts.operands.len() as u32;
                self.parts.operands.extend_from_slice(&self.shared.expression(cel).to_le_bytes());
                self.parts.ops.push((code::CEL, Kind::Expression as u8, yes, no, operand));
                if let Some(conditions) = &mut self.conditions {
                    conditions.push(f.clone());
                }
            }
        }
    }
}

/// Appends what the test compares with, and answers its code.
fn encode_test(test: &Test, shared: &mut Shared, out: &mut Vec<u8>) -> u8 {
    let mut text = |bytes: &[u8], code: u8| {
        out.extend_from_slice(bytes);
        code
    };
    match test {
        Test::Exists => code::EXISTS,
        Test::Absent => code::ABSENT,
        Test::Equals(x) => text(x, code::EQUALS),
        Test::Prefix(x) => text(x, code::PREFIX),
        Test::Suffix(x) => text(x, code::SUFFIX),
        Test::Contains(x) => text(x, code::CONTAINS),
        Test::Wildcard(w) => text(w.code(), code::WILDCARD),
        Test::Regex(r) => {
            let number = shared.regex(r);
            text(&number.to_le_bytes(), code::REGEX)
        }
        Test::IgnoreCase(affix, x) => {
            out.push(*affix as u8);
            out.extend_from_slice(x.as_str().as_bytes());
            code::IGNORE_CASE
        }
        Test::Cidr(net) => {
            out.push(net.prefix_len());
            match net {
                IpNet::V4(net) => out.extend_from_slice(&net.addr().octets()),
                IpNet::V6(net) => out.extend_from_slice(&net.addr().octets()),
            }
            code::CIDR
        }
        Test::Number(range) => {
            encode_bound(range.low, out);
            encode_bound(range.high, out);
            code::NUMBER
        }
        Test::Window(w) => {
            let (days, from, to, offset) = w.parts();
            out.push(days);
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            code::WINDOW
        }
        Test::Bool(b) => text(&[u8::from(*b)], code::BOOL),
        Test::Null => code::NULL,
        Test::NoneOf(tests) => {
            for t in tests {
                let at = out.len();
                out.extend_from_slice(&[0; 5]);
                out[at] = encode_test(t, shared, out);
                let len = (out.len() - at - 5) as u32;
                out[at + 1..at + 5].copy_from_slice(&len.to_le_bytes());
            }
            code::NONE_OF
        }
    }
}

/// What the first byte of a bound says.
mod bound {
    pub(super) const INCLUDED: u8 = 1;
    pub(super) const EXCLUDED: u8 = 2;
    pub(super) const FLOAT: u8 = 4;
    /// An integer of 16 bytes; else a number has 8.
    pub(super) const WIDE: u8 = 8;
}

fn encode_bound(b: Bound, out: &mut Vec<u8>) {
    let (code, n) = match b {
        Bound::Open => return out.push(0),
        Bound::Included(n) => (bound::INCLUDED, n),
        Bound::Excluded(n) => (bound::EXCLUDED, n),
    };
    match n {
        Number::Int(n) => match i64::try_from(n) {
            Ok(n) => {
                out.push(code);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Err(_) => {
                out.push(code | bound::WIDE);
                out.extend_from_slice(&n.to_le_bytes());
            }
        },
        Number::Float(n) => {
            out.push(code | bound::FLOAT);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// The bound, and what is behind it.
#[inline]
fn decode_bound(b: &[u8]) -> (Bound, &[u8]) {
    let Some((&code, rest)) = b.split_first() else { return (Bound::Open, b) };
    if code == 0 {
        return (Bound::Open, rest);
    }
    let (n, rest) = if code & bound::WIDE != 0 {
        let Some((n, rest)) = rest.split_first_chunk() else { return (Bound::Open, rest) };
        (Number::Int(i128::from_le_bytes(*n)), rest)
    } else {
        let Some((n, rest)) = rest.split_first_chunk() else { return (Bound::Open, rest) };
        let float = code & bound::FLOAT != 0;
        (if float { Number::Float(f64::from_le_bytes(*n)) } else { Number::Int(i64::from_le_bytes(*n).into()) }, rest)
    };
    (if code & bound::INCLUDED != 0 { Bound::Included(n) } else { Bound::Excluded(n) }, rest)
}

fn decode_window(b: &[u8]) -> Option<Window> {
    Window::new(b[0], u16_at(b, 1), u16_at(b, 3), u16_at(b, 5) as i16).ok()
}

fn decode_network(b: &[u8]) -> Option<IpNet> {
    let address: std::net::IpAddr = match b.len() {
        5 => <[u8; 4]>::try_from(&b[1..]).ok()?.into(),
        _ => <[u8; 16]>::try_from(&b[1..]).ok()?.into(),
    };
    IpNet::new(address, b[0]).ok()
}

/// Whether one value passes a test.
#[inline]
fn passes(test: u8, operand: &[u8], kind: Kind, value: Value<'_>, regexes: &[Regex]) -> bool {
    match (test, value) {
        (code::EQUALS, Value::Text(v)) => bytes::equals(v, operand),
        (code::PREFIX, Value::Text(v)) => bytes::strip_prefix(v, operand).is_some(),
        (code::SUFFIX, Value::Text(v)) => bytes::strip_suffix(v, operand).is_some(),
        (code::NUMBER, v) => {
            let n = match v {
                Value::Number(n) => n,
                Value::Text(v) if matches!(kind, Kind::Metadata | Kind::Tag) => match Number::parse(v) {
                    Some(n) => n,
                    None => return false,
                },
                _ => return false,
            };
            let (low, rest) = decode_bound(operand);
            Range { low, high: decode_bound(rest).0 }.contains(n)
        }
        (code::EXISTS, _) => true,
        _ => passes_seldom(test, operand, kind, value, regexes),
    }
}

fn passes_seldom(test: u8, operand: &[u8], kind: Kind, value: Value<'_>, regexes: &[Regex]) -> bool {
    match (test, value) {
        (code::CONTAINS, Value::Text(v)) => bytes::find(v, operand).is_some(),
        (code::WILDCARD, Value::Text(v)) => pattern::matches(operand, v),
        (code::REGEX, Value::Text(v)) => regexes[u32_at(operand, 0) as usize].matches(v),
        (code::IGNORE_CASE, Value::Text(v)) => {
            let affix = match operand[0] {
                0 => Affix::Whole,
                1 => Affix::Prefix,
                _ => Affix::Suffix,
            };
            super::expression::fits_folded(std::str::from_utf8(&operand[1..]).unwrap_or_default(), affix, v)
        }
        (code::CIDR, Value::Text(v)) => decode_network(operand).is_some_and(|net| in_network(&net, v)),
        (code::WINDOW, Value::Number(Number::Int(n))) => {
            u64::try_from(n).is_ok_and(|n| decode_window(operand).is_some_and(|w| w.contains(n)))
        }
        (code::BOOL, Value::Bool(v)) => v == (operand[0] != 0),
        (code::NULL, Value::Null) => true,
        (code::NONE_OF, v) => {
            let mut rest = operand;
            while !rest.is_empty() {
                let (test, len) = (rest[0], u32_at(rest, 1) as usize);
                if passes(test, &rest[5..5 + len], kind, v, regexes) {
                    return false;
                }
                rest = &rest[5 + len..];
            }
            true
        }
        _ => false,
    }
}

/// An operation, read in place.
struct Op<'p> {
    test: u8,
    kind: Kind,
    yes: u16,
    no: u16,
    selector: &'p [u8],
    operand: &'p [u8],
}

fn operations(program: &[u8]) -> u16 {
    match program[0] {
        0 => u16_at(program, 1),
        count => count.into(),
    }
}

impl<'p> Op<'p> {
    #[inline]
    fn read(program: &'p [u8], number: u16) -> Op<'p> {
        if program[0] == 0 {
            return Op::read_wide(program, number);
        }
        let b = &program[NARROW.head_bytes + number as usize * NARROW.op_bytes..];
        let is_last = number + 1 == u16::from(program[0]);
        let end = if is_last { program.len() } else { u16_at(b, NARROW.op_bytes + 4) as usize };
        // A place that is no operation is one in both widths.
        let place = |b: u8| if b as usize >= NARROW.operations_max { 0xFF00 | u16::from(b) } else { b.into() };
        Op::of(b[0], b[1], [place(b[2]), place(b[3])], &program[u16_at(b, 4) as usize..end])
    }

    #[cold]
    fn read_wide(program: &'p [u8], number: u16) -> Op<'p> {
        let b = &program[WIDE.head_bytes + number as usize * WIDE.op_bytes..];
        let is_last = number + 1 == u16_at(program, 1);
        let end = if is_last { program.len() } else { u32_at(b, WIDE.op_bytes + 6) as usize };
        Op::of(b[0], b[1], [u16_at(b, 2), u16_at(b, 4)], &program[u32_at(b, 6) as usize..end])
    }

    #[inline]
    fn of(test: u8, kind: u8, [yes, no]: [u16; 2], operand: &'p [u8]) -> Op<'p> {
        let kind = Kind::from_u8(kind);
        let (selector, operand) =
            if kind.has_selector() { operand[2..].split_at(u16_at(operand, 0) as usize) } else { (&[][..], operand) };
        Op { test, kind, yes, no, selector, operand }
    }

    #[inline]
    fn holds(&self, subject: &mut Subject<'_>, tables: &Tables) -> bool {
        match self.test {
            code::ABSENT => !subject.any(self.kind, self.selector, &mut |_| true),
            code::CEL => tables.expressions[u32_at(self.operand, 0) as usize].passes(subject),
            _ => subject
                .any(self.kind, self.selector, &mut |v| passes(self.test, self.operand, self.kind, v, &tables.regexes)),
        }
    }
}

/// Whether the event passes.
#[inline]
pub(super) fn run(program: &[u8], subject: &mut Subject<'_>, tables: &Tables) -> bool {
    let mut at = 0;
    loop {
        let op = Op::read(program, at);
        at = if op.holds(subject, tables) { op.yes } else { op.no };
        if at >= REJECT {
            return at == ACCEPT;
        }
    }
}

/// Whether an event may pass of which only type, bucket and key are known yet.
pub(super) fn run_before(program: &[u8], subject: &mut Subject<'_>, tables: &Tables) -> bool {
    let count = operations(program);
    // Places only point forward, so one pass reaches everything that can be reached.
    let mut reached = vec![false; count as usize];
    reached[0] = true;
    for number in 0..count {
        if !reached[number as usize] {
            continue;
        }
        let op = Op::read(program, number);
        let known = op.kind.is_known_before().then(|| op.holds(subject, tables));
        for (next, open) in [(op.yes, known != Some(false)), (op.no, known != Some(true))] {
            match next {
                ACCEPT if open => return true,
                REJECT | ACCEPT => {}
                next => reached[next as usize] |= open,
            }
        }
    }
    false
}
