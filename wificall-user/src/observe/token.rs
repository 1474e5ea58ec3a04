//! The token that shows clients' addresses to who has it (RFC 6750 §2.1).

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;

/// Characters of a token at least: those of 128 random bits in hexadecimal.
const LEAST: usize = 32;
/// Likewise at most, with the end of the line.
const MOST: usize = 4_096;

/// A secret that whoever asks has to know.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Nothing of the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(
        "read the token in `{path}`: {source}\n  hint: agent.token_file names a file with a token, made by \
         `(umask 077; openssl rand -hex 32 > {path})`"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error(
        "the token in `{path}` is not secret: {why}\n  hint: `chown root: {path}; chmod 600 {path}`, and make a new token \
         if others may have read it"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong with its owner or mode.
        why: String,
    },
    /// What is in it is no token.
    #[error(
        "`{path}` has no token: found {found}, expected one line of {LEAST} to {MOST} letters, digits and -._~+/=\n  \
         hint: `openssl rand -hex 32` makes one"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is there instead; nothing of the secret.
        found: String,
    },
}

impl Token {
    /// Reads a token from a file that is its owner's alone.
    ///
    /// # Errors
    ///
    /// If it cannot be read, if others than root and whoever runs this may read or change it, or if there is no token in it.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let reading = |source| TokenError::Read {
            path: path.into(),
            source,
        };
        // A pipe without a writer is not waited for.
        let mut options = fs::File::options();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(reading)?;
        let about = file.metadata().map_err(reading)?;
        // SAFETY: no precondition.
        let own = unsafe { libc::geteuid() };
        if let Some(why) = exposed(about.is_file(), about.mode(), about.uid(), own) {
            return Err(TokenError::Open {
                path: path.into(),
                why,
            });
        }
        let mut bytes = Vec::new();
        let mut start = file.take(MOST as u64 + 1);
        start.read_to_end(&mut bytes).map_err(reading)?;
        Self::parse(&bytes).map_err(|found| TokenError::Form {
            path: path.into(),
            found,
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let token = bytes.trim_ascii();
        // RFC 6750 §2.1: what a header can carry.
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if bytes.len() > MOST {
            Err(format!("more than {MOST} bytes"))
        } else if !token.iter().all(allowed) {
            Err("other characters".into())
        } else if token.len() < LEAST {
            Err(format!("{} characters", token.len()))
        } else {
            Ok(Self(token.into()))
        }
    }

    /// Whether this is it. Takes as long whatever is wrong, but for the length.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// Who else may read or change a file.
fn exposed(is_file: bool, mode: u32, owner: u32, own: u32) -> Option<String> {
    if !is_file {
        Some("it is no file".into())
    } else if owner != 0 && owner != own {
        Some(format!("it belongs to the user {owner}"))
    } else if mode & 0o077 != 0 {
        Some(format!("its mode is {:03o}", mode & 0o777))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_file_gives_its_token_only_if_it_is_nobody_elses() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(Token::read(&path), Err(TokenError::Read { .. })));
        fs::write(&path, format!("{GOOD}\n")).unwrap();
        for (mode, secret) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Token::read(&path) {
                Ok(token) => assert!(secret && token.is(GOOD.as_bytes()), "{mode:o}"),
                Err(error) => {
                    assert!(!secret, "{mode:o}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(&format!("{mode:o}")), "{text}");
                    assert!(!text.contains(GOOD), "{text}");
                }
            }
        }
        assert!(matches!(
            Token::read(directory.path()),
            Err(TokenError::Open { .. })
        ));
        assert!(exposed(true, 0o600, 1_000, 0).is_some());
        assert_eq!(exposed(true, 0o600, 1_000, 1_000), None);
        assert_eq!(exposed(true, 0o600, 0, 1_000), None);
    }

    #[test]
    fn what_is_short_or_cannot_stand_in_a_header_is_no_token() {
        let long = "a".repeat(MOST + 1);
        let (spaced, short) = (format!("{GOOD} {GOOD}"), &GOOD[1..]);
        for bad in ["", "\n", short, &spaced, "ä", &long] {
            let error = Token::parse(bad.as_bytes()).unwrap_err();
            assert!(!error.contains(GOOD), "{error}");
        }
        let token = Token::parse(format!(" {GOOD}\r\n").as_bytes()).unwrap();
        assert!(token.is(GOOD.as_bytes()));
        assert!(!token.is(b"") && !token.is(&GOOD.as_bytes()[1..]));
        assert!(!token.is(GOOD.to_uppercase().as_bytes()));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
