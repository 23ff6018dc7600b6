//! `tidewire event-types`.

use std::io::Write;

use tidewire::event::Scope;
use tidewire::event::profile::Profile;
use tidewire::{EventType, KnownType};

use crate::Failure;

pub(crate) fn list(out: &mut dyn Write) -> Result<(), Failure> {
    let width = KnownType::ALL.iter().map(|t| t.name().len()).max().unwrap_or_default();
    let profiles: Vec<&str> = Profile::ALL.iter().map(|p| p.name()).collect();
    writeln!(out, "{:width$}  {:6}  {}  data", "event type", "of a", profiles.join("  "))?;
    for t in KnownType::ALL {
        let scope = match t.scope() {
            Scope::Object => "object",
            Scope::Bucket => "bucket",
            Scope::System => "store",
        };
        write!(out, "{:width$}  {scope:6}", t.name())?;
        for p in Profile::ALL {
            let mark = if p.expressible(EventType::Known(*t)) { "yes" } else { "-" };
            write!(out, "  {mark:0$}", p.name().len())?;
        }
        writeln!(out, "  {}", t.data_schema().unwrap_or("-"))?;
    }
    writeln!(out, "\nNames may be written without `s3:`. Rules take wildcards at the end: `s3:ObjectCreated:*`, `*`.")?;
    writeln!(out, "Your own types, as `family:Name`, go into `engine.event_types`; `cloudevents` can express them.")?;
    Ok(())
}
