//! From an expression back to its text: the same for all that are alike, and read again it is the same.

use std::fmt::Write as _;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};

/// How tight the parts of an expression hold together, from the loosest.
mod tight {
    pub(super) const CHOICE: u8 = 0;
    pub(super) const OR: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const RELATION: u8 = 3;
    pub(super) const SUM: u8 = 4;
    pub(super) const PRODUCT: u8 = 5;
    pub(super) const SIGN: u8 = 6;
    pub(super) const MEMBER: u8 = 7;
}

/// The sign of an operator between two operands, and how tight it holds.
pub(super) fn infix(name: &str) -> Option<(&'static str, u8)> {
    Some(match name {
        op::LOGICAL_OR => ("||", tight::OR),
        op::LOGICAL_AND => ("&&", tight::AND),
        op::EQUALS => ("==", tight::RELATION),
        op::NOT_EQUALS => ("!=", tight::RELATION),
        op::LESS => ("<", tight::RELATION),
        op::LESS_EQUALS => ("<=", tight::RELATION),
        op::GREATER => (">", tight::RELATION),
        op::GREATER_EQUALS => (">=", tight::RELATION),
        op::IN => ("in", tight::RELATION),
        op::ADD => ("+", tight::SUM),
        op::SUBSTRACT => ("-", tight::SUM),
        op::MULTIPLY => ("*", tight::PRODUCT),
        op::DIVIDE => ("/", tight::PRODUCT),
        op::MODULO => ("%", tight::PRODUCT),
        _ => return None,
    })
}

/// The text of an expression that was parsed.
pub(super) fn show(e: &IdedExpr) -> String {
    let mut out = String::new();
    write(e, tight::CHOICE, &mut out);
    out
}

/// Writes an expression where at least `wanted` must hold it together.
fn write(e: &IdedExpr, wanted: u8, out: &mut String) {
    let own = tightness(&e.expr);
    if own < wanted {
        out.push('(');
    }
    match &e.expr {
        Expr::Unspecified | Expr::Comprehension(_) => out.push('?'),
        Expr::Ident(name) => out.push_str(name),
        Expr::Literal(literal) => write_literal(literal, out),
        Expr::List(list) => {
            out.push('[');
            write_all(&list.elements, out);
            out.push(']');
        }
        Expr::Map(map) => {
            out.push('{');
            for (i, entry) in map.entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    write(&entry.key, tight::CHOICE, out);
                    out.push_str(": ");
                    write(&entry.value, tight::CHOICE, out);
                }
            }
            out.push('}');
        }
        Expr::Struct(of) => _ = write!(out, "{}{{}}", of.type_name),
        Expr::Select(select) => {
            out.push_str(if select.test { "has(" } else { "" });
            write(&select.operand, tight::MEMBER, out);
            out.push('.');
            out.push_str(&select.field);
            out.push_str(if select.test { ")" } else { "" });
        }
        Expr::Call(call) => write_call(call, own, out),
    }
    if own < wanted {
        out.push(')');
    }
}

fn tightness(e: &Expr) -> u8 {
    match e {
        Expr::Call(call) if call.target.is_none() => match (call.func_name.as_str(), call.args.len()) {
            (op::CONDITIONAL, 3) => tight::CHOICE,
            (op::LOGICAL_NOT | op::NEGATE, 1) => tight::SIGN,
            (name, 2) => infix(name).map_or(tight::MEMBER, |(_, tight)| tight),
            _ => tight::MEMBER,
        },
        // The sign of a number is a part of it, except where a member follows.
        Expr::Literal(LiteralValue::Int(n)) if *n.inner() < 0 => tight::SIGN,
        Expr::Literal(LiteralValue::Double(n)) if n.inner().is_sign_negative() => tight::SIGN,
        _ => tight::MEMBER,
    }
}

fn write_call(call: &CallExpr, own: u8, out: &mut String) {
    match (&call.target, call.func_name.as_str(), call.args.as_slice()) {
        (None, op::CONDITIONAL, [condition, then, otherwise]) => {
            write(condition, tight::OR, out);
            out.push_str(" ? ");
            write(then, tight::OR, out);
            out.push_str(" : ");
            write(otherwise, tight::CHOICE, out);
        }
        (None, name @ (op::LOGICAL_NOT | op::NEGATE), [operand]) => {
            out.push_str(if name == op::NEGATE { "-" } else { "!" });
            let mut written = String::new();
            write(operand, own, &mut written);
            // Two signs that follow one another are none, and a number takes the sign before it.
            if written.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '!')) {
                written = format!("({written})");
            }
            out.push_str(&written);
        }
        (None, op::INDEX, [of, index]) => {
            write(of, tight::MEMBER, out);
            out.push('[');
            write(index, tight::CHOICE, out);
            out.push(']');
        }
        (None, name, [left, right]) if infix(name).is_some() => {
            write(left, own, out);
            _ = write!(out, " {} ", infix(name).map_or("", |(sign, _)| sign));
            write(right, own + 1, out);
        }
        (target, name, arguments) => {
            if let Some(target) = target {
                write(target, tight::MEMBER, out);
                out.push('.');
            }
            out.push_str(name);
            out.push('(');
            write_all(arguments, out);
            out.push(')');
        }
    }
}

fn write_all(list: &[IdedExpr], out: &mut String) {
    for (i, e) in list.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        write(e, tight::CHOICE, out);
    }
}

fn write_literal(literal: &LiteralValue, out: &mut String) {
    _ = match literal {
        LiteralValue::Boolean(b) => write!(out, "{}", b.inner()),
        LiteralValue::Int(n) => write!(out, "{}", n.inner()),
        LiteralValue::UInt(n) => write!(out, "{}u", n.inner()),
        // With a point or an exponent, so that it stays a double.
        LiteralValue::Double(n) => write!(out, "{:?}", n.inner()),
        LiteralValue::Null => write!(out, "null"),
        LiteralValue::String(text) => return write_text(text.inner(), out),
        LiteralValue::Bytes(bytes) => {
            out.push_str("b\"");
            bytes.inner().iter().for_each(|b| _ = write!(out, "\\x{b:02x}"));
            write!(out, "\"")
        }
    };
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            c if c.is_control() => write!(out, "\\U{:08x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out.push('"');
}
