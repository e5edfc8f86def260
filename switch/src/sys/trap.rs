//! Saying which system call a seccomp filter forbade (`SECCOMP_RET_TRAP`, `seccomp(2)`).

use std::io;
use std::mem::zeroed;

use super::check;

/// The part of `siginfo_t` that comes with SIGSYS (`include/uapi/asm-generic/siginfo.h`), on 64-bit machines.
#[repr(C)]
struct Forbidden {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *mut libc::c_void,
    call: libc::c_int,
    architecture: libc::c_uint,
}

const TEXT: &[u8] = b"pontoon: the seccomp filter forbids system call number ";

/// Has a call that a filter traps named on standard error, before it ends the process as it would have anyway, by SIGSYS.
/// Where that signal is blocked, the kernel ends the process at once and nothing is said.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn name_forbidden_calls() -> io::Result<()> {
    // SAFETY: `sigaction` is plain data, for which all zeroes are valid: no flags, nothing more blocked.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = named as *const () as usize;
    // Reset: the next SIGSYS ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and calls only what is async-signal-safe; the old
    // action is not asked for.
    check(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) })?;
    Ok(())
}

extern "C" fn named(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel gives a whole `siginfo_t`, which is larger than this beginning of it and aligned for it; all parts
    // are plain numbers.
    let call = unsafe { (*info.cast::<Forbidden>()).call };
    let mut line = [0; 80];
    let len = render(call.unsigned_abs(), &mut line);
    // SAFETY: `write` reads `len` bytes of `line`; `raise` takes a number. Both are async-signal-safe.
    unsafe {
        libc::write(2, line.as_ptr().cast(), len);
        libc::raise(libc::SIGSYS);
    }
}

/// The line for `number`, without allocating; its length.
fn render(number: u32, line: &mut [u8; 80]) -> usize {
    line[..TEXT.len()].copy_from_slice(TEXT);
    let mut digits = [0; 10];
    let mut count = 0;
    let mut rest = number;
    while count == 0 || rest > 0 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let mut len = TEXT.len();
    for &digit in digits[..count].iter().rev() {
        line[len] = digit;
        len += 1;
    }
    line[len] = b'\n';
    len + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_number() {
        for number in [0, 7, 41, u32::MAX] {
            let mut line = [0; 80];
            let len = render(number, &mut line);
            let expected = format!("{}{number}\n", String::from_utf8_lossy(TEXT));
            assert_eq!(line[..len], *expected.as_bytes());
        }
    }
}
