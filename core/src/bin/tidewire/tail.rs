//! `tidewire tail`.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::json;
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::log::names::Names;
use tidewire::log::reader::{Entry, Gap, GapCause, Item, LogReader, ReadFrom, Step};

use crate::replay::FilterOptions;
use crate::values::{DataDir, From, rfc3339};
use crate::{Failure, load, run};

/// How often the log is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data_dir: DataDir,
    /// Where to begin: `beginning`, `now`, a time such as 2026-05-04T10:00:00Z, `sequence:N`, or a position that an earlier
    /// tail told at its end
    #[arg(long, value_name = "FROM")]
    from: Option<From>,
    /// Go on as events come, until SIGINT or SIGTERM; then the default for --from is `now`, else `beginning`
    #[arg(long, short)]
    follow: bool,
    /// How the records are written: cloudevents, or aws
    #[arg(long, value_name = "PROFILE", default_value = "cloudevents")]
    profile: String,
    #[command(flatten)]
    filter: FilterOptions,
}

pub(crate) fn tail(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let profile = Profile::parse(&options.profile).map_err(Failure::Usage)?;
    let config = options.data_dir.config().map(|file| load(file, None)).transpose()?.map(|c| c.engine);
    let dir = options.data_dir.path()?;
    let filter = options.filter.filter(config.as_ref().map(|c| &c.event_types))?;
    let default = if options.follow { ReadFrom::Now } else { ReadFrom::Beginning };
    let from = options.from.clone().map_or(default, |f| f.0);
    let mut reader = LogReader::open(&dir, &from).map_err(Failure::Usage)?;
    let mut printer = Printer {
        profile,
        names: Names::read(&dir)?,
        region: config.as_ref().map_or("us-east-1", |c| &c.region).to_owned(),
        event_source: config.as_ref().map_or("", |c| &c.event_source).to_owned(),
        dir,
        buffer: BytesMut::new(),
    };
    let told_to_stop = if options.follow { Some(run::signals()?) } else { None };
    loop {
        let step = if options.follow {
            reader.next(None, &mut |f| filter.matches(f))?
        } else {
            reader.next_settled(None, &mut |f| filter.matches(f))?.map_or(Step::End, Step::Item)
        };
        match step {
            Step::Item(Item::Entry(e)) => printer.event(&e, out)?,
            Step::Item(Item::Gap(g)) => gap(&g, out)?,
            Step::More => {}
            Step::End => {
                out.flush()?;
                let Some(stop) = &told_to_stop else { break };
                match stop.recv_timeout(LOOK) {
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    _ => break,
                }
            }
        }
    }
    eprintln!("tidewire: position {}", reader.position());
    Ok(())
}

struct Printer {
    profile: Profile,
    dir: std::path::PathBuf,
    names: Names,
    region: String,
    event_source: String,
    buffer: BytesMut,
}

impl Printer {
    fn event(&mut self, e: &Entry, out: &mut dyn Write) -> Result<(), Failure> {
        let rule = e.routes.first().map_or(0, |r| r.rule);
        if rule != 0 && self.names.rule(rule).is_none() {
            // Rules may have been added since.
            self.names = Names::read(&self.dir)?;
        }
        let rule = match rule {
            0 => String::new(),
            rule => self.names.rule(rule).map_or_else(|| format!("#{rule}"), str::to_owned),
        };
        let context = RecordContext {
            id: e.id,
            sequencer: e.sequencer,
            rule: &rule,
            region: &self.region,
            event_source: &self.event_source,
        };
        self.buffer.clear();
        self.profile.write_record(&e.frame(), &context, &mut self.buffer);
        self.buffer.extend_from_slice(b"\n");
        Ok(out.write_all(&self.buffer)?)
    }
}

/// What is missing stands in its place, as an object that no profile has.
fn gap(g: &Gap, out: &mut dyn Write) -> Result<(), Failure> {
    let cause = match g.cause {
        GapCause::Removed => "removed",
        GapCause::Damaged => "damaged",
    };
    let line = json!({
        "gap": {
            "shard": g.shard,
            "first": g.first,
            "last": g.last,
            "sequences": g.sequences(),
            "since": g.since_ns.map(rfc3339),
            "until": g.until_ns.map(rfc3339),
            "cause": cause,
        }
    });
    Ok(writeln!(out, "{line}")?)
}
