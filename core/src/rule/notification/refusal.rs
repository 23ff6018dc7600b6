//! What a client of S3 is answered when its request fails.

use crate::error::{Error, S3Code};

impl Error {
    /// The document that goes with [`Error::s3_code`]. Of what failed in the server itself it tells the client nothing.
    pub fn to_s3_xml(&self, resource: &str, request_id: &str) -> String {
        let code = self.s3_code();
        let message = match code {
            S3Code::InternalError => "We encountered an internal error. Please try again.".to_owned(),
            S3Code::ServiceUnavailable => "Please reduce your request rate or try again later.".to_owned(),
            _ => self.to_string(),
        };
        let [message, resource, request_id] = [&message, resource, request_id].map(|text| {
            // Other control characters are nowhere in XML 1.0.
            let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect();
            quick_xml::escape::escape(text).into_owned()
        });
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{message}</Message>\
             <Resource>{resource}</Resource><RequestId>{request_id}</RequestId></Error>",
            code.name()
        )
    }
}
