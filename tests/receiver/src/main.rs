//! `tidewire-receiver`: takes webhooks, and can log each accepted record before it answers.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tidewire_receiver::{Behaviour, Receiver, Settings};

const USAGE: &str = "usage: tidewire-receiver --listen ADDRESS:PORT [--log FILE] [--status CODE | --delay-ms N]

Answers each webhook with 204. With --log, one line `eventId key sequencer size` is appended
for each record before the answer. Prints `listening on ADDRESS:PORT` when it is ready.";

fn main() -> ExitCode {
    let settings = match settings(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let listen = settings.listen;
    let receiver = match Receiver::with(settings) {
        Ok(receiver) => receiver,
        Err(e) => {
            eprintln!("cannot receive on {listen}: {e}");
            return ExitCode::FAILURE;
        }
    };
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(std::io::stdout(), "listening on {}", receiver.addr()).and_then(|()| std::io::stdout().flush());
    loop {
        std::thread::park();
    }
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings, String> {
    let mut settings = Settings { keep_records: false, ..Settings::default() };
    let mut listen = None;
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
            _ => return Err(format!("{name} is not known")),
        }
    }
    settings.listen = listen.ok_or("--listen is missing")?;
    Ok(settings)
}
