//! What `runq --help` says.

/// The help text.
pub(super) const HELP: &str = "\
runq: an OCI runtime that runs each container in a virtual machine of its own

Usage: runq [OPTIONS] [RUNC'S GLOBAL OPTIONS] COMMAND [ARGUMENTS]

Docker calls it; /etc/docker/daemon.json names it and its options:
  {\"runtimes\": {\"runq\": {\"path\": \"/var/lib/runq/runq\", \"runtimeArgs\": [\"--mem\", \"512\"]}}}
and then
  docker run --runtime runq alpine uname -r
  docker run --runtime runq -e RUNQ_CPU=2 -e RUNQ_MEM=1024 alpine nproc

Options, for all containers; the variable in a container's environment comes before the option:
  --cpu N             RUNQ_CPU            virtual CPUs, beside those of --cpus [default: 1]
  --mem MIB           RUNQ_MEM            guest memory, beside that of --memory [default: 256]
  --max-cpu N                             most that RUNQ_CPU may ask for
  --max-mem MIB                           most that RUNQ_MEM may ask for
  --cpuargs LIST      RUNQ_CPUARGS        CPU features: host,-avx2,pcid=off,+x2apic [default: host]
  --dns A,B           RUNQ_DNS            name servers, by address or as containers
  --dns-search A,B    RUNQ_DNS_SEARCH     search list of resolv.conf
  --dns-opts A,B      RUNQ_DNS_OPTS       options of resolv.conf
  --dns-preserve      RUNQ_DNS_PRESERVE   leave resolv.conf as Docker made it
  --tmpfs /A,/B                           a tmpfs there, unless the container has a mount there
  --runqenv           RUNQ_RUNQENV        write the container's environment to /.runqenv
  --noexec            RUNQ_NOEXEC         nobody may run further commands in the VM
                      RUNQ_ROOTDISK       ID of the container's disk that the root is on
                      RUNQ_ROOTDISK_EXCLUDE  absolute paths that are not copied there
                      RUNQ_APUUID         s390x: UUID of the mediated device (vfio_ap) with its crypto adapters
                      RUNQ_SYSTEMD        the command is systemd
                      RUNQ_LOG            print the monitor's log to stderr: off, error, warn, info, debug, trace
  --nestedvm                              accepted for compatibility: nothing needs to be set
  --9pcache MODE      RUNQ_9PCACHE        root and volumes by 9P, cached as MODE: none, loose, fscache, mmap
  --runc PATH                             the runc to use; for runq itself: variable RUNQ_RUNC
  -h, --help                              this text
  -v, --version                           versions of runq and of runc

RUNQ_ROOT names the folder where runq is installed, if that is not /var/lib/runq.

Commands:
  create, run         a container, in a virtual machine
  certs               new certificates for docker exec and runq-exec; containers that run keep theirs
  start               has the container's process started, and waits for that
  exec                a command in a container's VM, for docker exec (people use runq-exec)
  ps                  what runs in a container's VM, for docker top
  update              other limits for a container that runs, for docker update
  check               is this host fit for runq? What is missing, and what to do about it
  register [FILE]     make the runtime known to Docker, in /etc/docker/daemon.json
  unregister [FILE]   take that back
  help COMMAND        runc's help on a command

All other commands and all other options are runc's, and pass to it as they are.
";
