//! An engine, wherever it is.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::calls::{self, NotPlain, Request, WireItem, WireReplay, answer, exchange_items, millis};
use super::client::{CALL_MARGIN, Client, ClientOptions, Line, exchange, redriven};
use super::wire::{self, Answer};
use crate::auth::secret::ROTATION_OVERLAP;
use crate::config::Config;
use crate::connect::custom::Handler;
use crate::driver;
use crate::engine::keep::FilterFile;
use crate::engine::told::replay_json;
use crate::engine::{
    BucketNotification, Completion, CompletionCalls, Completions, Consumer, ConsumerOptions, Delivery, Engine,
    GroupStats, InDoubt, Lease, LogWatch, MetricsFormat, PublishOptions, Published, PublishedJson, RedriveOptions,
    Redriven, ReplayHandle, ReplayProgress, ReserveOptions, Reserved, ReservedBatch, Resolution, Stats, Tail,
    deadline_in,
};
use crate::enrich::{EnrichOptions, Enricher};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, EventType, EventTypes};
use crate::filter::EventFilter;
use crate::lock::Mutex;
use crate::log::archive::write_file;
use crate::log::dead::{DeadLetterFilter, DeadLetterId, StoredDeadLetter};
use crate::log::reader::{Item, ReadFrom};
use crate::rule::{Backlog, Expect, Format, NotificationOptions};
use crate::shard::progress::Receipt;
use crate::shard::snapshot::DetailsWanted;

/// How often a call that may wait for long looks whether the client has been closed.
const LOOK: Duration = Duration::from_secs(1);
/// The most dead letters that one call lists.
const LETTERS_MAX: usize = 10_000;

/// An engine of this process, or one of another process: what C and Python have.
///
/// What has text here (rules, destinations) is read by the engine's process. Otherwise everything means what it means to
/// [`Engine`].
#[derive(Clone, Debug)]
pub enum AnyEngine {
    /// This process has it.
    Local(Engine),
    /// Another process has it.
    Remote(Client),
}

/// Calls what both have.
macro_rules! either {
    ($self:ident, $name:ident($($arg:expr),*)) => {
        match $self {
            AnyEngine::Local(engine) => engine.$name($($arg),*),
            AnyEngine::Remote(client) => client.$name($($arg),*),
        }
    };
}

#[allow(clippy::missing_errors_doc)]
impl AnyEngine {
    /// Opens an engine in this process.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open(config: Config) -> Result<AnyEngine> {
        Engine::open(config).map(AnyEngine::Local)
    }

    /// The engine at an address: `unix:/path/of/the/socket`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for another kind of address; otherwise as [`Client::connect`].
    pub fn connect(address: &str, options: ClientOptions) -> Result<AnyEngine> {
        let Some(path) = address.strip_prefix("unix:") else {
            let what = format!("`{}` is no address of an engine", address.escape_debug());
            return Err(Error::new(ErrorKind::InvalidArgument, what).remedy("write unix: and the path of the socket"));
        };
        Client::connect(path, options).map(AnyEngine::Remote)
    }

    /// As [`Client::open_or_connect`].
    ///
    /// # Errors
    /// As [`Client::open_or_connect`].
    pub fn open_or_connect(config: Config, options: ClientOptions) -> Result<AnyEngine> {
        Client::open_or_connect(config, options).map(AnyEngine::Remote)
    }

    /// As [`Engine::check_process`].
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        either!(self, check_process())
    }

    /// As [`Engine::publish_with`].
    #[inline]
    pub fn publish_with(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        either!(self, publish_with(event, options))
    }

    /// As [`Engine::submit`].
    #[inline]
    pub fn submit(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Option<Receipt>> {
        either!(self, submit(event, options))
    }

    /// As [`Engine::publish_batch`].
    pub fn publish_batch(
        &self,
        events: &[Event<'_>],
        options: &PublishOptions,
        out: &mut Vec<Published>,
    ) -> Result<()> {
        either!(self, publish_batch(events, options, out))
    }

    /// As [`Engine::publish_json`].
    pub fn publish_json(
        &self,
        document: &mut [u8],
        content_type: &str,
        options: &PublishOptions,
        published: &mut PublishedJson,
    ) -> Result<()> {
        either!(self, publish_json(document, content_type, options, published))
    }

    /// As [`Engine::append_at`].
    pub fn append_at(&self, cursor: u64, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        either!(self, append_at(cursor, event, options))
    }

    /// As [`Engine::last_applied`].
    pub fn last_applied(&self) -> Result<u64> {
        either!(self, last_applied())
    }

    /// As [`Engine::is_interested`].
    #[inline]
    pub fn is_interested(&self, bucket: &str, event_type: EventType<'_>) -> bool {
        either!(self, is_interested(bucket, event_type))
    }

    /// As [`Engine::details_wanted`].
    pub fn details_wanted(&self, event: &Event<'_>) -> Result<DetailsWanted> {
        either!(self, details_wanted(event))
    }

    /// As [`Engine::check`].
    pub fn check(&self, event: &Event<'_>) -> Result<()> {
        either!(self, check(event))
    }

    /// As [`Engine::event_types`].
    pub fn event_types(&self) -> Arc<EventTypes> {
        match self {
            AnyEngine::Local(engine) => Arc::new(engine.event_types().clone()),
            AnyEngine::Remote(client) => client.event_types(),
        }
    }

    /// As [`Engine::completions`].
    pub fn completions(&self) -> Result<Completions> {
        either!(self, completions())
    }

    /// As [`Engine::completions_to`].
    pub fn completions_to(&self, each: impl FnMut(&[Completion]) + Send + 'static) -> Result<CompletionCalls> {
        either!(self, completions_to(each))
    }

    /// As [`Engine::reserve`].
    pub fn reserve(&self, event: &Event<'_>, options: &ReserveOptions) -> Result<Reserved> {
        either!(self, reserve(event, options))
    }

    /// As [`Engine::reserve_batch`].
    pub fn reserve_batch(&self, events: &[Event<'_>], options: &ReserveOptions) -> Result<ReservedBatch> {
        either!(self, reserve_batch(events, options))
    }

    /// As [`Engine::in_doubt`].
    pub fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        either!(self, in_doubt())
    }

    /// As [`Engine::resolve`].
    pub fn resolve(&self, token: EventId, resolution: Resolution<'_>) -> Result<()> {
        either!(self, resolve(token, resolution))
    }

    /// As [`Engine::flush`].
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        either!(self, flush(timeout))
    }

    /// As [`Engine::close`], or [`Client::close`].
    pub fn close(&self, timeout: Duration) -> Result<()> {
        either!(self, close(timeout))
    }

    /// How long closing waits, as the configuration says.
    pub fn close_timeout(&self) -> Duration {
        match self {
            AnyEngine::Local(engine) => engine.config().close_timeout,
            AnyEngine::Remote(client) => client.close_timeout(),
        }
    }

    /// As [`Engine::stats`].
    pub fn stats(&self) -> Result<Stats> {
        match self {
            AnyEngine::Local(engine) => engine.check_process().map(|()| engine.stats()),
            AnyEngine::Remote(client) => client.call(&Request::Stats),
        }
    }

    /// As [`Engine::stats_json`].
    pub fn stats_json(&self) -> Result<Value> {
        self.ask(Request::StatsJson)
    }

    /// As [`Engine::prometheus`].
    pub fn prometheus(&self, format: MetricsFormat) -> Result<String> {
        self.ask(Request::Prometheus { open: format == MetricsFormat::OpenMetrics })
    }

    /// As [`Engine::put_rule`], with the text that [`Engine::rule_of_text`] reads.
    pub fn put_rule_text(&self, text: &str, expect: Expect) -> Result<u64> {
        self.ask(Request::PutRule { text: text.to_owned(), expect })
    }

    /// As [`Engine::delete_rule`].
    pub fn delete_rule(&self, bucket: Option<&str>, id: &str, expect: Expect) -> Result<()> {
        self.ask(Request::DeleteRule { bucket: bucket.map(str::to_owned), id: id.to_owned(), expect })
    }

    /// As [`Engine::rule_json`].
    pub fn rule_json(&self, bucket: Option<&str>, id: &str) -> Result<Value> {
        self.ask(Request::Rule { bucket: bucket.map(str::to_owned), id: id.to_owned() })
    }

    /// As [`Engine::rules_version`].
    pub fn rules_version(&self) -> Result<u64> {
        match self {
            AnyEngine::Local(engine) => engine.check_process().map(|()| engine.rules_version()),
            AnyEngine::Remote(_) => Ok(self.rules_json()?["version"].as_u64().unwrap_or_default()),
        }
    }

    /// As [`Engine::rules_json`].
    pub fn rules_json(&self) -> Result<Value> {
        self.ask(Request::Rules)
    }

    /// As [`Engine::put_bucket_notification`].
    pub fn put_bucket_notification(
        &self,
        bucket: &str,
        text: &str,
        format: Option<Format>,
        options: &NotificationOptions,
        expect: Expect,
    ) -> Result<u64> {
        let (bucket, text, options) = (bucket.to_owned(), text.to_owned(), options.clone());
        self.ask(Request::PutNotification { bucket, text, format, options, expect })
    }

    /// As [`Engine::check_bucket_notification`], with the rules as JSON.
    pub fn check_bucket_notification(
        &self,
        bucket: &str,
        text: &str,
        format: Option<Format>,
        options: &NotificationOptions,
    ) -> Result<Value> {
        let (bucket, text, options) = (bucket.to_owned(), text.to_owned(), options.clone());
        self.ask(Request::CheckNotification { bucket, text, format, options })
    }

    /// As [`Engine::bucket_notification`].
    pub fn bucket_notification(&self, bucket: &str, format: Format) -> Result<BucketNotification> {
        self.ask(Request::Notification { bucket: bucket.to_owned(), format })
    }

    /// As [`Engine::put_destination`], with the text that [`Config::destination_of_text`] reads.
    pub fn put_destination_text(&self, text: &str, expect: Expect, backlog: &Backlog) -> Result<u64> {
        self.ask(Request::PutDestination { text: text.to_owned(), expect, backlog: backlog.clone() })
    }

    /// As [`Engine::delete_destination`].
    pub fn delete_destination(&self, name: &str, expect: Expect, backlog: &Backlog) -> Result<()> {
        self.ask(Request::DeleteDestination { name: name.to_owned(), expect, backlog: backlog.clone() })
    }

    /// As [`Engine::suspend_destination`].
    pub fn suspend_destination(&self, name: &str) -> Result<()> {
        self.ask(Request::Suspend { name: name.to_owned() })
    }

    /// As [`Engine::resume_destination`].
    pub fn resume_destination(&self, name: &str) -> Result<()> {
        self.ask(Request::Resume { name: name.to_owned() })
    }

    /// As [`Engine::confirm_destination`].
    pub fn confirm_destination(&self, name: &str, per_minute: Option<u32>) -> Result<()> {
        self.ask(Request::Confirm { name: name.to_owned(), per_minute })
    }

    /// As [`Engine::destination_test_json`].
    pub fn destination_test_json(&self, name: &str) -> Result<Value> {
        self.ask(Request::Test { name: name.to_owned() })
    }

    /// As [`Engine::rotate_secret`]; `overlap` is usually [`ROTATION_OVERLAP`], which `None` stands for. Answers the secret.
    pub fn rotate_secret(&self, name: &str, secret: Option<String>, overlap: Option<Duration>) -> Result<String> {
        let overlap_ms = millis(overlap.unwrap_or(ROTATION_OVERLAP));
        self.ask(Request::RotateSecret { name: name.to_owned(), secret, overlap_ms })
    }

    /// As [`Engine::destination_standing`], as JSON.
    pub fn destination_json(&self, name: &str) -> Result<Value> {
        self.ask(Request::Destination { name: name.to_owned() })
    }

    /// As [`Engine::destinations_json`].
    pub fn destinations_json(&self) -> Result<Value> {
        self.ask(Request::Destinations)
    }

    /// As [`Engine::set_handler`].
    ///
    /// # Errors
    /// As [`Engine::set_handler`]; [`ErrorKind::InvalidArgument`] if the engine is another process's: that is the one that
    /// delivers.
    pub fn set_handler(&self, name: &str, handler: Option<Arc<dyn Handler>>) -> Result<()> {
        match self {
            AnyEngine::Local(engine) => engine.set_handler(name, handler),
            AnyEngine::Remote(client) => {
                client.check_process()?;
                let what = "the engine is another process's, and a handler belongs where it is";
                Err(Error::new(ErrorKind::InvalidArgument, what)
                    .remedy("set it in the process that opens the engine, or consume a group"))
            }
        }
    }

    /// As [`Engine::set_enricher`].
    ///
    /// # Errors
    /// As [`Engine::set_enricher`]; [`ErrorKind::InvalidArgument`] if the engine is another process's, whose events are enriched
    /// there.
    pub fn set_enricher(&self, enricher: Option<Arc<dyn Enricher>>, options: EnrichOptions) -> Result<()> {
        match self {
            AnyEngine::Local(engine) => engine.set_enricher(enricher, options),
            AnyEngine::Remote(client) => {
                client.check_process()?;
                let what = "the engine is another process's, and an enricher belongs where it is";
                Err(Error::new(ErrorKind::InvalidArgument, what).remedy("set it in the process that opens the engine"))
            }
        }
    }

    /// As [`Engine::dead_letters`].
    pub fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>> {
        let client = match self {
            AnyEngine::Local(engine) => return engine.dead_letters(filter, after, limit),
            AnyEngine::Remote(client) => client,
        };
        let (limit, mut all) = (limit.min(LETTERS_MAX), Vec::new());
        let mut after = after;
        while all.len() < limit {
            let request = Request::DeadLetters { filter: filter.clone(), after, limit: limit - all.len() };
            let (told, behind) = client.call_with(&request, &[], None)?;
            let page = calls::letters(told, &behind)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            all.extend(page);
        }
        Ok(all)
    }

    /// As [`Engine::snapshot`]; this process writes the file.
    pub fn snapshot(&self, file: &Path) -> Result<()> {
        match self {
            AnyEngine::Local(engine) => engine.snapshot(file).map(drop),
            AnyEngine::Remote(client) => write_file(file, |out| {
                let failed = |e: &io::Error| Error::io("cannot write the snapshot", e).at(file.display().to_string());
                download(client, &Request::Snapshot, out, failed)
            }),
        }
    }

    /// As [`Engine::export_dead_letters`].
    pub fn export_dead_letters(&self, filter: &DeadLetterFilter, out: &mut dyn Write) -> Result<u64> {
        let client = match self {
            AnyEngine::Local(engine) => return engine.export_dead_letters(filter, out),
            AnyEngine::Remote(client) => client,
        };
        let request = Request::ExportDeadLetters { filter: filter.clone() };
        download(client, &request, out, |e| Error::io("cannot write dead letters", e))
    }

    /// As [`Engine::redrive`], until it is through or the time is over; then what is not yet redriven is left alone. Tells how
    /// far it came also if it fails.
    pub fn redrive(
        &self,
        filter: &DeadLetterFilter,
        options: &RedriveOptions,
        timeout: Duration,
    ) -> Result<(Redriven, Result<()>)> {
        let request = Request::Redrive { filter: filter.clone(), options: options.clone(), ms: millis(timeout) };
        self.ask_within(request, timeout).map(redriven)
    }

    /// As [`Engine::purge_dead_letters`].
    pub fn purge_dead_letters(&self, filter: &DeadLetterFilter, timeout: Duration) -> Result<u64> {
        self.ask_within(Request::PurgeDeadLetters { filter: filter.clone(), ms: millis(timeout) }, timeout)
    }

    /// As [`Engine::groups`].
    pub fn groups(&self) -> Result<Vec<GroupStats>> {
        self.ask(Request::Groups)
    }

    /// As [`Engine::delete_group`].
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.ask(Request::DeleteGroup { name: name.to_owned() })
    }

    /// As [`Engine::tail`].
    pub fn tail(&self, filter: EventFilter, from: &ReadFrom) -> Result<AnyTail> {
        match self {
            AnyEngine::Local(engine) => engine.tail(filter, from).map(|tail| AnyTail(TailSide::Local(Box::new(tail)))),
            AnyEngine::Remote(client) => {
                filter.validate()?;
                let line = Line::new(client.open_call()?);
                let request = Request::Tail { filter: FilterFile::of(&filter), from: from.into() };
                let () = wire::value(exchange(line.socket(), &request, &[], None)?.0)?;
                let position = wire::value(exchange(line.socket(), &Request::TailPosition, &[], None)?.0)?;
                let (client, read) = (client.clone(), Vec::new().into_iter());
                Ok(AnyTail(TailSide::Remote { client, line, position, read }))
            }
        }
    }

    /// As [`Engine::consumer`].
    pub fn consumer(&self, group: &str, options: &ConsumerOptions) -> Result<AnyConsumer> {
        match self {
            AnyEngine::Local(engine) => engine.consumer(group, options).map(|c| AnyConsumer(ConsumerSide::Local(c))),
            AnyEngine::Remote(client) => {
                let call = Call::open(client)?;
                let request = Request::Consumer { group: group.to_owned(), options: options.into() };
                let () = call.ask(&request, Duration::from_secs(10))?;
                let early = Mutex::new(VecDeque::new());
                Ok(AnyConsumer(ConsumerSide::Remote { call, group: group.to_owned(), early }))
            }
        }
    }

    /// As [`Engine::replay`]. `one_off` is the text of a destination of its own ([`Config::destination_of_text`]), or else
    /// `named` names one of the rules.
    #[allow(clippy::too_many_arguments)]
    pub fn replay(
        &self,
        name: Option<String>,
        named: Option<String>,
        one_off: Option<String>,
        from: &ReadFrom,
        until_ns: Option<u64>,
        filter: &EventFilter,
        rate_max: Option<u32>,
    ) -> Result<AnyReplay> {
        let filter = FilterFile::of(filter);
        let request = WireReplay { name, from: from.into(), until_ns, filter, named, one_off, rate_max };
        match self {
            AnyEngine::Local(engine) => {
                let handle = engine.replay(calls::replay_request(request, engine)?)?;
                Ok(AnyReplay(ReplaySide::Local(handle)))
            }
            AnyEngine::Remote(client) => {
                let call = Call::open(client)?;
                let name = call.ask(&Request::Replay(Box::new(request)), Duration::ZERO)?;
                Ok(AnyReplay(ReplaySide::Remote(call, name)))
            }
        }
    }

    /// The replay of a name, if it is under way.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], and as [`Engine::replays`].
    pub fn find_replay(&self, name: &str) -> Result<AnyReplay> {
        match self {
            AnyEngine::Local(engine) => Ok(AnyReplay(ReplaySide::Local(calls::find_replay(engine, name)?))),
            AnyEngine::Remote(client) => {
                let call = Call::open(client)?;
                let () = call.ask(&Request::FindReplay { name: name.to_owned() }, Duration::ZERO)?;
                Ok(AnyReplay(ReplaySide::Remote(call, name.to_owned())))
            }
        }
    }

    /// As [`Engine::resume_replay`], with the text of a destination.
    pub fn resume_replay_text(&self, name: &str, destination: &str) -> Result<()> {
        self.ask(Request::ResumeReplay { name: name.to_owned(), destination: destination.to_owned() })
    }

    /// As [`Engine::replays_json`].
    pub fn replays_json(&self) -> Result<Value> {
        self.ask(Request::Replays)
    }

    fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        self.ask_within(request, Duration::ZERO)
    }

    fn ask_within<T: DeserializeOwned>(&self, request: Request, limit: Duration) -> Result<T> {
        match self {
            AnyEngine::Local(engine) => match answer(engine, request, &[]) {
                Ok(value) => wire::value(Answer::Ok(value)),
                Err(NotPlain::Error(e)) => Err(e),
                Err(NotPlain::Frames(value, _)) => wire::value(Answer::Ok(value)),
            },
            AnyEngine::Remote(client) => client.call_with(&request, &[], Some(limit)).map(|(value, _)| value),
        }
    }
}

impl From<Engine> for AnyEngine {
    fn from(engine: Engine) -> AnyEngine {
        AnyEngine::Local(engine)
    }
}

impl From<Client> for AnyEngine {
    fn from(client: Client) -> AnyEngine {
        AnyEngine::Remote(client)
    }
}

/// Writes what an answer brings in parts, and gives what comes at the end of it.
fn download<T: DeserializeOwned>(
    client: &Client,
    request: &Request,
    out: &mut dyn Write,
    failed: impl Fn(&io::Error) -> Error,
) -> Result<T> {
    let socket = client.open_call()?;
    let mut next = exchange(&socket, request, &[], None)?;
    loop {
        let (answer, behind) = next;
        match answer.map_err(Error::from)? {
            Value::Null if !behind.is_empty() => out.write_all(&behind).map_err(|e| failed(&e))?,
            end => return wire::value(Answer::Ok(end)),
        }
        next = wire::receive(&socket)?;
    }
}

/// A connection with something open at its other end, which ends with it.
#[derive(Debug)]
struct Call {
    client: Client,
    /// One call at a time.
    line: Mutex<Line>,
}

impl Call {
    fn open(client: &Client) -> Result<Call> {
        Ok(Call { client: client.clone(), line: Mutex::new(Line::new(client.open_call()?)) })
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request, limit: Duration) -> Result<T> {
        self.ask_for(request, limit).map(|(value, _)| value)
    }

    fn ask_for<T: DeserializeOwned>(&self, request: &Request, limit: Duration) -> Result<(T, Vec<u8>)> {
        self.client.check_process()?;
        let answer = exchange(self.line.lock().socket(), request, &[], Some(limit));
        let (answer, behind) = answer.map_err(|e| self.client.explain(e))?;
        wire::value(answer).map(|value| (value, behind))
    }
}

/// [`Tail`], wherever the engine is.
#[derive(Debug)]
pub struct AnyTail(TailSide);

#[derive(Debug)]
enum TailSide {
    Local(Box<Tail>),
    Remote {
        client: Client,
        line: Line,
        /// After what was read.
        position: String,
        /// What was fetched and not read, with the position after each.
        read: std::vec::IntoIter<(Item, String)>,
    },
}

/// What a remote tail fetches at a time, as it is asked for one after the other.
const TAIL_AHEAD: usize = 64;

impl AnyTail {
    /// As [`Tail::next_within`].
    ///
    /// # Errors
    /// As [`Tail::next_within`], and [`ErrorKind::Disconnected`]: open another one at the position.
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<Item>> {
        let TailSide::Remote { client, line, position, read } = &mut self.0 else {
            let TailSide::Local(tail) = &mut self.0 else { unreachable!("it is one or the other") };
            return tail.next_within(wait);
        };
        let deadline = deadline_in(wait);
        loop {
            if let Some((item, after)) = read.next() {
                *position = after;
                return Ok(Some(item));
            }
            client.check_process()?;
            let left = deadline.saturating_duration_since(driver::now());
            let mut until = deadline;
            if !line.is_asked() {
                // An answer to this question comes, if only after a moment.
                until += CALL_MARGIN;
                line.begin(&Request::TailNext { max: TAIL_AHEAD, ms: millis(left.min(LOOK)) })
                    .map_err(|e| client.explain(e))?;
            }
            let answered = line.answer(until).map_err(|e| client.explain(e))?;
            let Some((answer, behind)) = answered else { return Ok(None) };
            let (items, positions): (Vec<WireItem>, Vec<String>) = wire::value(answer)?;
            let items = exchange_items(items, &behind)?.into_iter().map(|d| match d {
                Delivery::Event(d) => Item::Entry(Arc::unwrap_or_clone(d.entry)),
                Delivery::Gap(g) => Item::Gap(g),
            });
            let fetched: Vec<(Item, String)> = items.zip(positions).collect();
            if fetched.is_empty() && driver::now() >= deadline {
                return Ok(None);
            }
            *read = fetched.into_iter();
        }
    }

    /// Whether it is another process's.
    pub fn is_remote(&self) -> bool {
        matches!(self.0, TailSide::Remote { .. })
    }

    /// As [`Tail::watch`], if the engine is here.
    pub fn watch(&self) -> Option<LogWatch> {
        match &self.0 {
            TailSide::Local(tail) => Some(tail.watch()),
            TailSide::Remote { .. } => None,
        }
    }

    /// Asks the engine's process for what comes next, if it is another one and nothing is at hand: the descriptor is readable
    /// when there is something, or nothing came within `wait`, at most [`Self::ASK_MAX`]. Then look with
    /// [`AnyTail::next_within`] without a wait. What was asked for is not lost if nobody looks.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`]; [`ErrorKind::Io`] if there are no descriptors left; [`ErrorKind::WrongProcess`].
    pub fn ask(&mut self, wait: Duration) -> Result<Option<OwnedFd>> {
        let TailSide::Remote { client, line, read, .. } = &mut self.0 else { return Ok(None) };
        if !read.as_slice().is_empty() {
            return Ok(None);
        }
        client.check_process()?;
        if !line.is_asked() {
            line.begin(&Request::TailNext { max: TAIL_AHEAD, ms: millis(wait.min(Self::ASK_MAX)) })
                .map_err(|e| client.explain(e))?;
        }
        descriptor(line).map(Some)
    }

    /// The longest that [`AnyTail::ask`] waits.
    pub const ASK_MAX: Duration = LOOK;

    /// As [`Tail::position`], as text.
    pub fn position(&self) -> String {
        match &self.0 {
            TailSide::Local(tail) => Tail::position(tail).to_string(),
            TailSide::Remote { position, .. } => position.clone(),
        }
    }
}

/// [`Consumer`], wherever the engine is.
#[derive(Debug)]
pub struct AnyConsumer(ConsumerSide);

#[derive(Debug)]
enum ConsumerSide {
    Local(Consumer),
    Remote {
        call: Call,
        group: String,
        /// What came before somebody fetched it: see [`AnyConsumer::ask`].
        early: Mutex<VecDeque<Delivery>>,
    },
}

#[allow(clippy::missing_errors_doc)]
impl AnyConsumer {
    /// As [`Consumer::group`].
    pub fn group(&self) -> &str {
        match &self.0 {
            ConsumerSide::Local(consumer) => consumer.group(),
            ConsumerSide::Remote { group, .. } => group,
        }
    }

    /// As [`Consumer::fetch`].
    pub fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        match &self.0 {
            ConsumerSide::Local(consumer) => consumer.fetch(max, wait),
            ConsumerSide::Remote { call, early, .. } => fetch(call, early, max, wait),
        }
    }

    /// Whether it is another process's.
    pub fn is_remote(&self) -> bool {
        matches!(self.0, ConsumerSide::Remote { .. })
    }

    /// As [`Consumer::watch`], if the engine is here.
    pub fn watch(&self) -> Option<LogWatch> {
        match &self.0 {
            ConsumerSide::Local(consumer) => Some(consumer.watch()),
            ConsumerSide::Remote { .. } => None,
        }
    }

    /// Asks the engine's process for events, if it is another one and there are none at hand: the descriptor is readable when
    /// there are some, or none came within `wait`, at most [`Self::ASK_MAX`]. Then call [`AnyConsumer::fetch`] without a wait: what
    /// came is on lease already. Other calls wait meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`]; [`ErrorKind::Io`] if there are no descriptors left; [`ErrorKind::WrongProcess`].
    pub fn ask(&self, max: usize, wait: Duration) -> Result<Option<OwnedFd>> {
        let ConsumerSide::Remote { call, early, .. } = &self.0 else { return Ok(None) };
        call.client.check_process()?;
        let mut line = call.line.lock();
        if !early.lock().is_empty() {
            return Ok(None);
        }
        if !line.is_asked() {
            line.begin(&Request::Fetch { max, ms: millis(wait.min(Self::ASK_MAX)) })
                .map_err(|e| call.client.explain(e))?;
        }
        descriptor(&line).map(Some)
    }

    /// The longest that [`AnyConsumer::ask`] waits.
    pub const ASK_MAX: Duration = Consumer::LOOK_AGAIN;

    /// As [`Consumer::ack`].
    pub fn ack(&self, leases: &[Lease]) -> Result<()> {
        match &self.0 {
            ConsumerSide::Local(consumer) => consumer.ack(leases),
            ConsumerSide::Remote { call, early, .. } => {
                let leases = leases.iter().map(|l| l.to_numbers()).collect();
                told_of_lease(call, early, &Request::Ack { leases })
            }
        }
    }

    /// As [`Consumer::nack`].
    pub fn nack(&self, lease: Lease, delay: Duration) -> Result<()> {
        match &self.0 {
            ConsumerSide::Local(consumer) => consumer.nack(lease, delay),
            ConsumerSide::Remote { call, early, .. } => {
                told_of_lease(call, early, &Request::Nack { lease: lease.to_numbers(), ms: millis(delay) })
            }
        }
    }

    /// As [`Consumer::extend`].
    pub fn extend(&self, lease: Lease) -> Result<()> {
        match &self.0 {
            ConsumerSide::Local(consumer) => consumer.extend(lease),
            ConsumerSide::Remote { call, early, .. } => {
                told_of_lease(call, early, &Request::Extend { lease: lease.to_numbers() })
            }
        }
    }
}

/// A descriptor of a connection that lives as long as who waits for it.
fn descriptor(line: &Line) -> Result<OwnedFd> {
    line.socket()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("cannot wait for the engine's process", &e).remedy("raise the limit of open files"))
}

/// Keeps the events that were asked for and have come, or come until then.
fn collect(call: &Call, line: &mut Line, early: &Mutex<VecDeque<Delivery>>, until: Instant) -> Result<()> {
    if line.is_asked()
        && let Some((answer, behind)) = line.answer(until).map_err(|e| call.client.explain(e))?
    {
        early.lock().extend(exchange_items(wire::value(answer)?, &behind)?);
    }
    Ok(())
}

/// Fetches a part of the time at a time, so that others can call meanwhile.
fn fetch(call: &Call, early: &Mutex<VecDeque<Delivery>>, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
    let deadline = deadline_in(wait);
    loop {
        call.client.check_process()?;
        let mut line = call.line.lock();
        let left = deadline.saturating_duration_since(driver::now()).min(LOOK);
        let asked_before = line.is_asked();
        if !asked_before && early.lock().is_empty() {
            line.begin(&Request::Fetch { max, ms: millis(left) }).map_err(|e| call.client.explain(e))?;
            collect(call, &mut line, early, deadline_in(left.saturating_add(CALL_MARGIN)))?;
        } else {
            collect(call, &mut line, early, deadline_in(left))?;
        }
        drop(line);
        let mut early = early.lock();
        let count = early.len().min(max);
        if count > 0 || driver::now() >= deadline {
            return Ok(early.drain(..count).collect());
        }
    }
}

/// Says what became of something on lease, after what was asked before.
fn told_of_lease(call: &Call, early: &Mutex<VecDeque<Delivery>>, request: &Request) -> Result<()> {
    call.client.check_process()?;
    let mut line = call.line.lock();
    collect(call, &mut line, early, deadline_in(CALL_MARGIN))?;
    let (answer, _) = exchange(line.socket(), request, &[], None).map_err(|e| call.client.explain(e))?;
    wire::value(answer)
}

/// [`ReplayHandle`], wherever the engine is.
#[derive(Debug)]
pub struct AnyReplay(ReplaySide);

#[derive(Debug)]
enum ReplaySide {
    Local(ReplayHandle),
    Remote(Call, String),
}

#[allow(clippy::missing_errors_doc)]
impl AnyReplay {
    /// As [`ReplayHandle::name`].
    pub fn name(&self) -> &str {
        match &self.0 {
            ReplaySide::Local(replay) => replay.name(),
            ReplaySide::Remote(_, name) => name,
        }
    }

    /// As [`ReplayHandle::progress`].
    pub fn progress(&self) -> Result<ReplayProgress> {
        match &self.0 {
            ReplaySide::Local(replay) => Ok(replay.progress()),
            ReplaySide::Remote(call, _) => call.ask(&Request::ReplayProgress, Duration::ZERO),
        }
    }

    /// The same with the name, as JSON.
    pub fn json(&self) -> Result<Value> {
        Ok(replay_json(self.name(), &self.progress()?))
    }

    /// As [`ReplayHandle::wait`].
    pub fn wait(&self, timeout: Duration) -> Result<ReplayProgress> {
        match &self.0 {
            ReplaySide::Local(replay) => replay.wait(timeout),
            ReplaySide::Remote(call, _) => {
                let deadline = deadline_in(timeout);
                loop {
                    let left = deadline.saturating_duration_since(driver::now());
                    let part = left.min(LOOK);
                    match call.ask(&Request::ReplayWait { ms: millis(part) }, part) {
                        Err(e) if e.kind() == ErrorKind::Timeout && left > part => {}
                        done => return done,
                    }
                }
            }
        }
    }

    /// As [`ReplayHandle::cancel`].
    pub fn cancel(&self) -> Result<()> {
        match &self.0 {
            ReplaySide::Local(replay) => replay.cancel(),
            ReplaySide::Remote(call, _) => call.ask(&Request::ReplayCancel, Duration::ZERO),
        }
    }
}
