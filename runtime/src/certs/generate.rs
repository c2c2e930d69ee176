//! `runq certs`: a new set of certificates.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use proto::exec::AGENT_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};

use super::{AGENT, AUTHORITY, CLIENTS, Certificates, Pair};

/// How long they are valid.
const VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);
/// Since when: the clocks of host and guest may differ.
const BACKDATED: Duration = Duration::from_hours(24);

/// Root alone may read what agents show: who has it can pretend to be one.
const AGENT_MODE: u32 = 0o400;
/// Whoever may read a client's pair may run commands in containers: a group of the admin's choice.
const CLIENT_MODE: u32 = 0o440;

impl Certificates {
    /// A new set, of an authority whose key nobody has afterwards.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = params("runq certificate authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let client = sign(&issuer, "runq-exec", ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self {
            agent: sign(&issuer, AGENT_NAME, ExtendedKeyUsagePurpose::ServerAuth)?,
            client: Pair {
                // Clients that are not root cannot read the authority's file.
                certificate: client.certificate + &authority,
                ..client
            },
            authority,
        })
    }

    /// Puts the set into `root`, where runq is installed, in place of the one that is there.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn install(&self, root: &Path) -> Result<()> {
        let folder = root.join(AUTHORITY);
        let folder = folder.parent().unwrap_or(root);
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| folder.display().to_string());
            }
            _ => {}
        }
        let files = [
            (AUTHORITY, &self.authority, AGENT_MODE),
            (AGENT[0], &self.agent.certificate, AGENT_MODE),
            (AGENT[1], &self.agent.key, AGENT_MODE),
            (CLIENTS[0], &self.client.certificate, CLIENT_MODE),
            (CLIENTS[1], &self.client.key, CLIENT_MODE),
        ];
        for (name, contents, mode) in files {
            write(&root.join(next(name)), contents, mode)?;
        }
        // All are there: nothing is left that should fail.
        for (name, ..) in files {
            let path = root.join(name);
            fs::rename(root.join(next(name)), &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// The name of a file before it takes its place.
fn next(name: &str) -> String {
    format!("{name}.new")
}

fn write(path: &Path, contents: &str, mode: u32) -> Result<()> {
    // One that an earlier call has left.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(contents.as_bytes()))
        .with_context(|| path.display().to_string())
}

/// What all certificates have.
fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new([name.replace(' ', "-")])?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    Ok(params)
}

/// A pair for one kind of use.
fn sign(issuer: &Issuer<'_, KeyPair>, name: &str, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = params(name)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    Ok(Pair {
        certificate: params.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use channel::Identity;

    use super::*;

    #[test]
    fn a_new_set_takes_the_place_of_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("vm")).unwrap();
        let [old, new] = [(); 2].map(|()| Certificates::generate().unwrap());
        for set in [&old, &new] {
            set.install(root.path()).unwrap();
            assert!(Certificates::read(root.path()).unwrap() == *set);
        }
        assert!(old != new);
        let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!(
            [
                "vm/certs", AUTHORITY, AGENT[0], AGENT[1], CLIENTS[0], CLIENTS[1]
            ]
            .map(mode),
            [0o700, 0o400, 0o400, 0o400, 0o440, 0o440]
        );
        let names = |folder: &str| fs::read_dir(root.path().join(folder)).unwrap().count();
        assert_eq!((names("."), names("vm/certs")), (3, 3));
    }

    #[test]
    fn both_ends_can_use_them() {
        let Certificates {
            authority,
            agent,
            client,
        } = Certificates::generate().unwrap();
        for (certificate, key) in [
            (&agent.certificate, &agent.key),
            (&client.certificate, &client.key),
        ] {
            let identity = Identity {
                authority: authority.as_bytes(),
                certificate: certificate.as_bytes(),
                key: key.as_bytes(),
            };
            identity.server().unwrap();
            identity.client().unwrap();
        }
        assert!(client.certificate.ends_with(&authority));
        assert!(!agent.certificate.contains(&authority));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let set = Certificates::generate().unwrap();
        let error = format!("{:#}", set.install(root.path()).unwrap_err());
        let folder = root.path().join("vm/certs");
        assert!(error.starts_with(&folder.display().to_string()), "{error}");
    }
}
