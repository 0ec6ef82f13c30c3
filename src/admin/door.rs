//! Who may enter: whoever brings the token, or comes over a Unix socket, whose file's mode decides.
//!
//! Invariants: a token is compared in constant time; of one network, only so many wrong tokens a minute get a verdict, and none of its
//! others either, right or wrong; whoever has brought the right token keeps the way in, whatever others try. The log hears of each burst of
//! wrong tokens once more when it is cut off, and no more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::desk::Peer;
use super::problem::{Kind, Problem};
use crate::clock::{Clock, Moment};
use crate::secret::Secret;

/// Wrong tokens that one network may bring at once, and how soon it may bring another.
const AT_ONCE: u32 = 10;
const ANOTHER_AFTER: Duration = Duration::from_secs(6);
/// The network of an attacker costs less than a hundred bytes.
const NETWORKS: usize = 4096;

pub struct Door {
    /// Of the configured token; a digest, so that comparing takes as long for every length.
    token: Option<[u8; 32]>,
    guesses: Guesses,
    clock: Clock,
}

/// What is known of those who came; outlives a door. Clones share it.
#[derive(Clone, Default)]
pub struct Guesses(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The token that made networks welcome.
    token: Option<[u8; 32]>,
    networks: HashMap<IpAddr, Known>,
}

/// What is known of a network.
#[derive(Clone, Copy, Default)]
struct Known {
    /// When all its wrong tokens are forgotten.
    forgotten: Moment,
    /// The right token came from here.
    welcome: bool,
    /// Since a wrong token got a verdict, others got none, and the log has been told.
    reported: bool,
}

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Right,
    Wrong,
    /// None for so long; the first of its burst is told to the log.
    NoVerdict {
        wait: Duration,
        first: bool,
    },
}

impl Door {
    pub fn new(token: Option<&Secret<String>>, guesses: Guesses, clock: Clock) -> Self {
        let token = token.map(|token| Sha256::digest(token.expose()).into());
        let mut seen = guesses.seen();
        if seen.token != token {
            seen.token = token;
            seen.networks.values_mut().for_each(|known| known.welcome = false);
        }
        drop(seen);
        Self { token, guesses, clock }
    }

    /// `presented`: the token, as `bearer` finds it.
    pub fn admit(&self, presented: Option<&str>, peer: Peer) -> Result<(), Problem> {
        let (Some(token), Peer::Address(address)) = (&self.token, peer) else { return Ok(()) };
        let Some(presented) = presented else {
            return Err(Kind::Unauthenticated.because("the bearer token of [admin] is missing"));
        };
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let right = bool::from(presented.ct_eq(token));
        let now = self.clock.moment();
        let mut seen = self.guesses.seen();
        let networks = &mut seen.networks;
        let network = network(address);
        let mut known = networks.get(&network).copied().unwrap_or_default();
        let heard = known.hear(right, now);
        if networks.len() >= NETWORKS && !networks.contains_key(&network) {
            forget_one(networks, now);
        }
        networks.insert(network, known);
        drop(seen);
        match heard {
            Heard::Right => Ok(()),
            Heard::Wrong => {
                refused(address, "wrong token");
                Err(Kind::Unauthenticated.because("the bearer token of [admin] is wrong"))
            }
            Heard::NoVerdict { wait, first } => {
                if first {
                    refused(address, "too many wrong tokens");
                }
                Err(Kind::TooManyWrongTokens.because("too many wrong tokens came from this address").after(wait))
            }
        }
    }

    /// What this peer has to know: the digest of the token. `None`: nothing.
    pub fn asks(&self, peer: Peer) -> Option<&[u8; 32]> {
        self.token.as_ref().filter(|_| matches!(peer, Peer::Address(_)))
    }
}

impl Guesses {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(peer: IpAddr, why: &str) {
    tracing::warn!(target: "bearerd::audit", event = "admin_token_refused", outcome = "denied", why, peer = %peer);
}

/// The token of the one `Authorization` that there is.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(credential), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = credential.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

impl Known {
    fn hear(&mut self, right: bool, now: Moment) -> Heard {
        let wait = self.wait(now);
        if right && (self.welcome || wait.is_zero()) {
            self.welcome = true;
            return Heard::Right;
        }
        if !wait.is_zero() {
            let first = !std::mem::replace(&mut self.reported, true);
            return Heard::NoVerdict { wait, first };
        }
        self.forgotten = self.forgotten.max(now).plus(ANOTHER_AFTER);
        self.reported &= !self.wait(now).is_zero();
        Heard::Wrong
    }

    /// Until the next wrong token gets a verdict.
    fn wait(&self, now: Moment) -> Duration {
        (self.forgotten.since(now) + ANOTHER_AFTER).saturating_sub(ANOTHER_AFTER * AT_ONCE)
    }
}

/// Of IPv6, what one subscriber is given.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whoever is missed least: first those whose wrong tokens are forgotten, last those who are welcome.
fn forget_one(networks: &mut HashMap<IpAddr, Known>, now: Moment) {
    let least = networks.iter().min_by_key(|(_, known)| (known.welcome, known.forgotten.max(now)));
    if let Some(network) = least.map(|(network, _)| *network) {
        networks.remove(&network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn door() -> (Door, Clock) {
        let clock = Clock::manual(Timestamp::from_secs(0));
        (Door::new(Some(&"t0ken".into()), Guesses::default(), clock.clone()), clock)
    }

    fn peer(address: &str) -> Peer {
        Peer::Address(address.parse().unwrap())
    }

    /// 200, 401 or 429.
    fn status(door: &Door, token: &str, address: &str) -> u16 {
        door.admit(Some(token), peer(address)).map_or_else(|problem| problem.kind.status().as_u16(), |()| 200)
    }

    #[test]
    fn guesses_are_limited_for_their_network_and_nobody_else() {
        let (door, clock) = door();
        assert_eq!(status(&door, "t0ken", "10.0.0.2"), 200);
        for _ in 0..AT_ONCE {
            assert_eq!(status(&door, "guess", "10.0.0.1"), 401);
            assert_eq!(status(&door, "guess", "10.0.0.2"), 401);
        }
        for address in ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"] {
            assert_eq!(status(&door, "guess", address), 429, "{address}");
        }
        assert_eq!(status(&door, "t0ken", "10.0.0.1"), 429, "the right guess learns nothing");
        assert_eq!(status(&door, "t0ken", "10.0.0.2"), 200, "whoever was let in before is not locked out");
        assert_eq!(status(&door, "t0ken", "10.0.0.3"), 200);
        let refused = door.admit(Some("guess"), peer("10.0.0.1")).unwrap_err();
        assert_eq!(refused.retry_after, Some(ANOTHER_AFTER));
        clock.advance(ANOTHER_AFTER);
        assert_eq!([status(&door, "guess", "10.0.0.1"), status(&door, "guess", "10.0.0.1")], [401, 429]);
        clock.advance(ANOTHER_AFTER);
        assert_eq!(status(&door, "t0ken", "10.0.0.1"), 200);
    }

    #[test]
    fn the_log_hears_of_a_burst_when_it_is_cut_off_and_no_more() {
        let clock = Clock::manual(Timestamp::from_secs(0));
        let mut known = Known { welcome: true, ..Known::default() };
        let count = |known: &mut Known, guesses: usize| {
            let heard: Vec<_> = (0..guesses).map(|_| known.hear(false, clock.moment())).collect();
            let told = heard.iter().filter(|heard| matches!(heard, Heard::NoVerdict { first: true, .. })).count();
            (heard.iter().filter(|heard| **heard == Heard::Wrong).count(), told)
        };
        for _ in 0..3 {
            assert_eq!(count(&mut known, 1000), (10, 1));
            assert_eq!(known.hear(true, clock.moment()), Heard::Right, "it stays welcome");
            clock.advance(ANOTHER_AFTER * AT_ONCE);
        }
        assert_eq!(count(&mut known, 1000), (10, 1));
        // Whoever goes on at the pace that is left is in the same burst.
        for _ in 0..5 {
            clock.advance(ANOTHER_AFTER);
            assert_eq!(count(&mut known, 1000), (1, 0));
        }
    }

    #[test]
    fn no_token_is_no_guess_and_a_socket_needs_none() {
        let (door, _) = door();
        for _ in 0..100 {
            assert_eq!(door.admit(None, peer("10.0.0.1")).unwrap_err().kind, Kind::Unauthenticated);
        }
        assert_eq!(status(&door, "guess", "10.0.0.1"), 401);
        assert_eq!(door.admit(None, Peer::User(1000)), Ok(()));
    }

    #[test]
    fn a_subscriber_is_one_network() {
        let (door, _) = door();
        for host in 0..AT_ONCE {
            assert_eq!(status(&door, "guess", &format!("2001:db8:1:2::{host:x}")), 401);
        }
        assert_eq!(status(&door, "guess", "2001:db8:1:2:ffff::1"), 429);
        assert_eq!(status(&door, "guess", "2001:db8:1:3::1"), 401);
    }

    #[test]
    fn the_memory_is_bounded_and_the_welcome_stay() {
        let (door, clock) = door();
        assert_eq!(status(&door, "t0ken", "10.0.0.1"), 200);
        clock.advance(ANOTHER_AFTER);
        for host in 0..u32::try_from(2 * NETWORKS).unwrap() {
            let address = IpAddr::V4((0x0b00_0000 + host).into());
            assert!(door.admit(Some("guess"), Peer::Address(address)).is_err());
        }
        assert_eq!(door.guesses.seen().networks.len(), NETWORKS);
        assert!(door.guesses.seen().networks[&"10.0.0.1".parse::<IpAddr>().unwrap()].welcome);
    }
}
