//! `tidewire-receiver`: takes webhooks, and can log each accepted record before it answers; or breaks every connection.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tidewire_receiver::{Behaviour, Hostile, HostileSettings, Receiver, Settings, Trick};

const USAGE: &str = "usage: tidewire-receiver --listen ADDRESS:PORT [--log FILE] [--status CODE | --delay-ms N]
       tidewire-receiver --listen ADDRESS:PORT --hostile NAME [--turns N] [--authority FILE]

Answers each webhook with 204. With --log, one line `eventId key sequencer size` is appended
for each record before the answer. Prints `listening on ADDRESS:PORT` when it is ready.

With --hostile it does this to each connection and each further request on one, or to so many,
and then answers 204. With --authority it speaks TLS, and writes there what clients are to trust.";

enum Told {
    Friendly(Settings),
    Hostile { settings: HostileSettings, trick: Trick, turns: u64, authority: Option<PathBuf> },
}

fn main() -> ExitCode {
    let told = match told(std::env::args().skip(1)) {
        Ok(told) => told,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            for trick in Trick::ALL {
                eprintln!("  {:26}{}", trick.name(), trick.describe());
            }
            return ExitCode::from(2);
        }
    };
    let Err(e) = run(told);
    eprintln!("cannot receive: {e}");
    ExitCode::FAILURE
}

fn run(told: Told) -> io::Result<Infallible> {
    match told {
        Told::Friendly(settings) => {
            let receiver = Receiver::with(settings)?;
            serve(receiver.addr())
        }
        Told::Hostile { settings, trick, turns, authority } => {
            let hostile = Hostile::start(settings)?;
            hostile.play(trick, turns);
            if let Some(path) = authority {
                std::fs::write(path, hostile.authority())?;
            }
            serve(hostile.addr())
        }
    }
}

fn serve(address: SocketAddr) -> ! {
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(io::stdout(), "listening on {address}").and_then(|()| io::stdout().flush());
    loop {
        std::thread::park();
    }
}

fn told(mut args: impl Iterator<Item = String>) -> Result<Told, String> {
    let mut settings = Settings { keep_records: false, ..Settings::default() };
    let (mut listen, mut hostile, mut turns, mut authority) = (None, None, u64::MAX, None);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let bad = || format!("{name} cannot be {value:?}");
        match name.as_str() {
            "--listen" => listen = Some(value.parse::<SocketAddr>().map_err(|_| bad())?),
            "--log" => settings.log = Some(value.into()),
            "--status" => {
                let status = value.parse().ok().filter(|s| (200..=599).contains(s));
                settings.behaviour = Behaviour::Status(status.ok_or_else(bad)?);
            }
            "--delay-ms" => {
                settings.behaviour = Behaviour::Delay(Duration::from_millis(value.parse().map_err(|_| bad())?));
            }
            "--hostile" => hostile = Some(value.parse::<Trick>()?),
            "--turns" => turns = value.parse().map_err(|_| bad())?,
            "--authority" => authority = Some(PathBuf::from(value)),
            _ => return Err(format!("{name} is not known")),
        }
    }
    let listen = listen.ok_or("--listen is missing")?;
    let Some(trick) = hostile else {
        return Ok(Told::Friendly(Settings { listen, ..settings }));
    };
    if trick.needs_tls() && authority.is_none() {
        return Err(format!("{trick} is for TLS: give --authority"));
    }
    let settings = HostileSettings { listen, tls: authority.is_some(), ..HostileSettings::default() };
    Ok(Told::Hostile { settings, trick, turns, authority })
}
