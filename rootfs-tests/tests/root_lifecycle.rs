//! Lifecycle hooks and stops, on real daemons with our shim. The stock shim has none of it, so that
//! it cannot prove these scenarios right; the table in docs/lifecycle.md says what they hold it to.

#[path = "root_lifecycle/crash.rs"]
mod crash;
#[path = "root_lifecycle/cri.rs"]
mod cri;
#[path = "root_lifecycle/http.rs"]
mod http;
#[path = "root_lifecycle/starts.rs"]
mod starts;
#[path = "root_lifecycle/stops.rs"]
mod stops;
#[path = "root_lifecycle/support.rs"]
mod support;

use crash::{daemon_killed_during_a_stop, shim_killed_in_a_hook};
use cri::{backstop, hooks_in_a_pod};
use http::{http_in_the_containers_network, servers_that_do_not_answer};
use starts::{before_the_entrypoint, post_start, post_start_fails, wrong_annotations};
use stops::{
    exec_fails, exec_hangs, exec_is_like_the_container, fifty_at_once, grace_of_nothing,
    hook_out_of_memory, kill_does_not_wait, no_policy, seen_by_people, sleep_and_tcp,
    stubborn_containers, the_end_during_a_hook,
};

rootfs_tests::suite!(
    ours:
    exec_is_like_the_container,
    exec_fails,
    exec_hangs on [Sid],
    sleep_and_tcp on [Sid],
    grace_of_nothing on [Sid],
    kill_does_not_wait on [Sid],
    the_end_during_a_hook on [Sid],
    stubborn_containers on [Sid],
    hook_out_of_memory on [Sid],
    no_policy on [Sid],
    seen_by_people on [Sid],
    post_start on [Sid],
    post_start_fails on [Sid],
    before_the_entrypoint on [Sid],
    wrong_annotations,
    http_in_the_containers_network on [Sid],
    servers_that_do_not_answer on [Sid],
    hooks_in_a_pod,
    backstop,
    daemon_killed_during_a_stop,
    shim_killed_in_a_hook,
    fifty_at_once on [Sid],
);
