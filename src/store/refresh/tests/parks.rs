//! What waits for a sign-in while the refresh token lives.

use super::*;

const FILES: &str = "Files.Read";

pub fn park(scope_set: &str, asked: Option<&Claims>) -> FailureKind {
    FailureKind::Park { scope_set: scope_set.into(), asked: asked.cloned(), text: "AADSTS50076".into(), claims: None }
}

fn nbf(seconds: u32) -> Claims {
    Claims::parse(&format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{seconds}"}}}}}}"#)).unwrap()
}

fn parks(row: &mut Row, scope_set: &str, asked: Option<&Claims>, now: Timestamp) {
    let fence = claimed(row, Rotation::Strict);
    let epoch = row.epoch;
    let presented = row.token.unwrap();
    let failed = fail(row, epoch, presented, fence, &park(scope_set, asked), Rotation::Strict, now);
    assert_eq!(failed, Failed::Applied);
}

fn commits(row: &mut Row, scope_set: &str, claims: Option<&Claims>) {
    let fence = claimed(row, Rotation::Strict);
    let answer = Successor { scope_set, claims, ..successor(row, 1, fence, None) };
    assert!(matches!(commit(row, &answer, NOW).0, Committed::Stored { .. }));
}

fn waiting(row: &Row) -> Vec<(&str, Option<&Claims>)> {
    row.parked.iter().map(|parked| (parked.scope_set.as_str(), parked.asked.as_ref())).collect()
}

#[test]
fn a_park_leaves_the_grant_as_it_was_before_the_claim() {
    let mut row = signed_in();
    let before = row.clone();
    parks(&mut row, MAIL, None, NOW);
    let [parked] = row.parked.as_slice() else { panic!("{row:?}") };
    assert_eq!((parked.reason.dead, parked.reason.since, parked.reason.text.as_str()), (false, NOW, "AADSTS50076"));
    assert_eq!(row, Row { fence: 1, parked: row.parked.clone(), ..before });
    claimed(&mut row, Rotation::Strict);
}

#[test]
fn a_park_is_a_definite_answer() {
    let mut row = signed_in();
    let fence = claimed(&mut row, Rotation::Strict);
    let again = ask(&row, Rotation::Strict);
    assert_eq!(claim(&mut row, &again, NOW.plus(LEASE), ALIVE), Decision::Uncertain);
    row.next_try = Some(NOW);
    let epoch = row.epoch;
    assert_eq!(fail(&mut row, epoch, token(1), fence, &park(MAIL, None), Rotation::Strict, NOW), Failed::Applied);
    assert_eq!((row.status, row.intent, row.next_try, row.fail_count), (Status::Active, None, None, 0));
}

#[test]
fn a_stale_park_is_ignored() {
    let mut row = signed_in();
    let fence = claimed(&mut row, Rotation::Tolerant);
    sign_in(&mut row, token(1));
    let before = row.clone();
    assert_eq!(fail(&mut row, 1, token(1), fence, &park(MAIL, None), Rotation::Tolerant, NOW), Failed::Ignored);
    assert_eq!(row, before);
}

#[test]
fn the_same_park_again_is_newer_and_the_oldest_of_too_many_goes() {
    let mut row = signed_in();
    let later = NOW.plus(SECOND);
    parks(&mut row, MAIL, None, NOW);
    parks(&mut row, FILES, None, NOW);
    parks(&mut row, MAIL, None, later);
    assert_eq!(waiting(&row), [(FILES, None), (MAIL, None)]);
    assert_eq!(row.parked[1].reason.since, later);
    for number in 0..20 {
        parks(&mut row, MAIL, Some(&nbf(number)), NOW);
    }
    let left: Vec<Claims> = (4..20).map(nbf).collect();
    assert_eq!(waiting(&row), left.iter().map(|claims| (MAIL, Some(claims))).collect::<Vec<_>>());
}

#[test]
fn a_token_ends_the_waits_that_it_answers() {
    let [early, middle, late] = [nbf(1), nbf(2), nbf(3)];
    let mut all = signed_in();
    parks(&mut all, MAIL, None, NOW);
    parks(&mut all, FILES, None, NOW);
    parks(&mut all, MAIL, Some(&early), NOW);
    parks(&mut all, MAIL, Some(&late), NOW);
    let left = |scope_set, claims| {
        let mut row = all.clone();
        commits(&mut row, scope_set, claims);
        row
    };
    let (mail, files) = ((MAIL, None), (FILES, None));
    let (first, last) = ((MAIL, Some(&early)), (MAIL, Some(&late)));
    assert_eq!(waiting(&left(MAIL, None)), [files, first, last]);
    assert_eq!(waiting(&left(MAIL, Some(&middle))), [files, last]);
    assert_eq!(waiting(&left(MAIL, Some(&late))), [files]);
    assert_eq!(waiting(&left(FILES, Some(&late))), [mail, first, last]);
    assert_eq!(waiting(&left("User.Read", None)), [mail, files, first, last]);
}

#[test]
fn a_new_life_waits_for_nothing_and_a_dead_grant_keeps_what_it_waits_for() {
    let mut row = signed_in();
    parks(&mut row, MAIL, Some(&nbf(1)), NOW);
    let mut revoked = row.clone();
    revoke(&mut revoked);
    assert_eq!(revoked.parked, []);
    let mut renewed = row.clone();
    sign_in(&mut renewed, token(2));
    assert_eq!(renewed.parked, []);
    // The next sign-in has to carry those claims.
    let fence = claimed(&mut row, Rotation::Strict);
    let epoch = row.epoch;
    fail(&mut row, epoch, token(1), fence, &finally(), Rotation::Strict, NOW);
    assert!(matches!(row.status, Status::Reauth(Reason { dead: true, .. })) && row.parked.len() == 1);
}
