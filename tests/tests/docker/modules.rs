//! The guest kernel's modules, and who may load them.

use tests::docker::{Container, script};

use crate::assert_output;

/// An image with the modprobe of the host, whose /lib is a link; its name.
fn image() -> &'static str {
    let make = r#"
        root=$(mktemp -d -p /var/tmp)
        mkdir -p $root/usr/{bin,sbin,lib,lib64} $root/{dev,etc,proc,sys}
        for name in bin sbin lib lib64; do ln -s usr/$name $root/$name; done
        cp /bin/busybox $root/bin/
        ln -s busybox $root/bin/sh
        modprobe=$(command -v modprobe)
        cp $modprobe $root/sbin/
        ldd $modprobe | sed -n 's#^[^/]*\(/[^ ]*\).*#\1#p' |
            while read -r library; do cp -L --parents $library $root; done
        tar -c -C $root . | docker import - with-kmod >/dev/null
        rm -r $root"#;
    script(make).unwrap();
    "with-kmod"
}

const LOAD: &str = r#"
[ "$(busybox ls /usr/lib/modules)" = "$(busybox uname -r)" ] && echo "of this kernel"
busybox touch /lib/modules/x 2>&1
/sbin/modprobe xfs && busybox grep -w xfs /proc/filesystems
busybox modprobe dummy && busybox awk '/^dummy / { print $1 }' /proc/modules
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn modprobe_works_with_the_capability() {
    let container = Container::new().unwrap();
    let image = image();
    let call = container.docker_run();
    let call = call.args(["--rm", "--network", "none", "--cap-add", "SYS_MODULE"]);
    let call = call.args([image, "sh", "-c", LOAD]);
    let done = call.launch().unwrap().wait().unwrap();
    assert_output(
        &done,
        "of this kernel\ntouch: /lib/modules/x: Read-only file system\n\txfs\ndummy\n",
    );
}

/// By the filter of Docker, and without it by the kernel; in a root that has no /lib, and is read-only.
#[test]
#[ignore = "needs Docker: make test"]
fn modprobe_does_not_work_without_the_capability() {
    let refused = r#"
        [ "$(ls /lib/modules)" = "$(uname -r)" ] && echo "of this kernel"
        modprobe dummy 2>&1
        wc -l </proc/modules"#;
    let plain = ["--rm", "--network", "none", "--read-only"];
    let unfiltered = [&plain[..], &["--security-opt", "seccomp=unconfined"]].concat();
    for options in [&plain[..], &unfiltered] {
        let done = Container::new().unwrap().shell(options, refused).unwrap();
        let text = done.stdout();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{done:?}");
        assert_eq!(lines[0], "of this kernel");
        assert!(lines[1].contains("Operation not permitted"), "{done:?}");
        assert_eq!(lines[2], "0");
    }
}
