//! The file of a receipt key alone, for those who check receipts and must not be able to make pseudonyms. Readable by its
//! owner alone, or refused, like the [key file](super::Keys) from which it comes.
//!
//! ```toml
//! version = 1
//! [receipt]
//! key = "…64 hexadecimal digits…"
//! ```

use std::path::Path;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::ConfigErrors;
use super::file::Settings;
use super::keys::{Uses, key, push_key, read_private, version, write_private};
use crate::buyer::SecretKey;

/// Reads the file of a receipt key.
pub fn load_receipt_key(path: &Path) -> Result<SecretKey, ConfigErrors> {
    let text = read_private(path, "`rationd receipt key` makes it where the service's key file is")?;
    let mut settings = Settings::parse(&text, &path.display().to_string())?;
    version(&mut settings);
    let key = key(&mut settings, &["receipt", "key"], &mut Uses::default());
    settings.finish(&[&["receipt"]])?;
    key.ok_or_else(|| ConfigErrors::one(path.display(), "is not complete"))
}

/// Makes the file of a receipt key, with mode 0600. Nothing is overwritten.
pub fn save_receipt_key(path: &Path, key: &SecretKey) -> Result<(), ConfigErrors> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(
        "# The receipt key of a rationd. Whoever has it can check receipts, and could make some. It tells no buyer.\n",
    );
    text.push_str("version = 1\n\n[receipt]\n");
    push_key(&mut text, key.expose_secret());
    write_private(path, &text).map_err(|error| ConfigErrors::one(path.display(), format!("cannot be made: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipt-key.toml");
        let key = SecretKey::init_with_mut(|key: &mut [u8; 32]| *key = std::array::from_fn(|at| at as u8));
        save_receipt_key(&path, &key).unwrap();
        assert_eq!(load_receipt_key(&path).unwrap().expose_secret(), key.expose_secret());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = save_receipt_key(&path, &key).unwrap_err().to_string();
        assert!(again.ends_with("receipt-key.toml: cannot be made: File exists (os error 17)"), "{again}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let open = load_receipt_key(&path).unwrap_err().to_string();
        assert!(open.contains("can be read by others than its owner"), "{open}");
    }

    #[test]
    fn another_file_is_refused_without_showing_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        super::super::Keys::load_or_create(&path).unwrap();
        let told = load_receipt_key(&path).unwrap_err().to_string();
        assert!(told.contains("keys.toml:6: partition.key: is not a setting"), "{told}");
        assert!(told.contains("keys.toml: receipt.key: is missing"), "{told}");
    }
}
