//! The protocol, FUSE, as the virtiofsd library speaks it.

use std::io;

use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::passthrough::PassthroughFs;
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::server::Server;

use super::sink::{HEADER, Sink};
use crate::dev::share::{Checked, Config, Files, Protocol};
use crate::device::DeviceError;
use crate::queue::Chain;

/// One shared directory with the state of the guest's session.
pub(super) struct Fuse {
    server: AnyServer,
    sink: Sink,
}

enum AnyServer {
    Writable(Server<Checked<PassthroughFs>>, Checked<PassthroughFs>),
    ReadOnly(Server<Checked<PassthroughFsRo>>, Checked<PassthroughFsRo>),
}

impl Fuse {
    /// Shares the directory from this thread, which can reach nothing else afterwards.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let server = match Files::open(config)? {
            Files::Writable(files) => AnyServer::Writable(Server::new(files.clone()), files),
            Files::ReadOnly(files) => AnyServer::ReadOnly(Server::new(files.clone()), files),
        };
        let sink = Sink::new()?;
        Ok(Self { server, sink })
    }
}

impl Fuse {
    /// Asks the library to execute the request in `chain`, and returns the length of the answer.
    fn ask_library(&self, chain: Chain) -> Result<u32, DeviceError> {
        let driver = |error: &dyn std::fmt::Display| DeviceError::Driver(error.to_string());
        let memory = chain.clone();
        let memory = memory.memory();
        let reader = Reader::new(memory, chain.clone()).map_err(|e| driver(&e))?;
        let mut writer = Writer::new(memory, chain).map_err(|e| driver(&e))?;
        let has_room = writer.available_bytes() >= HEADER;
        if !has_room {
            // As it should be for a FORGET, which is not answered.
            writer = self.sink.writer().map_err(|e| driver(&e))?;
        }
        let length = match &self.server {
            AnyServer::Writable(server, _) => server.handle_message::<()>(reader, writer, None),
            AnyServer::ReadOnly(server, _) => server.handle_message::<()>(reader, writer, None),
        };
        let length = length.map_err(|e| driver(&e))?;
        if length > 0 && !has_room {
            return Err(driver(&"a request has no room for its answer"));
        }
        u32::try_from(length).map_err(|e| driver(&e))
    }
}

impl Protocol for Fuse {
    fn handle(&self, chain: Chain) -> Result<u32, DeviceError> {
        let answered = match &self.server {
            AnyServer::Writable(_, files) => files.handle(&chain)?,
            AnyServer::ReadOnly(_, files) => files.handle(&chain)?,
        };
        answered.map_or_else(|| self.ask_library(chain), Ok)
    }

    fn end(&self) {
        match &self.server {
            AnyServer::Writable(_, files) => files.end(),
            AnyServer::ReadOnly(_, files) => files.end(),
        }
    }

    fn forget(&self) {
        match &self.server {
            AnyServer::Writable(server, files) => {
                files.clear();
                server.destroy();
            }
            AnyServer::ReadOnly(server, files) => {
                files.clear();
                server.destroy();
            }
        }
    }
}
