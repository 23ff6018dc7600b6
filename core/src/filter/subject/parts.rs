//! The JSON data of an event, value by value.

use super::{DataMemory, DataNode, Subject, Value};
use crate::event::frame;

impl Subject<'_> {
    /// Reads the JSON data, for [`Subject::data_value`].
    pub(in crate::filter) fn read_data(&mut self) {
        self.data.read(self.frame.field(frame::Field::Data));
    }

    /// The JSON data as a whole, after [`Subject::read_data`]; none if there is none.
    pub(in crate::filter) fn data_value(&self) -> Option<DataValue<'_>> {
        (!self.data.nodes.is_empty()).then(|| self.data.value(0))
    }
}

/// A value of the data.
pub(in crate::filter) enum DataValue<'s> {
    Plain(Value<'s>),
    Array(Elements<'s>),
    Object(Members<'s>),
}

/// The elements of an array.
pub(in crate::filter) struct Elements<'s>(Parts<'s>);

/// The members of an object, with their names.
pub(in crate::filter) struct Members<'s>(Parts<'s>);

/// Values that follow one another.
struct Parts<'s> {
    memory: &'s DataMemory,
    at: usize,
    left: u32,
}

impl<'s> Parts<'s> {
    /// A value, the place of which is known.
    fn value(&mut self) -> DataValue<'s> {
        let at = self.at;
        self.at += self.memory.count(at);
        self.memory.value(at)
    }
}

impl<'s> Iterator for Elements<'s> {
    type Item = DataValue<'s>;

    fn next(&mut self) -> Option<DataValue<'s>> {
        self.0.left = self.0.left.checked_sub(1)?;
        Some(self.0.value())
    }
}

impl<'s> Iterator for Members<'s> {
    type Item = (&'s str, DataValue<'s>);

    fn next(&mut self) -> Option<(&'s str, DataValue<'s>)> {
        self.0.left = self.0.left.checked_sub(1)?;
        let name = match self.0.value() {
            DataValue::Plain(Value::Text(name)) => std::str::from_utf8(name).unwrap_or_default(),
            _ => "",
        };
        Some((name, self.0.value()))
    }
}

impl DataMemory {
    /// The value at `at`.
    fn value(&self, at: usize) -> DataValue<'_> {
        let parts = |left| Parts { memory: self, at: at + 1, left };
        DataValue::Plain(match self.nodes[at] {
            DataNode::Object(len, _) => return DataValue::Object(Members(parts(len))),
            DataNode::Array(len, _) => return DataValue::Array(Elements(parts(len))),
            DataNode::Text(start, len) => Value::Text(self.text(start, len)),
            DataNode::Number(n) => Value::Number(n),
            DataNode::Bool(b) => Value::Bool(b),
            DataNode::Null => Value::Null,
        })
    }
}
