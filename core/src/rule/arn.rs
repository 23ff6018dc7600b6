//! From the ARN of a notification document to the name of a destination.
//!
//! Three forms are understood, tried in this order:
//! 1. an alias: the whole ARN, as the operator listed it (`[arns]` in the configuration file);
//! 2. `arn:tidewire:<service>:<region>:<account>:<destination>`: the last part names the destination, the parts between
//!    may hold anything or nothing;
//! 3. `arn:minio:sqs:<region>:<id>:<type>`: the destination is called like the id.

use std::collections::{BTreeSet, HashMap};

use super::place::{nearest, suggest};
use crate::error::{Error, Result};

/// The destinations that ARNs can reach, and the aliases of them.
#[derive(Clone, Debug, Default)]
pub struct Arns {
    destinations: BTreeSet<String>,
    aliases: HashMap<String, String>,
}

impl Arns {
    /// A table of these destinations and these aliases (whole ARN → destination).
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if an alias leads to a destination that is not there, or is empty.
    pub fn new<S: Into<String>>(
        destinations: impl IntoIterator<Item = S>,
        aliases: HashMap<String, String>,
    ) -> Result<Arns> {
        let destinations: BTreeSet<String> = destinations.into_iter().map(Into::into).collect();
        let arns = Arns { destinations, aliases };
        let mut sorted: Vec<_> = arns.aliases.iter().collect();
        sorted.sort();
        for (arn, name) in sorted {
            arns.check_alias(arn, name)?;
        }
        Ok(arns)
    }

    pub(crate) fn check_alias(&self, arn: &str, name: &str) -> Result<()> {
        if arn.is_empty() {
            return Err(Error::invalid_config("an ARN is empty").at("arns").remedy("write the whole ARN as the key"));
        }
        if !self.destinations.contains(name) {
            return Err(Error::invalid_config(format!("`{arn}` leads to unknown destination `{name}`"))
                .at("arns")
                .remedy(suggest("destination", name, self.destinations())));
        }
        Ok(())
    }

    pub(crate) fn has(&self, destination: &str) -> bool {
        self.destinations.contains(destination)
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &str> {
        self.destinations.iter().map(String::as_str)
    }

    /// The name of the destination that an ARN means.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the ARN and the nearest known destination.
    pub fn resolve(&self, arn: &str) -> Result<&str> {
        if let Some(name) = self.aliases.get(arn) {
            return Ok(name);
        }
        let parts: Vec<&str> = arn.split(':').collect();
        let name = match parts[..] {
            ["arn", "tidewire", _, _, _, name] => name,
            ["arn", "minio", "sqs", _, id, _] => id,
            _ => return Err(self.unknown(arn, parts[parts.len() - 1])),
        };
        self.destinations.get(name).map(String::as_str).ok_or_else(|| self.unknown(arn, name))
    }

    #[cold]
    fn unknown(&self, arn: &str, name: &str) -> Error {
        let error = Error::invalid_config(format!("ARN `{arn}` leads to no destination"));
        if self.destinations.is_empty() {
            return error.remedy("define a destination first");
        }
        if let Some(near) = nearest(arn, self.aliases.keys().map(String::as_str)).filter(|n| n.len() == arn.len()) {
            return error.remedy(format!("did you mean `{near}`?"));
        }
        match nearest(name, self.destinations()) {
            Some(near) if arn.starts_with("arn:tidewire:") => {
                error.remedy(format!("did you mean destination `{near}`?"))
            }
            Some(near) => {
                error.remedy(format!("if it means destination `{near}`, add \"{arn}\" = \"{near}\" to [arns]"))
            }
            None => error.remedy(format!(
                "add it to [arns], or write arn:tidewire:events:::NAME; {}",
                suggest("destination", name, self.destinations())
            )),
        }
    }
}
