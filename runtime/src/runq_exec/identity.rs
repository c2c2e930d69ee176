//! The certificates: the client's own, and that of the authority.
//!
//! Whoever may read the client's files may run commands, and the authority's file is root's. So the
//! client's own file has the authority's certificate, too, behind its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use channel::{ClientConfig, Identity};

use crate::options::{Cli, root};

/// Begins each certificate of a PEM file (RFC 7468, 5).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// The authority's file, below the folder of the installed runq.
const AUTHORITY: &str = "vm/certs/ca.pem";

/// Reads the files.
///
/// # Errors
/// Names the file that cannot be read or used.
pub(crate) fn read(cli: &Cli) -> Result<Arc<ClientConfig>> {
    let root = root();
    let cert_file = cli.cert.clone().unwrap_or_else(|| root.join("cert.pem"));
    let key_file = cli.key.clone().unwrap_or_else(|| root.join("key.pem"));
    let certificate = text(&cert_file)?;
    let key = text(&key_file)?;
    let (authority, ca_file) = match (&cli.ca, last_of_several(&certificate)) {
        (Some(file), _) => (text(file)?, file.clone()),
        (None, Some(last)) => (last.to_owned(), cert_file.clone()),
        (None, None) => {
            let file = root.join(AUTHORITY);
            let text = text(&file).with_context(|| {
                let name = cert_file.display();
                format!("{name} has no authority's certificate behind its own: name it by --ca")
            });
            (text?, file)
        }
    };
    let identity = Identity {
        authority: authority.as_bytes(),
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
    };
    identity.client().with_context(|| {
        let [cert, key, ca] = [&cert_file, &key_file, &ca_file].map(|file| file.display());
        format!("certificate {cert}, key {key}, authority {ca}")
    })
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| {
        let name = file.display();
        format!(
            "{name}: cannot be read: `runq certs` makes certificates, -c, -k and --ca name others"
        )
    })
}

/// The last certificate of a file with more than one.
fn last_of_several(pem: &str) -> Option<&str> {
    let (first, last) = (pem.find(BEGIN)?, pem.rfind(BEGIN)?);
    pem.get(last..).filter(|_| first < last)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_authority_is_the_last_of_several() {
        let one = format!("{BEGIN}\nA\n");
        let two = format!("{one}{BEGIN}\nB\n");
        assert_eq!(last_of_several(""), None);
        assert_eq!(last_of_several(&one), None);
        assert_eq!(last_of_several(&two), Some(&two[one.len()..]));
    }

    #[test]
    fn files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["c", "k"].map(|name| folder.path().join(name));
        let error = || {
            let words = [
                "runq-exec",
                "-c",
                cert.to_str().unwrap(),
                "-k",
                key.to_str().unwrap(),
            ];
            let more = ["--ca", cert.to_str().unwrap(), "web", "ls"];
            let cli = Cli::parse_from(words.into_iter().chain(more));
            format!("{:#}", read(&cli).unwrap_err())
        };
        assert!(error().starts_with(&format!("{}: cannot be read", cert.display())));
        fs::write(&cert, "x").unwrap();
        assert!(error().starts_with(&format!("{}: cannot be read", key.display())));
        fs::write(&key, "x").unwrap();
        let expected = format!("certificate {}, key {}", cert.display(), key.display());
        assert!(error().starts_with(&expected), "{}", error());
    }
}
