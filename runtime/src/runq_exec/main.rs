//! runq-exec: runs a command in a container's virtual machine, for whoever has a certificate.

fn main() {}
