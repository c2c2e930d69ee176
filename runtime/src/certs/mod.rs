//! The certificates by which the agent in a guest and its clients know each other.
//!
//! There is one set for all containers, of one authority whose key is gone. A container that starts
//! gets copies of it, the agent's part and that of `docker exec`: both keep to them when there is a
//! new set.

mod generate;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Name of the file with a [`Client`], in the bundle.
pub const CLIENT: &str = "exec.json";

/// Where the agent's part is below the folder of the installed runq, and the clients' part.
const AUTHORITY: &str = "vm/certs/ca.pem";
const AGENT: [&str; 2] = ["vm/certs/cert.pem", "vm/certs/key.pem"];
const CLIENTS: [&str; 2] = ["cert.pem", "key.pem"];

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// The set that is installed.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Certificate of the authority.
    pub authority: String,
    /// For the agents.
    pub agent: Pair,
    /// For their clients.
    pub client: Pair,
}

/// What a client shows and goes by; all of it PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Certificate of the authority that has signed the agent's.
    pub authority: String,
    /// The client's own certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Certificates {
    /// The set in `root`, where runq is installed.
    ///
    /// # Errors
    /// Names the file that is missing or cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let pair = |[certificate, key]: [&str; 2]| {
            Ok::<_, anyhow::Error>(Pair {
                certificate: read(certificate)?,
                key: read(key)?,
            })
        };
        Ok(Self {
            authority: read(AUTHORITY)?,
            agent: pair(AGENT)?,
            client: pair(CLIENTS)?,
        })
    }

    /// What `docker exec` shows to the agent of a container that gets this set.
    pub fn client(&self) -> Client {
        Client {
            authority: self.authority.clone(),
            certificate: self.client.certificate.clone(),
            key: self.client.key.clone(),
        }
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A log is no place for keys.
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Client {
    /// Reads what `runq create` has put into a bundle.
    ///
    /// # Errors
    /// Names the file.
    pub fn load(bundle: &Path) -> Result<Self> {
        let path = bundle.join(CLIENT);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("vm/certs")).unwrap();
        for name in [AUTHORITY, AGENT[0], AGENT[1], CLIENTS[0], CLIENTS[1]] {
            let path = root.path().join(name);
            let error = format!("{:#}", Certificates::read(root.path()).unwrap_err());
            let expected = format!("{}: No such file or directory", path.display());
            assert!(error.starts_with(&expected), "{error}");
            fs::write(&path, name).unwrap();
        }
        let read = Certificates::read(root.path()).unwrap();
        assert_eq!(
            (read.authority.as_str(), read.agent.key.as_str()),
            (AUTHORITY, AGENT[1])
        );
        let client = read.client();
        assert_eq!(
            (client.certificate.as_str(), client.key.as_str()),
            (CLIENTS[0], CLIENTS[1])
        );
        assert_eq!(format!("{read:?}"), "Certificates { .. }");
    }

    #[test]
    fn a_client_is_loaded_from_the_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        assert!(Client::load(bundle.path()).is_err());
        let client = Client {
            authority: "a".into(),
            certificate: "b\n".into(),
            key: "c".into(),
        };
        let text = serde_json::to_string(&client).unwrap();
        fs::write(bundle.path().join(CLIENT), text).unwrap();
        assert!(Client::load(bundle.path()).unwrap() == client);
    }
}
