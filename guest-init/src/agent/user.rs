//! Users and groups by name, from passwd(5) and group(5) files that the container's image may have
//! filled with anything.
//!
//! The rules are Docker's (moby/sys/user, `GetExecUser`): a number is always a number, one that the
//! file does not know has the group 0, and the further groups are those of the file unless a group is
//! given.

use std::path::Path;

use proto::User;
use proto::exec::ExecUser;

use crate::failure::Failure;
use crate::passwd;

/// The largest number of a user or group in Docker.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
/// How docker exec ends when it does not find the user.
const NOT_FOUND: u8 = 126;

/// Whose rights a command has; unset: the container's. Call it in the container's root.
pub(super) fn find(user: Option<&ExecUser>, container: &User) -> Result<User, Failure> {
    match user {
        None => Ok(container.clone()),
        Some(ExecUser::Known(user)) => Ok(user.clone()),
        Some(ExecUser::Named(name)) => {
            let file = |path| passwd::read(Path::new(path)).unwrap_or_default();
            named(name, &file("/etc/passwd"), &file("/etc/group"))
        }
    }
}

/// The user that `USER[:GROUP]` means in these files.
fn named(name: &str, passwd: &[u8], group: &[u8]) -> Result<User, Failure> {
    let (user, its_group) = name.split_once(':').unwrap_or((name, ""));
    // No name at all is root.
    let wanted = if user.is_empty() {
        Some(0)
    } else {
        number(user)
    };
    let entry = user_entry(user, wanted, passwd);
    let uid = match (&entry, wanted) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(unknown("user", user, "/etc/passwd")),
    };
    let mut found = User {
        uid,
        gid: entry.as_ref().map_or(0, |entry| entry.gid),
        additional_gids: Vec::new(),
    };
    if !its_group.is_empty() {
        found.gid = group_number(its_group, group)
            .ok_or_else(|| unknown("group", its_group, "/etc/group"))?;
    } else if let Some(entry) = entry {
        found.additional_gids = groups_of(entry.name, group);
    }
    // Otherwise a file that is closed to the group would be open to the process (CVE-2022-36109).
    if !found.additional_gids.contains(&found.gid) {
        found.additional_gids.insert(0, found.gid);
    }
    Ok(found)
}

fn unknown(kind: &str, name: &str, file: &str) -> Failure {
    Failure {
        code: NOT_FOUND,
        message: format!("no {kind} {name} in {file}"),
    }
}

/// A line of passwd: `name:password:uid:gid:comment:home:shell`.
struct Entry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
}

/// The first line for this number or, without one, this name.
fn user_entry<'a>(user: &str, wanted: Option<u32>, passwd: &'a [u8]) -> Option<Entry<'a>> {
    fields(passwd).find_map(|mut fields| {
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let is_it = match wanted {
            Some(number) => number == uid,
            None => name == user.as_bytes(),
        };
        is_it.then_some(Entry { name, uid, gid })
    })
}

/// A line of group: `name:password:gid:user,user`.
fn group_number(group: &str, groups: &[u8]) -> Option<u32> {
    number(group).or_else(|| {
        fields(groups).find_map(|mut fields| {
            let is_it = fields.next()? == group.as_bytes();
            let gid = id(fields.nth(1)?)?;
            is_it.then_some(gid)
        })
    })
}

fn groups_of(user: &[u8], groups: &[u8]) -> Vec<u32> {
    let gids = fields(groups).filter_map(|mut fields| {
        let gid = id(fields.nth(2)?)?;
        let mut users = fields.next()?.split(|&byte| byte == b',');
        users.any(|its| its == user).then_some(gid)
    });
    gids.collect()
}

/// The fields of each line.
fn fields(text: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    text.split(|&byte| byte == b'\n')
        .map(|line| line.trim_ascii().split(|&byte| byte == b':'))
}

fn id(field: &[u8]) -> Option<u32> {
    number(str::from_utf8(field).ok()?)
}

fn number(text: &str) -> Option<u32> {
    let number = text.parse().ok()?;
    (number <= MAX_ID).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        broken:x:1\n\
        \xff:x:5:6:::\n\
        app:x:1000:100::/home/app:/bin/sh\n\
        1001:x:7:7:::\n\
        huge:x:4294967295:0:::\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,app\nusers:x:100:\n\
        docker:x:999:other,app\nbad:x:y:app\nempty\n";

    fn found(name: &str) -> (u32, u32, Vec<u32>) {
        let user = named(name, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn users_have_the_groups_of_the_files() {
        assert_eq!(found("app"), (1000, 100, vec![100, 10, 999]));
        assert_eq!(found("1000"), found("app"));
        assert_eq!(found("root"), (0, 0, vec![0, 10]));
        assert_eq!(found(""), found("root"));
    }

    #[test]
    fn a_given_group_is_the_only_one() {
        assert_eq!(found("app:docker"), (1000, 999, vec![999]));
        assert_eq!(found("app:5"), (1000, 5, vec![5]));
        assert_eq!(found("77:wheel"), (77, 10, vec![10]));
        assert_eq!(found(":wheel"), (0, 10, vec![10]));
    }

    #[test]
    fn a_number_is_no_name() {
        assert_eq!(found("1001"), (1001, 0, vec![0]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let failure = |name| named(name, PASSWD, GROUP).unwrap_err();
        for name in ["no", "huge", "broken", "4294967295", "-1"] {
            let expected = format!("no user {name} in /etc/passwd");
            assert_eq!(failure(name).to_string(), expected);
        }
        assert_eq!(failure("app:no").message, "no group no in /etc/group");
        assert_eq!(failure("app:bad").code, 126);
    }

    #[test]
    fn numbers_and_the_containers_user_need_no_file() {
        let known = User {
            uid: 5,
            gid: 6,
            additional_gids: vec![7],
        };
        let container = User::default();
        let given = ExecUser::Known(known.clone());
        assert_eq!(find(Some(&given), &container), Ok(known));
        assert_eq!(find(None, &container), Ok(container));
    }

    proptest! {
        #[test]
        fn any_files_give_a_user_or_a_line(
            name in "[a-z0-9:]{0,6}",
            passwd in proptest::collection::vec(any::<u8>(), 0..300),
            group in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            match named(&name, &passwd, &group) {
                Ok(user) => prop_assert!(user.additional_gids.contains(&user.gid)),
                Err(failure) => prop_assert!(failure.message.starts_with("no ")),
            }
        }

        #[test]
        fn a_user_is_found_among_any_lines(lines in "([^:]{0,9}\n){0,5}", uid in 0..=MAX_ID, gid in 0..=MAX_ID) {
            let passwd = format!("{lines}it:x:{uid}:{gid}:::\n");
            let user = named("it", passwd.as_bytes(), b"").unwrap();
            prop_assert_eq!((user.uid, user.gid), (uid, gid));
        }
    }
}
