//! `--profile`: where the time of each step goes, as a trace that <https://ui.perfetto.dev> opens.
//!
//! Chrome's trace event format, one complete event (`ph: X`) a line. A killed process leaves an array without its end,
//! which the format allows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::json;

/// A trace file, open for writing.
#[derive(Debug)]
pub struct Trace {
    file: BufWriter<File>,
    began: Instant,
}

impl Trace {
    /// Starts a trace; a resumed run starts a new one.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"[\n")?;
        Ok(Self {
            file,
            began: Instant::now(),
        })
    }

    /// Something that ended now and took so many seconds, in a step.
    pub fn span(&mut self, name: &str, seconds: f64, step: u64) -> io::Result<()> {
        let end = self.began.elapsed().as_secs_f64();
        let event = json!({
            "name": name,
            "ph": "X",
            "ts": ((end - seconds).max(0.0) * 1e6).round(),
            "dur": (seconds * 1e6).round(),
            "pid": 1,
            "tid": 1,
            "args": {"step": step},
        });
        writeln!(self.file, "{event},")
    }

    /// Ends the array.
    pub fn finish(mut self) -> io::Result<()> {
        // The last comma needs something after it.
        let name = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "hearth"}});
        writeln!(self.file, "{name}\n]")?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_trace_is_an_array_of_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let mut trace = Trace::new(&path).unwrap();
        trace.span("data", 0.25, 1).unwrap();
        trace.span("optimizer", 0.5, 1).unwrap();
        trace.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(
            (&events[1]["name"], &events[1]["dur"]),
            (&"optimizer".into(), &500_000.0.into())
        );
        assert_eq!(events[0]["args"]["step"], 1);
    }
}
