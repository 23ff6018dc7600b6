//! Prints the figures of benches as a table: `table NAME...`.

use tidewire_benches::{Figure, figures_path};

fn main() {
    println!(
        "{:<44} {:>12} {:<7} {:>12}  {:<34} {:>7}",
        "what", "measured", "unit", "beside", "limit or peer", "ratio"
    );
    for bench in std::env::args().skip(1) {
        let path = figures_path(&bench);
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("no figures of {bench}: {} is not there", path.display());
            std::process::exit(1);
        };
        let figures: Vec<Figure> = match serde_json::from_str(&text) {
            Ok(f) => f,
            Err(e) => {
                eprintln!("{}: {e}", path.display());
                std::process::exit(1);
            }
        };
        for f in figures {
            let digits = if f.value < 100.0 { 1 } else { 0 };
            println!(
                "{:<44} {:>12.digits$} {:<7} {:>12.digits$}  {:<34} {:>7.2}",
                f.name,
                f.value,
                f.unit,
                f.beside_value,
                f.beside,
                f.value / f.beside_value
            );
        }
    }
}
