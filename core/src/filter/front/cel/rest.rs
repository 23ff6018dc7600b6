//! What of an expression is left to be evaluated: its names, functions and size are checked, and the values of the event
//! that it names are noted.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};

use super::check::MACROS;
use super::lower::{Lowered, Named, named, refuse, shown, wrong_at};
use super::show::{infix, show};
use crate::filter::cel::{Cel, FUNCTIONS, Program, Wanted};
use crate::filter::expression::{FILTER_NODES_MAX, FILTER_TEXT_BYTES_MAX};
use crate::rule::suggest;

/// How much sums may copy: of each sum, how many parts it is made of, all added up. What they copy of an event is at most so
/// many times as large as that.
const COPIES_MAX: usize = 256;

/// How deep what is evaluated may be nested: the interpreter calls itself, and takes up to 64 KiB of stack each time where it
/// is compiled without optimisation.
const EVALUATED_DEPTH_MAX: usize = 16;

/// The types, which are values too.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The condition that an expression is true, or with `wanted` false, where no tests can be made of it.
pub(super) fn rest(e: &IdedExpr, wanted: bool) -> Lowered<Cel> {
    if is_no_boolean(e) {
        return Err(refuse(e, "it is no boolean", "compare it with something"));
    }
    let rest = check(e)?;
    let text = show(e).into_boxed_str();
    let Rest { event, nodes, literal_bytes, .. } = rest;
    Ok(Cel::new(Program { text, expression: e.clone(), event, nodes, literal_bytes }, wanted))
}

/// Checks an expression that is evaluated.
pub(super) fn check(e: &IdedExpr) -> Lowered<Rest> {
    let mut rest = Rest::default();
    rest.walk(e, 0)?;
    Ok(rest)
}

/// Whether the expression gives another type, whatever the event is.
fn is_no_boolean(e: &IdedExpr) -> bool {
    match &e.expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) => true,
        Expr::Call(call) => match call.func_name.as_str() {
            op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO | op::NEGATE => true,
            name => FUNCTIONS.iter().any(|f| f.name == name && !f.is_bool),
        },
        _ => false,
    }
}

#[derive(Default)]
pub(super) struct Rest {
    event: Wanted,
    nodes: usize,
    literal_bytes: usize,
    copies: usize,
}

impl Rest {
    /// Answers how many parts the expression has that are not made of others.
    fn walk(&mut self, e: &IdedExpr, depth: usize) -> Lowered<usize> {
        self.nodes += 1;
        if self.nodes > FILTER_NODES_MAX {
            let message = format!("the filter has more than {FILTER_NODES_MAX} conditions and parts of expressions");
            return Err(wrong_at(e, message, "split the rule"));
        }
        if depth > EVALUATED_DEPTH_MAX {
            let message = format!("what is evaluated is nested more than {EVALUATED_DEPTH_MAX} deep");
            return Err(wrong_at(e, message, "simplify it, or join its parts with && and ||"));
        }
        if let Some(field) = named(e)? {
            match field {
                Named::Field(field) | Named::Whole(field) => self.event.add(&field),
            }
            return Ok(1);
        }
        let depth = depth + 1;
        Ok(match &e.expr {
            Expr::Literal(literal) => {
                let bytes = match literal {
                    LiteralValue::String(text) => text.inner().len(),
                    LiteralValue::Bytes(bytes) => bytes.inner().len(),
                    _ => 0,
                };
                if bytes > FILTER_TEXT_BYTES_MAX {
                    let message = format!("the text has {bytes} bytes, more than {FILTER_TEXT_BYTES_MAX}");
                    return Err(wrong_at(e, message, "shorten it"));
                }
                self.literal_bytes = self.literal_bytes.max(bytes);
                1
            }
            Expr::Ident(name) if TYPES.contains(&name.as_str()) => 1,
            Expr::Ident(name) => return Err(unknown_name(e, name)),
            Expr::Select(select) => self.walk(&select.operand, depth)?,
            Expr::List(list) => self.all(&list.elements, depth)?,
            Expr::Map(map) => {
                let mut leaves = 1;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(refuse(e, "messages are not", "write a map"));
                    };
                    leaves += self.walk(&entry.key, depth)? + self.walk(&entry.value, depth)?;
                }
                leaves
            }
            Expr::Call(call) => {
                self.check_call(e, call)?;
                let target = call.target.as_deref().map_or(Ok(0), |target| self.walk(target, depth))?;
                let leaves = target + self.all(&call.args, depth)?;
                if call.func_name == op::ADD {
                    self.copies += leaves;
                    if self.copies > COPIES_MAX {
                        return Err(refuse(e, "it is made of too many sums", "add up fewer values"));
                    }
                }
                leaves
            }
            Expr::Struct(_) => return Err(refuse(e, "messages are not", "compare fields one by one")),
            Expr::Comprehension(_) | Expr::Unspecified => {
                return Err(refuse(e, "comprehensions are not", "compare elements one by one"));
            }
        })
    }

    fn all(&mut self, list: &[IdedExpr], depth: usize) -> Lowered<usize> {
        list.iter().try_fold(1, |leaves, e| Ok(leaves + self.walk(e, depth)?))
    }

    fn check_call(&self, e: &IdedExpr, call: &CallExpr) -> Lowered<()> {
        let name = call.func_name.as_str();
        let arguments = call.args.len();
        let is_operator = call.target.is_none()
            && match name {
                op::CONDITIONAL => arguments == 3,
                op::LOGICAL_NOT | op::NEGATE => arguments == 1,
                op::INDEX => arguments == 2,
                name => arguments == 2 && infix(name).is_some(),
            };
        if is_operator {
            return Ok(());
        }
        if MACROS.contains(&name) {
            let remedy = "a list in `event.data` stands for each of its elements: compare it directly";
            return Err(refuse(e, "comprehensions are not", remedy));
        }
        if name == "matches" {
            let remedy = "let it be a condition of its own, of a field and a text that is written out";
            return Err(refuse(e, "regular expressions are not evaluated", remedy));
        }
        let Some(known) = FUNCTIONS.iter().find(|f| f.name == name) else {
            let names = FUNCTIONS.iter().map(|f| f.name).chain(["has", "matches"]);
            let mut remedy = suggest("function", name, names);
            if name == "has" {
                remedy = "write has() with one member behind a dot".to_owned();
            }
            return Err(refuse(e, "there is no such function", remedy));
        };
        let fits = match &call.target {
            None => known.plain && arguments == 1,
            Some(_) => known.method.contains(&arguments),
        };
        if fits {
            return Ok(());
        }
        let remedy = match (known.plain, known.method) {
            (true, []) => format!("write {name}(…), with one argument"),
            (true, _) => format!("write {name}(…), with one argument, or ….{name}()"),
            (false, [1]) => format!("write ….{name}(…), with one argument"),
            (false, _) => format!("write ….{name}(), or with the name of a time zone"),
        };
        Err(refuse(e, "the function is not called so", remedy))
    }
}

#[cold]
fn unknown_name(e: &IdedExpr, name: &str) -> Box<super::Wrong> {
    let name = shown(name);
    wrong_at(e, format!("unknown name `{name}`"), "fields are those of `event`, as in `event.key`")
}
