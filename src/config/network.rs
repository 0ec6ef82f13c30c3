//! Networks: who is in one.

use std::net::IpAddr;

/// An address range such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// An IPv4 address that came in IPv6 clothes counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        use IpAddr::{V4, V6};
        let matches = |own: u128, other: u128, bits: u32| {
            let ignored = bits.saturating_sub(u32::from(self.prefix));
            own.checked_shr(ignored).unwrap_or(0) == other.checked_shr(ignored).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (V4(own), V4(other)) => matches(own.to_bits().into(), other.to_bits().into(), 32),
            (V6(own), V6(other)) => matches(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}
