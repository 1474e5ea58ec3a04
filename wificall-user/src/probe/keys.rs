//! Diffie-Hellman groups and our public value in each.
//!
//! The secret behind a value is thrown away: nothing is ever derived from it, because no exchange goes on to IKE_AUTH.
//! So one value a group serves all exchanges of a process (RFC 7296 §2.12 permits it), and computing it costs once.

use std::sync::OnceLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U256, Uint};
use p256::elliptic_curve::sec1::ToSec1Point as _;

use super::Fill;

/// A group that is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 1024-bit MODP (RFC 7296 appendix B.2): old, and still wanted by some gateways.
    Modp1024,
    /// 1536-bit MODP (RFC 3526 §2).
    Modp1536,
    /// 2048-bit MODP (RFC 3526 §3), which every implementation must have (RFC 8247 §2.4).
    Modp2048,
    /// 3072-bit MODP (RFC 3526 §4).
    Modp3072,
    /// 4096-bit MODP (RFC 3526 §5).
    Modp4096,
    /// NIST P-256 (RFC 5903).
    Ecp256,
    /// NIST P-384 (RFC 5903).
    Ecp384,
    /// Curve25519 (RFC 8031).
    X25519,
}

impl Group {
    /// All, in the order in which they are proposed.
    pub const ALL: [Self; 8] = [
        Self::Modp2048,
        Self::Ecp256,
        Self::X25519,
        Self::Modp1024,
        Self::Ecp384,
        Self::Modp3072,
        Self::Modp4096,
        Self::Modp1536,
    ];

    /// Its number (IANA "Transform Type 4 - Key Exchange Method Transform IDs").
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Modp1024 => 2,
            Self::Modp1536 => 5,
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::X25519 => 31,
        }
    }

    /// Its name, as strongSwan writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modp1024 => "modp1024",
            Self::Modp1536 => "modp1536",
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::Ecp256 => "ecp256",
            Self::Ecp384 => "ecp384",
            Self::X25519 => "x25519",
        }
    }

    /// The group of this number, if it is proposed.
    #[must_use]
    pub fn of_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Length of a public value in the KE payload, in bytes (RFC 7296 §3.4, RFC 5903 §7, RFC 8031 §3.1).
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::X25519 => 32,
        }
    }
}

/// Our public value in each group, made when first asked for.
#[derive(Debug)]
pub struct Keys {
    fill: Fill,
    values: [OnceLock<Vec<u8>>; Group::ALL.len()],
}

impl Keys {
    /// Keys whose secrets come from `fill`.
    #[must_use]
    pub fn new(fill: Fill) -> Self {
        Self {
            fill,
            values: Default::default(),
        }
    }

    /// Fills with what the keys are made from.
    pub(super) fn fill(&self, bytes: &mut [u8]) {
        (self.fill)(bytes);
    }

    /// The public value as the KE payload carries it.
    #[must_use]
    pub fn public(&self, group: Group) -> &[u8] {
        self.values[group as usize].get_or_init(|| public(group, self.fill))
    }
}

/// 2 to the power of 256 random bits, modulo a prime. More bits than the group is strong would only cost.
fn modp<const LIMBS: usize>(prime: &str, fill: Fill) -> Vec<u8> {
    let mut secret = [0; 32];
    fill(&mut secret);
    // A power of less than the prime's length would be one that anybody reads off.
    secret[0] |= 0x80;
    let prime = Odd::new(Uint::<LIMBS>::from_be_hex(prime)).expect("a prime above 2 is odd");
    let params = FixedMontyParams::new(prime);
    let two = FixedMontyForm::new(&Uint::from_u8(2), &params);
    let public = two.pow(&U256::from_be_slice(&secret)).retrieve();
    public.to_be_bytes().as_ref().to_vec()
}

fn public(group: Group, fill: Fill) -> Vec<u8> {
    match group {
        Group::Modp1024 => modp::<{ 1024 / Uint::<1>::BITS as usize }>(MODP1024, fill),
        Group::Modp1536 => modp::<{ 1536 / Uint::<1>::BITS as usize }>(MODP1536, fill),
        Group::Modp2048 => modp::<{ 2048 / Uint::<1>::BITS as usize }>(MODP2048, fill),
        Group::Modp3072 => modp::<{ 3072 / Uint::<1>::BITS as usize }>(MODP3072, fill),
        Group::Modp4096 => modp::<{ 4096 / Uint::<1>::BITS as usize }>(MODP4096, fill),
        Group::Ecp256 => {
            let secret = secret::<32, _>(fill, |bytes| p256::SecretKey::from_slice(bytes).ok());
            // RFC 5903 §7: the coordinates without the octet in front that says that they are both there.
            secret.public_key().to_sec1_point(false).as_bytes()[1..].to_vec()
        }
        Group::Ecp384 => {
            let secret = secret::<48, _>(fill, |bytes| p384::SecretKey::from_slice(bytes).ok());
            secret.public_key().to_sec1_point(false).as_bytes()[1..].to_vec()
        }
        Group::X25519 => {
            let mut secret = [0; 32];
            fill(&mut secret);
            x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES).to_vec()
        }
    }
}

/// Draws until the bytes are a key: of the numbers of that length nearly all are.
fn secret<const N: usize, T>(fill: Fill, key: impl Fn(&[u8]) -> Option<T>) -> T {
    loop {
        let mut bytes = [0; N];
        fill(&mut bytes);
        if let Some(key) = key(&bytes) {
            return key;
        }
    }
}

const MODP1024: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
);

const MODP1536: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF",
);

const MODP2048: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718",
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

const MODP3072: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718",
    "3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33",
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7",
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864",
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2",
    "08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
);

const MODP4096: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718",
    "3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33",
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7",
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864",
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2",
    "08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7",
    "88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8",
    "DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2",
    "233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9",
    "93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong digit would make another number of these, which is hardly ever a prime.
    #[test]
    fn the_primes_are_primes() {
        fn check<const LIMBS: usize>(hex: &str) {
            assert!(hex.starts_with("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD1"));
            assert!(hex.ends_with("FFFFFFFFFFFFFFFF"));
            let prime = Uint::<LIMBS>::from_be_hex(hex);
            let params = FixedMontyParams::new(Odd::new(prime).unwrap());
            // Fermat, in base 3: base 2 says yes to too many numbers of this form.
            let three = FixedMontyForm::new(&Uint::from_u8(3), &params);
            let power = three.pow_vartime(&prime.wrapping_sub(&Uint::ONE));
            assert_eq!(power.retrieve(), Uint::ONE, "{} digits", hex.len());
        }
        check::<{ 1024 / Uint::<1>::BITS as usize }>(MODP1024);
        check::<{ 1536 / Uint::<1>::BITS as usize }>(MODP1536);
        check::<{ 2048 / Uint::<1>::BITS as usize }>(MODP2048);
        check::<{ 3072 / Uint::<1>::BITS as usize }>(MODP3072);
        check::<{ 4096 / Uint::<1>::BITS as usize }>(MODP4096);
    }

    #[test]
    fn public_values_have_their_length_and_are_made_once() {
        let keys = Keys::new(crate::probe::system_random);
        for group in Group::ALL {
            let public = keys.public(group);
            assert_eq!(public.len(), group.public_len(), "{group}");
            assert!(public.iter().any(|byte| *byte != 0), "{group}");
            assert_eq!(keys.public(group), public, "{group}");
            assert_ne!(Keys::new(crate::probe::system_random).public(group), public);
        }
    }

    /// RFC 7748 §5.2: the scalar 9 times the base point, after one iteration.
    #[test]
    fn x25519_is_that_of_the_rfc() {
        fn nine(bytes: &mut [u8]) {
            bytes.fill(0);
            bytes[0] = 9;
        }
        let public = public(Group::X25519, nine);
        let hex: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
        );
    }

    /// The secret 2^255 (the top bit alone): 2 to the power of it, as Python's pow has it.
    #[test]
    fn modp_is_two_to_the_power_of_the_secret() {
        fn zero(bytes: &mut [u8]) {
            bytes.fill(0);
        }
        let public = public(Group::Modp1024, zero);
        let hex: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "a7a3b54f6a0faf3be0c9574cbd2c37f9e2befa1dd7a5a26b52624e2992cb56242220bc3b097507efc438b048c6094216c2cd583fe4d0fe6f7ed60df9991619b4cff7cebb8e8399b340815d702d1ef4d95c654b505ef60834f68ef0ac7e25f950411d64692546b7caea7707dadba86c1512405ecef20d2a57e8a19b5142b0905e"
        );
    }
}
