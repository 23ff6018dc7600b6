//! An expression and its evaluation.

use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, Value};

use super::values::Wanted;
use crate::filter::subject::Subject;

/// The functions of expressions. It never changes.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// The longest that what went wrong is told, in bytes.
const WHY_BYTES_MAX: usize = 200;

#[cfg(test)]
thread_local! {
    /// How many expressions this thread has evaluated.
    pub(in crate::filter) static EVALUATIONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How a function may be called.
#[derive(Clone, Copy, Debug)]
pub(in crate::filter) struct Function {
    pub(in crate::filter) name: &'static str,
    /// As `f(a)`.
    pub(in crate::filter) plain: bool,
    /// As `a.f(b)`, with so many arguments.
    pub(in crate::filter) method: &'static [usize],
    /// What it gives may be a boolean.
    pub(in crate::filter) is_bool: bool,
}

const fn function(name: &'static str, plain: bool, method: &'static [usize], is_bool: bool) -> Function {
    Function { name, plain, method, is_bool }
}

/// The functions of expressions.
pub(in crate::filter) const FUNCTIONS: &[Function] = &[
    function("size", true, &[0], false),
    function("int", true, &[], false),
    function("uint", true, &[], false),
    function("double", true, &[], false),
    function("string", true, &[], false),
    function("bytes", true, &[], false),
    function("bool", true, &[], true),
    function("dyn", true, &[], true),
    function("type", true, &[], false),
    function("timestamp", true, &[], false),
    function("duration", true, &[], false),
    function("startsWith", false, &[1], true),
    function("endsWith", false, &[1], true),
    function("contains", false, &[1], true),
    function("getFullYear", false, &[0, 1], false),
    function("getMonth", false, &[0, 1], false),
    function("getDate", false, &[0, 1], false),
    function("getDayOfMonth", false, &[0, 1], false),
    function("getDayOfWeek", false, &[0, 1], false),
    function("getDayOfYear", false, &[0, 1], false),
    function("getHours", false, &[0, 1], false),
    function("getMinutes", false, &[0, 1], false),
    function("getSeconds", false, &[0, 1], false),
    function("getMilliseconds", false, &[0, 1], false),
];

/// An expression whose names, functions and size have been checked.
pub(in crate::filter) struct Program {
    /// Written out of `expression`.
    pub(in crate::filter) text: Box<str>,
    pub(in crate::filter) expression: IdedExpr,
    /// The values of the event that it names.
    pub(in crate::filter) event: Wanted,
    pub(in crate::filter) nodes: usize,
    pub(in crate::filter) literal_bytes: usize,
}

impl Program {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) fn literal_bytes(&self) -> usize {
        self.literal_bytes
    }

    pub(super) fn bytes(&self) -> usize {
        // A node has a name and a list of what it is made of.
        size_of::<Program>() + 2 * self.text.len() + self.nodes * (size_of::<IdedExpr>() + 64)
    }

    /// Whether the expression is true or false of the event, or else why it is neither.
    pub(super) fn evaluate(&self, subject: &mut Subject<'_>) -> Result<bool, String> {
        #[cfg(test)]
        EVALUATIONS.set(EVALUATIONS.get() + 1);
        let event = self.event.of(subject)?;
        let mut context = Context::with_env(ENV.clone());
        context.add_variable_as_val("event", Box::new(event));
        match Value::resolve_val(&self.expression, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(is) => Ok(*is.inner()),
                None => Err("it is no boolean".to_owned()),
            },
            Err(e) => Err(told(&e)),
        }
    }
}

/// Evaluates an expression that does not name the event and whose functions have been checked.
///
/// # Errors
/// What went wrong, in words.
pub(in crate::filter) fn constant<T>(
    expression: &IdedExpr,
    read: impl FnOnce(CowVal<'_, '_>) -> T,
) -> Result<T, String> {
    let context = Context::with_env(ENV.clone());
    Value::resolve_val(expression, &context).map(read).map_err(|e| told(&e))
}

/// Errors may show values, which may be long.
#[cold]
fn told(e: &ExecutionError) -> String {
    let mut text: String = e.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > WHY_BYTES_MAX {
        text.truncate(text.floor_char_boundary(WHY_BYTES_MAX));
        text.push('…');
    }
    text
}
