//! Against a plain model: the same over `serde_json::Value`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// One member and how it is answered, in each of two rounds.
#[derive(Clone, Debug)]
struct Sketch {
    method: &'static str,
    parents: Vec<Index>,
    upper: bool,
    first: u16,
    second: u16,
    body: Value,
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let statuses =
        || prop::sample::select(vec![200, 201, 204, 302, 400, 401, 403, 404, 424, 424, 424, 429, 429, 503, 504]);
    let sketch = (
        prop::sample::select(vec!["GET", "HEAD", "get", "POST", "DELETE"]),
        prop::collection::vec(any::<Index>(), 0..3),
        any::<bool>(),
        statuses(),
        statuses(),
        prop::sample::select(vec![
            json!(null),
            json!({"a": [1, 2.5, "\u{e9}\n"]}),
            json!("aGVsbG8="),
            json!({"id": "1"}),
        ]),
    );
    let sketch = sketch.prop_map(|(method, parents, upper, first, second, body)| Sketch {
        method,
        parents,
        upper,
        first,
        second,
        body,
    });
    prop::collection::vec(sketch, 0..12)
}

fn id(at: usize, upper: bool) -> String {
    if upper { format!("ID-{at}") } else { format!("id-{at}") }
}

fn request(sketches: &[Sketch]) -> Value {
    let member = |(at, sketch): (usize, &Sketch)| {
        let parents: Vec<String> =
            sketch.parents.iter().map(|parent| id(parent.index(sketches.len()), sketch.upper)).collect();
        let mut member =
            json!({"id": id(at, false), "method": sketch.method, "url": "/me", "body": sketch.body, "x": 1});
        if !parents.is_empty() {
            member["dependsOn"] = json!(parents);
        }
        member
    };
    json!({"requests": sketches.iter().enumerate().map(member).collect::<Vec<_>>(), "y": [true]})
}

fn item(at: usize, sketch: &Sketch, status: u16) -> Value {
    json!({"id": id(at, sketch.upper), "status": status, "headers": {"Retry-After": at.to_string()}, "body": sketch.body})
}

fn shuffled<T>(mut items: Vec<T>, order: &[Index]) -> Vec<T> {
    let mut taken = Vec::new();
    for index in order.iter().cycle() {
        if items.is_empty() {
            break;
        }
        taken.push(items.remove(index.index(items.len())));
    }
    taken
}

fn ids(items: &Value) -> Vec<String> {
    let id = |item: &Value| item["id"].as_str().unwrap().to_lowercase();
    items.as_array().unwrap().iter().map(id).collect()
}

/// Which members a plan may name, by going over all of them until nothing changes.
fn expected(sketches: &[Sketch], seed: impl Fn(&Sketch) -> bool) -> Vec<usize> {
    let mut taken = BTreeSet::new();
    loop {
        let before = taken.len();
        for (at, sketch) in sketches.iter().enumerate() {
            let parents: Vec<usize> = sketch.parents.iter().map(|parent| parent.index(sketches.len())).collect();
            let done = |parent: &usize| taken.contains(parent) || (200..400).contains(&sketches[*parent].first);
            let waits = sketch.first == 424 && parents.iter().any(|parent| taken.contains(parent));
            if (seed(sketch) || waits) && parents.iter().all(done) {
                taken.insert(at);
            }
        }
        if taken.len() == before {
            return taken.into_iter().collect();
        }
    }
}

proptest! {
    #[test]
    fn plans_and_merges_are_those_of_the_model(
        sketches in sketches(),
        order in prop::collection::vec(any::<Index>(), 1..5),
        flaw in 0..4,
    ) {
        let text = request(&sketches).to_string();
        let batch = Batch::read(text.as_bytes()).unwrap();
        prop_assert!(batch.has_parts());
        let items: Vec<Value> = sketches.iter().enumerate().map(|(at, sketch)| item(at, sketch, sketch.first)).collect();
        let first = json!({"responses": shuffled(items, &order), "z": null}).to_string();
        let answers = Answers::read(first.as_bytes()).unwrap();
        let safe = |sketch: &Sketch| sketch.method.eq_ignore_ascii_case("get") || sketch.method == "HEAD";

        let refused = batch.refused(&answers).map(|again| again.members).unwrap_or_default();
        prop_assert_eq!(&refused, &expected(&sketches, |sketch| sketch.first == 401));
        let throttled = batch.throttled(&answers, NOW);
        let members = throttled.as_ref().map(|again| again.members.clone()).unwrap_or_default();
        let is_throttled = |sketch: &Sketch| [429, 503, 504].contains(&sketch.first);
        prop_assert_eq!(&members, &expected(&sketches, |sketch| safe(sketch) && is_throttled(sketch)));
        if let Some(throttled) = throttled {
            let longest = sketches.iter().rposition(is_throttled).unwrap();
            prop_assert_eq!(throttled.wait, Some(Duration::from_secs(longest as u64)));
        }
        for members in [refused, members] {
            for at in &members {
                prop_assert!(!(200..400).contains(&sketches[*at].first), "{} succeeded", at);
            }
            // The part names nobody outside.
            let part = batch.part(&members);
            let part: Value = serde_json::from_str(&part).unwrap();
            let mut whole = request(&sketches);
            let known: BTreeSet<String> = ids(&part["requests"]).into_iter().collect();
            let kept: Vec<Value> = members.iter().map(|at| {
                let mut member = whole["requests"][*at].take();
                if let Some(parents) = member.get_mut("dependsOn").and_then(Value::as_array_mut) {
                    parents.retain(|parent| known.contains(&parent.as_str().unwrap().to_lowercase()));
                    if parents.is_empty() {
                        member.as_object_mut().unwrap().remove("dependsOn");
                    }
                }
                member
            }).collect();
            let sent = part["requests"].as_array().unwrap();
            prop_assert_eq!(sent, &kept);
            prop_assert_eq!(&part["y"], &json!([true]));

            // The second answer, whole or with a flaw.
            let mut again: Vec<Value> = members.iter().map(|at| item(*at, &sketches[*at], sketches[*at].second)).collect();
            again.reverse();
            match flaw {
                1 => again.push(json!({"id": "foreign", "status": 200})),
                2 => again.extend(again.first().cloned()),
                3 => drop(again.pop()),
                _ => {}
            }
            let is_whole = flaw == 0 || members.is_empty() && flaw != 1;
            let second = json!({"responses": again}).to_string();
            let part = part.to_string();
            let merged = merge(first.as_bytes(), second.as_bytes(), &Batch::read(part.as_bytes()).unwrap());
            prop_assert_eq!(merged.is_some(), is_whole);
            let Some(merged) = merged else { continue };
            let merged: Value = serde_json::from_str(&merged).unwrap();
            let first: Value = serde_json::from_str(&first).unwrap();
            prop_assert_eq!(ids(&merged["responses"]), ids(&first["responses"]), "the order, and each once");
            prop_assert!(merged.get("z").is_some());
            let statuses: BTreeMap<String, &Value> = ids(&merged["responses"]).into_iter().zip(merged["responses"].as_array().unwrap()).collect();
            for (at, sketch) in sketches.iter().enumerate() {
                let last = if members.contains(&at) { sketch.second } else { sketch.first };
                prop_assert_eq!(statuses[&id(at, false)], &item(at, sketch, last));
            }
        }
    }

    #[test]
    fn nothing_panics(text in prop::collection::vec(any::<u8>(), 0..200), structure in r#"[\[\]{},:"ids requesponurlmthoda0-9\\]{0,200}"#) {
        for text in [&text[..], structure.as_bytes()] {
            survive(text);
            let wrapped = [&b"{\"requests\":["[..], text, b"],\"responses\":[", text, b"]}"].concat();
            survive(&wrapped);
        }
    }

    #[test]
    fn odd_values_neither_panic_nor_get_lost(value in odd()) {
        let text = value.to_string();
        survive(text.as_bytes());
        if let Some(batch) = Batch::read(text.as_bytes()) {
            let url = || Edit { url: Some("/\"x\"".to_owned()), ..Edit::default() };
            let urls: Vec<Edit> = batch.members().iter().map(|_| url()).collect();
            if let Some(edited) = batch.edited(&urls) {
                let mut expected = value.clone();
                for member in expected["requests"].as_array_mut().unwrap() {
                    member["url"] = json!("/\"x\"");
                }
                prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), expected);
            }
        }
    }
}

fn survive(text: &[u8]) {
    let batch = Batch::read(text);
    let answers = Answers::read(text);
    if let (Some(batch), Some(answers)) = (&batch, &answers) {
        let _ = (batch.refused(answers), batch.throttled(answers, NOW), merge(text, text, batch));
    }
    let _ = finish(text, &|url| Some(format!("x{url}")), true, NOW);
}

/// Batches and answers whose fields hold anything.
fn odd() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/\\\\\"\u{e9}]{0,6}".prop_map(Value::from),
        Just(json!("1")),
        Just(json!(401)),
    ];
    let any_value = leaf.prop_recursive(3, 20, 4, |inner| {
        let name = prop::sample::select(vec![
            "id",
            "url",
            "method",
            "headers",
            "body",
            "dependsOn",
            "status",
            "Location",
            "Retry-After",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let member = (any_value.clone(), any_value, any::<u8>()).prop_map(|(one, other, mask)| {
        let mut member = json!({"id": "1", "method": "GET", "url": "/me", "status": 429, "headers": {"Location": "x"}, "dependsOn": ["1"]});
        for (bit, name) in ["id", "method", "url", "status", "headers", "dependsOn", "body", "x"].into_iter().enumerate() {
            if mask & (1 << bit) != 0 && mask.count_ones() < 5 {
                member[name] = if bit % 2 == 0 { one.clone() } else { other.clone() };
            }
        }
        member
    });
    prop::collection::vec(member, 0..4).prop_map(|members| json!({"requests": members.clone(), "responses": members}))
}

#[test]
fn who_is_who_has_to_be_clear_before_a_part_is_sent_again() {
    let has_parts =
        |members: Value| Batch::read(json!({"requests": members}).to_string().as_bytes()).unwrap().has_parts();
    let member = |id: &str| json!({"id": id, "method": "GET", "url": "/me"});
    assert!(has_parts(json!([member("a"), member("b")])));
    assert!(!has_parts(json!([member("a"), member("A")])));
    assert!(!has_parts(json!([{"id": "a", "method": "GET", "url": "/me", "dependsOn": "b"}])));
    assert!(!has_parts(json!([{"id": "a", "method": "GET", "url": "/me", "atomicityGroup": "g"}])));
    assert!(!has_parts((0..21).map(|id| member(&id.to_string())).collect()));
    assert!(has_parts((0..20).map(|id| member(&id.to_string())).collect()));
}

#[test]
fn a_challenge_is_found_in_a_member_and_merged_with_those_of_others() {
    let challenge = |claims: &str| {
        let claims = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, claims);
        format!("Bearer realm=\"\", error=\"insufficient_claims\", claims=\"{claims}\"")
    };
    let (one, two) = (r#"{"access_token":{"nbf":{"value":"1"}}}"#, r#"{"access_token":{"acrs":{"value":"c1"}}}"#);
    let text = json!({"requests": (0..4).map(|id| json!({"id": id.to_string(), "method": "POST", "url": "/me"})).collect::<Vec<_>>()}).to_string();
    let answer = json!({"responses": [
        {"id": "0", "status": 401, "headers": {"www-authenticate": challenge(one)}},
        {"id": "1", "status": 403, "headers": {"WWW-Authenticate": ["Negotiate", challenge(two)]}},
        {"id": "2", "status": 403, "headers": {"WWW-Authenticate": "Bearer"}},
        {"id": "3", "status": 200, "headers": {"WWW-Authenticate": challenge(one)}},
    ]})
    .to_string();
    let batch = Batch::read(text.as_bytes()).unwrap();
    let again = batch.refused(&Answers::read(answer.as_bytes()).unwrap()).unwrap();
    assert_eq!(again.members, [0, 1]);
    let claims = again.claims.unwrap();
    let parse = |text| crate::claims::Claims::parse(text).unwrap();
    assert!(claims.covers(&parse(one)) && claims.covers(&parse(two)));
}

#[test]
fn an_answer_is_finished_without_touching_anything_else() {
    let answer = r#"{"responses": [ {"id":"1","status":201,"headers":{"Location" : "up/1","content-LOCATION":"up/2", "X":"up/3"},"body":{"Location":"up/4"}},
        {"id":"2", "status":429,"headers":{"retry-after":"0.249,3"}},{"id":"3","status":200,"headers":{"Retry-After":"0.2"}} , {"id":"4","status":503,"headers":{"Retry-After":"7"}},
        {"id":"5","status":504,"headers":{"Retry-After":9}}, {"id":"6","status":429,"headers":{"Retry-After":"soon"}}],"@odata.x" : 1.0}"#;
    let link = |url: &str| url.strip_prefix("up/").map(|rest| format!("us/{rest}"));
    let finished = finish(answer.as_bytes(), &link, true, NOW).unwrap();
    let expected = r#"{"responses":[{"id":"1","status":201,"headers":{"Location":"us/1","content-LOCATION":"us/2","X":"up/3"},"body":{"Location":"up/4"}},{"id":"2","status":429,"headers":{"retry-after":"3"}},{"id":"3","status":200,"headers":{"Retry-After":"0.2"}},{"id":"4","status":503,"headers":{"Retry-After":"7"}},{"id":"5","status":504,"headers":{"Retry-After":"9"}},{"id":"6","status":429,"headers":{"Retry-After":"soon"}}],"@odata.x":1.0}"#;
    assert_eq!(finished, expected);
    assert_eq!(finish(expected.as_bytes(), &link, true, NOW), None);
    assert_eq!(finish(answer.as_bytes(), &|_| None, false, NOW), None, "waits stay as they are");
}
