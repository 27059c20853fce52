#![expect(
    unsafe_code,
    reason = "std has no monotonic clock that can be compared between processes"
)]

/// `CLOCK_MONOTONIC` in nanoseconds: the same clock in every process of this machine, for delays across processes.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for the write; CLOCK_MONOTONIC exists on every Unix.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
