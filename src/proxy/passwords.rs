//! Passwords that applications already have, as argon2id hashes (RFC 9106).
//!
//! argon2id is slow on purpose, and anybody can make us compute it: a verdict is remembered, few are worked out at a time, and few wait.
//! A guess never pushes the verdict on a right password out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::error::{Kind, Refusal};
use super::limits::Counter;
use crate::secret::Secret;
use crate::tasks::Tasks;

/// A password longer than this is refused unhashed.
const LONGEST_PASSWORD: usize = 1024;
/// Wrong passwords that are remembered. Right ones always are: there are no more of them than clients.
const WRONG_PASSWORDS: usize = 4096;
/// Passwords that are worked out at a time, and requests that wait for theirs.
const HASHED: usize = 2;
const WAITING: usize = 64;
const OVERLOADED: Duration = Duration::from_secs(1);

/// The passwords of all clients that have one.
pub struct Passwords {
    hashes: Vec<String>,
    verdicts: Mutex<Verdicts>,
    /// Salts the memory of verdicts: digests of passwords mean nothing outside this process.
    salt: [u8; 32],
    hashing: Arc<Semaphore>,
    waiting: Arc<Counter>,
    tasks: Tasks,
}

#[derive(Clone, Copy)]
enum Verdict {
    /// The password of the client with this index.
    Right(usize),
    Wrong,
}

/// What is known of passwords. Guesses never push a right one out.
#[derive(Default)]
struct Verdicts {
    right: HashMap<[u8; 32], usize>,
    wrong: HashSet<[u8; 32]>,
}

impl Passwords {
    /// `hashes` are PHC strings.
    pub fn new(hashes: Vec<String>, tasks: Tasks) -> Self {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("the system has randomness");
        Self {
            hashes,
            verdicts: Mutex::default(),
            salt,
            hashing: Arc::new(Semaphore::new(HASHED)),
            waiting: Arc::new(Counter::new(HASHED + WAITING)),
            tasks,
        }
    }

    /// The same hashes in the same order: what is known of them stays true.
    pub fn are_of(&self, hashes: &[String]) -> bool {
        self.hashes == hashes
    }

    /// Which hash `password` fits. Whoever hangs up doesn't make room for another before the work is done.
    pub async fn owner(self: &Arc<Self>, password: &str) -> Result<Option<usize>, Refusal> {
        if self.hashes.is_empty() || password.len() > LONGEST_PASSWORD {
            return Ok(None);
        }
        let mut digest = Sha256::new_with_prefix(self.salt);
        digest.update((password.len() as u64).to_be_bytes());
        digest.update(password.as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        if let Some(verdict) = self.verdicts().of(&digest) {
            return Ok(verdict.owner());
        }
        let overloaded = || Kind::Overloaded.because("too many passwords are being checked").after(OVERLOADED);
        let _waiting = self.waiting.enter().ok_or_else(overloaded)?;
        let Ok(permit) = Arc::clone(&self.hashing).acquire_owned().await else {
            return Ok(None);
        };
        if let Some(verdict) = self.verdicts().of(&digest) {
            return Ok(verdict.owner());
        }
        let (passwords, password) = (Arc::clone(self), Secret::from(password));
        let verdict = self.tasks.spawn_blocking(move || {
            let verdict = passwords.verify(&password);
            passwords.verdicts().remember(digest, verdict);
            drop(permit);
            verdict
        });
        let verdict = verdict.await.map_err(|_| Kind::InternalError.because("a password could not be checked"))?;
        Ok(verdict.owner())
    }

    fn verify(&self, password: &Secret<String>) -> Verdict {
        let fits = |phc: &String| {
            PasswordHash::new(phc)
                .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
        };
        self.hashes.iter().position(fits).map_or(Verdict::Wrong, Verdict::Right)
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verdict {
    fn owner(self) -> Option<usize> {
        match self {
            Self::Right(index) => Some(index),
            Self::Wrong => None,
        }
    }
}

impl Verdicts {
    fn of(&self, digest: &[u8; 32]) -> Option<Verdict> {
        let right = self.right.get(digest).map(|index| Verdict::Right(*index));
        right.or_else(|| self.wrong.contains(digest).then_some(Verdict::Wrong))
    }

    fn remember(&mut self, digest: [u8; 32], verdict: Verdict) {
        if let Verdict::Right(index) = verdict {
            self.right.insert(digest, index);
            return;
        }
        if self.wrong.len() >= WRONG_PASSWORDS {
            self.wrong.clear();
        }
        self.wrong.insert(digest);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use argon2::PasswordHasher;
    use argon2::password_hash::SaltString;

    use super::*;

    pub fn hash(password: &[u8]) -> String {
        let salt = SaltString::from_b64("c2FsdHNhbHQ").unwrap();
        Argon2::default().hash_password(password, &salt).unwrap().to_string()
    }

    fn one(password: &[u8]) -> Arc<Passwords> {
        Arc::new(Passwords::new(vec![hash(password)], Tasks::on(tokio::runtime::Handle::current())))
    }

    #[tokio::test]
    async fn a_verdict_is_remembered() {
        let passwords = one(b"right");
        for _ in 0..3 {
            assert_eq!(passwords.owner("right").await.unwrap(), Some(0));
            assert_eq!(passwords.owner("wrong").await.unwrap(), None);
        }
        let verdicts = passwords.verdicts();
        assert_eq!((verdicts.right.len(), verdicts.wrong.len()), (1, 1));
    }

    #[tokio::test]
    async fn whoever_hangs_up_leaves_no_more_work_than_whoever_waits() {
        let passwords = one(b"right");
        for guess in 0..50 {
            let guess = format!("guess {guess}");
            tokio::select! {
                biased;
                _ = passwords.owner(&guess) => panic!("faster than one look"),
                () = std::future::ready(()) => {}
            }
        }
        // As many permits as were there are not there before the work that took them is done.
        assert_eq!(passwords.hashing.available_permits(), 0);
        let _idle = passwords.hashing.acquire_many(2).await.unwrap();
        assert_eq!(passwords.verdicts().wrong.len(), HASHED);
    }

    #[tokio::test]
    async fn guesses_wait_in_a_short_queue_and_forget_no_right_password() {
        let passwords = one(b"right");
        assert!(passwords.owner("right").await.unwrap().is_some());
        let _busy = passwords.hashing.acquire_many(2).await.unwrap();
        let guesses: Vec<_> = (0..HASHED + WAITING).map(|guess| format!("guess {guess}")).collect();
        let mut waiting: Vec<_> = guesses.iter().map(|guess| Box::pin(passwords.owner(guess))).collect();
        for wait in &mut waiting {
            assert!(futures_ready(wait).await.is_none());
        }
        let refused = passwords.owner("one more").await.map(|_| ());
        assert_eq!(refused.map_err(|refusal| refusal.kind), Err(Kind::Overloaded));
        assert!(passwords.owner("right").await.unwrap().is_some(), "known, so it doesn't wait");
        drop(waiting);
        for guess in 0..2 * WRONG_PASSWORDS {
            passwords.verdicts().remember(Sha256::digest(guess.to_be_bytes()).into(), Verdict::Wrong);
        }
        assert!(passwords.owner("right").await.unwrap().is_some());
        assert!(passwords.verdicts().wrong.len() <= WRONG_PASSWORDS);
    }

    /// One look at a future.
    async fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
