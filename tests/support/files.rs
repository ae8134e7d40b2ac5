//! Files of a test, and certificates in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::process::new_folder;

/// A folder of its own, which is removed with this value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    #[allow(clippy::new_without_default, reason = "it creates something")]
    pub fn new() -> Folder {
        Folder(new_folder())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path as text.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the temporary folder is writable");
        path.to_str().expect("it is ASCII").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Certificates of one authority.
#[cfg(feature = "tls")]
pub mod certificates {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose, date_time_ymd,
    };

    use super::Folder;

    /// The key of every client, and the same with the password `hunter2`: `openssl pkcs8 -topk8 -v2 aes-256-cbc`.
    pub const CLIENT_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtBcZu+tVZYQTlH88
MndIlsOL1d1tWHCV5uJz3jilXeyhRANCAAQxRDDeWCtrCmlCirdAtaDX9yrJVp6I
Jdkfk1q4ejS6YDC9QlTDN/pTtVvY4tfqNEcC98PMnF2aq8CH6FR1m/Rd
-----END PRIVATE KEY-----
";
    pub const ENCRYPTED_CLIENT_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiaiXCt6jd1LwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEDFSkHruzKd2S8kKgyl9/DQEgZBB
d/8dOZB60a85X/WVML62ayYY71ybVlUDKen1kw6VI08mWyCquyt3pE+LRyFXMiRH
ce1VwDSCihQHjFND4Nggpt5oGb6DQ1Tvmp2c1aFwJ69CPp29rWO0FBwL0AWprsb/
QmO6AwiTdMHO8dDSbOPr7dhbRUgULTgSFY8O/4wT39x5EhavtBcaim7rmnslnYg=
-----END ENCRYPTED PRIVATE KEY-----
";

    /// An authority, and where its certificates are.
    #[derive(Debug)]
    pub struct Authority {
        pub folder: Folder,
        issuer: Issuer<'static, KeyPair>,
        /// The file of its certificate.
        pub ca: String,
    }

    /// The files of a certificate and its key.
    #[derive(Debug)]
    pub struct Identity {
        pub certificate: String,
        pub key: String,
        /// Both in one file, as ZooKeeper wants them.
        pub both: String,
    }

    impl Authority {
        #[allow(clippy::new_without_default, reason = "it creates something")]
        pub fn new() -> Authority {
            let folder = Folder::new();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // Another name for each: otherwise only the signature would be wrong.
            params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let ca = folder.write("ca.pem", &certificate.pem());
            Authority { folder, issuer: Issuer::new(params, key), ca }
        }

        /// A certificate for 127.0.0.1, which has expired already if `is_expired`.
        pub fn server(&self, is_expired: bool) -> Identity {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            if is_expired {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            self.sign("server", params, &KeyPair::generate().unwrap())
        }

        /// A certificate for a client.
        pub fn client(&self) -> Identity {
            let mut params = CertificateParams::default();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.sign("client", params, &KeyPair::from_pem(CLIENT_KEY).unwrap())
        }

        fn sign(&self, name: &str, mut params: CertificateParams, key: &KeyPair) -> Identity {
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let certificate = params.signed_by(key, &self.issuer).unwrap().pem();
            let key = key.serialize_pem();
            Identity {
                certificate: self.folder.write(&format!("{name}.pem"), &certificate),
                key: self.folder.write(&format!("{name}.key"), &key),
                both: self.folder.write(&format!("{name}-both.pem"), &format!("{key}{certificate}")),
            }
        }
    }
}
