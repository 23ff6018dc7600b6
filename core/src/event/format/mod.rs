//! How the records of a profile are written for one destination: in which encoding, with which metadata and tags, how large
//! at most, or by a template, and with which headers made from the event.

mod check;
mod template;
mod xml;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;

use super::FrameView;
use super::frame::Field;
use super::profile::{Choice, Profile, RecordContext, Shown, Story, text};
use crate::error::{Error, Result};

pub use template::{Escape, Template};

/// The largest record, in bytes, unless a destination says otherwise. Intermediaries of CloudEvents must forward as much.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// How the records of a profile become a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// JSON, as the profile has it.
    #[default]
    Json,
    /// JSON lines: one record a line, several to a request. For profiles whose records mean something by themselves: `aws`,
    /// `minio`, `ceph`, `eventbridge`, `cloudevents`, `debezium`; and for templates.
    NdJson,
    /// XML. For the profiles `aws`, `minio` and `ceph`, whose members become elements, and for `cloudevents` and
    /// `cloudevents-structured` in the XML format of CloudEvents.
    Xml,
}

impl Encoding {
    /// Every encoding with its name in the configuration.
    pub const ALL: [(Encoding, &'static str); 3] =
        [(Encoding::Json, "json"), (Encoding::NdJson, "ndjson"), (Encoding::Xml, "xml")];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Encoding::ALL.iter().find(|(e, _)| *e == self).map_or("", |(_, name)| name)
    }
}

/// How a destination's records are written; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// How records become a document. Default: [`Encoding::Json`].
    pub encoding: Encoding,
    /// Which metadata records carry. Default: all.
    pub metadata: Choice,
    /// Which tags records carry. Default: all.
    pub tags: Choice,
    /// The largest record, in bytes, 1 KiB to 16 MiB. Of one that would be larger the metadata is left out, then the tags,
    /// then the data of the host, and the record says so: the member `truncated` lists what is missing. What is still too
    /// large then is sent; the key is never cut. What a template writes beyond it makes the event a dead letter. Default:
    /// [`RECORD_BYTES_MAX`].
    pub record_bytes_max: usize,
    /// What is written in the place of the profile's record. Default: none.
    pub template: Option<Template>,
    /// Headers whose values are made from the event: names, as in the list of plain headers, and templates with
    /// [`Escape::Header`]. With any, each event has a request of its own. Default: none.
    pub header_templates: Vec<(String, Template)>,
}

impl Default for Format {
    fn default() -> Format {
        Format::PLAIN
    }
}

impl Format {
    /// The default.
    pub(crate) const PLAIN: Format = Format {
        encoding: Encoding::Json,
        metadata: Choice::All,
        tags: Choice::All,
        record_bytes_max: RECORD_BYTES_MAX,
        template: None,
        header_templates: Vec::new(),
    };

    /// Whether records are as the profile writes them by itself.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.encoding == Encoding::Json
            && self.template.is_none()
            && self.metadata == Choice::All
            && self.tags == Choice::All
            && self.header_templates.is_empty()
            && self.record_bytes_max == RECORD_BYTES_MAX
    }

    /// Whether each event has a request of its own.
    pub fn is_single(&self, profile: Profile) -> bool {
        self.has_parcels(profile)
            || self.encoding != Encoding::NdJson && (profile.is_single() || self.template.is_some())
    }

    /// Whether a record brings headers: it is a parcel, which [`open_parcel`] opens.
    pub(crate) fn has_parcels(&self, profile: Profile) -> bool {
        profile == Profile::CloudEventsBinary && self.template.is_none() || !self.header_templates.is_empty()
    }

    /// The names of the headers that each record brings for certain.
    pub(crate) fn header_names(&self, profile: Profile) -> Vec<&str> {
        let mut names: Vec<&str> = self.header_templates.iter().map(|(name, _)| name.as_str()).collect();
        if self.has_parcels(profile) && profile == Profile::CloudEventsBinary && self.template.is_none() {
            names.extend(["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-sequence"]);
        }
        names
    }

    /// What comes before the first record of a document.
    pub fn batch_head(&self, profile: Profile) -> &'static [u8] {
        match self.encoding {
            _ if self.template.is_some() => b"",
            Encoding::Json => profile.batch_head(),
            Encoding::NdJson => b"",
            Encoding::Xml => xml::head(profile),
        }
    }

    /// What comes between two records.
    pub fn separator(&self, profile: Profile) -> &'static [u8] {
        match self.encoding {
            Encoding::NdJson => b"\n",
            Encoding::Json if self.template.is_none() && !self.has_parcels(profile) => profile.separator(),
            _ => b"",
        }
    }

    /// What comes after the last record of a document.
    pub fn batch_tail(&self, profile: Profile) -> &'static [u8] {
        match self.encoding {
            Encoding::NdJson => b"\n",
            _ if self.template.is_some() => b"",
            Encoding::Json => profile.batch_tail(),
            Encoding::Xml => xml::tail(profile),
        }
    }

    /// The media type of a document.
    pub fn content_type(&self, profile: Profile) -> &str {
        match (&self.template, self.encoding) {
            (_, Encoding::NdJson) => "application/x-ndjson",
            (Some(template), _) => template.content_type(),
            (None, Encoding::Json) => profile.content_type(),
            (None, Encoding::Xml) => xml::content_type(profile),
        }
    }

    /// Appends the record of one event, without a separator.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] if a template fails; then `out` is as it was.
    pub fn write_record(
        &self,
        profile: Profile,
        frame: &FrameView<'_>,
        cx: &RecordContext<'_>,
        out: &mut BytesMut,
    ) -> Result<()> {
        self.write(profile, frame, cx, &Story::default(), out).map_err(Error::invalid_event)
    }

    /// As [`Format::write_record`], with what is to be added; why not, if a template fails.
    #[inline]
    pub(crate) fn write(
        &self,
        profile: Profile,
        frame: &FrameView<'_>,
        cx: &RecordContext<'_>,
        story: &Story<'_>,
        out: &mut BytesMut,
    ) -> Result<(), String> {
        if self.template.is_some() || self.has_parcels(profile) {
            let start = out.len();
            let written = self.write_parcel(profile, frame, cx, story, out);
            if written.is_err() {
                out.truncate(start);
            }
            return written;
        }
        self.write_fitting(frame, story, out, |shown, story, out| {
            profile.write_shown(frame, cx, shown, out);
            profile.add(story, out);
        });
        Ok(())
    }

    /// Writes with `write`, and again with less while it is too large. XML is made of it if that is the encoding.
    #[inline]
    fn write_fitting(
        &self,
        frame: &FrameView<'_>,
        story: &Story<'_>,
        out: &mut BytesMut,
        write: impl Fn(&Shown<'_>, &Story<'_>, &mut BytesMut),
    ) {
        let start = out.len();
        let shown = Shown { metadata: &self.metadata, tags: &self.tags, data: true };
        write(&shown, story, out);
        self.encode(start, out);
        if out.len() - start > self.record_bytes_max {
            self.shorten(frame, story, shown, start, out, &write);
        }
    }

    #[cold]
    fn shorten(
        &self,
        frame: &FrameView<'_>,
        story: &Story<'_>,
        mut shown: Shown<'_>,
        start: usize,
        out: &mut BytesMut,
        write: &dyn Fn(&Shown<'_>, &Story<'_>, &mut BytesMut),
    ) {
        let mut left_out = Vec::new();
        for (name, field) in [("metadata", Field::Metadata), ("tags", Field::Tags), ("data", Field::Data)] {
            if frame.field(field).is_empty() {
                continue;
            }
            match field {
                Field::Metadata => shown.metadata = &Choice::None,
                Field::Tags => shown.tags = &Choice::None,
                _ => shown.data = false,
            }
            left_out.push(name);
            out.truncate(start);
            write(&shown, &Story { left_out: &left_out, ..*story }, out);
            self.encode(start, out);
            if out.len() - start <= self.record_bytes_max {
                return;
            }
        }
    }

    /// Makes of the JSON that `out` has from `start` on what the encoding wants.
    #[inline]
    fn encode(&self, start: usize, out: &mut BytesMut) {
        if self.encoding == Encoding::Xml {
            let json = out.split_off(start);
            xml::write(&json, out);
        }
    }

    /// A record that is made by templates, or brings headers.
    fn write_parcel(
        &self,
        profile: Profile,
        frame: &FrameView<'_>,
        cx: &RecordContext<'_>,
        story: &Story<'_>,
        out: &mut BytesMut,
    ) -> Result<(), String> {
        let (mut headers, mut body) = (BytesMut::new(), BytesMut::new());
        let templates = self.template.is_some() || !self.header_templates.is_empty();
        let event = templates.then(|| template::event_value(self, profile, frame, cx, story));
        if let (Some(template), Some(event)) = (&self.template, &event) {
            let text = template.render(event, self.record_bytes_max).map_err(|e| format!("the template: {e}"))?;
            if self.encoding == Encoding::NdJson {
                if text.contains(['\n', '\r']) && !text::is_json(text.as_bytes()) {
                    return Err("the template: what it gives has more than one line".into());
                }
                if text::is_json(text.as_bytes()) {
                    text::compact(&mut body, text.as_bytes());
                } else {
                    body.put_slice(text.as_bytes());
                }
            } else {
                body.put_slice(text.as_bytes());
            }
        } else if profile == Profile::CloudEventsBinary {
            let lines = std::cell::RefCell::new(BytesMut::new());
            self.write_fitting(frame, story, &mut body, |shown, story, body| {
                let mut lines = lines.borrow_mut();
                lines.clear();
                profile.write_binary(frame, cx, shown, story, &mut lines, body);
            });
            headers = lines.into_inner();
        } else {
            self.write_fitting(frame, story, &mut body, |shown, story, out| {
                profile.write_shown(frame, cx, shown, out);
                profile.add(story, out);
            });
        }
        if !self.has_parcels(profile) {
            out.put_slice(&body);
            return Ok(());
        }
        for (name, template) in &self.header_templates {
            let Some(event) = &event else { continue };
            let failed = |e: String| format!("the template of header {name}: {e}");
            let value = template.render(event, HEADER_BYTES_MAX).map_err(failed)?;
            crate::rule::check_header(name, &value).map_err(|e| failed(e.message().to_owned()))?;
            for part in [name, ": ", &value, "\r\n"] {
                headers.put_slice(part.as_bytes());
            }
        }
        out.put_u32_le(headers.len() as u32);
        out.put_slice(&headers);
        out.put_slice(&body);
        Ok(())
    }
}

/// The longest value of a header that is made by a template.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// The headers and the body of a record that brings headers.
pub(crate) type Parcel<'a> = (Vec<(&'a str, &'a str)>, &'a [u8]);

/// The headers and the body of a parcel; nothing if it is none.
pub(crate) fn open_parcel(bytes: &[u8]) -> Option<Parcel<'_>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (lines, body) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let lines = std::str::from_utf8(lines).ok()?;
    let headers = lines.split_terminator("\r\n").map(|line| line.split_once(": ")).collect::<Option<Vec<_>>>()?;
    Some((headers, body))
}

#[cfg(test)]
mod tests;
