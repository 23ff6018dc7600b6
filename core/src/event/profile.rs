//! Records written from events: one file per profile.

use super::EventType;
use crate::error::{Error, Result};

/// How an event is written as a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// The `Records` document of S3.
    #[default]
    Aws,
    /// CloudEvents 1.0 in JSON.
    CloudEvents,
}

impl Profile {
    /// The profile of a name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] for an unknown name.
    pub fn parse(name: &str) -> Result<Profile> {
        match name {
            "aws" => Ok(Profile::Aws),
            "cloudevents" => Ok(Profile::CloudEvents),
            _ => Err(Error::invalid_config(format!("unknown profile `{name}`")).remedy("use `aws` or `cloudevents`")),
        }
    }

    /// The name that [`Profile::parse`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Aws => "aws",
            Profile::CloudEvents => "cloudevents",
        }
    }

    /// Whether events of this type can be written.
    pub fn expressible(self, event_type: EventType<'_>) -> bool {
        match self {
            Profile::Aws => event_type.name().starts_with("s3:"),
            Profile::CloudEvents => true,
        }
    }
}
