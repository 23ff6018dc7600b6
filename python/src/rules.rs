//! Rules, notification documents and destinations while an engine runs.

use std::path::PathBuf;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};
use tidewire::rule::{Backlog, Extensions, FilterValues, Format, NotificationOptions, Overlap};
use tidewire::{AnyEngine, Error, ErrorKind};

use crate::args;
use crate::engine::Engine;
use crate::error::{OrRaise, guard, invalid_argument};

#[pymethods]
impl Engine {
    /// Puts one rule, new or in the place of the one that it has in its bucket; the others stay as they are. Answers its version.
    /// It is kept in the data directory, unless the configuration says ``engine.rules = "host"``.
    ///
    /// ``rule`` is one ``[[rule]]`` as the configuration has it, or its table as a ``dict``: ``{"id": "images", "bucket": "photos",
    /// "events": ["s3:ObjectCreated:*"], "prefix": "in/", "destinations": ["hook"]}``. ``expect`` is the version that it must have
    /// now, or ``"absent"``.
    ///
    /// Raises :exc:`InvalidConfig` if the rule is wrong; :exc:`Conflict` if ``expect`` does not hold, or the rule belongs to the
    /// configuration; :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`. Then nothing has
    /// changed.
    #[pyo3(signature = (rule, *, expect=None))]
    fn put_rule(&self, py: Python<'_>, rule: &Bound<'_, PyAny>, expect: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        let (text, expect) = (args::json("rule", rule)?.into_owned(), args::expect(expect)?);
        self.change(py, move |engine| engine.put_rule_text(&text, expect))
    }

    /// Deletes a rule that was put; ``bucket`` is ``None`` for one of every bucket. What it has matched is delivered all the same.
    ///
    /// Raises :exc:`NotFound` if there is none that was put; otherwise as :meth:`put_rule`.
    #[pyo3(signature = (id, *, bucket=None, expect=None))]
    fn delete_rule(
        &self,
        py: Python<'_>,
        id: String,
        bucket: Option<String>,
        expect: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let expect = args::expect(expect)?;
        self.change(py, move |engine| engine.delete_rule(bucket.as_deref(), &id, expect))
    }

    /// One rule: see :class:`RuleInfo`.
    ///
    /// Raises :exc:`NotFound`; :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (id, *, bucket=None))]
    fn rule<'py>(&self, py: Python<'py>, id: &str, bucket: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let (id, bucket) = (id.to_owned(), bucket.map(str::to_owned));
        let found = self.look(py, move |engine| engine.rule_json(bucket.as_deref(), &id))?;
        args::loads(py, &found.to_string())
    }

    /// All rules, also those that are not in force.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn rules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let rules = self.look(py, AnyEngine::rules_json)?;
        args::loads(py, &rules["rules"].to_string())
    }

    /// Grows with each change of rules and destinations.
    #[getter]
    fn rules_version(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, AnyEngine::rules_version)
    }

    /// Replaces the configuration's rules and destinations by those of another configuration; what was put stays. What else it
    /// says is of no account: that needs a new opening.
    ///
    /// Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has it.
    ///
    /// Raises :exc:`InvalidConfig`, :exc:`IoError`, :exc:`Closed`, :exc:`WrongProcess`; :exc:`InvalidArgument` if the engine is
    /// another process's. Then nothing has changed.
    #[pyo3(signature = (config=None, *, config_path=None))]
    fn replace_config(&self, py: Python<'_>, config: Option<String>, config_path: Option<PathBuf>) -> PyResult<()> {
        self.change(py, move |engine| {
            let AnyEngine::Local(engine) = engine else {
                let e = Error::new(
                    ErrorKind::InvalidArgument,
                    "the engine is another process's, and so is its configuration",
                );
                return Err(e.remedy("replace it in the process that has the engine, or put rules and destinations"));
            };
            let dir = engine.config().data_dir.clone();
            let new = crate::engine::load(config.as_deref(), config_path.as_deref(), Some(&dir))?;
            engine.replace_rules(new.rules)
        })
    }

    /// Puts the notification document of a bucket, as ``PutBucketNotificationConfiguration`` of S3 does: all rules that were put
    /// for the bucket are replaced by those that it has. An empty one (``{}``) switches the bucket's notifications off, but for
    /// rules of the configuration and of every bucket. Answers the version of the bucket's rules.
    ///
    /// ``document`` is XML as the API of S3 takes it, JSON, or a ``dict`` as botocore has it:
    /// ``{"QueueConfigurations": [{"QueueArn": "arn:tidewire:sqs:::hook", "Events": ["s3:ObjectCreated:*"]}]}``. Its ARNs name
    /// destinations: ``arn:tidewire:sqs:::NAME``, ``arn:minio:sqs::NAME:webhook``, or those of ``[arns]`` in the configuration.
    ///
    /// ``overlap`` says what to do about rules of the document that want the same event: ``allow-dedupe`` (a destination hears of
    /// it once), ``strict-aws`` (they are refused, as AWS does) or ``allow-all``. ``encoded``: filter values are form-encoded, as
    /// AWS compares them. ``ceph``: it may say what Ceph understands beyond S3. ``event_bridge`` is the destination that
    /// ``EventBridgeConfiguration`` means; without it documents that have it are refused. ``expect`` is the version that the
    /// bucket's rules must have now, or ``"absent"``.
    ///
    /// Raises :exc:`InvalidConfig`, which tells line and column, if the document is wrong; otherwise as :meth:`put_rule`. What to
    /// answer a client of S3 is in ``s3_code`` and ``s3_status`` of the exception, and :meth:`Error.to_s3_xml`.
    #[pyo3(
        signature = (bucket, document, *, overlap=None, encoded=false, ceph=false, event_bridge=None, expect=None),
        text_signature = "(self, bucket, document, *, overlap='allow-dedupe', encoded=False, ceph=False, \
            event_bridge=None, expect=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn put_bucket_notification(
        &self,
        py: Python<'_>,
        bucket: String,
        document: &Bound<'_, PyAny>,
        overlap: Option<&str>,
        encoded: bool,
        ceph: bool,
        event_bridge: Option<String>,
        expect: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let text = notification(document)?;
        let options = notification_options(overlap, encoded, ceph, event_bridge).or_raise(py)?;
        let expect = args::expect(expect)?;
        self.change(py, move |engine| engine.put_bucket_notification(&bucket, &text, None, &options, expect))
    }

    /// Checks a document as :meth:`put_bucket_notification` does, and changes nothing. Answers the rules that it would make.
    ///
    /// Raises what that does.
    #[pyo3(
        signature = (bucket, document, *, overlap=None, encoded=false, ceph=false, event_bridge=None),
        text_signature = "(self, bucket, document, *, overlap='allow-dedupe', encoded=False, ceph=False, event_bridge=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn check_bucket_notification<'py>(
        &self,
        py: Python<'py>,
        bucket: &str,
        document: &Bound<'py, PyAny>,
        overlap: Option<&str>,
        encoded: bool,
        ceph: bool,
        event_bridge: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let text = notification(document)?;
        let options = notification_options(overlap, encoded, ceph, event_bridge).or_raise(py)?;
        let bucket = bucket.to_owned();
        let rules = self.change(py, move |engine| engine.check_bucket_notification(&bucket, &text, None, &options))?;
        args::loads(py, &rules.to_string())
    }

    /// The notification document of a bucket, as ``GetBucketNotificationConfiguration`` of S3 gives it: what was put, with ids
    /// for configurations that had none. Rules that were put by other ways stand in it where a document can say what they say.
    ///
    /// ``format`` is ``dict`` (as botocore has it), ``json`` or ``xml``. Answers a :class:`BucketNotification`.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (bucket, *, format=None), text_signature = "(self, bucket, *, format='dict')")]
    fn bucket_notification<'py>(
        &self,
        py: Python<'py>,
        bucket: &str,
        format: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (of, as_dict) = match format {
            None | Some("dict") => (Format::Json, true),
            Some("json") => (Format::Json, false),
            Some("xml") => (Format::Xml, false),
            Some(other) => return Err(args::unknown("format", other, "use dict, json or xml")).or_raise(py),
        };
        let bucket = bucket.to_owned();
        let found = self.look(py, move |engine| engine.bucket_notification(&bucket, of))?;
        let document = match as_dict {
            true => args::loads(py, &found.text)?,
            false => PyString::new(py, &found.text).into_any(),
        };
        let class = py.import("tidewire._types")?.getattr("BucketNotification")?;
        class.call1((document, found.version, found.left_out))
    }

    /// Puts one destination, new or in the place of the one of its name. Answers its version. It is kept in the data directory
    /// with the secrets that are given as text, in files that only their owner can read.
    ///
    /// ``destination`` is one ``[[destination]]`` as the configuration has it, or its table as a ``dict``: ``{"name": "hook",
    /// "type": "webhook", "url": "https://example.com/hook"}``. ``expect`` is the version that it must have now, or ``"absent"``.
    /// ``backlog`` says what becomes of what waits for it, if its settings are others now: ``keep`` (it goes on with them),
    /// ``drain`` (it is delivered with the earlier ones), ``dead-letter``, ``purge``, or ``move`` to the destination ``move_to``.
    ///
    /// Raises :exc:`InvalidConfig` if it is wrong, or a rule does not fit it; :exc:`Conflict` if ``expect`` does not hold, or the
    /// configuration has one of its name; :exc:`NotFound` if there is no destination to move to; otherwise as :meth:`put_rule`.
    #[pyo3(
        signature = (destination, *, expect=None, backlog=None, move_to=None),
        text_signature = "(self, destination, *, expect=None, backlog='keep', move_to=None)"
    )]
    fn put_destination(
        &self,
        py: Python<'_>,
        destination: &Bound<'_, PyAny>,
        expect: Option<&Bound<'_, PyAny>>,
        backlog: Option<&str>,
        move_to: Option<&str>,
    ) -> PyResult<u64> {
        let (text, expect) = (args::json("destination", destination)?.into_owned(), args::expect(expect)?);
        let backlog = backlog_of(backlog, move_to).or_raise(py)?;
        self.change(py, move |engine| engine.put_destination_text(&text, expect, &backlog))
    }

    /// Deletes a destination that was put. ``backlog`` and ``move_to`` are those of :meth:`put_destination`; with ``keep`` what
    /// waits is delivered.
    ///
    /// Raises :exc:`NotFound` if there is none; :exc:`Conflict` if ``expect`` does not hold, or rules that were put send to it;
    /// otherwise as :meth:`put_destination`.
    #[pyo3(
        signature = (name, *, expect=None, backlog=None, move_to=None),
        text_signature = "(self, name, *, expect=None, backlog='keep', move_to=None)"
    )]
    fn delete_destination(
        &self,
        py: Python<'_>,
        name: String,
        expect: Option<&Bound<'_, PyAny>>,
        backlog: Option<&str>,
        move_to: Option<&str>,
    ) -> PyResult<()> {
        let expect = args::expect(expect)?;
        let backlog = backlog_of(backlog, move_to).or_raise(py)?;
        self.change(py, move |engine| engine.delete_destination(&name, expect, &backlog))
    }

    /// Sends a destination nothing until it is resumed; its events wait. It stays so through restarts.
    ///
    /// Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
    fn suspend_destination(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.change(py, move |engine| engine.suspend_destination(&name))
    }

    /// Sends to a destination again, at once, whatever was in the way: it was suspended or disabled, or is left alone because it
    /// failed.
    ///
    /// Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
    fn resume_destination(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.change(py, move |engine| engine.resume_destination(&name))
    }

    /// Vouches for a destination that is pending: its endpoints count as having agreed to be sent events, to ``per_minute``
    /// requests per minute if that is given.
    ///
    /// Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (name, *, per_minute=None))]
    fn confirm_destination(&self, py: Python<'_>, name: String, per_minute: Option<u32>) -> PyResult<()> {
        self.change(py, move |engine| engine.confirm_destination(&name, per_minute))
    }

    /// How a destination is doing: whether it is sent anything, why not, its endpoints, and its last attempts that failed: see
    /// :class:`DestinationStanding`.
    ///
    /// Raises :exc:`NotFound` if there is no such destination; :exc:`WrongProcess` in a forked child.
    fn destination<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let name = name.to_owned();
        let standing = self.look(py, move |engine| engine.destination_json(&name))?;
        args::loads(py, &standing.to_string())
    }

    /// All destinations, also those that are not in force: see :class:`DestinationInfo`. Settings are not told, for they may be
    /// secret.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn destinations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let all = self.look(py, AnyEngine::destinations_json)?;
        args::loads(py, &all.to_string())
    }

    /// Sends a destination one event of its own (``s3:TestEvent``), apart from everything else that is on its way, and tells step
    /// by step what happened: see :class:`DestinationTest`. Takes as long as the destination's ``timeout`` at most.
    ///
    /// Raises :exc:`NotFound`; :exc:`InvalidConfig` or :exc:`IoError` if a file of its settings cannot be used;
    /// :exc:`Closed`, :exc:`WrongProcess`. That it does not take the event is no exception.
    fn test_destination<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let report = self.change(py, move |engine| engine.destination_test_json(&name))?;
        args::loads(py, &report.to_string())
    }

    /// Rotates a secret of a destination, and answers the new one, which is never shown again: ``secret``, or one that is made.
    /// What was used before stays valid for ``overlap`` seconds, at most seven days; receivers find signatures of both where the
    /// scheme can send several. It takes the place of the configured secret until the configuration has another.
    ///
    /// Raises :exc:`NotFound`; :exc:`InvalidArgument` if the destination has no secret or the new one does not fit;
    /// :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(
        signature = (name, secret=None, *, overlap=None),
        text_signature = "(self, name, secret=None, *, overlap=86400.0)"
    )]
    fn rotate_secret(
        &self,
        py: Python<'_>,
        name: String,
        secret: Option<String>,
        overlap: Option<f64>,
    ) -> PyResult<String> {
        let overlap = overlap.map(|s| args::seconds("overlap", s)).transpose().or_raise(py)?;
        self.change(py, move |engine| engine.rotate_secret(&name, secret, overlap))
    }
}

impl Engine {
    /// Makes a change, without the interpreter.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&AnyEngine) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        self.state.check_open().or_raise(py)?;
        let engine = self.state.engine.clone();
        guard(py, || self.state.run(py, move || change(&engine))?.or_raise(py))
    }
}

/// A notification document as text. What botocore adds to an answer is no part of it.
fn notification(document: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(dict) = document.cast::<PyDict>()
        && dict.contains(intern!(dict.py(), "ResponseMetadata"))?
    {
        let document = dict.copy()?;
        document.del_item(intern!(dict.py(), "ResponseMetadata"))?;
        return args::json("document", document.as_any()).map(std::borrow::Cow::into_owned);
    }
    if document.cast::<PyDict>().is_ok() {
        return args::json("document", document).map(std::borrow::Cow::into_owned);
    }
    let bytes = args::document("document", document)?.to_vec();
    String::from_utf8(bytes)
        .map_err(|e| {
            Error::invalid_config(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())).at("document")
        })
        .or_raise(document.py())
}

fn notification_options(
    overlap: Option<&str>,
    encoded: bool,
    ceph: bool,
    event_bridge: Option<String>,
) -> Result<NotificationOptions, Error> {
    Ok(NotificationOptions {
        overlap: match overlap {
            None | Some("allow-dedupe") => Overlap::AllowDedupe,
            Some("strict-aws") => Overlap::StrictAws,
            Some("allow-all") => Overlap::AllowAll,
            Some(other) => return Err(args::unknown("overlap", other, "use allow-dedupe, strict-aws or allow-all")),
        },
        filter_values: if encoded { FilterValues::Encoded } else { FilterValues::Raw },
        extensions: if ceph { Extensions::Ceph } else { Extensions::None },
        event_bridge,
    })
}

fn backlog_of(backlog: Option<&str>, move_to: Option<&str>) -> Result<Backlog, Error> {
    match (backlog, move_to) {
        (Some("move"), Some(to)) => Ok(Backlog::MoveTo(to.to_owned())),
        (Some("move"), None) | (_, Some(_)) => Err(invalid_argument(
            "move_to",
            "a destination to move to and backlog=\"move\" belong together",
            "give both or neither",
        )),
        (None | Some("keep"), None) => Ok(Backlog::Keep),
        (Some("drain"), None) => Ok(Backlog::Drain),
        (Some("dead-letter"), None) => Ok(Backlog::DeadLetter),
        (Some("purge"), None) => Ok(Backlog::Purge),
        (Some(other), None) => Err(args::unknown("backlog", other, "use keep, drain, dead-letter, purge or move")),
    }
}
