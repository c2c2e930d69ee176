//! Which queue is whose (virtio 1.3, section 5.3.2).

/// Linux fills a receive queue with pages, for each port: 16 are 64 KiB, a pipe's worth.
pub(super) const RECEIVE_SIZE: u16 = 16;
/// A transmit queue costs the guest little until it is used; Linux puts up to 32 KiB in one buffer.
pub(super) const TRANSMIT_SIZE: u16 = 64;
/// Linux fills the control queue with pages too, and sends one message at a time.
const CONTROL_SIZE: u16 = 16;

/// The control queues follow those of port 0.
pub(super) const CONTROL_RECEIVE: usize = 2;
pub(super) const CONTROL_TRANSMIT: usize = 3;

/// Which of a port's two queues, named as the driver sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Receive,
    Transmit,
}

/// The sizes of all queues of a device with so many ports, at least one.
pub(super) fn queue_sizes(ports: usize) -> Vec<u16> {
    let mut sizes = vec![RECEIVE_SIZE, TRANSMIT_SIZE, CONTROL_SIZE, CONTROL_SIZE];
    for _ in 1..ports {
        sizes.extend([RECEIVE_SIZE, TRANSMIT_SIZE]);
    }
    sizes
}

/// Port 0 has queues 0 and 1, port 1 has 4 and 5, and so on.
pub(super) fn port_queue(port: usize, direction: Direction) -> usize {
    let first = if port == 0 { 0 } else { 2 * port + 2 };
    first + usize::from(direction == Direction::Transmit)
}

/// The inverse, for other queues than those for control messages.
pub(super) fn queue_port(index: usize) -> (usize, Direction) {
    let direction = if index.is_multiple_of(2) {
        Direction::Receive
    } else {
        Direction::Transmit
    };
    ((index / 2).saturating_sub(1), direction)
}
