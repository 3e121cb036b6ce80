//! The terminal while the dashboard has it: Ctrl-C stays an interrupt, and leaving at once leaves it clean.
//!
//! burn-train's dashboard turns every key into input, Ctrl-C included, and has no use for that one.

#[cfg(unix)]
pub use unix::{hand_back, keep_interrupts};

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::sync::Mutex;
    use std::time::Duration;

    /// As it was before the dashboard.
    static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

    /// Calls `start`, which takes the terminal on another thread, and lets Ctrl-C be an interrupt again.
    pub fn keep_interrupts<T>(start: impl FnOnce() -> T) -> T {
        let terminal = File::options().read(true).write(true).open("/dev/tty").ok();
        let before = terminal.as_ref().and_then(settings);
        let started = start();
        let (Some(terminal), Some(before)) = (terminal, before) else {
            return started;
        };
        *BEFORE.lock().unwrap_or_else(|e| e.into_inner()) = Some(before);
        // The other thread takes it in a moment, unless it failed.
        for _ in 0..100 {
            match settings(&terminal) {
                Some(mut taken) if taken.c_lflag & libc::ICANON == 0 => {
                    taken.c_lflag |= libc::ISIG;
                    set(&terminal, &taken);
                    break;
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        started
    }

    /// Gives the terminal back on the way out of the process, if a dashboard took it.
    pub fn hand_back() {
        const LEAVE_ALTERNATE_SCREEN_AND_SHOW_CURSOR: &[u8] = b"\x1b[?1049l\x1b[?25h";
        let before = *BEFORE.lock().unwrap_or_else(|e| e.into_inner());
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        if let (Some(before), Ok(mut terminal)) = (before, terminal) {
            // The process is about to end, whether it succeeds or not.
            let _ = terminal.write_all(LEAVE_ALTERNATE_SCREEN_AND_SHOW_CURSOR);
            set(&terminal, &before);
        }
    }

    fn settings(terminal: &File) -> Option<libc::termios> {
        let mut settings = std::mem::MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: tcgetattr fills the structure it is given, and says whether it did.
        unsafe {
            (libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()) == 0)
                .then(|| settings.assume_init())
        }
    }

    fn set(terminal: &File, settings: &libc::termios) {
        // SAFETY: tcsetattr reads a structure that outlives the call.
        unsafe {
            libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, settings);
        }
    }
}

/// Elsewhere the dashboard's own keys stop a training.
#[cfg(not(unix))]
pub fn keep_interrupts<T>(start: impl FnOnce() -> T) -> T {
    start()
}

/// Elsewhere the console resets itself.
#[cfg(not(unix))]
pub fn hand_back() {}
