//! Lifecycle hooks and stops, on real daemons with our shim. The stock shim has none of it, so that
//! it cannot prove these scenarios right; the table in docs/lifecycle.md says what they hold it to.

#[path = "root_lifecycle/crash.rs"]
mod crash;
#[path = "root_lifecycle/cri.rs"]
mod cri;
#[path = "root_lifecycle/http.rs"]
mod http;
#[path = "root_lifecycle/matrix.rs"]
mod matrix;
#[path = "root_lifecycle/posts.rs"]
mod posts;
#[path = "root_lifecycle/readme.rs"]
mod readme;
#[path = "root_lifecycle/servers.rs"]
mod servers;
#[path = "root_lifecycle/signals.rs"]
mod signals;
#[path = "root_lifecycle/starts.rs"]
mod starts;
#[path = "root_lifecycle/stops.rs"]
mod stops;
#[path = "root_lifecycle/stuck.rs"]
mod stuck;
#[path = "root_lifecycle/support.rs"]
mod support;

use crash::{daemon_killed_during_stops, shim_killed_in_a_hook, shim_killed_in_a_pods_hook};
use cri::{backstop, hooks_in_a_pod};
use http::{http_in_the_containers_network, http_is_asked_again, http_is_asked_three_times};
use matrix::{matrix_of_cri, matrix_of_ctr};
use posts::{
    post_starts_before_the_entrypoint, post_starts_of_cri, post_starts_of_ctr, shim_stays_small,
};
use readme::five_lines;
use signals::{image_signal_in_a_pod, image_signal_of_ctr, image_signal_unknown};
use starts::{
    before_the_entrypoint, post_start, post_start_fails, wrong_annotations,
    wrong_annotations_of_cri,
};
use stops::{
    exec_fails, exec_is_like_the_container, fifty_at_once, hook_out_of_memory, kill_does_not_wait,
    no_policy, seen_by_people, short_graces, stubborn_containers,
};
use stuck::stuck_in_the_kernel;

rootfs_tests::suite!(
    ours:
    exec_is_like_the_container,
    exec_fails,
    five_lines on [Bookworm, Sid],
    short_graces on [Sid],
    kill_does_not_wait on [Sid],
    stubborn_containers on [Sid],
    hook_out_of_memory on [Sid],
    no_policy on [Sid],
    seen_by_people on [Sid],
    post_start on [Sid],
    post_start_fails on [Sid],
    before_the_entrypoint on [Sid],
    wrong_annotations,
    wrong_annotations_of_cri,
    http_in_the_containers_network on [Sid],
    http_is_asked_again on [Bookworm, Sid],
    http_is_asked_three_times on [Sid],
    post_starts_of_ctr on [Sid],
    post_starts_of_cri on [Bookworm, Sid],
    post_starts_before_the_entrypoint on [Sid],
    shim_stays_small on [Sid],
    hooks_in_a_pod,
    image_signal_in_a_pod,
    image_signal_of_ctr,
    image_signal_unknown on [Sid],
    backstop,
    daemon_killed_during_stops,
    shim_killed_in_a_hook,
    shim_killed_in_a_pods_hook on [Bookworm, Sid],
    stuck_in_the_kernel on [Sid],
    matrix_of_ctr on [Sid],
    matrix_of_cri on [Bookworm, Sid],
    fifty_at_once on [Sid],
);
