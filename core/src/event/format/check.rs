//! What of a format goes together.

use super::{Encoding, Escape, Format};
use crate::error::{Error, Result};
use crate::event::profile::{Choice, Profile};
use crate::rule::{check_header, within};

const RECORD_BYTES_MIN: usize = 1024;
const RECORD_BYTES_LARGEST: usize = 16 << 20;
const NAMES_MAX: usize = 1000;
const HEADER_TEMPLATES_MAX: usize = 32;

/// The profiles that have records in JSON lines, and in XML.
const OF_LINES: [Profile; 6] =
    [Profile::Aws, Profile::Minio, Profile::Ceph, Profile::EventBridge, Profile::CloudEvents, Profile::Debezium];
const OF_XML: [Profile; 5] =
    [Profile::Aws, Profile::Minio, Profile::Ceph, Profile::CloudEvents, Profile::CloudEventsStructured];

impl Format {
    /// Checks that it can be used with a profile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the field and the remedy.
    pub fn validate(&self, profile: Profile) -> Result<()> {
        let list: &[Profile] = match self.encoding {
            Encoding::Json => Profile::ALL,
            Encoding::NdJson => &OF_LINES,
            Encoding::Xml => &OF_XML,
        };
        if self.template.is_none() && !list.contains(&profile) {
            let names: Vec<&str> = list.iter().map(|p| p.name()).collect();
            let what = format!("profile `{profile}` has no records in the encoding `{}`", self.encoding.name());
            let remedy = format!("leave `encoding` out, or use one of the profiles {}", names.join(", "));
            return Err(Error::invalid_config(what).at("encoding").remedy(remedy));
        }
        if self.template.is_some() && self.encoding == Encoding::Xml {
            return Err(Error::invalid_config("a template decides itself what it writes")
                .at("encoding")
                .remedy("leave `encoding` out, and give the template `escape = \"xml\"` and a `content_type`"));
        }
        if self.encoding == Encoding::NdJson && !self.header_templates.is_empty() {
            return Err(Error::invalid_config("headers made from an event need a request for each event")
                .at("header_templates")
                .remedy("leave them out, or `encoding = \"ndjson\"`"));
        }
        for (key, choice) in [("metadata", &self.metadata), ("tags", &self.tags)] {
            if let Choice::Only(names) = choice {
                within(key, names.len(), 1, NAMES_MAX)?;
            }
        }
        within("record_bytes_max", self.record_bytes_max, RECORD_BYTES_MIN, RECORD_BYTES_LARGEST)?;
        within("header_templates", self.header_templates.len(), 0, HEADER_TEMPLATES_MAX)?;
        for (i, (name, template)) in self.header_templates.iter().enumerate() {
            check_header(name, "").map_err(|e| e.at("header_templates"))?;
            if self.header_templates[..i].iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return Err(Error::invalid_config(format!("header `{name}` is given twice"))
                    .at("header_templates")
                    .remedy("keep one"));
            }
            if template.escape() != Escape::Header {
                return Err(Error::invalid_config(format!("the template of header `{name}` does not escape for one"))
                    .at("header_templates")
                    .remedy("make it with Escape::Header"));
            }
        }
        if self.template.as_ref().is_some_and(|t| t.escape() == Escape::Header) {
            return Err(Error::invalid_config("the template escapes for a header")
                .at("template")
                .remedy("choose another `escape`"));
        }
        Ok(())
    }
}
