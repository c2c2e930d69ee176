use proptest::prelude::*;

use super::*;

fn index() -> Index {
    Index {
        dependencies: "kernel/crypto/xor.ko:\n\
            kernel/lib/raid6/raid6_pq.ko:\n\
            kernel/lib/zstd-common.ko:\n\
            kernel/lib/zstd_compress.ko: kernel/lib/zstd-common.ko\n\
            kernel/fs/btrfs/btrfs.ko: kernel/lib/zstd_compress.ko kernel/lib/zstd-common.ko kernel/crypto/xor.ko \
            kernel/lib/raid6/raid6_pq.ko\n\
            kernel/crypto/xxhash_generic.ko:\n\
            kernel/crypto/blake2b.ko: kernel/lib/blake2.ko\n\
            kernel/lib/blake2.ko:\n\
            kernel/fs/xfs/xfs.ko.xz:\n"
            .into(),
        aliases: "# Aliases extracted from modules themselves.\n\
            alias fs-btrfs btrfs\n\
            alias devname:btrfs-control btrfs\n\
            alias xxhash64 xxhash_generic\n\
            alias blake2b-256 blake2b\n\
            alias fs-xfs xfs\n\
            alias broken\n"
            .into(),
        soft_dependencies: "# Soft dependencies extracted from modules themselves.\n\
            softdep btrfs pre: crc32c\n\
            softdep btrfs pre: xxhash64 blake2b-256 post: zstd_compress\n\
            softdep xfs post: xor\n"
            .into(),
    }
}

#[test]
fn a_module_comes_after_all_that_it_needs() {
    let index = index();
    let expected = [
        "kernel/lib/raid6/raid6_pq.ko",
        "kernel/crypto/xor.ko",
        "kernel/lib/zstd-common.ko",
        "kernel/lib/zstd_compress.ko",
        "kernel/crypto/xxhash_generic.ko",
        "kernel/lib/blake2.ko",
        "kernel/crypto/blake2b.ko",
        "kernel/fs/btrfs/btrfs.ko",
    ];
    assert_eq!(index.files("fs-btrfs"), expected);
    assert_eq!(index.files("btrfs"), expected);
}

#[test]
fn names_are_those_of_modules_or_aliases() {
    let index = index();
    assert_eq!(index.files("fs_xfs"), ["kernel/fs/xfs/xfs.ko.xz"]);
    let common = ["kernel/lib/zstd-common.ko"];
    assert_eq!(index.files("zstd_common"), common);
    for unknown in ["fs-ext4", "xf", "broken", "kernel/fs/xfs/xfs.ko.xz", ""] {
        assert_eq!(index.files(unknown), [""; 0], "{unknown}");
    }
    assert_eq!(Index::default().files("xfs"), [""; 0]);
}

#[test]
fn modules_that_need_each_other_come_once() {
    let index = Index {
        dependencies: "a.ko: b.ko\nb.ko: a.ko\n".into(),
        soft_dependencies: "softdep a pre: a b\nsoftdep b pre: a b\n".into(),
        ..Index::default()
    };
    assert_eq!(index.files("a"), ["b.ko", "a.ko"]);
}

/// Lines such as there may be, and others.
fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[ab]\\.ko: ([abc]\\.ko ){0,3}",
        "alias [abc] [abc]",
        "softdep [abc] (pre|post): ([abc] ){0,3}(post: [abc])?",
        ".*",
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_names_each_of_its_files_once(
        dependencies in text(),
        aliases in text(),
        soft_dependencies in text(),
        name in "[abc]|.*",
    ) {
        let index = Index { dependencies, aliases, soft_dependencies };
        let files = index.files(&name);
        let different: HashSet<_> = files.iter().collect();
        prop_assert_eq!(different.len(), files.len());
        for file in files {
            prop_assert!(index.dependencies.contains(file));
        }
    }

    /// Whoever needs another is loaded after it, if needs form no circle, as depmod sees to.
    #[test]
    fn dependencies_come_first(needs in proptest::collection::vec(any::<u8>(), 1..8)) {
        // Module N needs some of those below N, and what these need: bits.
        let mut all: Vec<u8> = Vec::new();
        for (number, bits) in needs.iter().enumerate() {
            let direct = u32::from(*bits) & ((1 << number) - 1);
            let direct = u8::try_from(direct).unwrap();
            let below = (0..number).filter(|bit| direct >> bit & 1 == 1);
            all.push(below.fold(direct, |sum, bit| sum | all[bit]));
        }
        let line = |(number, bits): (usize, &u8)| {
            let files = (0..number).rev().filter(|bit| bits >> bit & 1 == 1);
            let files: Vec<_> = files.map(|bit| format!("m{bit}.ko")).collect();
            format!("m{number}.ko: {}", files.join(" "))
        };
        let lines: Vec<_> = all.iter().enumerate().map(line).collect();
        let index = Index { dependencies: lines.join("\n"), ..Index::default() };
        let last = all.len() - 1;
        let name = format!("m{last}");
        let files = index.files(&name);
        let numbers: Vec<usize> = files.iter().map(|file| file[1..2].parse().unwrap()).collect();
        prop_assert_eq!(numbers.len(), all[last].count_ones() as usize + 1);
        for (position, number) in numbers.iter().enumerate() {
            for bit in (0..8).filter(|bit| all[*number] >> bit & 1 == 1) {
                prop_assert!(numbers[..position].contains(&bit));
            }
        }
    }
}
