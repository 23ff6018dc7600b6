//! From expressions to the tree of tests.
//!
//! An expression is true, false or an error. What makes it true and what makes it false are two filters, and an error is
//! that neither holds; `!` asks for the other one. So the three-valued logic of CEL is kept.

use super::parse::{Comparison, Expr, Kind};
use super::{Wrong, wrong};
use crate::filter::expression::{FILTER_NODES_MAX, Field, Filter, Test};
use crate::filter::front::native::{FIELDS, exact};
use crate::filter::front::time::parse_time;
use crate::filter::number::{Bound, Number, Range};
use crate::filter::pattern::Regex;
use crate::rule::suggest;

type Lowered<T> = Result<T, Box<Wrong>>;

pub(super) fn lower(text: &str, expression: &Expr) -> Lowered<Filter> {
    Lower { text, nodes: 0 }.condition(expression, true)
}

/// A value that is written out.
enum Constant<'e> {
    Text(&'e str),
    Number(Number),
    Time(Number),
    Bool(bool),
    Null,
}

struct Lower<'t> {
    text: &'t str,
    nodes: usize,
}

const METHODS: &[&str] = &["startsWith", "endsWith", "contains", "matches"];
const COMPREHENSIONS: &[&str] = &["all", "exists", "exists_one", "map", "filter", "existsOne"];

impl Lower<'_> {
    fn shown(&self, e: &Expr) -> String {
        self.text[e.start..e.end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    #[cold]
    fn refuse(&self, e: &Expr, why: &str, remedy: impl Into<String>) -> Box<Wrong> {
        wrong(e.start, format!("`{}` is not understood: {why}", self.shown(e)), remedy)
    }

    fn spend(&mut self, e: &Expr) -> Lowered<()> {
        self.nodes += 1;
        if self.nodes > FILTER_NODES_MAX {
            let message = format!("the filter has more than {FILTER_NODES_MAX} conditions");
            return Err(wrong(e.start, message, "split the rule, or use a wildcard in place of many values"));
        }
        Ok(())
    }

    /// What makes the expression true, or with `want` false, what makes it false.
    fn condition(&mut self, e: &Expr, want: bool) -> Lowered<Filter> {
        self.spend(e)?;
        match &e.kind {
            Kind::Bool(b) => Ok(if *b == want { Filter::All(Vec::new()) } else { Filter::Any(Vec::new()) }),
            Kind::Not(inner) => self.condition(inner, !want),
            Kind::And(list) | Kind::Or(list) => {
                let parts = list.iter().map(|e| self.condition(e, want)).collect::<Lowered<Vec<_>>>()?;
                let each = matches!(e.kind, Kind::And(_)) == want;
                Ok(if each { Filter::all(parts) } else { Filter::any(parts) })
            }
            Kind::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                Ok(Filter::any([
                    Filter::all([self.condition(condition, true)?, self.condition(then, want)?]),
                    Filter::all([self.condition(condition, false)?, self.condition(otherwise, want)?]),
                ]))
            }
            Kind::Compare(comparison, left, right) => self.compare(e, *comparison, left, right, want),
            Kind::In(left, right) => self.within(e, left, right, want),
            Kind::Call { of, name, arguments } => self.call(e, of.as_deref(), name, arguments, want),
            Kind::Name(_) | Kind::Member { .. } => match self.field(e)? {
                field @ Field::Data(_) => Ok(Filter::Is(field, Test::Bool(want))),
                field => {
                    let message = format!("`{field}` is no boolean");
                    Err(self.refuse(e, &message, "compare it, or ask for it with has()"))
                }
            },
            Kind::Text(_) | Kind::Number(_) | Kind::Null | Kind::List(_) => {
                Err(self.refuse(e, "it is no boolean", "compare it with a field of the event"))
            }
        }
    }

    /// The field that an expression names.
    fn field(&self, e: &Expr) -> Lowered<Field> {
        // From the outside to `event`.
        let mut steps: Vec<(&str, bool, &Expr)> = Vec::new();
        let mut at = e;
        while let Kind::Member { of, name, in_brackets } = &at.kind {
            steps.push((name, *in_brackets, at));
            at = of;
        }
        match &at.kind {
            Kind::Name(name) if name == "event" => {}
            Kind::Name(name) => {
                let message = format!("unknown name `{name}`");
                let remedy = "fields are those of `event`, as in `event.key`";
                return Err(wrong(at.start, message, remedy));
            }
            _ => return Err(self.refuse(e, "it is no field of the event", "write a field, such as `event.key`")),
        }
        let Some((first, _, place)) = steps.pop() else {
            return Err(self.refuse(e, "it is the whole event", "write a field, such as `event.key`"));
        };
        steps.reverse();
        let plain = FIELDS.iter().find(|f| f.name() == first);
        match (first, steps.as_slice()) {
            (_, []) if plain.is_some() => Ok(plain.cloned().unwrap_or(Field::Key)),
            ("tags", [(name, ..)]) => Ok(Field::Tag((*name).into())),
            ("metadata", [(name, ..)]) => Ok(Field::metadata(name)),
            ("data", [_, ..]) if steps.len() <= super::super::PATH_STEPS_MAX => {
                Ok(Field::data(steps.iter().map(|s| s.0)))
            }
            ("tags" | "metadata" | "data", _) => {
                let remedy = format!("write a name behind it, as in `event.{first}[\"name\"]`");
                Err(self.refuse(e, "it is no single value", remedy))
            }
            _ if plain.is_some() => Err(self.refuse(e, &format!("`{first}` has no members"), "leave them out")),
            _ => {
                let known = FIELDS.iter().map(Field::name).chain(["tags", "metadata", "data"]);
                let message = format!("unknown field `{first}` of the event");
                Err(wrong(place.start, message, suggest("field", first, known)))
            }
        }
    }

    /// The value of an expression that is written out.
    fn constant<'e>(&self, e: &'e Expr) -> Lowered<Option<Constant<'e>>> {
        Ok(Some(match &e.kind {
            Kind::Text(text) => Constant::Text(text),
            Kind::Number(n) => Constant::Number(*n),
            Kind::Bool(b) => Constant::Bool(*b),
            Kind::Null => Constant::Null,
            Kind::Call { of: None, name, arguments } if name == "timestamp" => match arguments.as_slice() {
                [Expr { kind: Kind::Text(text), .. }] => match parse_time(text) {
                    Some(time) => Constant::Time(time),
                    None => return Err(self.refuse(e, "it is no time", "write it as \"2026-05-04T10:00:00Z\"")),
                },
                _ => return Err(self.refuse(e, "it is no time", "write one text in quotes")),
            },
            _ => return Ok(None),
        }))
    }

    fn compare(&mut self, e: &Expr, comparison: Comparison, left: &Expr, right: &Expr, want: bool) -> Lowered<Filter> {
        use Comparison::*;
        let (field, constant, comparison) = match (self.constant(left)?, self.constant(right)?) {
            (None, Some(constant)) => (self.field(left)?, constant, comparison),
            (Some(constant), None) => {
                let turned = match comparison {
                    Less => Greater,
                    LessEqual => GreaterEqual,
                    Greater => Less,
                    GreaterEqual => LessEqual,
                    same => same,
                };
                (self.field(right)?, constant, turned)
            }
            _ => {
                let why = "one side must be a field and the other a value";
                return Err(self.refuse(e, why, "compare a field with a value that is written out"));
            }
        };
        if let Equal | NotEqual = comparison {
            let test = self.equal(e, &field, &constant)?;
            return Ok(is(&field, &[test], want == (comparison == Equal), false));
        }
        let n = match (&field, constant) {
            (Field::Time, Constant::Time(n)) => n,
            (Field::Size | Field::Hops | Field::Data(_), Constant::Number(n)) => n,
            _ => {
                let why = format!("`{field}` and this value have no order");
                return Err(self.refuse(
                    e,
                    &why,
                    "compare numbers with numbers, and `event.time` with timestamp(\"…\")",
                ));
            }
        };
        let (below, above) = (Bound::Excluded(n), Bound::Included(n));
        let range = match (comparison, want) {
            (Less, true) | (GreaterEqual, false) => Range { low: Bound::Open, high: below },
            (LessEqual, true) | (Greater, false) => Range { low: Bound::Open, high: above },
            (Greater, true) | (LessEqual, false) => Range { low: below, high: Bound::Open },
            _ => Range { low: above, high: Bound::Open },
        };
        Ok(Filter::Is(field, Test::Number(range)))
    }

    /// The test that a field has a value.
    fn equal(&self, e: &Expr, field: &Field, constant: &Constant<'_>) -> Lowered<Test> {
        Ok(match (field, constant) {
            (Field::Data(_), Constant::Text(text)) => Test::equals(text),
            (Field::Data(_) | Field::Size | Field::Hops, Constant::Number(n)) => Test::Number(Range::exactly(*n)),
            (Field::Data(_), Constant::Bool(b)) => Test::Bool(*b),
            (Field::Data(_), Constant::Null) => Test::Null,
            (Field::Time, Constant::Time(n)) => Test::Number(Range::exactly(*n)),
            (field, Constant::Text(text)) if field.is_text() => {
                let tests = exact(field, text.as_bytes()).map_err(|error| Box::new(Wrong { at: e.start, error }))?;
                if tests != [Test::equals(text)] {
                    let full = match tests.as_slice() {
                        [Test::Equals(full)] => format!("write \"{}\"", String::from_utf8_lossy(full)),
                        _ => "write startsWith() for a family of types".to_owned(),
                    };
                    return Err(self.refuse(e, "no type has this name", full));
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
                return Err(self.refuse(e, &why, remedy));
            }
        })
    }

    fn within(&mut self, e: &Expr, left: &Expr, right: &Expr, want: bool) -> Lowered<Filter> {
        if let (Kind::Text(name), Kind::Member { of, name: map, .. }) = (&left.kind, &right.kind)
            && matches!(&of.kind, Kind::Name(event) if event == "event")
        {
            let field = match map.as_str() {
                "tags" => Field::Tag(name.as_str().into()),
                "metadata" => Field::metadata(name),
                "data" => Field::data([name]),
                _ => return Err(self.refuse(e, "this is no map", "use contains() for a part of a text")),
            };
            return Ok(Filter::Is(field, if want { Test::Exists } else { Test::Absent }));
        }
        let Kind::List(list) = &right.kind else {
            let remedy = "write a list in brackets; a list in `event.data` stands for each of its elements, so compare it with ==";
            return Err(self.refuse(e, "what follows `in` is no list", remedy));
        };
        let field = self.field(left)?;
        let mut tests = Vec::new();
        for value in list {
            self.spend(value)?;
            let Some(constant) = self.constant(value)? else {
                return Err(self.refuse(value, "it is no value", "write the elements of the list out"));
            };
            tests.push(self.equal(value, &field, &constant)?);
        }
        Ok(is(&field, &tests, want, false))
    }

    fn call(&mut self, e: &Expr, of: Option<&Expr>, name: &str, arguments: &[Expr], want: bool) -> Lowered<Filter> {
        if COMPREHENSIONS.contains(&name) {
            let remedy = "a list in `event.data` stands for each of its elements: compare it directly";
            return Err(self.refuse(e, "comprehensions are not", remedy));
        }
        match (of, name, arguments) {
            (None, "has", [member]) => {
                if let Kind::Member { in_brackets: true, name, .. } = &member.kind {
                    let remedy = format!("write `\"{}\" in …`", name.escape_debug());
                    return Err(self.refuse(e, "has() takes a member behind a dot", remedy));
                }
                let field = self.field(member)?;
                Ok(Filter::Is(field, if want { Test::Exists } else { Test::Absent }))
            }
            (Some(of), method, [argument]) if METHODS.contains(&method) => {
                let Kind::Text(text) = &argument.kind else {
                    return Err(self.refuse(argument, "it is no text", "write a text in quotes"));
                };
                let field = self.field(of)?;
                if !field.is_text() {
                    let why = format!("`{field}` is no text");
                    return Err(self.refuse(e, &why, "compare it with a number or a time"));
                }
                let test = match method {
                    "startsWith" => Test::prefix(text),
                    "endsWith" => Test::suffix(text),
                    "contains" => Test::contains(text),
                    _ => {
                        let regex = Regex::parse(text, false);
                        Test::Regex(regex.map_err(|error| Box::new(Wrong { at: argument.start, error }))?)
                    }
                };
                Ok(is(&field, &[test], want, true))
            }
            _ => {
                let known = METHODS.iter().copied().chain(["has", "timestamp"]);
                let right = METHODS.contains(&name) || name == "has";
                let remedy = if right { "give it one argument".to_owned() } else { suggest("function", name, known) };
                Err(self.refuse(e, "there is no such function", remedy))
            }
        }
    }
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
