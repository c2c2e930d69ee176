//! The terminal of a command that containerd starts: its pseudoterminal is on the host, and
//! containerd gets the other side.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use proto::WindowSize;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

/// What runc calls it.
const NAME: &[u8] = b"/dev/ptmx";

/// Makes a pseudoterminal of this size, gives one side to who listens at `socket`, and makes the other
/// the terminal of this session, which has none yet, and its standard streams.
///
/// # Errors
/// Names the socket, or says what there cannot be.
pub fn open(socket: &Path, size: WindowSize) -> Result<()> {
    let (master, slave) = pair(size).context("pseudoterminal")?;
    let listener =
        UnixStream::connect(socket).with_context(|| format!("--console-socket {socket:?}"))?;
    give(&listener, &master).with_context(|| format!("--console-socket {socket:?}"))?;
    ioctl_tiocsctty(&slave).context("controlling terminal")?;
    dup2_stdin(&slave)?;
    dup2_stdout(&slave)?;
    dup2_stderr(&slave)?;
    Ok(())
}

fn pair(size: WindowSize) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(
        &slave,
        Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    Ok((master, slave))
}

fn give(socket: &UnixStream, file: &OwnedFd) -> rustix::io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(
        socket,
        &[IoSlice::new(NAME)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read, Write};

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use rustix::termios::tcgetwinsize;

    use super::*;

    #[test]
    fn the_other_side_is_given_away() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let size = WindowSize { rows: 5, cols: 70 };
        let (master, slave) = pair(size).unwrap();
        give(&ours, &master).unwrap();
        drop(master);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 100];
        let mut parts = [IoSliceMut::new(&mut name)];
        let message = recvmsg(&theirs, &mut parts, &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(&name[..message.bytes], NAME);
        let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else {
            panic!("no file");
        };
        let mut master = std::fs::File::from(files.next().unwrap());
        assert_eq!(tcgetwinsize(&master).unwrap().ws_col, 70);
        std::fs::File::from(slave).write_all(b"hello").unwrap();
        let mut text = [0; 5];
        master.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
}
