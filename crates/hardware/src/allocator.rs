//! Memory back to the system.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "the C library offers it through libc only")
)]

/// Asks the allocator to return what is free. glibc keeps it otherwise: after a thousand streams a resident program would
/// hold their memory for ever. Takes milliseconds, so not for a thread that answers; does nothing on other systems.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number, locks each arena while it works, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
