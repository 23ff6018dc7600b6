//! From expressions to the tree of tests.
//!
//! An expression is true, false or an error. What makes it true and what makes it false are two filters, and an error is
//! that neither holds; `!` asks for the other one. So the three-valued logic of CEL is kept. What no test can be made of is
//! left to be evaluated (see [`super::rest`]), and the same holds for it.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, CelTimestamp, CelUInt};

use super::rest::{self, rest};
use super::show::show;
use super::{At, Wrong};
use crate::error::Error;
use crate::filter::cel::constant;
use crate::filter::expression::{FILTER_NODES_MAX, Field, Filter, Test};
use crate::filter::front::native::{FIELDS, exact};
use crate::filter::number::{Bound, Number, Range};
use crate::filter::pattern::Regex;
use crate::rule::suggest;

pub(super) type Lowered<T> = Result<T, Box<Wrong>>;

/// How much of an expression an error shows, in bytes.
const SHOWN_BYTES_MAX: usize = 200;

pub(super) fn lower(e: &IdedExpr) -> Lowered<Filter> {
    Lower { nodes: 0 }.condition(e, true)
}

/// An error about an expression.
#[cold]
pub(super) fn wrong_at(e: &IdedExpr, message: impl Into<String>, remedy: impl Into<String>) -> Box<Wrong> {
    wrap(e, Error::invalid_config(message).remedy(remedy))
}

#[cold]
fn wrap(e: &IdedExpr, error: Error) -> Box<Wrong> {
    let mut ids = Vec::new();
    each(e, &mut |e| ids.push(e.id));
    Box::new(Wrong { at: At::Parts(ids), error })
}

/// A part of an expression that is not understood.
#[cold]
pub(super) fn refuse(e: &IdedExpr, why: &str, remedy: impl Into<String>) -> Box<Wrong> {
    wrong_at(e, format!("`{}` is not understood: {why}", shown(&show(e))), remedy)
}

/// A text as errors show it.
pub(super) fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let mut shown: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        shown.push('…');
    }
    shown
}

/// Calls `f` with an expression and all that it is made of.
fn each(e: &IdedExpr, f: &mut impl FnMut(&IdedExpr)) {
    f(e);
    match &e.expr {
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).for_each(|e| each(e, f)),
        Expr::Select(select) => each(&select.operand, f),
        Expr::List(list) => list.elements.iter().for_each(|e| each(e, f)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                    each(&entry.key, f);
                    each(&entry.value, f);
                }
            }
        }
        _ => {}
    }
}

/// What of the event an expression names.
pub(super) enum Named {
    Field(Field),
    /// All tags, metadata or data.
    Whole(Field),
}

/// A step behind `event`: its name, whether it is in brackets, and the expression up to it.
type Step<'e> = (&'e str, &'e IdedExpr);

/// The steps of a path from `event`, if the expression is one. `has(…)` of a path is the path.
fn path(e: &IdedExpr) -> Option<Vec<Step<'_>>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut at = e;
    loop {
        match &at.expr {
            Expr::Ident(name) if name == "event" => break,
            Expr::Select(select) if !select.test || steps.is_empty() => {
                steps.push((&select.field, at));
                at = &select.operand;
            }
            Expr::Call(CallExpr { target: None, func_name, args }) if func_name == op::INDEX => {
                let [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] = args.as_slice() else {
                    return None;
                };
                steps.push((name.inner(), at));
                at = of;
            }
            _ => return None,
        }
    }
    steps.reverse();
    Some(steps)
}

/// What of the event the expression names, if it is a path and nothing else.
pub(super) fn named(e: &IdedExpr) -> Lowered<Option<Named>> {
    let Some(steps) = path(e) else { return Ok(None) };
    let Some(((first, place), steps)) = steps.split_first() else {
        return Err(refuse(e, "it is the whole event", "write a field, such as `event.key`"));
    };
    let plain = FIELDS.iter().find(|f| f.name() == *first);
    Ok(Some(match (*first, steps) {
        (_, []) if plain.is_some() => Named::Field(plain.cloned().unwrap_or(Field::Key)),
        ("tags", [(name, _)]) => Named::Field(Field::Tag((*name).into())),
        ("metadata", [(name, _)]) => Named::Field(Field::metadata(name)),
        ("data", [_, ..]) if steps.len() <= super::super::PATH_STEPS_MAX => {
            Named::Field(Field::data(steps.iter().map(|s| s.0)))
        }
        ("tags", []) => Named::Whole(Field::Tag("".into())),
        ("metadata", []) => Named::Whole(Field::metadata("")),
        ("data", []) => Named::Whole(Field::data::<&str>([])),
        ("tags" | "metadata" | "data", _) => return Err(no_single_value(e)),
        _ if plain.is_some() => return Err(refuse(e, &format!("`{first}` has no members"), "leave them out")),
        _ => {
            let known = FIELDS.iter().map(Field::name).chain(["tags", "metadata", "data"]);
            let message = format!("unknown field `{}` of the event", shown(first));
            return Err(wrong_at(place, message, suggest("field", first, known)));
        }
    }))
}

#[cold]
fn no_single_value(e: &IdedExpr) -> Box<Wrong> {
    refuse(e, "it is no single value", "write one name behind it, as in `event.tags[\"name\"]`")
}

/// A value that is written out.
#[derive(Clone, Debug)]
enum Constant {
    Text(String),
    Number(Number),
    Time(Number),
    Bool(bool),
    Null,
    /// A list or a map.
    Many,
    /// Of another type.
    Odd,
}

/// What is compared.
enum Operand {
    Field(Field),
    Constant(Constant),
    /// All tags, metadata or data.
    Whole,
    /// What there is no test for.
    Other,
}

/// Whether the expression is `has(…)`.
fn is_has(e: &IdedExpr) -> bool {
    matches!(&e.expr, Expr::Select(select) if select.test)
}

fn operand(e: &IdedExpr) -> Lowered<Operand> {
    if let Some(named) = named(e)? {
        return Ok(match named {
            _ if is_has(e) => Operand::Other,
            Named::Field(field) => Operand::Field(field),
            Named::Whole(_) => Operand::Whole,
        });
    }
    let mut is_constant = true;
    each(e, &mut |e| is_constant &= !matches!(&e.expr, Expr::Ident(name) if name == "event"));
    if !is_constant {
        return Ok(Operand::Other);
    }
    rest::check(e)?;
    let value = constant(e, |value| {
        if let Some(text) = value.downcast_ref::<CelString>() {
            Constant::Text(text.inner().to_owned())
        } else if let Some(n) = value.downcast_ref::<CelInt>() {
            Constant::Number((*n.inner()).into())
        } else if let Some(n) = value.downcast_ref::<CelUInt>() {
            Constant::Number((*n.inner()).into())
        } else if let Some(n) = value.downcast_ref::<CelDouble>() {
            Number::float(*n.inner()).map_or(Constant::Odd, Constant::Number)
        } else if let Some(is) = value.downcast_ref::<CelBool>() {
            Constant::Bool(*is.inner())
        } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
            let (seconds, ns) = (i128::from(time.inner().timestamp()), time.inner().timestamp_subsec_nanos());
            Constant::Time(Number::Int(seconds * 1_000_000_000 + i128::from(ns)))
        } else if value.downcast_ref::<CelNull>().is_some() {
            Constant::Null
        } else if value.downcast_ref::<CelList>().is_some() || value.downcast_ref::<CelMap>().is_some() {
            Constant::Many
        } else {
            Constant::Odd
        }
    });
    value.map(Operand::Constant).map_err(|why| {
        let message = format!("`{}` has no value: {why}", shown(&show(e)));
        wrong_at(e, message, "write the value out")
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    fn of(name: &str) -> Option<Comparison> {
        Some(match name {
            op::EQUALS => Comparison::Equal,
            op::NOT_EQUALS => Comparison::NotEqual,
            op::LESS => Comparison::Less,
            op::LESS_EQUALS => Comparison::LessEqual,
            op::GREATER => Comparison::Greater,
            op::GREATER_EQUALS => Comparison::GreaterEqual,
            _ => return None,
        })
    }

    /// The same with its sides exchanged.
    fn turned(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessEqual => Comparison::GreaterEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterEqual => Comparison::LessEqual,
            same => same,
        }
    }
}

const METHODS: &[&str] = &["startsWith", "endsWith", "contains", "matches"];

struct Lower {
    nodes: usize,
}

impl Lower {
    fn spend(&mut self, e: &IdedExpr, nodes: usize) -> Lowered<()> {
        self.nodes += nodes;
        if self.nodes > FILTER_NODES_MAX {
            let message = format!("the filter has more than {FILTER_NODES_MAX} conditions");
            return Err(wrong_at(e, message, "split the rule, or use a wildcard in place of many values"));
        }
        Ok(())
    }

    /// What makes the expression true, or with `want` false, what makes it false.
    fn condition(&mut self, e: &IdedExpr, want: bool) -> Lowered<Filter> {
        if let Expr::Call(call) = &e.expr
            && call.target.is_none()
        {
            // A negation is none of the tree.
            if let (op::LOGICAL_NOT, [inner]) = (call.func_name.as_str(), call.args.as_slice()) {
                return self.condition(inner, !want);
            }
            self.spend(e, 1)?;
            match (call.func_name.as_str(), call.args.as_slice()) {
                (name @ (op::LOGICAL_AND | op::LOGICAL_OR), [_, _]) => {
                    let mut list = Vec::new();
                    flatten(name, e, &mut list);
                    let parts = list.iter().map(|e| self.condition(e, want)).collect::<Lowered<Vec<_>>>()?;
                    let each = (name == op::LOGICAL_AND) == want;
                    return Ok(if each { Filter::all(parts) } else { Filter::any(parts) });
                }
                (op::CONDITIONAL, [condition, then, otherwise]) => {
                    return Ok(Filter::any([
                        Filter::all([self.condition(condition, true)?, self.condition(then, want)?]),
                        Filter::all([self.condition(condition, false)?, self.condition(otherwise, want)?]),
                    ]));
                }
                _ => {}
            }
        } else {
            self.spend(e, 1)?;
        }
        if is_has(e)
            && let Some(named) = named(e)?
        {
            let Named::Field(field) = named else { return Err(no_single_value(e)) };
            return Ok(Filter::Is(field, if want { Test::Exists } else { Test::Absent }));
        }
        match operand(e)? {
            Operand::Field(field @ Field::Data(_)) => return Ok(Filter::Is(field, Test::Bool(want))),
            Operand::Field(field) => {
                let why = format!("`{field}` is no boolean");
                return Err(refuse(e, &why, "compare it, or ask for it with has()"));
            }
            Operand::Constant(Constant::Bool(b)) => {
                return Ok(if b == want { Filter::All(Vec::new()) } else { Filter::Any(Vec::new()) });
            }
            Operand::Constant(_) => {
                return Err(refuse(e, "it is no boolean", "compare it with a field of the event"));
            }
            Operand::Whole => return Err(no_single_value(e)),
            Operand::Other => {}
        }
        let lowered = match &e.expr {
            Expr::Call(call) => match (Comparison::of(&call.func_name), call.args.as_slice()) {
                (Some(comparison), [left, right]) if call.target.is_none() => {
                    self.compare(e, comparison, left, right, want)?
                }
                (None, [left, right]) if call.target.is_none() && call.func_name == op::IN => {
                    self.within(e, left, right, want)?
                }
                _ => self.call(e, call, want)?,
            },
            _ => None,
        };
        match lowered {
            Some(filter) => Ok(filter),
            None => {
                let rest = rest(e, want)?;
                self.spend(e, rest.nodes() - 1)?;
                Ok(Filter::Cel(rest))
            }
        }
    }

    /// `None` if there is no test for it, as for the two below.
    fn compare(
        &mut self,
        e: &IdedExpr,
        comparison: Comparison,
        left: &IdedExpr,
        right: &IdedExpr,
        want: bool,
    ) -> Lowered<Option<Filter>> {
        use Comparison::*;
        let (field, constant, comparison) = match (operand(left)?, operand(right)?) {
            (Operand::Field(field), Operand::Constant(constant)) => (field, constant, comparison),
            (Operand::Constant(constant), Operand::Field(field)) => (field, constant, comparison.turned()),
            (Operand::Whole, Operand::Constant(constant)) if !matches!(constant, Constant::Many) => {
                return Err(no_single_value(left));
            }
            (Operand::Constant(constant), Operand::Whole) if !matches!(constant, Constant::Many) => {
                return Err(no_single_value(right));
            }
            _ => return Ok(None),
        };
        if let Equal | NotEqual = comparison {
            if let (Field::Data(_), Constant::Many) = (&field, &constant) {
                return Ok(None);
            }
            let test = equal(e, &field, &constant)?;
            return Ok(Some(is(&field, &[test], want == (comparison == Equal), false)));
        }
        let n = match (&field, constant) {
            (Field::Time, Constant::Time(n)) => n,
            (Field::Size | Field::Hops | Field::Data(_), Constant::Number(n)) => n,
            (Field::Data(_), Constant::Text(_) | Constant::Bool(_)) => return Ok(None),
            (field, Constant::Text(_)) if field.is_text() => return Ok(None),
            _ => {
                let why = format!("`{field}` and this value have no order");
                let remedy = "compare numbers with numbers, texts with texts, and `event.time` with timestamp(\"…\")";
                return Err(refuse(e, &why, remedy));
            }
        };
        let (below, above) = (Bound::Excluded(n), Bound::Included(n));
        let (holds, does_not) = match comparison {
            Less | GreaterEqual => (Range { low: Bound::Open, high: below }, Range { low: above, high: Bound::Open }),
            _ => (Range { low: Bound::Open, high: above }, Range { low: below, high: Bound::Open }),
        };
        let (holds, does_not) = if let Less | LessEqual = comparison { (holds, does_not) } else { (does_not, holds) };
        let is = |range: Range| Filter::Is(field.clone(), Test::Number(range));
        Ok(Some(match (want, &field) {
            (true, _) => is(holds),
            // There may be several values.
            (false, Field::Data(_)) => Filter::all([is(does_not), is(holds).not()]),
            (false, _) => is(does_not),
        }))
    }

    fn within(&mut self, e: &IdedExpr, left: &IdedExpr, right: &IdedExpr, want: bool) -> Lowered<Option<Filter>> {
        let left_operand = operand(left)?;
        match named(right)? {
            Some(Named::Whole(whole)) => {
                let Operand::Constant(constant) = left_operand else { return Ok(None) };
                let Constant::Text(name) = constant else {
                    return Err(refuse(e, "names are texts", "write the name in quotes"));
                };
                let field = match whole {
                    Field::Tag(_) => Field::Tag(name.into()),
                    Field::Metadata(_) => Field::metadata(&name),
                    _ => Field::data([name]),
                };
                return Ok(Some(Filter::Is(field, if want { Test::Exists } else { Test::Absent })));
            }
            Some(Named::Field(Field::Data(_))) => return Ok(None),
            Some(Named::Field(_)) => {
                return Err(refuse(
                    e,
                    "what follows `in` is no list and no map",
                    "use contains() for a part of a text",
                ));
            }
            None => {}
        }
        let (Operand::Field(field), Expr::List(list)) = (left_operand, &right.expr) else {
            return match operand(right)? {
                Operand::Constant(Constant::Many) | Operand::Other | Operand::Whole => Ok(None),
                _ => Err(refuse(e, "what follows `in` is no list", "write a list in brackets")),
            };
        };
        let mut tests = Vec::new();
        for value in &list.elements {
            match operand(value)? {
                Operand::Constant(Constant::Many) if matches!(field, Field::Data(_)) => return Ok(None),
                Operand::Constant(constant) => tests.push(equal(value, &field, &constant)?),
                _ => return Ok(None),
            }
        }
        self.spend(e, tests.len())?;
        Ok(Some(is(&field, &tests, want, false)))
    }

    fn call(&mut self, e: &IdedExpr, call: &CallExpr, want: bool) -> Lowered<Option<Filter>> {
        let method = call.func_name.as_str();
        let (of, argument) = match (&call.target, call.args.as_slice()) {
            (Some(of), [argument]) if METHODS.contains(&method) => (&**of, argument),
            // The one that is a function too.
            (None, [of, argument]) if method == "matches" => (of, argument),
            _ => return Ok(None),
        };
        let (field, text) = match (operand(of)?, operand(argument)?) {
            (Operand::Field(field), _) if !field.is_text() => {
                return Err(refuse(e, &format!("`{field}` is no text"), "compare it with a number or a time"));
            }
            (Operand::Field(field), Operand::Constant(Constant::Text(text))) => (field, text),
            (_, Operand::Constant(constant)) if !matches!(constant, Constant::Text(_)) => {
                return Err(refuse(argument, "it is no text", "write a text in quotes"));
            }
            (_, Operand::Field(field)) if !field.is_text() => {
                return Err(refuse(argument, "it is no text", "make it one with string()"));
            }
            _ => return Ok(None),
        };
        let test = match method {
            "startsWith" => Test::prefix(text),
            "endsWith" => Test::suffix(text),
            "contains" => Test::contains(text),
            _ => Test::Regex(Regex::parse(&text, false).map_err(|error| wrap(argument, error))?),
        };
        Ok(Some(is(&field, &[test], want, true)))
    }
}

/// The operands of a chain of `&&` or `||`.
fn flatten<'e>(name: &str, e: &'e IdedExpr, out: &mut Vec<&'e IdedExpr>) {
    match &e.expr {
        Expr::Call(call) if call.target.is_none() && call.func_name == name => {
            call.args.iter().for_each(|e| flatten(name, e, out));
        }
        _ => out.push(e),
    }
}

/// The test that a field has a value.
fn equal(e: &IdedExpr, field: &Field, constant: &Constant) -> Lowered<Test> {
    Ok(match (field, constant) {
        (Field::Data(_), Constant::Text(text)) => Test::equals(text),
        (Field::Data(_) | Field::Size | Field::Hops, Constant::Number(n)) => Test::Number(Range::exactly(*n)),
        (Field::Data(_), Constant::Bool(b)) => Test::Bool(*b),
        (Field::Data(_), Constant::Null) => Test::Null,
        (Field::Time, Constant::Time(n)) => Test::Number(Range::exactly(*n)),
        (field, Constant::Text(text)) if field.is_text() => {
            let tests = exact(field, text.as_bytes()).map_err(|error| wrap(e, error))?;
            if tests != [Test::equals(text)] {
                let full = match tests.as_slice() {
                    [Test::Equals(full)] => format!("write \"{}\"", String::from_utf8_lossy(full)),
                    _ => "write startsWith() for a family of types".to_owned(),
                };
                return Err(refuse(e, "no type has this name", full));
            }
            Test::equals(text)
        }
        _ => {
            let why = format!("`{field}` never has such a value");
            let remedy = match field {
                Field::Time => "compare it with timestamp(\"…\")",
                f if f.is_number() => "compare it with a number",
                _ => "compare it with a text in quotes",
            };
            return Err(refuse(e, &why, remedy));
        }
    })
}

/// The field passes one of the tests, or is there and passes none. With `texts` what is no text is an error.
fn is(field: &Field, tests: &[Test], want: bool, texts: bool) -> Filter {
    let one = |test: &Test| Filter::Is(field.clone(), test.clone());
    if want {
        return Filter::any(tests.iter().map(one));
    }
    if tests.is_empty() {
        return Filter::Is(field.clone(), Test::Exists);
    }
    match field {
        // There may be several values, and of several types.
        Field::Data(_) => {
            let there = if texts { Test::prefix("") } else { Test::Exists };
            Filter::all([Filter::Is(field.clone(), there), Filter::any(tests.iter().map(one)).not()])
        }
        _ => Filter::Is(field.clone(), Test::NoneOf(tests.into())),
    }
}
