//! `--profile`: where the time of each step goes, as a trace that <https://ui.perfetto.dev> opens.
//!
//! Chrome's trace event format, one complete event (`ph: X`) a line, in whole microseconds. A killed process leaves an
//! array without its end, which the format allows. Perfetto drops an event that begins before another has ended and ends
//! after it, by a microsecond even, so each begins where the last one ended or later.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

/// A trace file, open for writing.
#[derive(Debug)]
pub struct Trace {
    file: File,
    began: Instant,
    /// The end of the last event, in microseconds.
    ended: u64,
}

impl Trace {
    /// Starts a trace; a resumed run starts a new one.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut trace = Self {
            file: File::create(path)?,
            began: Instant::now(),
            ended: 0,
        };
        // First: what comes after it, a comma each, needs none behind it.
        let process = name("process_name", "hearth");
        trace.file.write_all(format!("[\n{process}").as_bytes())?;
        trace.event(&name("thread_name", "training"))?;
        Ok(trace)
    }

    /// Something that ended now and took so many seconds, in a step. Earlier parts ended before it began.
    pub fn span(&mut self, name: &str, seconds: f64, step: u64) -> io::Result<()> {
        let now = self.began.elapsed().as_secs_f64();
        let start = micros(now - seconds).max(self.ended);
        self.ended = micros(now).max(start);
        let event = json!({
            "name": name,
            "cat": "step",
            "ph": "X",
            "ts": start,
            "dur": self.ended - start,
            "pid": 1,
            "tid": 1,
            "args": {"step": step},
        });
        self.event(&event)
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        // One write: a killed process leaves whole events.
        self.file.write_all(format!(",\n{event}").as_bytes())
    }

    /// Ends the array.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.write_all(b"\n]\n")
    }
}

/// What the process or its thread is called.
fn name(of: &str, name: &str) -> Value {
    json!({"name": of, "ph": "M", "pid": 1, "tid": 1, "args": {"name": name}})
}

/// Of seconds; what began before the trace began with it.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace of these spans, and its events but for the names.
    fn spans(write: impl FnOnce(&mut Trace)) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let mut trace = Trace::new(&path).unwrap();
        write(&mut trace);
        trace.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut events: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(events.drain(..2).all(|event| event["ph"] == "M"));
        events
    }

    #[test]
    fn a_trace_is_an_array_of_events() {
        let events = spans(|trace| {
            trace.began -= std::time::Duration::from_secs(5);
            trace.span("data", 0.25, 1).unwrap();
        });
        let [event] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event["name"], "data");
        assert_eq!(event["args"]["step"], 1);
        // Rounded at both ends.
        let dur = event["dur"].as_u64().unwrap();
        assert!((249_999..=250_001).contains(&dur), "{dur}");
        let end = event["ts"].as_u64().unwrap() + dur;
        assert!((5_000_000..60_000_000).contains(&end), "{end}");
        assert!(spans(|_| ()).is_empty());
    }

    #[test]
    fn events_never_overlap() {
        // Longer than the trace, as no clock and no rounding should have it, and again.
        let events = spans(|trace| {
            for (seconds, step) in [(1.0, 1), (1e-7, 1), (0.5, 2), (2e-6, 2)] {
                trace.span("part", seconds, step).unwrap();
            }
        });
        let time = |event: &Value, key: &str| event[key].as_u64().unwrap();
        for pair in events.windows(2) {
            let end = time(&pair[0], "ts") + time(&pair[0], "dur");
            assert!(time(&pair[1], "ts") >= end, "{events:?}");
        }
        assert_eq!((events.len(), time(&events[0], "ts")), (4, 0));
    }
}
