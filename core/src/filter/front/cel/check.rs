//! What is looked at before an expression is parsed: that its signs are known, its brackets match, it is not nested too deep
//! for a parser that calls itself, and it has no macros but `has`.

use cel::parser::pratt_parser::{Lexer, Token, TokenKind};

use super::{Wrong, wrong};

/// How deep brackets, signs, choices and chains of members may be nested, all together.
pub(super) const DEPTH_MAX: usize = 64;

/// Macros that go through lists and maps, or name values.
pub(super) const MACROS: &[&str] = &[
    "all",
    "exists",
    "exists_one",
    "existsOne",
    "filter",
    "map",
    "bind",
    "block",
    "sortBy",
    "transformList",
    "transformMap",
    "transformMapEntry",
];

/// Whether the token begins with a bracket that is closed later, and by which.
fn closes(kind: TokenKind) -> Option<TokenKind> {
    Some(match kind {
        TokenKind::TokLeftParen => TokenKind::TokRightParen,
        TokenKind::TokLeftBracket => TokenKind::TokRightBracket,
        TokenKind::TokLeftBrace => TokenKind::TokRightBrace,
        _ => return None,
    })
}

/// What stands between two brackets.
#[derive(Clone, Copy)]
struct Level {
    opened: Token,
    /// How deep it is itself.
    depth: usize,
    /// Each choice has the rest in it.
    choices: usize,
    /// Signs that may be nested in one another.
    signs: usize,
    /// Members that follow one another.
    members: usize,
}

impl Level {
    fn new(opened: Token, depth: usize) -> Level {
        Level { opened, depth, choices: 0, signs: 0, members: 0 }
    }

    fn deepest(&self) -> usize {
        self.depth + self.choices + self.signs + self.members
    }

    /// What comes next is nested in nothing that came before but the choices.
    fn next(&mut self) {
        (self.signs, self.members) = (0, 0);
    }
}

/// The tokens of an expression that a parser may read, without blanks and remarks; the last one is the end.
pub(super) fn check(text: &str) -> Result<Vec<Token>, Box<Wrong>> {
    let mut lexer = Lexer::new(text);
    let mut tokens: Vec<Token> = Vec::new();
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::new(Token::default(), 0);
    loop {
        let token = lexer.lex();
        let written = text.get(token.start..token.end).unwrap_or_default();
        let before = tokens.last().copied();
        match token.kind {
            TokenKind::TokWhitespace | TokenKind::TokComment => continue,
            TokenKind::TokError => {
                let message = lexer.get_error().map_or("", |e| e.message.as_str());
                return Err(unknown(text, token, message));
            }
            TokenKind::TokEnd => {
                tokens.push(token);
                break;
            }
            kind if closes(kind).is_some() => {
                if kind == TokenKind::TokLeftParen {
                    refuse_macro(text, before)?;
                }
                level.members += usize::from(kind == TokenKind::TokLeftBracket);
                let depth = level.deepest() + 1;
                outer.push(level);
                level = Level::new(token, depth);
            }
            TokenKind::TokRightParen | TokenKind::TokRightBracket | TokenKind::TokRightBrace => {
                if closes(level.opened.kind) != Some(token.kind) {
                    let message = format!("`{written}` closes nothing");
                    return Err(wrong(token.start, message, "correct the brackets"));
                }
                level = outer.pop().unwrap_or(level);
            }
            TokenKind::TokComma => {
                level.choices = 0;
                level.next();
            }
            TokenKind::TokColon | TokenKind::TokLogicalAnd | TokenKind::TokLogicalOr => level.next(),
            TokenKind::TokQuestion => {
                level.choices += 1;
                level.next();
            }
            TokenKind::TokDot => level.members += 1,
            TokenKind::TokIdent
            | TokenKind::TokReservedWord
            | TokenKind::TokNull
            | TokenKind::TokTrue
            | TokenKind::TokFalse
            | TokenKind::TokInt
            | TokenKind::TokUint
            | TokenKind::TokFloat
            | TokenKind::TokString
            | TokenKind::TokBytes => {}
            // Everything else is a sign.
            _ => {
                level.signs += 1;
                level.members = 0;
            }
        }
        if level.deepest() > DEPTH_MAX {
            let message = format!("the expression is nested more than {DEPTH_MAX} deep");
            return Err(wrong(token.start, message, "simplify it"));
        }
        tokens.push(token);
    }
    if let Some(close) = closes(level.opened.kind) {
        let message = format!("the expression ends where `{}` should be", close.as_str());
        return Err(wrong(text.len(), message, "close the bracket"));
    }
    Ok(tokens)
}

/// Whether what stands before an opening parenthesis is the name of a macro.
fn refuse_macro(text: &str, name: Option<Token>) -> Result<(), Box<Wrong>> {
    let Some(name) = name.filter(|t| t.kind == TokenKind::TokIdent) else { return Ok(()) };
    let written = text.get(name.start..name.end).unwrap_or_default();
    if !MACROS.contains(&written) {
        return Ok(());
    }
    let message = format!("`{written}()` is not understood: comprehensions and macros are not, except has()");
    Err(wrong(name.start, message, "a list in `event.data` stands for each of its elements: compare it directly"))
}

/// What is no token.
#[cold]
fn unknown(text: &str, token: Token, message: &str) -> Box<Wrong> {
    let rest = text.get(token.start..).unwrap_or_default();
    let first = rest.chars().next().unwrap_or_default();
    let (message, remedy) = match message {
        m if m.starts_with("unterminated") && first == '`' => ("the name does not end".to_owned(), "add a `"),
        m if m.starts_with("unterminated") => ("the text does not end".to_owned(), "add the quote at its end"),
        m if first.is_ascii_digit() || first == '.' => {
            let written = text.get(token.start..token.end).unwrap_or_default();
            (format!("`{written}` is no number: {m}"), "write a number of CEL")
        }
        _ => (format!("`{}` has no meaning here", first.escape_debug()), "correct the expression there"),
    };
    wrong(token.start, message, remedy)
}
