use std::collections::BTreeMap;

use super::*;
use crate::command::Progress;
use crate::program::{CONTAINER, RUNQ_VMM};
use crate::stats::ExitCounts;

fn ended(program: &'static Program, exit: Exit, has_command: bool) -> Ended {
    Ended {
        program,
        exit,
        has_command,
        progress: Progress::default(),
        exits: ExitCounts::default(),
        kvm: BTreeMap::new(),
        guest_memory: Vec::new(),
    }
}

/// A container whose process came to this.
fn container(exit: Exit, outcome: Outcome) -> Verdict {
    let mut ended = ended(&CONTAINER, exit, true);
    ended.progress.outcome = Some(outcome);
    Verdict::of(&ended)
}

#[test]
fn the_command_counts_whatever_became_of_the_machine() {
    for exit in [Exit::PowerOff, Exit::Panic, Exit::Stopped] {
        assert_eq!(container(exit, Outcome::Exited(7)), Verdict::silent(7));
    }
}

#[test]
fn a_command_that_does_not_start_says_why() {
    let failed = Outcome::Failed {
        code: 127,
        message: "no such thing".into(),
    };
    let verdict = Verdict::new(127, "no such thing");
    assert_eq!(container(Exit::Stopped, failed), verdict);
}

#[test]
fn a_broken_conversation_is_the_monitors_failure() {
    let broken = || Outcome::Broken("control port: gone".into());
    let verdict = Verdict::new(125, "control port: gone");
    assert_eq!(container(Exit::Stopped, broken()), verdict);
    // With the kernel init is gone, too: that is what there is to tell.
    assert_eq!(container(Exit::Panic, broken()).code, 134);

    let mut ended = ended(&RUNQ_VMM, Exit::Stopped, true);
    ended.progress.outcome = Some(broken());
    assert_eq!(Verdict::of(&ended).code, 1);
}

#[test]
fn each_break_down_has_a_code_and_a_line() {
    for (exit, in_container, alone) in [
        (Exit::Panic, 134, 5),
        (Exit::TripleFault, 139, 4),
        (Exit::Reset, 129, 3),
        (Exit::PowerOff, 125, 1),
        (Exit::Stopped, 125, 1),
    ] {
        let verdict = Verdict::of(&ended(&CONTAINER, exit, true));
        let hint = "RUNQ_LOG=debug in the container's environment shows the kernel's messages";
        let line = format!("{exit} before the process ended: {hint}");
        assert_eq!(verdict, Verdict::new(in_container, line));

        let verdict = Verdict::of(&ended(&RUNQ_VMM, exit, true));
        let hint = "--console serial shows the kernel's messages";
        let line = format!("{exit} before the command ended: {hint}");
        assert_eq!(verdict, Verdict::new(alone, line));
    }
}

#[test]
fn a_guest_without_a_command_may_power_off() {
    let alone = |exit| Verdict::of(&ended(&RUNQ_VMM, exit, false));
    assert_eq!(alone(Exit::PowerOff), Verdict::silent(0));
    assert_eq!(alone(Exit::Stopped), Verdict::silent(0));
    let line = "the guest's kernel panicked: --console serial shows the kernel's messages";
    assert_eq!(alone(Exit::Panic), Verdict::new(5, line));
}

#[test]
fn a_signal_before_the_command_ran_ends_us_as_it_would_it() {
    for program in [&CONTAINER, &RUNQ_VMM] {
        let mut ended = ended(program, Exit::Stopped, true);
        ended.progress.ended_by = Some(15);
        assert_eq!(Verdict::of(&ended), Verdict::silent(143));
    }
}
