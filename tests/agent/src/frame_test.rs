use proptest::prelude::*;

use super::*;

fn round_trip<F: Frame>(frame: &F) -> F {
    let mut bytes = Vec::new();
    write(&mut bytes, frame).unwrap();
    let mut rest = bytes.as_slice();
    let back = read(&mut rest).unwrap().unwrap();
    assert!(rest.is_empty(), "{} bytes left over", rest.len());
    back
}

fn exec() -> impl Strategy<Value = Exec> {
    let terminal = proptest::option::of((0u16.., 0u16..));
    (
        any::<Vec<String>>(),
        any::<Vec<(String, String)>>(),
        terminal,
    )
        .prop_map(|(argv, env, terminal)| Exec {
            argv,
            env,
            terminal: terminal.map(|(rows, cols)| Size { rows, cols }),
        })
}

proptest! {
    #[test]
    fn requests_survive(exec in exec(), bytes: Vec<u8>, nanos: u64) {
        for request in [
            Request::SetClock(nanos),
            Request::Exec(exec),
            Request::Stdin(bytes),
            Request::StdinEnd,
            Request::Resize(Size { rows: 25, cols: 80 }),
        ] {
            prop_assert_eq!(round_trip(&request), request);
        }
    }

    #[test]
    fn replies_survive(bytes: Vec<u8>, code: u8, reason: String) {
        for reply in [
            Reply::Hello(code),
            Reply::Stdout(bytes.clone()),
            Reply::Stderr(bytes),
            Reply::Exit(code),
            Reply::Failed(reason),
        ] {
            prop_assert_eq!(round_trip(&reply), reply);
        }
    }

    /// Any bytes are frames, an end or an error, and what is read again encodes to what was read.
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let mut stream = bytes.as_slice();
        while let Ok(Some(request)) = read::<Request>(&mut stream) {
            prop_assert_eq!(round_trip(&request), request);
        }
        let mut stream = bytes.as_slice();
        while let Ok(Some(reply)) = read::<Reply>(&mut stream) {
            prop_assert_eq!(round_trip(&reply), reply);
        }
    }
}

#[test]
fn the_end_is_none_and_a_cut_is_an_error() {
    let mut bytes = Vec::new();
    write(&mut bytes, &Reply::Stdout(b"abc".to_vec())).unwrap();
    assert_eq!(read::<Reply>(&mut [].as_slice()).unwrap(), None);
    for cut in 1..bytes.len() {
        let error = read::<Reply>(&mut &bytes[..cut]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
    }
}

#[test]
fn lengths_are_bounded_both_ways() {
    let long = Reply::Stdout(vec![0; MAX_BODY + 1]);
    assert_eq!(
        write(&mut Vec::new(), &long).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    let header = [1, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(
        read::<Reply>(&mut header.as_slice()).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}
