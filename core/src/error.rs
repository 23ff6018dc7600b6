//! The one error type of the crate: a stable kind, a sentence that says what happened, and what to do about it.

use std::fmt;

/// What kind of thing went wrong.
///
/// The numbers are stable: they are the error codes of the C ABI and of the Python exceptions. A retired number is
/// never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorKind {
    /// The event breaks a limit or names an unknown type. The caller must change the event.
    InvalidEvent = 1,
    /// A configuration file, a rule or a notification document is wrong. The running set is untouched.
    InvalidConfig = 2,
    /// The ring of the event's shard is full and the caller asked not to wait, or waited in vain; or the queue of a
    /// destination is full that is to refuse or block then; or the event's bucket has its share. Try again later.
    Full = 3,
    /// The deadline passed before the operation was done.
    Timeout = 4,
    /// The engine is closing or closed.
    Closed = 5,
    /// The operating system refused an operation on a file or socket.
    Io = 6,
    /// Another process, or another engine of this process, has the data directory open.
    Locked = 7,
    /// The data directory cannot be written.
    ReadOnly = 8,
    /// The file system that holds the data directory is full.
    NoSpace = 9,
    /// io_uring cannot be used here.
    IoUringUnavailable = 10,
    /// The data directory was written by a newer version of Tidewire.
    NewerFormat = 11,
    /// Stored data fails its checksum or cannot be understood.
    Corrupt = 12,
    /// The log of a shard failed (a write or a sync was refused) and takes no more events.
    LogFailed = 13,
    /// The engine was opened by another process (this one is a fork of it).
    WrongProcess = 14,
    /// A panic was caught at the border of the library; a defect of Tidewire.
    Panic = 15,
    /// An argument is out of range or does not fit what was called before; in the C ABI also: it is null or malformed.
    InvalidArgument = 16,
    /// The name asked for does not exist.
    NotFound = 17,
    /// A defect of Tidewire that is none of the above.
    Internal = 18,
    /// What is there is not what the caller expected (another version, or something of another owner). Read it anew.
    Conflict = 19,
    /// The process that has the engine cannot be reached. What was published and not acknowledged may have been accepted or
    /// not.
    Disconnected = 20,
}

impl ErrorKind {
    /// The kind of a number.
    pub(crate) fn from_number(number: u32) -> Option<ErrorKind> {
        use ErrorKind::*;
        let all = [
            InvalidEvent,
            InvalidConfig,
            Full,
            Timeout,
            Closed,
            Io,
            Locked,
            ReadOnly,
            NoSpace,
            IoUringUnavailable,
            NewerFormat,
            Corrupt,
            LogFailed,
            WrongProcess,
            Panic,
            InvalidArgument,
            NotFound,
            Internal,
            Conflict,
            Disconnected,
        ];
        all.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// What S3 answers to a request that failed: the code of its error document and the HTTP status (S3 API reference, "Error
/// responses").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum S3Code {
    /// A document that cannot be read, in XML or JSON.
    MalformedXml,
    /// A document that cannot be meant so.
    InvalidArgument,
    /// No bucket can have that name.
    InvalidBucketName,
    /// A document that is too large.
    EntityTooLarge,
    /// There is nothing of that name.
    NoSuchConfiguration,
    /// Something else was there than the caller expected.
    OperationAborted,
    /// Not now; later it may succeed.
    ServiceUnavailable,
    /// It failed here.
    InternalError,
}

impl S3Code {
    /// Its name in an error document.
    pub fn name(self) -> &'static str {
        match self {
            S3Code::MalformedXml => "MalformedXML",
            S3Code::InvalidArgument => "InvalidArgument",
            S3Code::InvalidBucketName => "InvalidBucketName",
            S3Code::EntityTooLarge => "EntityTooLarge",
            S3Code::NoSuchConfiguration => "NoSuchConfiguration",
            S3Code::OperationAborted => "OperationAborted",
            S3Code::ServiceUnavailable => "ServiceUnavailable",
            S3Code::InternalError => "InternalError",
        }
    }

    /// That of a name.
    pub(crate) fn from_name(name: &str) -> Option<S3Code> {
        use S3Code::*;
        let all = [
            MalformedXml,
            InvalidArgument,
            InvalidBucketName,
            EntityTooLarge,
            NoSuchConfiguration,
            OperationAborted,
            ServiceUnavailable,
            InternalError,
        ];
        all.into_iter().find(|code| code.name() == name)
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            S3Code::MalformedXml | S3Code::InvalidArgument | S3Code::InvalidBucketName | S3Code::EntityTooLarge => 400,
            S3Code::NoSuchConfiguration => 404,
            S3Code::OperationAborted => 409,
            S3Code::ServiceUnavailable => 503,
            S3Code::InternalError => 500,
        }
    }
}

/// An error: kind, message, and where there is one, the remedy.
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    place: Option<String>,
    remedy: Option<String>,
    /// What S3 says to it, if that does not follow from the kind.
    s3: Option<S3Code>,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message; add [`Error::at`] and [`Error::remedy`] where they are known.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { inner: Box::new(Inner { kind, message: message.into(), place: None, remedy: None, s3: None }) }
    }

    /// An [`ErrorKind::InvalidEvent`].
    #[cold]
    pub fn invalid_event(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidEvent, message)
    }

    /// An [`ErrorKind::InvalidConfig`].
    #[cold]
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidConfig, message)
    }

    /// What the operating system said, with what was being done. `ENOSPC`, `EDQUOT` and `EFBIG` become
    /// [`ErrorKind::NoSpace`], `EROFS`, `EACCES` and `EPERM` become [`ErrorKind::ReadOnly`].
    #[cold]
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => ErrorKind::NoSpace,
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        let e = Error::new(kind, format!("{doing}: {error}"));
        match kind {
            ErrorKind::NoSpace => e.remedy("free space there, or move the data directory"),
            ErrorKind::ReadOnly => {
                e.remedy("make the directory writable for this user, or choose another data directory")
            }
            _ => e,
        }
    }

    /// Adds the place: a file with line and column, a rule, a field. A place already there is kept as the inner one.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        let outer = place.into();
        self.inner.place = Some(match self.inner.place.take() {
            Some(inner) => format!("{outer}: {inner}"),
            None => outer,
        });
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.inner.remedy = Some(remedy.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What happened, without place and remedy.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Where it happened, if known.
    pub fn place(&self) -> Option<&str> {
        self.inner.place.as_deref()
    }

    /// What to do about it, if known.
    pub fn remedy_text(&self) -> Option<&str> {
        self.inner.remedy.as_deref()
    }

    /// Sets what S3 says to it, unless that is set.
    #[must_use]
    pub(crate) fn s3(mut self, code: S3Code) -> Self {
        self.inner.s3.get_or_insert(code);
        self
    }

    /// What a server with the API of S3 answers its client to this.
    pub fn s3_code(&self) -> S3Code {
        self.inner.s3.unwrap_or(match self.kind() {
            ErrorKind::InvalidConfig | ErrorKind::InvalidEvent | ErrorKind::InvalidArgument => S3Code::InvalidArgument,
            ErrorKind::NotFound => S3Code::NoSuchConfiguration,
            ErrorKind::Conflict => S3Code::OperationAborted,
            ErrorKind::Full | ErrorKind::Timeout | ErrorKind::Closed | ErrorKind::Disconnected | ErrorKind::NoSpace => {
                S3Code::ServiceUnavailable
            }
            _ => S3Code::InternalError,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.inner.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.inner.message)?;
        if let Some(remedy) = &self.inner.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {}
