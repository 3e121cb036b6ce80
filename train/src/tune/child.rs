//! Runs of this very program: what searches for a setting tries, each in a process of its own.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// How a trial ended.
pub struct Ended {
    /// Its exit code; nothing if it was killed.
    pub code: Option<i32>,
    /// What it wrote to standard error, on one line.
    pub message: String,
}

/// Set by Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a person asked for a stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Lets Ctrl-C ask for a stop; the trial that runs gets the signal from the terminal too.
pub fn listen() -> Result<()> {
    Ok(ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::Relaxed)
    })?)
}

/// Runs this program with these arguments. While it runs, `look` may ask it to stop, which saves its state.
pub fn run(args: &[String], mut look: impl FnMut() -> bool) -> Result<Ended> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut child = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("this program cannot be started")?;
    let told = last_line(&mut child);
    let mut asked = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !asked && (interrupted() || look()) {
            asked = true;
            interrupt(&mut child)?;
        }
        sleep(Duration::from_millis(20));
    };
    Ok(Ended {
        code: status.code(),
        message: told(),
    })
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

/// The last line of a child's standard error, read on a thread: a full pipe would stop it.
fn last_line(child: &mut Child) -> impl FnOnce() -> String + use<> {
    let reader = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is worth telling.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    || {
        let text = reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        last.unwrap_or_default().trim().into()
    }
}

/// The summary of a run; nothing if it has none.
pub fn summary(run: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(run.join("summary.json")).ok()?;
    serde_json::from_str(&text).ok()
}
