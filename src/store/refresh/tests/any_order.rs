//! Rows that stay sane whatever is done to them in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Claim { rotation: u8, forced: bool, dead: bool },
    Commit { parent: u8, fence: u64, new: Option<u8> },
    Fail { presented: u8, fence: u64, kind: u8, rotation: u8 },
    Settle { dead: bool },
    Revoke,
    SignIn { token: u8 },
    Pass { seconds: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3_u8, any::<bool>(), any::<bool>()).prop_map(|(rotation, forced, dead)| Event::Claim {
            rotation,
            forced,
            dead
        }),
        (0..6_u8, 0..6_u64, proptest::option::of(0..6_u8)).prop_map(|(parent, fence, new)| Event::Commit {
            parent,
            fence,
            new
        }),
        (0..6_u8, 0..6_u64, 0..6_u8, 0..3_u8).prop_map(|(presented, fence, kind, rotation)| Event::Fail {
            presented,
            fence,
            kind,
            rotation
        }),
        any::<bool>().prop_map(|dead| Event::Settle { dead }),
        Just(Event::Revoke),
        (0..6_u8).prop_map(|token| Event::SignIn { token }),
        any::<u8>().prop_map(|seconds| Event::Pass { seconds }),
    ]
}

fn happens(row: &mut Row, event: &Event, now: &mut Timestamp) {
    let rotations = [Rotation::Strict, Rotation::Tolerant, GRACE];
    match *event {
        Event::Claim { rotation, forced, dead } => {
            let ask = Ask { forced, ..ask(row, rotations[usize::from(rotation)]) };
            claim(row, &ask, *now, dead);
        }
        Event::Commit { parent, fence, new } => {
            let new = successor(row, parent, fence, new);
            commit(row, &new, *now);
        }
        Event::Fail { presented, fence, kind, rotation } => {
            let kind = match kind {
                0 => FailureKind::Transient { backoff: SECOND },
                1 => FailureKind::Unknown { backoff: SECOND },
                2 => FailureKind::Untried,
                3 => finally(),
                other => parks::park(if other == 4 { MAIL } else { "Files.Read" }, None),
            };
            let epoch = row.epoch;
            fail(row, epoch, token(presented), fence, &kind, rotations[usize::from(rotation)], *now);
        }
        Event::Settle { dead } => settle(row, *now, dead),
        Event::Revoke => {
            revoke(row);
        }
        Event::SignIn { token: name } => {
            sign_in(row, token(name));
        }
        Event::Pass { seconds } => *now = now.plus(u32::from(seconds) * SECOND),
    }
}

proptest! {
    #[test]
    fn a_row_stays_sane(events in proptest::collection::vec(event(), 1..60)) {
        let mut row = signed_in();
        let mut now = NOW;
        for event in &events {
            let before = row.clone();
            happens(&mut row, event, &mut now);
            prop_assert!(row.epoch >= before.epoch && row.version >= before.version && row.fence >= before.fence);
            prop_assert!(row.token == before.token || row.version > before.version, "a new token is a new version");
            prop_assert_eq!(row.status == Status::Revoked, row.token.is_none());
            if let Some(intent) = row.intent {
                prop_assert!(intent.fence <= row.fence);
            }
            if let Status::Reauth(reason) = &row.status {
                prop_assert!(reason.dead, "what only waits for a person is parked");
                prop_assert!(row.intent.is_none(), "a dead token is never presented");
            }
            prop_assert!(row.epoch == before.epoch || row.parked.is_empty(), "nothing waits in a new life");
        }
    }
}
