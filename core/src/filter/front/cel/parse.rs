//! From text to a tree of expressions.

use super::{Wrong, wrong};
use crate::filter::number::Number;

/// How deep brackets, negations, choices and chains of members may be nested.
const DEPTH_MAX: usize = 64;

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    /// Where it stands in the text.
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    Number(Number),
    Bool(bool),
    Null,
    Name(String),
    /// A member by its name; in brackets, or behind a dot.
    Member {
        of: Box<Expr>,
        name: String,
        in_brackets: bool,
    },
    /// A function, or a method of `of`.
    Call {
        of: Option<Box<Expr>>,
        name: String,
        arguments: Vec<Expr>,
    },
    List(Vec<Expr>),
    Not(Box<Expr>),
    /// Two or more.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Box<Expr>),
    Choice(Box<[Expr; 3]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(Number),
    Sign(&'static str),
    End,
}

const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/", "%",
    "{", "}",
];

type Parsed<T> = Result<T, Box<Wrong>>;

pub(super) fn parse(text: &str) -> Parsed<Expr> {
    let mut parser = Parser { text, at: 0, token: Token::End, start: 0, end: 0, last_end: 0, depth: 0 };
    parser.advance()?;
    let expression = parser.expression()?;
    match parser.token {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Behind the token.
    at: usize,
    token: Token,
    /// Where the token begins and ends.
    start: usize,
    end: usize,
    /// Where the token before it ends.
    last_end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(wrong(
                self.start,
                format!("the expression is nested more than {DEPTH_MAX} deep"),
                "simplify it",
            ));
        }
        let result = f(self)?;
        self.depth -= 1;
        Ok(result)
    }

    #[cold]
    fn unexpected(&self, wanted: &str) -> Box<Wrong> {
        let found = match &self.token {
            Token::End => "the expression ends".to_owned(),
            _ => format!("`{}` stands", self.text[self.start..self.end].escape_debug()),
        };
        wrong(self.start, format!("{found} where {wanted} should be"), "correct the expression there")
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(s) if s == sign)
    }

    fn take(&mut self, sign: &str) -> Parsed<bool> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.take(sign)? { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn expr(&self, start: usize, kind: Kind) -> Expr {
        Expr { kind, start, end: self.last_end }
    }

    /// `or ? expression : expression`.
    fn expression(&mut self) -> Parsed<Expr> {
        self.deeper(|p| {
            let start = p.start;
            let condition = p.or()?;
            if !p.take("?")? {
                return Ok(condition);
            }
            let then = p.or()?;
            p.expect(":")?;
            let otherwise = p.expression()?;
            Ok(p.expr(start, Kind::Choice(Box::new([condition, then, otherwise]))))
        })
    }

    fn or(&mut self) -> Parsed<Expr> {
        let start = self.start;
        let mut list = vec![self.and()?];
        while self.take("||")? {
            list.push(self.and()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { self.expr(start, Kind::Or(list)) })
    }

    fn and(&mut self) -> Parsed<Expr> {
        let start = self.start;
        let mut list = vec![self.relation()?];
        while self.take("&&")? {
            list.push(self.relation()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { self.expr(start, Kind::And(list)) })
    }

    fn relation(&mut self) -> Parsed<Expr> {
        let start = self.start;
        let mut left = self.sum()?;
        // More than one after another compares a boolean; that is refused later, and not nested any deeper here.
        for _ in 0..DEPTH_MAX {
            let comparison = match &self.token {
                Token::Sign("==") => Some(Comparison::Equal),
                Token::Sign("!=") => Some(Comparison::NotEqual),
                Token::Sign("<") => Some(Comparison::Less),
                Token::Sign("<=") => Some(Comparison::LessEqual),
                Token::Sign(">") => Some(Comparison::Greater),
                Token::Sign(">=") => Some(Comparison::GreaterEqual),
                Token::Name(name) if name == "in" => None,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = Box::new(self.sum()?);
            let kind = match comparison {
                Some(comparison) => Kind::Compare(comparison, Box::new(left), right),
                None => Kind::In(Box::new(left), right),
            };
            left = self.expr(start, kind);
        }
        Err(self.unexpected("the end"))
    }

    /// Sums of numbers that are written out; there is nothing else to add.
    fn sum(&mut self) -> Parsed<Expr> {
        self.arithmetic(&["+", "-"], |p| p.arithmetic(&["*", "/", "%"], Parser::unary))
    }

    fn arithmetic(&mut self, signs: &[&'static str], part: impl Fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let start = self.start;
        let mut left = part(self)?;
        while let Some(sign) = signs.iter().find(|s| self.is(s)) {
            self.advance()?;
            let right = part(self)?;
            let result = match (&left.kind, &right.kind) {
                (Kind::Number(a), Kind::Number(b)) => calculate(sign, *a, *b),
                _ => {
                    let shown = &self.text[start..self.last_end];
                    return Err(wrong(
                        start,
                        format!("`{shown}` is not understood: `{sign}` joins more than numbers"),
                        "calculate with numbers that are written out only",
                    ));
                }
            };
            let Some(n) = result else {
                let shown = &self.text[start..self.last_end];
                return Err(wrong(start, format!("`{shown}` is no number that can be compared"), "write the number"));
            };
            left = self.expr(start, Kind::Number(n));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.start;
        if self.take("!")? {
            let inner = self.deeper(Parser::unary)?;
            return Ok(self.expr(start, Kind::Not(Box::new(inner))));
        }
        if self.take("-")? {
            let inner = self.deeper(Parser::unary)?;
            let Kind::Number(n) = inner.kind else {
                return Err(wrong(start, "only numbers that are written out have a sign", "write the number"));
            };
            let n = match n {
                Number::Int(n) => Number::Int(-n),
                Number::Float(n) => Number::Float(-n),
            };
            return Ok(self.expr(start, Kind::Number(n)));
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let start = self.start;
        let mut left = self.primary()?;
        for _ in 0..DEPTH_MAX {
            if self.take(".")? {
                let Token::Name(name) = self.token.clone() else {
                    return Err(self.unexpected("a name"));
                };
                self.advance()?;
                let kind = if self.take("(")? {
                    Kind::Call { of: Some(Box::new(left)), name, arguments: self.list(")")? }
                } else {
                    Kind::Member { of: Box::new(left), name, in_brackets: false }
                };
                left = self.expr(start, kind);
            } else if self.take("[")? {
                let index = self.expression()?;
                self.expect("]")?;
                let Kind::Text(name) = index.kind else {
                    return Err(wrong(
                        index.start,
                        "an element by its number or a calculated name is not understood",
                        "write a name in quotes; a list in `event.data` stands for each of its elements",
                    ));
                };
                left = self.expr(start, Kind::Member { of: Box::new(left), name, in_brackets: true });
            } else {
                return Ok(left);
            }
        }
        Err(wrong(start, format!("more than {DEPTH_MAX} members follow one another"), "shorten the path"))
    }

    /// Expressions up to the closing bracket.
    fn list(&mut self, close: &str) -> Parsed<Vec<Expr>> {
        let mut list = Vec::new();
        while !self.take(close)? {
            if !list.is_empty() {
                self.expect(",")?;
                // A comma may follow the last one in a list.
                if close == "]" && self.take(close)? {
                    break;
                }
            }
            list.push(self.expression()?);
        }
        Ok(list)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.start;
        let token = std::mem::replace(&mut self.token, Token::End);
        let kind = match token {
            Token::Text(text) => {
                self.advance()?;
                Kind::Text(text)
            }
            Token::Number(n) => {
                self.advance()?;
                Kind::Number(n)
            }
            Token::Name(name) => {
                self.advance()?;
                match name.as_str() {
                    "true" => Kind::Bool(true),
                    "false" => Kind::Bool(false),
                    "null" => Kind::Null,
                    "in" => {
                        return Err(wrong(
                            start,
                            "`in` stands where a value should be",
                            "write what is to be in the list before it",
                        ));
                    }
                    _ if self.take("(")? => Kind::Call { of: None, name, arguments: self.list(")")? },
                    _ => Kind::Name(name),
                }
            }
            Token::Sign("(") => {
                self.advance()?;
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                self.advance()?;
                Kind::List(self.list("]")?)
            }
            Token::Sign("{") => {
                return Err(wrong(start, "maps and messages are not understood", "compare fields one by one"));
            }
            token => {
                self.token = token;
                return Err(self.unexpected("a value"));
            }
        };
        Ok(self.expr(start, kind))
    }

    /// Reads the next token.
    fn advance(&mut self) -> Parsed<()> {
        self.last_end = self.end;
        loop {
            let rest = &self.text[self.at..];
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len();
            self.at += blank;
            if !self.text[self.at..].starts_with("//") {
                break;
            }
            let rest = &self.text[self.at..];
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
        self.start = self.at;
        let rest = &self.text[self.at..];
        let mut chars = rest.chars();
        let first = chars.next();
        self.token = match first {
            None => Token::End,
            Some(c) if c.is_ascii_digit() => self.number()?,
            Some('.') if chars.next().is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            Some('"' | '\'') => self.text(false)?,
            Some('r' | 'R') if matches!(chars.clone().next(), Some('"' | '\'')) => {
                self.at += 1;
                self.text(true)?
            }
            Some('b' | 'B')
                if matches!(chars.clone().next(), Some('"' | '\''))
                    || matches!(chars.as_str().as_bytes(), [b'r' | b'R', b'"' | b'\'', ..]) =>
            {
                return Err(wrong(self.start, "bytes are not understood", "write a string"));
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.at += len;
                Token::Name(rest[..len].to_owned())
            }
            Some(c) => match SIGNS.iter().find(|s| rest.starts_with(**s)) {
                Some(sign) => {
                    self.at += sign.len();
                    Token::Sign(sign)
                }
                None => {
                    let message = format!("`{}` has no meaning here", c.escape_debug());
                    return Err(wrong(self.start, message, "correct the expression there"));
                }
            },
        };
        self.end = self.at;
        Ok(())
    }

    fn number(&mut self) -> Parsed<Token> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut len = 0;
        let sign_after_e = |len: usize| matches!(bytes[len], b'+' | b'-') && matches!(bytes[len - 1], b'e' | b'E');
        let hex = rest.starts_with("0x") || rest.starts_with("0X");
        while len < bytes.len()
            && (bytes[len].is_ascii_alphanumeric() || bytes[len] == b'.' || (!hex && len > 0 && sign_after_e(len)))
        {
            len += 1;
        }
        let text = &rest[..len];
        self.at += len;
        let whole = text.trim_end_matches(['u', 'U']);
        let number = if hex {
            u64::from_str_radix(&whole[2..], 16).ok().map(Number::from)
        } else if whole.bytes().all(|b| b.is_ascii_digit()) {
            whole.parse::<u64>().ok().map(Number::from)
        } else if whole.len() == text.len() && text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
            text.parse::<f64>().ok().and_then(Number::float)
        } else {
            None
        };
        let number =
            number.ok_or_else(|| wrong(self.start, format!("`{text}` is no number"), "write a number of CEL"))?;
        Ok(Token::Number(number))
    }

    fn text(&mut self, raw: bool) -> Parsed<Token> {
        let rest = &self.text[self.at..];
        let quote = &rest[..1];
        let long = quote.repeat(3);
        let close = if rest.starts_with(&long) { long.as_str() } else { quote };
        let mut out = String::new();
        let mut at = close.len();
        loop {
            let here = &rest[at..];
            if here.starts_with(close) {
                self.at += at + close.len();
                return Ok(Token::Text(out));
            }
            match here.chars().next() {
                Some('\\') if !raw => at += self.escape(here, self.at + at, &mut out)?,
                Some(c) if close.len() == 3 || !matches!(c, '\n' | '\r') => {
                    out.push(c);
                    at += c.len_utf8();
                }
                _ => return Err(wrong(self.start, "the string does not end", format!("write {close} behind it"))),
            }
        }
    }

    /// Reads an escape, and tells how long it is.
    fn escape(&self, text: &str, at: usize, out: &mut String) -> Parsed<usize> {
        let bad = || wrong(at, "the escape in the string is none of CEL's", "write `\\\\` for a backslash");
        let c = text[1..].chars().next().ok_or_else(bad)?;
        let mut code = |from: usize, digits: usize, radix: u32| {
            let digits = text.get(from..from + digits).filter(|d| d.bytes().all(|b| b.is_ascii_alphanumeric()));
            let code = digits.and_then(|d| u32::from_str_radix(d, radix).ok()).and_then(char::from_u32);
            out.push(code.ok_or_else(bad)?);
            Ok(from + digits.map_or(0, str::len))
        };
        let plain = match c {
            'x' | 'X' => return code(2, 2, 16),
            'u' => return code(2, 4, 16),
            'U' => return code(2, 8, 16),
            '0'..='3' => return code(1, 3, 8),
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '?' | '"' | '\'' | '`' => c,
            _ => return Err(bad()),
        };
        out.push(plain);
        Ok(2)
    }
}

fn calculate(sign: &str, a: Number, b: Number) -> Option<Number> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => {
            let n = match sign {
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "/" => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            // CEL has no larger ones.
            n.filter(|n| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(n)).map(Number::Int)
        }
        (Number::Float(a), Number::Float(b)) => Number::float(match sign {
            "+" => a + b,
            "-" => a - b,
            "*" => a * b,
            "/" => a / b,
            _ => return None,
        }),
        _ => None,
    }
}
