//! From text to the tree of the crate that parses.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators as op};
use cel::parser::pratt_parser::{Token, TokenKind};
use cel::parser::{ParseError, ParseErrors, PrattParser};

use super::check::check;
use super::{At, Wrong, wrong};
use crate::error::Error;
use crate::filter::expression::Field;

/// The expression, with names of metadata as events have them.
pub(super) fn parse(text: &str) -> Result<IdedExpr, Box<Wrong>> {
    let tokens = check(text)?;
    // Not `Program::compile`: that takes the other parser of the crate.
    let mut e = PrattParser::new().parse(text).map_err(|e| misread(text, &tokens, &e))?;
    name_metadata(&mut e);
    Ok(e)
}

/// The first error of the parser.
#[cold]
fn misread(text: &str, tokens: &[Token], errors: &ParseErrors) -> Box<Wrong> {
    let Some(first) = errors.errors.first() else {
        return wrong(0, "the expression is not understood", "correct it");
    };
    let at = offset(text, first);
    let token = tokens.iter().find(|t| t.end > at || t.kind == TokenKind::TokEnd);
    let found = match token {
        Some(t) if t.kind != TokenKind::TokEnd => {
            format!("`{}` stands", text.get(t.start..t.end).unwrap_or_default().escape_debug())
        }
        _ => "the expression ends".to_owned(),
    };
    let message = first.msg.as_str();
    let wanted = match message {
        "unexpected token" => "a value",
        m if m.ends_with("expecting expression") => "a value",
        m if m.ends_with("expecting <EOF>") => "the end",
        m if m.contains("has() macro") => {
            let remedy = "write `\"name\" in event.tags` for a name in brackets";
            return wrong(at, "has() takes a member behind a dot", remedy);
        }
        m if m.contains("escape") || m.contains("code point") => {
            let message = format!("{found}, a text with an escape that CEL does not have");
            return wrong(at, message, "write `\\\\` for a backslash, or r\"…\" for a text without escapes");
        }
        m if m.starts_with("invalid") => {
            return wrong(at, format!("{found}, which is no number of CEL"), "write a number of 64 bits");
        }
        m => m.strip_prefix("expected ").unwrap_or_default(),
    };
    if wanted.is_empty() {
        return wrong(at, format!("{found} and is not understood: {message}"), "correct the expression there");
    }
    wrong(at, format!("{found} where {wanted} should be"), "correct the expression there")
}

/// Writes names of metadata as events have them.
fn name_metadata(e: &mut IdedExpr) {
    let is_metadata = |e: &IdedExpr| match &e.expr {
        Expr::Select(s) => {
            !s.test && s.field == "metadata" && matches!(&s.operand.expr, Expr::Ident(name) if name == "event")
        }
        Expr::Call(c) if c.target.is_none() && c.func_name == op::INDEX => match c.args.as_slice() {
            [event, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] => {
                name.inner() == "metadata" && matches!(&event.expr, Expr::Ident(name) if name == "event")
            }
            _ => false,
        },
        _ => false,
    };
    let named = |name: &str| match Field::metadata(name) {
        Field::Metadata(name) => name.into_string(),
        _ => name.to_owned(),
    };
    match &mut e.expr {
        Expr::Select(select) => {
            if is_metadata(&select.operand) {
                select.field = named(&select.field);
            }
            name_metadata(&mut select.operand);
        }
        Expr::Call(call) => {
            let places = match (call.func_name.as_str(), call.args.as_mut_slice()) {
                (op::INDEX, [map, name]) | (op::IN, [name, map]) if call.target.is_none() => Some((map, name)),
                _ => None,
            };
            if let Some((map, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. })) = places
                && is_metadata(map)
            {
                *name = named(name.inner()).into();
            }
            call.target.iter_mut().for_each(|e| name_metadata(e));
            call.args.iter_mut().for_each(name_metadata);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(name_metadata),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| {
            if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                name_metadata(&mut entry.key);
                name_metadata(&mut entry.value);
            }
        }),
        _ => {}
    }
}

/// Where an error of the parser is.
fn offset(text: &str, e: &ParseError) -> usize {
    let (line, column) = (usize::try_from(e.pos.0).unwrap_or(1), usize::try_from(e.pos.1).unwrap_or(1));
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

/// Where each part of an expression stands. The parser tells it with errors only, so it is given one behind the end.
fn places(text: &str) -> Option<std::sync::Arc<SourceInfo>> {
    let wrong = PrattParser::new().parse(&format!("{text}\n)")).err()?;
    wrong.errors.into_iter().find_map(|e| e.source_info)
}

/// The error with its place.
pub(super) fn placed(text: &str, e: Wrong) -> Error {
    let at = match e.at {
        At::Offset(at) => at,
        At::Parts(ids) => {
            let places = places(text);
            let starts = places.iter().flat_map(|p| ids.iter().filter_map(|id| p.offset_for(*id)));
            starts.map(|(start, _)| start as usize).min().unwrap_or(0)
        }
    };
    let column = text[..text.floor_char_boundary(at)].chars().count() + 1;
    e.error.at(format!("cel, column {column}"))
}
