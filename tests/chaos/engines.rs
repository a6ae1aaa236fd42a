//! Three instances, each on a database server of its own, which all have the same.
//!
//! Run with `scripts/with-galera cargo test --test chaos galera::`, and
//! `scripts/with-group-replication cargo test --test chaos group_replication::`.

use small_resource_server::store::mysql::Options;

use crate::plan::Plan;
use crate::support::members;
use crate::{cluster, run};

fn suffer(store: &str, prepare: impl FnOnce(&Options), (variable, script): (&str, &str)) {
    let plan = Plan::from_env();
    if !plan.is_wanted(store) {
        return;
    }
    let Some(mut members) = members(variable, script) else {
        return;
    };
    members.truncate(3);
    prepare(&members[0]);
    run::run(&plan, store, || cluster(&members));
}

mod galera {
    #[test]
    fn histories_of_instances_at_three_nodes_under_faults_break_no_rule() {
        let nodes = ("TEST_GALERA_URLS", "scripts/with-galera");
        super::suffer("galera", |_| (), nodes);
    }
}

mod group_replication {
    use mysql_async::prelude::Queryable;
    use small_resource_server::store::mysql::Options;

    use crate::support::{admin, wait};

    /// Every member takes writes.
    async fn switch(member: &Options) {
        let sql = "SELECT group_replication_switch_to_multi_primary_mode()";
        admin(member).await.query_drop(sql).await.unwrap();
    }

    #[test]
    fn histories_of_instances_at_three_members_under_faults_break_no_rule() {
        let members = (
            "TEST_GROUP_REPLICATION_URLS",
            "scripts/with-group-replication",
        );
        let switch = |member: &Options| wait(switch(member));
        super::suffer("group_replication", switch, members);
    }
}
