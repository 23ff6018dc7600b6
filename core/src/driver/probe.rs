//! Whether io_uring can be used here, and which CPUs.

use std::io;

use crate::error::{Error, ErrorKind, Result};

/// glommio refuses to start below this.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Asks the kernel for a small ring and gives it back.
///
/// # Errors
/// [`ErrorKind::IoUringUnavailable`] that names the cause (a kernel without it, the sysctl, a seccomp filter, the memory
/// lock limit) and the remedy.
pub fn probe() -> Result<()> {
    // In a thread of its own: the kernel takes a ring that was closed apart a little later, with work for the thread
    // that made it, and that would interrupt a system call of the host's.
    let asked = std::thread::Builder::new().name("tidewire-probe".into()).spawn(ask);
    let asked = asked.map_err(|e| Error::io("cannot start a thread", &e))?;
    asked.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the probe of io_uring panicked")))
}

fn ask() -> Result<()> {
    // `struct io_uring_params` has 120 bytes; zeros ask for the defaults.
    let mut params = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes at `params`, which are there.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2u32, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(refused(&io::Error::last_os_error(), disabled_sysctl()));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { libc::close(fd as i32) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } == 0 && limit.rlim_cur < MEMLOCK_BYTES_MIN {
        return Err(unavailable(format!("the limit on locked memory is {} bytes, too low", limit.rlim_cur)).remedy(
            "raise it to 512 KiB or more (`ulimit -l`, LimitMEMLOCK= of the service, or the container's ulimits)",
        ));
    }
    Ok(())
}

fn disabled_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::IoUringUnavailable, format!("io_uring cannot be used: {message}"))
}

fn refused(error: &io::Error, sysctl: Option<u8>) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => unavailable("this kernel does not have it, or a sandbox or seccomp profile hides it (ENOSYS)".into())
            .remedy("run on Linux 5.8 or newer, outside of sandboxes that lack it (such as gVisor), with a profile that allows it"),
        Some(libc::EPERM) => match sysctl {
            Some(n @ 1..) => unavailable(format!("it is switched off by the sysctl kernel.io_uring_disabled = {n}"))
                .remedy("set it to 0: `sysctl kernel.io_uring_disabled=0`"),
            _ => unavailable("the system call is not permitted (EPERM), as under a container's seccomp profile".into())
                .remedy(
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
                     (for Docker: `--security-opt seccomp=PROFILE.json`)",
                ),
        },
        Some(libc::ENOMEM) => unavailable("no memory for a ring may be locked (ENOMEM)".into())
            .remedy("raise the limit on locked memory (`ulimit -l`, or LimitMEMLOCK= of the service)"),
        Some(libc::EMFILE | libc::ENFILE) => unavailable("no file descriptors are left".into())
            .remedy("raise the limit on open files (`ulimit -n`, or LimitNOFILE= of the service)"),
        _ => unavailable(error.to_string()).remedy("see io_uring_setup(2)"),
    }
}

/// The CPUs that this process may run on, in order.
pub fn usable_cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the given size.
    let ok = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } == 0;
    // SAFETY: the index is below CPU_SETSIZE.
    let cpus: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|c| ok && unsafe { libc::CPU_ISSET(*c, &set) }).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_words_and_remedy() {
        let case = |errno: i32, sysctl| refused(&io::Error::from_raw_os_error(errno), sysctl).to_string();
        assert!(case(libc::ENOSYS, None).contains("Linux 5.8"));
        assert!(case(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(case(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(case(libc::ENOMEM, None).contains("ulimit -l"));
        assert!(case(libc::EMFILE, None).contains("ulimit -n"));
    }

    #[test]
    fn this_process_has_a_cpu() {
        assert!(!usable_cpus().is_empty());
    }
}
