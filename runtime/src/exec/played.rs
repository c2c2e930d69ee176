//! An agent as tests play it, and its certificates.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use channel::{Channel, ClientConfig, Identity, READ_SIZE, ServerConfig};
use proto::exec::{AGENT_NAME, FromAgent, ToAgent};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::certs::{Certificates, Client, Pair};

/// A set of certificates, valid until a year.
pub(crate) fn certificates(until: i32) -> Certificates {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let pair = |usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new([AGENT_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        Pair {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    };
    Certificates {
        authority,
        agent: pair(ExtendedKeyUsagePurpose::ServerAuth),
        client: pair(ExtendedKeyUsagePurpose::ClientAuth),
    }
}

fn identity<'a>(authority: &'a str, certificate: &'a str, key: &'a str) -> Identity<'a> {
    Identity {
        authority: authority.as_bytes(),
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
    }
}

pub(crate) fn client(set: &Client) -> Arc<ClientConfig> {
    identity(&set.authority, &set.certificate, &set.key)
        .client()
        .unwrap()
}

fn server(set: &Certificates) -> Arc<ServerConfig> {
    identity(&set.authority, &set.agent.certificate, &set.agent.key)
        .server()
        .unwrap()
}

/// The agent's end of a connection. It waits for what it expects.
pub(crate) struct Played(Channel<UnixStream, ToAgent>);

impl Played {
    pub(crate) fn new(socket: UnixStream, set: &Certificates) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self(Channel::accept(socket, &server(set)).unwrap())
    }

    /// Says it completely; an error if the client has left.
    pub(crate) fn say(&mut self, message: &FromAgent) -> Result<(), channel::Error> {
        self.0.send(message)?;
        while !self.0.is_idle() || self.0.is_handshaking() {
            self.step()?;
        }
        Ok(())
    }

    /// Says it completely, and does not listen meanwhile.
    pub(crate) fn only_say(&mut self, message: &FromAgent) -> Result<(), channel::Error> {
        self.0.send(message)?;
        while !self.0.is_idle() {
            let mut polled = [PollFd::new(self.0.socket(), PollFlags::OUT)];
            poll(&mut polled, None).unwrap();
            self.0.flush()?;
        }
        Ok(())
    }

    /// The next message.
    pub(crate) fn hear(&mut self) -> Result<ToAgent, channel::Error> {
        loop {
            if let Some(message) = self.0.next()? {
                return Ok(message);
            }
            self.step()?;
        }
    }

    /// Waits for the connection.
    fn step(&mut self) -> Result<(), channel::Error> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.0.is_idle());
        poll(&mut [PollFd::new(self.0.socket(), wanted)], None).unwrap();
        self.0.flush()?;
        self.0.fill(&mut [0; READ_SIZE])
    }
}

/// Two ends: the client's, and the agent's.
pub(crate) fn ends(set: &Certificates) -> (File, Played) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (OwnedFd::from(ours).into(), Played::new(theirs, set))
}
