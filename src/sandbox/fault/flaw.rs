//! How an identity token can be wrong, each the breach of one rule.

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    Issuer,
    Audience,
    /// Several audiences, ours among them, and no `azp`.
    SeveralAudiences,
    /// `azp` is another application.
    AuthorizedParty,
    Expired,
    ExpiryText,
    NotYetValid,
    NotBeforeText,
    NoNonce,
    WrongNonce,
    Tenant,
    NoSubject,
    NoObjectId,
    UnknownKey,
    NoKeyId,
    /// The header brings the key along instead of naming one.
    EmbeddedKey,
    Signature,
    AlgorithmNone,
    /// HS256 with the public key as the secret.
    AlgorithmHmac,
    /// Signed by the key of personal accounts.
    ConsumerKey,
    /// Signed in full for somebody else: another user of the tenant.
    OtherUser,
    /// 300,000 bytes of claims.
    TooLarge,
    NotAToken,
}

impl Flaw {
    /// Each with the name that a fault's text has for it.
    pub const ALL: &[(&str, Self)] = &[
        ("issuer", Self::Issuer),
        ("audience", Self::Audience),
        ("several-audiences", Self::SeveralAudiences),
        ("authorized-party", Self::AuthorizedParty),
        ("expired", Self::Expired),
        ("expiry-text", Self::ExpiryText),
        ("not-yet-valid", Self::NotYetValid),
        ("not-before-text", Self::NotBeforeText),
        ("no-nonce", Self::NoNonce),
        ("wrong-nonce", Self::WrongNonce),
        ("tenant", Self::Tenant),
        ("no-subject", Self::NoSubject),
        ("no-object-id", Self::NoObjectId),
        ("unknown-key", Self::UnknownKey),
        ("no-key-id", Self::NoKeyId),
        ("embedded-key", Self::EmbeddedKey),
        ("signature", Self::Signature),
        ("algorithm-none", Self::AlgorithmNone),
        ("algorithm-hmac", Self::AlgorithmHmac),
        ("consumer-key", Self::ConsumerKey),
        ("other-user", Self::OtherUser),
        ("too-large", Self::TooLarge),
        ("no-token", Self::NotAToken),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, flaw)| *flaw)
    }
}
