//! What a guest's process is called, as it can be shown.

use proto::exec::ProcessInfo;

/// Most bytes of the arguments of a process, as many as ps shows at most of any.
const MAX: usize = 4096;

/// The arguments of a process, or its name in brackets if it has none, as ps has it. At least one, at
/// most 4096 bytes together, and without control characters, which would end a line or a word.
pub fn words(process: &ProcessInfo) -> Vec<String> {
    if process.args.is_empty() {
        return vec![format!("[{}]", name(process))];
    }
    let mut room = MAX;
    let mut words = Vec::new();
    for arg in &process.args {
        let mut word = clean(arg);
        // Each has an end, too.
        let cut = word.floor_char_boundary(room.saturating_sub(1));
        let is_whole = cut == word.len();
        word.truncate(cut);
        room = room.saturating_sub(word.len() + 1);
        words.push(word);
        if room == 0 || !is_whole {
            break;
        }
    }
    words
}

/// The name of a process, at most 15 bytes.
pub(super) fn name(process: &ProcessInfo) -> String {
    let mut name = clean(&process.name);
    name.truncate(name.floor_char_boundary(15));
    name
}

fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(name: &str, args: &[&str]) -> ProcessInfo {
        ProcessInfo {
            pid: 7,
            parent: 0,
            uid: 0,
            gid: 0,
            name: name.into(),
            args: args.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn arguments_are_shown_or_else_the_name() {
        assert_eq!(
            words(&process("x", &["a\0b", "", "\u{85}c"])),
            ["a?b", "", "?c"]
        );
        assert_eq!(
            words(&process("a\nname that is long", &[])),
            ["[a?name that is ]"]
        );
        let long = "\u{e4}".repeat(3000);
        let cut = words(&process("x", &["sh", &long, "more"]));
        assert_eq!(cut, ["sh", &long[..4092 / 2 * 2]]);
    }

    proptest! {
        #[test]
        fn any_guest_is_bounded(name in ".*", args in proptest::collection::vec(".{0,3000}", 0..5)) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let process = process(&name, &args);
            let words = words(&process);
            let size: usize = words.iter().map(|word| word.len() + 1).sum();
            prop_assert!(!words.is_empty() && size <= MAX, "{size}");
            let shown = words.iter().flat_map(|word| word.chars());
            prop_assert!(!shown.chain(super::name(&process).chars()).any(char::is_control));
            prop_assert!(super::name(&process).len() <= 15);
        }
    }
}
