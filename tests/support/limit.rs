//! What a child process may take.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the command's process map so many bytes.
pub fn limit_memory(command: &mut Command, bytes: libc::rlim_t) {
    let limit = move || {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: the limit outlives the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(limit) };
}
