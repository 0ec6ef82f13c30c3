//! The store: one contract that every backend keeps, and what only the files of the embedded one can show.

#[path = "store/accounts.rs"]
mod accounts;
#[path = "store/audit.rs"]
mod audit;
#[path = "store/backup.rs"]
mod backup;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/parks.rs"]
mod parks;
#[path = "store/refresh.rs"]
mod refresh;
#[path = "store/rig.rs"]
mod rig;
#[path = "store/rotation.rs"]
mod rotation;
#[path = "store/setup.rs"]
mod setup;
#[path = "store/tickets.rs"]
mod tickets;
