//! Whatever is asked, dropped, refused and refreshed at the same time: nobody gets somebody else's token.

use std::sync::Arc;
use std::time::Duration;

use bearerd::vault::{Rejected, Subject};

use super::rig::{Mode, Rig, alias, given_up_after};

/// A generator of numbers that anybody can repeat (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_requests_a_third_of_them_dropped_never_mix_up_fifty_users() {
    const WAVES: usize = 10;
    let rig = Arc::new(Rig::with(Mode::Tolerant, 50));
    let process = rig.signed_in().await;
    let users: Vec<_> = rig.sandbox.entra.options().users.clone();
    let mut dice = Dice(412);
    let mut served = 0;
    for wave in 0..WAVES {
        let asked_before = rig.asked().len();
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let user = users[usize::try_from(dice.below(50)).expect("small")].clone();
                let upstream = if dice.below(4) == 0 { "onedrive" } else { "graph" };
                let dropped_after = (dice.below(10) < 3).then(|| usize::try_from(dice.below(12)).expect("small"));
                let rejects = dice.below(5) == 0;
                let (process, rig) = (process.clone(), Arc::clone(&rig));
                process.core.tasks.clone().spawn(async move {
                    let request = async {
                        let mut lease = process.lease_for(&user.alias, upstream).await.expect("a lease");
                        if rejects
                            && let Ok(Rejected::Renewed(newer)) = process
                                .core
                                .vault
                                .reject(&Subject::User(alias(&user.alias)), &lease, process.upstream(upstream), None)
                                .await
                        {
                            lease = newer;
                        }
                        lease
                    };
                    let lease = match dropped_after {
                        Some(looks) => given_up_after(looks, request).await,
                        None => Some(request.await),
                    };
                    lease.map(|lease| {
                        assert_eq!(lease.account.subject, user.oid);
                        assert_eq!(rig.owner(&lease), user.alias);
                    })
                })
            })
            .collect();
        for task in tasks {
            served += usize::from(task.await.expect("no mix-up").is_some());
        }
        assert!(process.core.tasks.drain(Duration::from_secs(30)).await, "what nobody waits for ends as well");
        // At most one call for each account and set of scopes, and one more for its rejections.
        assert!(rig.asked().len() - asked_before <= 2 * 2 * 50, "wave {wave}");
        let ageing = Duration::from_secs(2_600 + 100 * dice.below(11));
        rig.clock.advance(ageing);
    }
    assert!(served >= 1_400, "{served}");
}
