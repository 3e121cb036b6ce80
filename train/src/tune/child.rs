//! Runs of this very program, each in a new process: the trials of searches.

use std::io::{self, Read, Write};
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use burn::train::Interrupter;
use serde_json::Value;

use crate::interrupt::Listening;
use crate::process;

/// How a trial ended.
pub struct Ended {
    /// Its exit code; nothing if it was killed.
    pub code: Option<i32>,
    /// What it wrote to standard error.
    pub errors: String,
}

/// What an allocation that fails outside of training ends a process with, before a backtrace.
const NO_ALLOCATION: &str = "memory allocation of";

impl Ended {
    /// Why it failed, in one line.
    pub fn reason(&self) -> String {
        if self.errors.contains(NO_ALLOCATION) {
            return "out of memory".into();
        }
        let mut lines = self.errors.lines().map(str::trim);
        let reason = lines.clone().rev().find_map(|l| l.strip_prefix("error: "));
        match (reason, self.code) {
            (Some(reason), _) => reason.into(),
            (None, None) => "it was killed".into(),
            // A panic's message comes first, advice on backtraces last.
            (None, Some(code)) => lines
                .find(|line| !line.is_empty())
                .map_or(format!("it ended with exit code {code}"), String::from),
        }
    }

    /// Whether memory was what it lacked; a system that runs out of it kills without a message.
    pub fn lacked_memory(&self) -> bool {
        let says = |words: &str| self.errors.contains(words);
        self.code.is_none() || says("out of memory") || says(NO_ALLOCATION)
    }
}

/// The answer to the first Ctrl-C.
const STOPPING: &str = "stopping after this step; Ctrl-C again stops at once";

/// Whether a person requested a stop.
pub fn interrupted() -> bool {
    process::interrupt().requests() > 0
}

/// Whether a person requested it again.
fn interrupted_twice() -> bool {
    process::interrupt().requests() > 1
}

/// While its result is kept, Ctrl-C asks for a stop, which [`run`] hands on to the trial that runs.
pub(crate) fn listen() -> Arc<Listening> {
    process::interrupt().listen(Interrupter::new(), true)
}

/// Runs this program with these arguments. While it runs, `look` may ask it to stop, which saves its state; so does the
/// first Ctrl-C, and the second ends it at once.
pub fn run(args: &[String], mut look: impl FnMut() -> bool) -> Result<Ended> {
    let mut child = start(args)?;
    let errors = errors(&mut child);
    let (mut asked, mut announced) = (false, false);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // Once: a second signal ends a run before it has saved its state.
        if !asked && (interrupted() || look()) {
            asked = true;
            interrupt(&mut child)?;
        }
        if interrupted() && !announced {
            announced = true;
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{STOPPING}");
        }
        if interrupted_twice() {
            // Whatever it is at: what is written is written whole.
            child.kill()?;
        }
        sleep(Duration::from_millis(20));
    };
    Ok(Ended {
        code: status.code(),
        errors: errors(),
    })
}

fn start(args: &[String]) -> Result<Child> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    // In a new process group: Ctrl-C on a terminal reaches the whole group, and would be a signal beside ours.
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().context("this program cannot be started")
}

/// Asks a run to save its state and stop.
fn interrupt(child: &mut Child) -> Result<()> {
    #[cfg(unix)]
    // SAFETY: a signal to a child that has not been waited for.
    unsafe {
        libc::kill(child.id() as libc::pid_t, libc::SIGINT);
    }
    #[cfg(not(unix))]
    child.kill()?;
    Ok(())
}

/// A child's standard error, read on a thread: a full pipe would stop it.
fn errors(child: &mut Child) -> impl FnOnce() -> String + use<> {
    let reader = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is still worth printing.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    || {
        let text = reader.and_then(|reader| reader.join().ok());
        text.unwrap_or_default()
    }
}

/// The summary of a run; nothing if it has none.
pub fn summary(run: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(run.join("summary.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// The recipe of a run; nothing if it has none.
pub fn recipe(run: &Path) -> Option<toml::Table> {
    let text = std::fs::read_to_string(run.join("recipe.toml")).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_lack_of_memory_is_recognised() {
        for (code, errors, reason, memory) in [
            (
                Some(2),
                "warning: odd\nerror: lr is -1\n\nUsage: x\n",
                "lr is -1",
                false,
            ),
            (
                Some(1),
                "error: out of memory; a smaller batch\n",
                "out of memory; a smaller batch",
                true,
            ),
            (
                None,
                "memory allocation of 9 bytes failed\nstack backtrace:\n",
                "out of memory",
                true,
            ),
            (None, "", "it was killed", true),
            (
                Some(101),
                "\nthread 'main' panicked\nnote: run with\n",
                "thread 'main' panicked",
                false,
            ),
            (Some(3), "", "it ended with exit code 3", false),
        ] {
            let ended = Ended {
                code,
                errors: errors.into(),
            };
            assert_eq!(ended.reason(), reason);
            assert_eq!(ended.lacked_memory(), memory, "{errors}");
        }
    }
}
