//! The C library's heap, where restricted threads allocate.

// It is told by a call of C.
#![allow(unsafe_code)]

/// Has all threads use one heap. Each would have its own otherwise, and before such a one shrinks, the
/// library reads /proc/sys/vm/overcommit_memory, which ends a thread that may open no files
/// (glibc, malloc/arena.c). To be called before there are threads.
pub(crate) fn share() {
    // SAFETY: the call takes numbers only, and there is no other thread that allocates.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use devices::seccomp::{ANY_THREAD, Allowed};

    /// Set for the copy of this test program that allocates.
    const ALLOCATES: &str = "RUNQ_TEST_ALLOCATES";

    #[test]
    fn a_restricted_thread_frees_what_it_likes() {
        if std::env::var_os(ALLOCATES).is_some() {
            super::share();
            let thread = std::thread::spawn(|| {
                Allowed::calls(ANY_THREAD).restrict_thread().unwrap();
                // Too small to be mapped one by one, and together more than a heap keeps.
                let blocks: Vec<_> = (0..256).map(|_| vec![1u8; 64 << 10]).collect();
                blocks.iter().map(Vec::len).sum::<usize>()
            });
            assert_eq!(thread.join().unwrap(), 16 << 20);
            return;
        }
        let test = "heap::tests::a_restricted_thread_frees_what_it_likes";
        let copy = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(ALLOCATES, "")
            .status();
        assert!(copy.unwrap().success());
    }
}
