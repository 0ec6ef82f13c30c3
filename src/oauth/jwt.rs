//! `jsonwebtoken` on ring: glue only. HMAC does not exist here, so that no public key can ever be taken for a shared secret.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::jwk::{EllipticCurve, ThumbprintHash};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::digest;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self as ring_sig, KeyPair};

/// Makes ring the cryptography of `jsonwebtoken` in this process. May be called any number of times.
pub fn install() {
    static ONCE: Once = Once::new();
    // An error means that somebody else installed a provider first; only this program's own tests could.
    ONCE.call_once(|| {
        PROVIDER.install_default().ok();
    });
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |der| {
            let parts = PublicKeyComponents::<Vec<u8>>::from(rsa_key(der)?.public());
            Ok((parts.n, parts.e))
        },
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: ec_public,
        ed_pub_components_from_private_key: |der, _| {
            let key =
                ring_sig::Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(key.public_key().as_ref().to_vec())
        },
        compute_digest: |data, hash| {
            let algorithm = match hash {
                ThumbprintHash::SHA256 => &digest::SHA256,
                ThumbprintHash::SHA384 => &digest::SHA384,
                ThumbprintHash::SHA512 => &digest::SHA512,
                _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
            };
            Ok(digest::digest(algorithm, data).as_ref().to_vec())
        },
    },
};

/// From PKCS #1 or PKCS #8.
fn rsa_key(der: &[u8]) -> Result<ring_sig::RsaKeyPair> {
    ring_sig::RsaKeyPair::from_der(der)
        .or_else(|_| ring_sig::RsaKeyPair::from_pkcs8(der))
        .map_err(|e| ErrorKind::InvalidRsaKey(e.to_string()).into())
}

fn ec_public(der: &[u8], algorithm: Algorithm) -> Result<(EllipticCurve, Vec<u8>, Vec<u8>)> {
    let (curve, parameters) = match algorithm {
        Algorithm::ES256 => (EllipticCurve::P256, &ring_sig::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => (EllipticCurve::P384, &ring_sig::ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => return Err(ErrorKind::InvalidEcdsaKey.into()),
    };
    let key = ring_sig::EcdsaKeyPair::from_pkcs8(parameters, der, &SystemRandom::new())
        .map_err(|_| ErrorKind::InvalidEcdsaKey)?;
    // An uncompressed point: 4, x, y.
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    Ok((curve, x.to_vec(), y.to_vec()))
}

enum Key {
    Rsa(ring_sig::RsaKeyPair, &'static dyn ring_sig::RsaEncoding),
    Ec(ring_sig::EcdsaKeyPair),
}

struct RingSigner {
    algorithm: Algorithm,
    key: Key,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let rsa =
        |encoding: &'static dyn ring_sig::RsaEncoding| Ok::<_, Error>(Key::Rsa(rsa_key(key.as_bytes())?, encoding));
    let key = match algorithm {
        Algorithm::RS256 => rsa(&ring_sig::RSA_PKCS1_SHA256)?,
        Algorithm::PS256 => rsa(&ring_sig::RSA_PSS_SHA256)?,
        Algorithm::ES256 => {
            let parameters = &ring_sig::ECDSA_P256_SHA256_FIXED_SIGNING;
            let key = ring_sig::EcdsaKeyPair::from_pkcs8(parameters, key.as_bytes(), &SystemRandom::new());
            Key::Ec(key.map_err(|_| ErrorKind::InvalidEcdsaKey)?)
        }
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingSigner { algorithm: *algorithm, key }))
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).map_err(|_| SignatureError::new())?;
                Ok(signature)
            }
            Key::Ec(key) => {
                let signature = key.sign(&random, message).map_err(|_| SignatureError::new())?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

enum Check {
    Rsa(&'static ring_sig::RsaParameters),
    Point(&'static dyn ring_sig::VerificationAlgorithm),
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() || key.family() == AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let check = match algorithm {
        Algorithm::RS256 => Check::Rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Check::Rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Check::Rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Check::Rsa(&ring_sig::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Check::Rsa(&ring_sig::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Check::Rsa(&ring_sig::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Check::Point(&ring_sig::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Check::Point(&ring_sig::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Check::Point(&ring_sig::ED25519),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, check, key: key.clone() }))
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        let verdict = match (&self.check, self.key.kind()) {
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                PublicKeyComponents { n: significant(n), e: significant(e) }.verify(parameters, message, signature)
            }
            (Check::Rsa(parameters), DecodingKeyKind::SecretOrDer(der)) => {
                ring_sig::UnparsedPublicKey::new(*parameters, der).verify(message, signature)
            }
            (Check::Point(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                ring_sig::UnparsedPublicKey::new(*algorithm, point).verify(message, signature)
            }
            (Check::Point(_), DecodingKeyKind::RsaModulusExponent { .. }) => Err(ring::error::Unspecified),
        };
        verdict.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Some providers publish numbers with a leading zero byte, which ring refuses.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::crypto::{sign, verify};
    use jsonwebtoken::jwk::Jwk;
    use ring_sig::{RsaEncoding, RsaKeyPair};

    use super::*;

    const RSA: &[u8] = include_bytes!("../../tests/keys/rsa_a.pem");
    const P256: &[u8] = include_bytes!("../../tests/keys/p256.pem");
    const P384: &[u8] = include_bytes!("../../tests/keys/p384.pem");
    const ED25519: &[u8] = include_bytes!("../../tests/keys/ed25519.pem");

    fn public(key: &EncodingKey, algorithm: Algorithm) -> DecodingKey {
        DecodingKey::from_jwk(&Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap()
    }

    /// True for the message that was signed, false for another, under another algorithm, and for a broken signature.
    fn check(signature: &[u8], key: &DecodingKey, algorithm: Algorithm, others: &[Algorithm]) {
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        assert!(verify(&signature, b"message", key, algorithm).unwrap(), "{algorithm:?}");
        assert!(!verify(&signature, b"Message", key, algorithm).unwrap(), "{algorithm:?}");
        assert!(!verify("AAAA", b"message", key, algorithm).unwrap(), "{algorithm:?}");
        for other in others.iter().filter(|other| **other != algorithm) {
            assert!(!verify(&signature, b"message", key, *other).is_ok_and(|good| good), "{algorithm:?} {other:?}");
        }
    }

    #[test]
    fn signatures_are_checked_under_their_own_algorithm() {
        install();
        install();
        let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
        let pair = RsaKeyPair::from_der(rsa.as_bytes()).unwrap();
        let encodings: [(Algorithm, &'static dyn RsaEncoding); 6] = [
            (Algorithm::RS256, &ring_sig::RSA_PKCS1_SHA256),
            (Algorithm::RS384, &ring_sig::RSA_PKCS1_SHA384),
            (Algorithm::RS512, &ring_sig::RSA_PKCS1_SHA512),
            (Algorithm::PS256, &ring_sig::RSA_PSS_SHA256),
            (Algorithm::PS384, &ring_sig::RSA_PSS_SHA384),
            (Algorithm::PS512, &ring_sig::RSA_PSS_SHA512),
        ];
        let others: Vec<Algorithm> =
            encodings.iter().map(|(algorithm, _)| *algorithm).chain([Algorithm::ES256]).collect();
        for (algorithm, encoding) in encodings {
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), b"message", &mut signature).unwrap();
            check(&signature, &public(&rsa, algorithm), algorithm, &others);
        }
        let curves = [
            (Algorithm::ES256, P256, &ring_sig::ECDSA_P256_SHA256_FIXED_SIGNING),
            (Algorithm::ES384, P384, &ring_sig::ECDSA_P384_SHA384_FIXED_SIGNING),
        ];
        for (algorithm, pem, parameters) in curves {
            let key = EncodingKey::from_ec_pem(pem).unwrap();
            let pair = ring_sig::EcdsaKeyPair::from_pkcs8(parameters, key.as_bytes(), &SystemRandom::new()).unwrap();
            let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
            check(signature.as_ref(), &public(&key, algorithm), algorithm, &[Algorithm::ES256, Algorithm::ES384]);
        }
        let key = EncodingKey::from_ed_pem(ED25519).unwrap();
        let pair = ring_sig::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes()).unwrap();
        check(pair.sign(b"message").as_ref(), &public(&key, Algorithm::EdDSA), Algorithm::EdDSA, &[Algorithm::ES256]);
    }

    #[test]
    fn what_is_signed_here_is_good() {
        install();
        let (rsa, p256) = (EncodingKey::from_rsa_pem(RSA).unwrap(), EncodingKey::from_ec_pem(P256).unwrap());
        for (key, algorithm) in [(&rsa, Algorithm::RS256), (&rsa, Algorithm::PS256), (&p256, Algorithm::ES256)] {
            let signature = sign(b"message", key, algorithm).unwrap();
            assert!(verify(&signature, b"message", &public(key, algorithm), algorithm).unwrap());
        }
    }

    #[test]
    fn there_is_no_hmac() {
        install();
        assert!(sign(b"message", &EncodingKey::from_secret(b"secret"), Algorithm::HS256).is_err());
        assert!(verify("AAAA", b"message", &DecodingKey::from_secret(b"secret"), Algorithm::HS256).is_err());
        let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
        assert!(verify("AAAA", b"message", &public(&rsa, Algorithm::RS256), Algorithm::HS256).is_err());
    }

    #[test]
    fn leading_zeros_mean_nothing() {
        assert_eq!(significant(&[0, 0, 1, 0]), [1, 0]);
        assert_eq!(significant(&[0]), [0; 0]);
    }
}
