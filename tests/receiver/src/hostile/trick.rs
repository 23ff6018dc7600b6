//! What a hostile receiver does, and under which names.

use std::fmt;
use std::str::FromStr;

macro_rules! tricks {
    ($($(#[doc = $doc:literal])+ $name:ident $text:literal,)+) => {
        /// What becomes of a connection, or of one request on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Trick {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Trick {
            /// All of them.
            pub const ALL: &[Trick] = &[$(Trick::$name,)+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Trick::$name => $text,)+
                }
            }

            /// What it does.
            pub fn describe(self) -> &'static str {
                match self {
                    $(Trick::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

tricks! {
    /// Answers 204, as all others do when their turns are over.
    Calm "calm",
    /// Closes the connection without having read anything.
    CloseBeforeRead "close-before-read",
    /// Resets the connection without having read anything.
    ResetBeforeRead "reset-before-read",
    /// Reads the head of the request, and resets the connection.
    ResetAfterRequestHead "reset-after-request-head",
    /// Reads the request, and closes the connection.
    CloseAfterRequest "close-after-request",
    /// Reads the request, and resets the connection.
    ResetAfterRequest "reset-after-request",
    /// Answers with a head, and resets the connection instead of sending the body.
    ResetAfterHead "reset-after-head",
    /// Answers 200 with a body, and resets the connection.
    ResetAfterAnswer "reset-after-answer",
    /// Closes the connection within the head of the answer.
    HalfHead "half-head",
    /// Closes the connection within the body of an answer 200.
    HalfResponse "half-response",
    /// Closes the connection within the chunked body of an answer 200.
    HalfChunk "half-chunk",
    /// Answers with one byte per second.
    Drip "drip",
    /// Answers 200 with a body that never ends, delimited by the connection.
    EndlessBody "endless-body",
    /// Answers 200 with a body of chunks that never end.
    EndlessChunks "endless-chunks",
    /// Answers 200 with some KiB that are dozens of MiB when decompressed.
    GzipBomb "gzip-bomb",
    /// Answers 200 with a header of 1 MiB.
    HugeHead "huge-head",
    /// Answers 102 without end.
    InterimFlood "interim-flood",
    /// Answers 100, and then nothing.
    ContinueOnly "continue-only",
    /// Answers 204 with a body.
    NoContentWithBody "no-content-with-body",
    /// Answers 200 with two different lengths.
    TwoLengths "two-lengths",
    /// Answers 307 with a private address.
    RedirectPrivate "redirect-private",
    /// Answers 429, to come back in one second.
    RetryAfterSeconds "retry-after-seconds",
    /// Answers 429, to come back at a time that is one or two seconds away.
    RetryAfterDate "retry-after-date",
    /// Answers 429 with a Retry-After that is neither.
    RetryAfterGarbage "retry-after-garbage",
    /// Answers 429, to come back in some thousands of years.
    RetryAfterHuge "retry-after-huge",
    /// Answers 429, to come back before now.
    RetryAfterNegative "retry-after-negative",
    /// Answers 410.
    Gone "gone",
    /// Answers 204, and closes the connection when it is idle for a moment.
    CloseIdle "close-idle",
    /// Reads nothing and says nothing.
    Stall "stall",
    /// Reads the request and says nothing.
    StallAfterRequest "stall-after-request",
    /// Shows a certificate of an unknown authority. Over TLS only, as the next two.
    WrongCertificate "wrong-certificate",
    /// Shows a certificate that has expired.
    ExpiredCertificate "expired-certificate",
    /// Shows a certificate of another name.
    OtherName "other-name",
}

impl Trick {
    /// Whether it can be done over TLS only.
    pub fn needs_tls(self) -> bool {
        matches!(self, Trick::WrongCertificate | Trick::ExpiredCertificate | Trick::OtherName)
    }
}

impl fmt::Display for Trick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Trick {
    type Err = String;

    fn from_str(text: &str) -> Result<Trick, String> {
        let known = || Trick::ALL.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
        let found = Trick::ALL.iter().find(|t| t.name() == text);
        found.copied().ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for trick in Trick::ALL {
            assert_eq!(trick.to_string().parse(), Ok(*trick));
            assert!(trick.describe().ends_with('.'), "{trick}");
        }
        assert!("no-such-trick".parse::<Trick>().unwrap_err().contains("half-response"));
    }
}
