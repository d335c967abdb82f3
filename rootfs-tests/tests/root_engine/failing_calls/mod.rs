//! One system call fails, and for every one there is: a create, a start, a delete and an exec are
//! done again and again, and each time the next of their calls gets an errno, until all have had it.
//! First those of the engine's own process, then those of init.
//!
//! Each time there is success or an error that has a class and tells the errno; nothing is left
//! when all is deleted; and the same container can be made at once. A call whose failure is not
//! told must have changed nothing about the container.
//!
//! What is left out stands with the reason in [`errnos`]. Seen red without the undo of the state
//! directory, where a parent cgroup stayed after a Delete that had succeeded, where close_range(2)
//! failed and the container got what the engine's process had open, and where init's own report
//! was lost.

mod errnos;
mod looks;
mod rig;
pub(crate) mod subject;
mod supervisor;

use serde_json::json;

use super::support::{Arena, Case, tests};
use rig::Rig;
use supervisor::{Failed, Role, Target};

tests!(create, create_of_a_prepared_engine, start, delete, exec, find, hooks_and_a_terminal);

/// A create, and whatever came of it taken away again.
fn create_round(rig: &mut Rig<'_>, target: Target) -> Option<Failed> {
    let (answer, told) = rig.attempt("create", target);
    match answer.text.strip_prefix("ok ") {
        Some(pid) => {
            rig.check_created(&told, pid);
            rig.delete(&told);
        }
        None => {
            rig.check_nothing_left(&told);
            rig.good("create");
            rig.delete(&told);
        }
    }
    answer.failed
}

fn start_round(rig: &mut Rig<'_>, target: Target) -> Option<Failed> {
    let pid = rig.good("create");
    let (answer, told) = rig.attempt("start", target);
    if answer.text.starts_with("ok") {
        rig.check_started(&told, &pid);
    }
    rig.delete(&told);
    answer.failed
}

fn delete_round(rig: &mut Rig<'_>, target: Target) -> Option<Failed> {
    rig.good("create");
    rig.good("start");
    let (answer, told) = rig.attempt("delete", target);
    if answer.text.starts_with("ok") {
        rig.check_nothing_left(&told);
    } else {
        rig.delete(&told);
    }
    answer.failed
}

fn create(arena: &Arena) {
    let mut rig = Rig::new(arena.sleeper());
    rig.for_every_call(Role::Engine, 100, create_round);
    rig.for_every_call(Role::Child, 150, create_round);
    rig.end();
}

/// Whose preparation fails as well: with an error, as told to whoever asks for it. It comes first,
/// and what the engine does after that is the same as above.
fn create_of_a_prepared_engine(arena: &Arena) {
    let mut rig = Rig::prepared(arena.sleeper());
    rig.for_the_first_calls(Role::Engine, 60, create_round);
    rig.for_every_call(Role::Child, 170, create_round);
    rig.end();
}

fn start(arena: &Arena) {
    let mut rig = Rig::new(arena.sleeper());
    rig.for_every_call(Role::Engine, 3, start_round);
    rig.for_every_call(Role::Child, 3, start_round);
    rig.end();
}

/// Of a container that runs, which takes all there is: one that has ended takes the beginning of it.
fn delete(arena: &Arena) {
    let mut rig = Rig::new(arena.sleeper());
    rig.for_every_call(Role::Engine, 30, delete_round);
    rig.end();
}

fn exec(arena: &Arena) {
    let mut rig = Rig::new(arena.sleeper());
    let pid = rig.good("create");
    rig.good("start");
    rig.others_are_left();
    for (role, least) in [(Role::Engine, 30), (Role::Child, 50)] {
        rig.for_every_call(role, least, |rig, target| {
            let (answer, told) = rig.attempt("exec", target);
            rig.check_nothing_left(&told);
            rig.check_started(&told, &pid);
            answer.failed
        });
    }
    rig.good("delete");
    rig.end();
}

/// Red if a container that runs passes for one that has ended because nothing could be asked.
fn find(arena: &Arena) {
    let mut rig = Rig::new(arena.sleeper());
    rig.good("create");
    rig.good("start");
    rig.others_are_left();
    rig.for_every_call(Role::Engine, 10, |rig, target| {
        let (answer, told) = rig.attempt("find", target);
        assert_ne!(answer.text, "ok ended", "{told}");
        rig.check_nothing_left(&told);
        answer.failed
    });
    rig.good("delete");
    rig.end();
}

/// The same with what takes more processes and more messages.
fn hooks_and_a_terminal(arena: &Arena) {
    let mut case: Case<'_> = arena.sleeper();
    case.config["process"]["terminal"] = json!(true);
    let hook = json!([{ "path": "/bin/true" }]);
    case.config["hooks"] = json!({ "createRuntime": hook, "createContainer": hook,
        "startContainer": hook, "poststart": hook, "poststop": hook });
    let mut rig = Rig::new(case);
    rig.for_every_call(Role::Engine, 150, create_round);
    rig.for_every_call(Role::Child, 200, create_round);
    rig.for_every_call(Role::Engine, 30, start_round);
    rig.for_every_call(Role::Child, 50, start_round);
    rig.for_every_call(Role::Engine, 30, delete_round);
    rig.for_every_call(Role::Child, 1, delete_round);
    rig.end();
}
