//! `$batch`: each member with its own status and its own faults, in another order.

use bearerd::sandbox::{BatchOrder, Denial, Effect, Fault, Sandbox};
use serde_json::{Value, json};

use crate::client::{Reply, get, graph, sandbox};

async fn batch(sandbox: &Sandbox, token: &str, requests: Value) -> Reply {
    let body = json!({ "requests": requests }).to_string();
    graph(&sandbox.graph, token, "POST", "/v1.0/$batch", &body).await
}

fn statuses(reply: &Reply) -> Vec<(String, u64)> {
    let responses = reply.json()["responses"].as_array().expect("responses").clone();
    responses.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item["status"].as_u64().unwrap())).collect()
}

fn item(reply: &Reply, id: &str) -> Value {
    reply.json()["responses"].as_array().unwrap().iter().find(|item| item["id"] == id).unwrap().clone()
}

fn read(id: &str, url: &str) -> Value {
    json!({ "id": id, "method": "GET", "url": url })
}

#[tokio::test]
async fn each_member_is_answered_for_itself() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    sandbox.faults().push(Fault::graph("/v1.0/me/mailFolders", Effect::graph_error(429, Some("2.128"))));
    let reply = batch(
        &sandbox,
        &token,
        json!([
            read("a", "/me"),
            read("b", "me/messages?$top=1"),
            read("c", "/me/mailFolders"),
            { "id": "d", "method": "GET", "url": "/me", "dependsOn": ["C"] },
            { "id": "e", "method": "POST", "url": "/me/sendMail", "body": { "message": {} },
              "headers": { "Content-Type": "application/json" } },
            read("f", "/me/drive/items/01BYE5RZ!101/content"),
            read("g", "http://127.0.0.1:1/v1.0/me"),
            read("h", "/me/messages/AAMkAGI1-alice-0003%3D/$value"),
            { "id": "i", "method": "PUT", "url": "/me/drive/root:/x.txt:/content", "body": "aGVsbG8=",
              "headers": { "Content-Type": "text/plain" } },
            { "id": "j", "method": "POST", "url": "/$batch", "body": { "requests": [] } },
        ]),
    )
    .await;
    assert_eq!(reply.status, 200);
    let expected = [
        ("j", 400),
        ("i", 201),
        ("h", 200),
        ("g", 404),
        ("f", 302),
        ("e", 202),
        ("d", 424),
        ("c", 429),
        ("b", 200),
        ("a", 200),
    ];
    assert_eq!(statuses(&reply), expected.map(|(id, status)| (id.to_owned(), status)));
    assert_eq!(item(&reply, "c")["headers"]["Retry-After"], "2.128");
    let location = item(&reply, "f")["headers"]["Location"].as_str().unwrap().to_owned();
    assert!(location.starts_with(sandbox.graph.files_origin().as_str()));
    let next = item(&reply, "b")["body"]["@odata.nextLink"].as_str().unwrap().to_owned();
    assert!(next.starts_with(sandbox.graph.origin().as_str()));
    assert!(item(&reply, "h")["body"].as_str().unwrap().starts_with("U3ViamVjdDog"), "base64 of what is no JSON");
    assert_eq!(item(&reply, "i")["body"]["size"], 5);
    let sent = get(sandbox.graph.address(), "/_sandbox/batches").await.json();
    assert_eq!((&sent[0]["requests"][1]["url"], sandbox.graph.batches().len()), (&json!("me/messages?$top=1"), 1));
}

#[tokio::test]
async fn a_batch_is_refused_as_a_whole() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let twenty_one: Vec<_> = (0..21).map(|id| read(&id.to_string(), "/me")).collect();
    assert_eq!(batch(&sandbox, &token, json!(twenty_one[..20])).await.status, 200);
    assert_eq!(batch(&sandbox, &token, json!(twenty_one)).await.status, 400);
    assert_eq!(batch(&sandbox, &token, json!([read("x", "/me"), read("X", "/me")])).await.status, 400);
    assert_eq!(batch(&sandbox, &token, json!("none")).await.status, 400);
}

#[tokio::test]
async fn a_member_fails_so_many_times_and_then_succeeds() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let faults = "graph/v1.0/me/messages:401,graph/v1.0/me/mailFolders:claims,graph/v1.0/me/drive:503=date+30*2,\
                  graph:challenge=several-headers*,graph/v1.0/users:429=30+120,graph/v1.0/me/contacts:html=503";
    Fault::parse_list(faults).unwrap().into_iter().for_each(|fault| sandbox.faults().push(fault));
    let requests = json!([
        read("1", "/me/messages?$top=1"),
        read("2", "/me/mailFolders"),
        read("3", "/me/drive/root/children"),
        { "id": "4", "method": "GET", "url": "/me", "dependsOn": ["1"] },
        read("5", "/users"),
    ]);
    let reply = batch(&sandbox, &token, requests.clone()).await;
    let expected = [("5", 429), ("4", 424), ("3", 503), ("2", 401), ("1", 401)];
    assert_eq!(statuses(&reply), expected.map(|(id, status)| (id.to_owned(), status)));
    let plain = item(&reply, "1")["headers"]["WWW-Authenticate"].as_str().unwrap().to_owned();
    assert!(!plain.contains("claims"), "{plain}");
    let challenge = item(&reply, "2")["headers"]["WWW-Authenticate"].as_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_claims") && challenge.contains("PoP nonce"), "{challenge}");
    assert_eq!(item(&reply, "3")["headers"]["Retry-After"], "Fri, 15 Jan 2027 08:00:30 GMT");
    assert_eq!(item(&reply, "5")["headers"]["Retry-After"], "30,120");
    assert!(item(&reply, "5")["headers"]["x-ms-throttle-scope"].as_str().unwrap().starts_with("Tenant_Application/"));

    let again = batch(&sandbox, &token, requests.clone()).await;
    let expected = [("5", 200), ("4", 200), ("3", 503), ("2", 200), ("1", 200)];
    assert_eq!(statuses(&again), expected.map(|(id, status)| (id.to_owned(), status)));
    assert!(statuses(&batch(&sandbox, &token, requests).await).iter().all(|(_, status)| *status == 200));

    sandbox.faults().clear();
    sandbox.faults().push(Fault::graph("/v1.0/me", Effect::Denied(Denial::Expired)));
    assert_eq!(statuses(&batch(&sandbox, &token, json!([read("1", "/me")])).await), [("1".to_owned(), 401)]);
}

#[tokio::test]
async fn the_order_is_as_it_is_told() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let requests: Vec<_> = (0..9).map(|id| read(&id.to_string(), "/me")).collect();
    let mut orders = Vec::new();
    for order in [BatchOrder::Kept, BatchOrder::Reversed, BatchOrder::Shuffled, BatchOrder::Shuffled] {
        sandbox.faults().push(Fault::graph("/v1.0/$batch", Effect::BatchOrder(order)));
        let reply = batch(&sandbox, &token, json!(requests)).await;
        orders.push(statuses(&reply).into_iter().map(|(id, _)| id).collect::<String>());
    }
    assert_eq!(&orders[..2], ["012345678", "876543210"]);
    assert_eq!(orders[2], orders[3], "the same each time");
    assert!(orders[2] != orders[0] && orders[2] != orders[1], "{}", orders[2]);
}
