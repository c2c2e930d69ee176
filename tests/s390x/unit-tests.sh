# shellcheck shell=bash disable=SC2034
# What `check` and `units` share: source it.

# Unit and property tests of everything, and the tests of what stands on them alone. Properties are tried with fewer values than
# elsewhere: an instruction takes dozens here.
unit_tests=(--workspace --lib --bins --test split)
cases=32
# As few instructions as soon as possible.
profile=(CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0)
# Tests that start our programs.
starting=(--test runq --test usage)

# Tests that an emulated processor alone does not do: the kernel below qemu-user has to be of its architecture where a test starts
# programs, itself for one, installs filters, gives orders to io_uring or netlink(7), sends real-time signals, or wants the
# nanoseconds of fstat(2). `units` has them, on an emulated machine.
beyond=(agent::hostile agent::tests command::signals::tests::sigpipe command::terminal dev::blk::hostile_test dev::blk::image
    dev::blk::tests dev::fs::fs_test dev::fs::hostile_test dev::p9::hostile_test dev::p9::p9_test dev::share::locks::locks_test
    dev::share::opens_test dev::share::threads_test dev::share::watches::watches_test dns::listener::tests::the_sockets dns::relay
    exec::confine heap::tests legacy::serial::tests::the_thread log::tests::a_panic plug::tests::what_makes_no_sense reap::tests::exit_codes
    rights::tests root_disk::tests::a_hundred rules::tests::rules_are_the_same_in seccomp::load_test seccomp::tests::a_restricted
    seccomp::tests::whatever_else stats::tests::our_own)
# These of them not even there, where the shell is busybox's: it does not end by the terminal's signal.
unshown=(agent::tests::a_terminal_is_the_commands)
