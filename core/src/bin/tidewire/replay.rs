//! `tidewire replay`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use tidewire::event::profile::Profile;
use tidewire::event::{EventPattern, EventTypes};
use tidewire::filter::{EventFilter, Filter, NamedFilters};
use tidewire::rule::{Destination, DestinationKind, Webhook};
use tidewire::{Engine, ErrorKind, ReplayHandle, ReplayProgress, ReplayRequest, ReplayState, ReplayTo};

use crate::values::{From, Time, usage};
use crate::{Failure, load, run};

/// How often progress is told.
const TELL: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration file of the engine, which must not be running
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to begin: `beginning`, a time such as 2026-05-04T10:00:00Z, `sequence:N`, or a position that `tail` told
    #[arg(long, value_name = "FROM")]
    from: From,
    /// Where the events go: the name of a destination, or the URL of a webhook
    #[arg(long, value_name = "NAME|URL")]
    to: String,
    /// For a URL: how the records are written
    #[arg(long, value_name = "PROFILE", default_value = "aws")]
    profile: String,
    /// Leave out what came after this time
    #[arg(long, value_name = "TIME")]
    until: Option<Time>,
    #[command(flatten)]
    filter: FilterOptions,
    /// At most so many events per second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// The replay's name, which its records carry. The name of a replay that was interrupted goes on with it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct FilterOptions {
    /// Only events of this bucket
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    /// Only events of this type, such as `s3:ObjectCreated:*`; may be given several times
    #[arg(long, value_name = "TYPE")]
    event: Vec<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: OsString,
    /// Only keys that end with this
    #[arg(long, value_name = "SUFFIX", default_value = "")]
    suffix: OsString,
    /// Only events that pass this filter, in the native JSON form, such as '{"size": {"min": "1MiB"}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
}

impl FilterOptions {
    /// `types` are those of the engine, if known; else any well-formed name passes.
    pub(crate) fn filter(&self, types: Option<&EventTypes>) -> Result<EventFilter, Failure> {
        // Of a host's own types nothing is known without its configuration: every well-formed name will do.
        let own = self.event.iter().filter(|n| EventPattern::parse([n], &EventTypes::default()).is_err());
        let guessed = EventTypes::with_custom(own.map(|n| n.replace('*', "x"))).unwrap_or_default();
        let key = Filter::new(self.prefix.as_bytes(), self.suffix.as_bytes());
        let mut filter = EventFilter::all().with_key(key);
        if let Some(bucket) = &self.bucket {
            filter = filter.with_bucket(bucket);
        }
        if let Some(json) = &self.filter {
            let more = Filter::parse_json(json, &NamedFilters::new());
            filter = filter.with_filter(more.map_err(|e| Failure::Usage(e.at("--filter")))?);
        }
        let filter = filter.with_events(&self.event, types.unwrap_or(&guessed)).map_err(Failure::Usage)?;
        filter.validate().map_err(Failure::Usage)?;
        Ok(filter)
    }
}

pub(crate) fn replay(options: &Options) -> Result<(), Failure> {
    let config = load(&options.config, None)?;
    let types = config.engine.event_types.clone();
    let request = request(options, &types)?;
    let told_to_stop = run::signals()?;
    let close_timeout = config.engine.close_timeout;
    let engine = Engine::open(config).map_err(|e| match e.kind() {
        ErrorKind::Locked => {
            e.remedy("stop that engine and run this again; or ask for the replay in its own process (Engine::replay)")
        }
        _ => e,
    })?;
    let started = begin(&engine, options, request);
    let result = started.and_then(|replay| {
        eprintln!("tidewire: replay `{}` is under way", replay.name());
        let mut told = std::time::Instant::now();
        loop {
            match replay.wait(LOOK) {
                Ok(progress) => return Ok((replay, Some(progress))),
                Err(e) if e.kind() == ErrorKind::Timeout => {}
                Err(e) => return Err(e.into()),
            }
            if told_to_stop.try_recv().is_ok() {
                return Ok((replay, None));
            }
            if told.elapsed() >= TELL {
                told = std::time::Instant::now();
                tell(&replay.progress());
            }
        }
    });
    let closed = engine.close(close_timeout).map_err(Failure::from);
    let (replay, progress) = result?;
    closed?;
    let Some(progress) = progress else {
        eprintln!("tidewire: interrupted; the same command with `--name {}` goes on", replay.name());
        return Err(Failure::Told);
    };
    tell(&progress);
    match progress.state {
        ReplayState::Done if progress.dead_lettered == 0 => Ok(()),
        _ => Err(Failure::Told),
    }
}

fn tell(p: &ReplayProgress) {
    let mut text = format!("{:.0} % read, {} of {} events delivered", p.read * 100.0, p.delivered, p.found);
    if p.dead_lettered > 0 {
        text += &format!(", {} became dead letters", p.dead_lettered);
    }
    if p.missing > 0 {
        text += &format!(", up to {} were not in the log any more", p.missing);
    }
    if p.state == ReplayState::Running && !p.last_error.is_empty() {
        text += &format!("; last error: {}", p.last_error);
    }
    eprintln!("tidewire: {text}");
}

/// One that was interrupted, or a new one.
fn begin(engine: &Engine, options: &Options, request: ReplayRequest) -> Result<ReplayHandle, Failure> {
    let known = engine.replays()?.into_iter().find(|r| Some(r.name()) == options.name.as_deref());
    let Some(replay) = known else {
        return engine.replay(request).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidArgument => Failure::Usage(e),
            _ => e.into(),
        });
    };
    match request.to {
        ReplayTo::OneOff(d) if replay.progress().state == ReplayState::Waiting => {
            Ok(engine.resume_replay(replay.name(), *d)?)
        }
        _ => Ok(replay),
    }
}

fn request(options: &Options, types: &EventTypes) -> Result<ReplayRequest, Failure> {
    let to = if options.to.contains("://") {
        let webhook = Webhook::new(&options.to).map_err(Failure::Usage)?;
        let mut d = Destination::new("replay", DestinationKind::Webhook(webhook));
        d.profile = Profile::parse(&options.profile).map_err(Failure::Usage)?;
        ReplayTo::OneOff(Box::new(d))
    } else {
        ReplayTo::Named(options.to.clone())
    };
    if options.rate == Some(0) {
        return Err(usage("--rate 0 would never end", "leave it out for no limit"));
    }
    let mut request = ReplayRequest::new(to);
    (request.name, request.from, request.rate_max) = (options.name.clone(), options.from.0.clone(), options.rate);
    request.until_ns = options.until.map(|t| t.0);
    request.filter = options.filter.filter(Some(types))?;
    Ok(request)
}
