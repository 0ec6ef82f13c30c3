//! What makes it read its configuration again. (SIGHUP is a matter of the process: see the end-to-end tests.)

use std::fs;
use std::os::unix::fs::symlink;

use bearerd::sandbox::Options;

use super::house::*;
use crate::harness::*;

const NAMED: &str = "[server]\nallowed_hosts = [\"graph.internal\"]\n";

impl House {
    /// Looks twice, as the beat does: what the second look led to.
    async fn look(&self) -> Option<Vec<String>> {
        assert!(self.rig.app.look_at_files().await.is_none(), "one look is not enough");
        let result = self.rig.app.look_at_files().await?;
        Some(result.expect("no mistakes").changed)
    }

    async fn is_served_as(&self, host: &str) -> bool {
        let mut request = get("/v1.0/me");
        request.headers_mut().insert("host", host.parse().expect("a host"));
        self.status(request).await == 200
    }
}

#[tokio::test]
async fn the_api_reads_it_again_and_says_what_changed() {
    let house = House::start("").await;
    assert!(!house.is_served_as("graph.internal").await);
    assert_eq!(house.reload("").await, changed([]));
    assert_eq!(house.reload(NAMED).await, changed(["server.allowed_hosts"]));
    assert!(house.is_served_as("graph.internal").await);
    assert_eq!((house.count("unchanged"), house.count("applied"), house.count("refused")), (1, 1, 0));
    let get = house.rig.send_to_admin(bare("GET", "/v1/reload").body(empty()).unwrap()).await;
    assert_eq!(get.status(), 405, "a link must not do it");
}

#[tokio::test]
async fn a_changed_file_is_read_when_two_looks_saw_the_same() {
    let house = House::start("").await;
    assert_eq!(house.look().await, None);
    fs::write(&house.file, "[server]\nallowed_hosts = [\"half").unwrap();
    assert!(house.rig.app.look_at_files().await.is_none(), "it may still be written");
    house.write(NAMED);
    assert_eq!(house.look().await, Some(vec!["server.allowed_hosts".to_owned()]));
    assert!(house.is_served_as("graph.internal").await);
    assert_eq!(house.look().await, None, "once");
    assert_eq!((house.count("applied"), house.count("refused")), (1, 0));

    // As editors and deployment tools do it.
    let other = house.home().join("new.toml");
    house.write("");
    fs::rename(&house.file, &other).unwrap();
    assert!(house.rig.app.look_at_files().await.is_none(), "for a moment there is none");
    fs::rename(&other, &house.file).unwrap();
    assert_eq!(house.look().await, Some(vec!["server.allowed_hosts".to_owned()]));
    assert!(!house.is_served_as("graph.internal").await);
}

#[tokio::test]
async fn a_secret_in_a_mounted_volume_is_swapped_by_a_link() {
    const FIRST: &str = "the-first-of-operators";
    const SECOND: &str = "the-second-of-operators";
    let over = "[admin]\ntoken_file = \"HOME/mounted/token\"\n";
    let house = House::with(Options::default(), over, |home| {
        for (version, token) in [("..v1", FIRST), ("..v2", SECOND)] {
            fs::create_dir_all(home.join("mounted").join(version)).unwrap();
            secret(&home.join("mounted").join(version).join("token"), token);
        }
        symlink("..v1", home.join("mounted/..data")).unwrap();
        symlink("..data/token", home.join("mounted/token")).unwrap();
    })
    .await;
    let metrics = async |token: &str| {
        let request = bare("GET", "/metrics").header("authorization", format!("Bearer {token}"));
        house.rig.send_to_admin(request.body(empty()).unwrap()).await.status().as_u16()
    };
    assert_eq!((metrics(FIRST).await, metrics(SECOND).await), (200, 401));
    assert_eq!(house.look().await, None);
    symlink("..v2", house.home().join("mounted/..data_tmp")).unwrap();
    fs::rename(house.home().join("mounted/..data_tmp"), house.home().join("mounted/..data")).unwrap();
    assert_eq!(house.look().await, Some(vec!["admin.token_file".to_owned()]));
    assert_eq!((metrics(FIRST).await, metrics(SECOND).await), (401, 200));
}

#[tokio::test]
async fn a_configuration_that_came_from_no_file_says_so() {
    let rig = Rig::start().await;
    let answer = rig.send_to_admin(bare("POST", "/v1/reload").body(empty()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (409, Some("application/problem+json")));
}
