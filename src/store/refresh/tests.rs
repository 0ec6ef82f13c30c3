//! Each step by itself; `any_order`: all of them in whatever order.

use std::time::Duration;

use super::*;
use crate::claims::Claims;

mod any_order;
mod parks;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(25);
const HOLDER: HolderId = HolderId(1);
const ALIVE: bool = false;
const DEAD: bool = true;
const MAIL: &str = "Mail.Read";
const GRACE: Rotation = Rotation::Grace(Duration::from_mins(1));

fn token(name: u8) -> Fingerprint {
    Fingerprint([name; 32])
}

fn signed_in() -> Row {
    let mut row = Row::new();
    assert_eq!(sign_in(&mut row, token(1)), Bytes::Replace);
    row
}

fn ask(row: &Row, rotation: Rotation) -> Ask {
    Ask { epoch: row.epoch, version: row.version, lease: LEASE, rotation, holder: HOLDER, forced: false }
}

fn claimed(row: &mut Row, rotation: Rotation) -> u64 {
    claimed_at(row, rotation, NOW)
}

fn claimed_at(row: &mut Row, rotation: Rotation, now: Timestamp) -> u64 {
    let ask = ask(row, rotation);
    match claim(row, &ask, now, ALIVE) {
        Decision::Claimed { fence, .. } => fence,
        other => panic!("{other:?}"),
    }
}

fn successor(row: &Row, parent: u8, fence: u64, new: Option<u8>) -> Successor<'static> {
    Successor {
        epoch: row.epoch,
        parent: token(parent),
        fence,
        token: new.map(token),
        grace: Duration::ZERO,
        scope_set: MAIL,
        claims: None,
    }
}

fn last_answer(kind: &FailureKind, rotation: Rotation) -> Row {
    let mut row = signed_in();
    let fence = claimed(&mut row, rotation);
    let epoch = row.epoch;
    assert_eq!(fail(&mut row, epoch, token(1), fence, kind, rotation, NOW), Failed::Applied);
    row
}

fn finally() -> FailureKind {
    FailureKind::Final { text: "AADSTS".into(), claims: Claims::parse("{}") }
}

#[test]
fn a_claim_names_the_life_and_the_version_that_it_saw() {
    let mut row = signed_in();
    for (epoch, version) in [(0, 1), (2, 1), (1, 0), (1, 2)] {
        let ask = Ask { epoch, version, ..ask(&row, Rotation::Strict) };
        assert_eq!(claim(&mut row, &ask, NOW, ALIVE), Decision::Stale);
    }
    let fresh = ask(&row, Rotation::Strict);
    let first = Decision::Claimed { fence: 1, took_over: false, last_resort: false };
    assert_eq!(claim(&mut row, &fresh, NOW, ALIVE), first);
    assert_eq!(row.version, 1, "a claim is no new token");
    assert_eq!(claim(&mut row, &fresh, NOW, ALIVE), Decision::Busy { until: NOW.plus(LEASE) });
}

#[test]
fn a_run_out_intent_is_taken_over_but_for_a_strict_provider() {
    let later = NOW.plus(LEASE);
    for rotation in [Rotation::Tolerant, GRACE] {
        let mut row = signed_in();
        claimed(&mut row, rotation);
        let again = ask(&row, rotation);
        let taken = Decision::Claimed { fence: 2, took_over: true, last_resort: false };
        assert_eq!(claim(&mut row, &again, later, ALIVE), taken);
    }
    let mut row = signed_in();
    let fence = claimed(&mut row, Rotation::Strict);
    let again = ask(&row, Rotation::Strict);
    assert_eq!(claim(&mut row, &again, later, ALIVE), Decision::Uncertain);
    assert_eq!((&row.status, row.intent.map(|intent| intent.fence)), (&Status::Uncertain, Some(fence)));
    assert_eq!(claim(&mut row, &again, later, ALIVE), Decision::Uncertain);

    let late = successor(&row, 1, fence, Some(2));
    assert_eq!(commit(&mut row, &late, later), (Committed::Stored { version: 2 }, Bytes::Replace));
    assert_eq!((row.status, row.token, row.intent), (Status::Active, Some(token(2)), None));
}

#[test]
fn times_of_a_clock_that_was_hours_ahead_hold_nobody_up() {
    let ahead = NOW.plus(2 * 3600 * SECOND);
    let mut row = signed_in();
    let fence = claimed_at(&mut row, Rotation::Tolerant, ahead);
    let again = ask(&row, Rotation::Tolerant);
    let taken = Decision::Claimed { fence: fence + 1, took_over: true, last_resort: false };
    assert_eq!(claim(&mut row, &again, NOW, ALIVE), taken, "its deadline is two hours away");

    let mut row = signed_in();
    let fence = claimed_at(&mut row, Rotation::Strict, ahead);
    let transient = FailureKind::Transient { backoff: 30 * SECOND };
    assert_eq!(fail(&mut row, 1, token(1), fence, &transient, Rotation::Strict, ahead), Failed::Applied);
    let again = ask(&row, Rotation::Strict);
    assert!(matches!(claim(&mut row.clone(), &again, ahead, ALIVE), Decision::Backoff { .. }));
    assert!(matches!(claim(&mut row, &again, NOW, ALIVE), Decision::Claimed { .. }), "its backoff ends in two hours");
}

#[test]
fn each_token_has_a_last_resort_of_its_own() {
    let mut row = signed_in();
    for name in 2..5 {
        claimed(&mut row, Rotation::Strict);
        let again = ask(&row, Rotation::Strict);
        let Decision::Claimed { fence, last_resort: true, .. } = claim(&mut row, &again, NOW, DEAD) else {
            panic!("no last resort for {name}");
        };
        let next = successor(&row, name - 1, fence, Some(name));
        assert!(matches!(commit(&mut row, &next, NOW), (Committed::Stored { .. }, _)));
    }
}

#[test]
fn the_intent_of_a_dead_process_is_taken_over_at_once() {
    let mut row = signed_in();
    claimed(&mut row, Rotation::Tolerant);
    let again = ask(&row, Rotation::Tolerant);
    let taken = Decision::Claimed { fence: 2, took_over: true, last_resort: false };
    assert_eq!(claim(&mut row, &again, NOW, DEAD), taken);
}

#[test]
fn strict_has_one_last_resort_per_token() {
    let mut row = signed_in();
    claimed(&mut row, Rotation::Strict);
    let again = ask(&row, Rotation::Strict);
    let last = Decision::Claimed { fence: 2, took_over: true, last_resort: true };
    assert_eq!(claim(&mut row, &again, NOW, DEAD), last);
    assert_eq!(claim(&mut row, &again, NOW, ALIVE), Decision::Busy { until: NOW.plus(LEASE) });

    let mut cut_off = row.clone();
    assert_eq!(claim(&mut cut_off, &again, NOW, DEAD), Decision::Stale);
    let Status::Reauth(reason) = &cut_off.status else { panic!("{cut_off:?}") };
    assert!(reason.dead && reason.text == LOST_AGAIN && cut_off.intent.is_none());

    sign_in(&mut row, token(9));
    claimed(&mut row, Rotation::Strict);
    let new_life = ask(&row, Rotation::Strict);
    assert!(matches!(claim(&mut row, &new_life, NOW, DEAD), Decision::Claimed { last_resort: true, .. }));
}

#[test]
fn an_uncertain_grant_gets_its_last_resort_when_the_holder_dies() {
    let mut row = last_answer(&FailureKind::Unknown { backoff: SECOND }, Rotation::Strict);
    assert_eq!(row.status, Status::Uncertain);
    let again = ask(&row, Rotation::Strict);
    assert_eq!(claim(&mut row, &again, NOW, ALIVE), Decision::Uncertain);
    settle(&mut row, NOW.plus(10 * LEASE), DEAD);
    assert_eq!(row.status, Status::Uncertain, "something is left to try");
    assert!(matches!(claim(&mut row, &again, NOW, DEAD), Decision::Claimed { last_resort: true, .. }));
    assert_eq!(row.status, Status::Active);
}

#[test]
fn nobody_tries_a_dead_grant() {
    for forced in [false, true] {
        let mut row = last_answer(&finally(), Rotation::Tolerant);
        let ask = Ask { forced, ..ask(&row, Rotation::Tolerant) };
        assert_eq!(claim(&mut row, &ask, NOW, ALIVE), Decision::Stale);
    }
}

#[test]
fn a_backoff_is_waited_for_unless_an_operator_asks() {
    let mut row = last_answer(&FailureKind::Transient { backoff: 60 * SECOND }, Rotation::Strict);
    let until = NOW.plus(60 * SECOND);
    assert_eq!((row.fail_count, row.next_try, row.intent), (1, Some(until), None));
    let normal = ask(&row, Rotation::Strict);
    assert_eq!(claim(&mut row.clone(), &normal, NOW, ALIVE), Decision::Backoff { until });
    assert!(matches!(claim(&mut row.clone(), &normal, until, ALIVE), Decision::Claimed { .. }));
    let forced = Ask { forced: true, ..normal };
    assert!(matches!(claim(&mut row, &forced, NOW, ALIVE), Decision::Claimed { .. }));
}

#[test]
fn a_commit_by_lineage_is_late_sibling_repeated_or_refused() {
    let mut row = signed_in();
    let first = claimed(&mut row, Rotation::Tolerant);
    let takes_over = ask(&row, Rotation::Tolerant);
    claim(&mut row, &takes_over, NOW.plus(LEASE), ALIVE);
    let second = row.fence;
    let early = successor(&row, 1, first, Some(2));
    let later = successor(&row, 1, second, Some(3));

    let mut in_order = row.clone();
    assert_eq!(commit(&mut in_order, &early, NOW), (Committed::Stored { version: 2 }, Bytes::Replace));
    assert_eq!(commit(&mut in_order, &early, NOW), (Committed::Already { version: 2 }, Bytes::Keep));
    assert_eq!(commit(&mut in_order, &later, NOW), (Committed::Stored { version: 3 }, Bytes::ReplaceSibling));

    assert_eq!(commit(&mut row, &later, NOW), (Committed::Stored { version: 2 }, Bytes::Replace));
    let refused = Committed::Refused(Refusal::Lineage);
    assert_eq!(commit(&mut row, &early, NOW), (refused, Bytes::Keep));
    assert_eq!((in_order.token, in_order.parent_fence), (row.token, row.parent_fence), "the later presentation wins");

    let stranger = successor(&row, 7, 9, Some(8));
    assert_eq!(commit(&mut row, &stranger, NOW).0, refused);
    let other_life = Successor { epoch: row.epoch + 1, ..successor(&row, 3, 9, Some(8)) };
    assert_eq!(commit(&mut row, &other_life, NOW).0, Committed::Refused(Refusal::Epoch));
    let before = Successor { token: Some(token(4)), ..successor(&row, 3, 9, None) };
    assert_eq!(revoke(&mut row), Bytes::Erase);
    assert_eq!(commit(&mut row, &before, NOW).0, Committed::Refused(Refusal::Revoked));
}

#[test]
fn a_commit_keeps_the_previous_token_for_the_grace_time() {
    let mut row = signed_in();
    let fence = claimed(&mut row, GRACE);
    let good = Successor { grace: 60 * SECOND, ..successor(&row, 1, fence, Some(2)) };
    assert_eq!(commit(&mut row, &good, NOW).1, Bytes::KeepPrevious { until: NOW.plus(60 * SECOND) });
}

#[test]
fn an_answer_without_a_new_refresh_token_keeps_the_old_one() {
    // Some providers send none, others send the same one again.
    for same in [None, Some(1)] {
        let mut row = signed_in();
        let fence = claimed(&mut row, Rotation::Tolerant);
        let answer = successor(&row, 1, fence, same);
        assert_eq!(commit(&mut row, &answer, NOW), (Committed::Stored { version: 2 }, Bytes::Keep));
        assert_eq!((row.token, row.intent), (Some(token(1)), None));
        assert_eq!(commit(&mut row, &answer, NOW), (Committed::Already { version: 2 }, Bytes::Keep));

        let next = claimed(&mut row, Rotation::Tolerant);
        let late = Successor { fence: fence - 1, ..answer };
        assert_eq!(commit(&mut row, &late, NOW).0, Committed::Stored { version: 3 });
        assert_eq!(row.intent.map(|intent| intent.fence), Some(next), "that intent is another one's");
        let advanced = successor(&row, 1, next, Some(2));
        assert_eq!(commit(&mut row, &advanced, NOW).0, Committed::Stored { version: 4 });
        assert_eq!(commit(&mut row, &answer, NOW).0, Committed::Refused(Refusal::Lineage));
    }
}

#[test]
fn a_stale_failure_is_ignored() {
    let mut row = signed_in();
    let fence = claimed(&mut row, Rotation::Tolerant);
    let epoch = row.epoch;
    let before = row.clone();
    for (epoch, presented, fence) in [(epoch + 1, 1, fence), (epoch, 2, fence), (epoch, 1, fence + 1)] {
        let failed = fail(&mut row, epoch, token(presented), fence, &finally(), Rotation::Tolerant, NOW);
        assert_eq!(failed, Failed::Ignored);
    }
    assert_eq!(row, before);
}

#[test]
fn a_late_commit_leaves_the_intent_of_who_took_over() {
    let mut row = signed_in();
    let first = claimed(&mut row, GRACE);
    let takes_over = ask(&row, GRACE);
    claim(&mut row, &takes_over, NOW.plus(LEASE), ALIVE);
    let second = row.fence;
    let late = successor(&row, 1, first, Some(2));
    assert_eq!(commit(&mut row, &late, NOW).0, Committed::Stored { version: 2 });
    // Whoever used up the successor now would make the other's presentation the reuse of a dead token.
    let next = ask(&row, GRACE);
    assert!(matches!(claim(&mut row, &next, NOW.plus(LEASE), ALIVE), Decision::Busy { .. }));

    let epoch = row.epoch;
    let mut failed = row.clone();
    let answer = fail(&mut failed, epoch, token(1), second, &finally(), GRACE, NOW);
    assert_eq!((answer, failed.status, failed.intent), (Failed::Ignored, Status::Active, None));
    let sibling = successor(&row, 1, second, Some(3));
    assert_eq!(commit(&mut row, &sibling, NOW), (Committed::Stored { version: 3 }, Bytes::ReplaceSibling));
    assert_eq!(row.intent, None);
}

#[test]
fn what_a_failure_leaves() {
    let row = last_answer(&finally(), Rotation::Strict);
    let Status::Reauth(reason) = &row.status else { panic!("{row:?}") };
    assert_eq!((reason.dead, reason.since, reason.claims.as_ref().map(Claims::as_str)), (true, NOW, Some("{}")));
    assert_eq!((row.intent, row.token), (None, Some(token(1))), "the refresh token is kept, marked");

    let unknown = || FailureKind::Unknown { backoff: SECOND };
    let row = last_answer(&unknown(), Rotation::Strict);
    assert!(row.status == Status::Uncertain && row.intent.is_some());
    let row = last_answer(&unknown(), Rotation::Tolerant);
    assert_eq!((row.status, row.intent, row.next_try), (Status::Active, None, Some(NOW.plus(SECOND))));
    let row = last_answer(&FailureKind::Untried, Rotation::Strict);
    assert_eq!((row.status, row.intent, row.next_try, row.fail_count), (Status::Active, None, None, 0));
}

#[test]
fn a_definite_answer_ends_the_uncertainty() {
    let mut row = signed_in();
    let fence = claimed(&mut row, Rotation::Strict);
    let again = ask(&row, Rotation::Strict);
    claim(&mut row, &again, NOW.plus(LEASE), ALIVE);
    assert_eq!(row.status, Status::Uncertain);
    let epoch = row.epoch;
    let transient = FailureKind::Transient { backoff: SECOND };
    assert_eq!(fail(&mut row, epoch, token(1), fence, &transient, Rotation::Strict, NOW), Failed::Applied);
    assert_eq!((row.status, row.intent), (Status::Active, None));
}

#[test]
fn settling_waits_for_the_access_token_and_for_a_late_answer() {
    let mut row = last_answer(&FailureKind::Unknown { backoff: SECOND }, Rotation::Strict);
    row.access_until = Some(NOW.plus(600 * SECOND));
    let no_answer_now = NOW.plus(LEASE).plus(LATE_ANSWER);
    settle(&mut row, no_answer_now, ALIVE);
    assert_eq!(row.status, Status::Uncertain, "the access token lives");
    row.access_until = Some(NOW);
    settle(&mut row, NOW.plus(LEASE), ALIVE);
    assert_eq!(row.status, Status::Uncertain, "an answer may still come");
    settle(&mut row, no_answer_now, ALIVE);
    let Status::Reauth(reason) = &row.status else { panic!("{row:?}") };
    assert!(reason.dead && reason.text == LOST);
    let late = successor(&row, 1, 1, Some(2));
    assert_eq!(commit(&mut row, &late, NOW).0, Committed::Stored { version: 2 }, "still good news");
}
