//! Plans of mounts and network devices.

use serde_json::{Value, json};

use super::tests::{config, plan, plan_with, refused};
use super::*;
use crate::ErrorKind;

/// The config with one more mount at the end.
fn with_mount(mount: Value) -> Value {
    let mut config = config();
    config["mounts"].as_array_mut().unwrap().push(mount);
    config
}

fn options_of(plan: &Plan, wanted: &std::ffi::CStr) -> Vec<String> {
    let found = plan.program.steps().find_map(|step| match step {
        Step::NewFs { fstype, options, .. } if fstype == wanted => {
            Some(options.iter().map(|o| o.to_string_lossy().into_owned()).collect())
        }
        _ => None,
    });
    found.unwrap()
}

/// Red if a mount is changed before it is attached: kernels before 5.12 cannot.
#[test]
fn nothing_is_changed_before_it_is_attached() {
    let mut config = with_mount(json!({ "destination": "/x", "type": "bind", "source": "/srv",
        "options": ["rbind", "rro", "rshared", "noatime"] }));
    config["linux"]["rootfsPropagation"] = json!("rslave");
    let plan = plan(config).unwrap();
    let mut attached = Vec::new();
    let mut changed = 0;
    for step in plan.program.steps() {
        match step {
            Step::Attach { tree, .. } | Step::MountRoot { tree, .. } => attached.push(tree),
            Step::SetAttr { tree, .. } => {
                assert!(attached.contains(&tree), "{step:?}");
                changed += 1;
            }
            _ => {}
        }
    }
    assert!(changed >= 6, "{changed}");
}

#[test]
fn an_option_without_mappings_takes_the_containers() {
    let entry = json!({ "destination": "/x", "type": "bind", "source": "/srv",
        "options": ["bind", "ridmap"] });
    let field = "mounts[4].options: \"ridmap\": needs";
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 5 }]);
    refused(ErrorKind::InvalidInput, field, |c| *c = with_mount(entry.clone()));
    // Mappings of a user namespace that is the host's are nobody's.
    let mut config = with_mount(entry);
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
    let spec: Spec = serde_json::from_value(config).unwrap();
    let mount = &spec.mounts().as_ref().unwrap()[4];
    let options = boathook_fs::flags::parse(mount.options().as_ref().unwrap()).unwrap();
    let ids = mount_ids::of("mounts[4]", mount, &options, &spec).unwrap().unwrap();
    assert!(ids.recursive);
    let MappedBy::Mappings(mappings) = &ids.by else { panic!("{ids:?}") };
    assert_eq!(mappings.users()[0].host_id(), 1000);
}

#[test]
fn a_label_is_for_file_systems_that_have_none() {
    let mut config = with_mount(json!({ "destination": "/own", "type": "ramfs", "source": "x",
        "options": ["rootcontext=a:b:c:s0"] }));
    config["linux"]["mountLabel"] = json!("u:r:t:s0:c1,c2");
    let error = plan(config.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("linux.mountLabel: \"u:r:t:s0:c1,c2\""), "{error}");
    let modules = SecurityModules { apparmor: false, selinux: true };
    let plan = plan_with(config, modules).unwrap();
    let label = "context=u:r:t:s0:c1,c2".to_owned();
    assert!(options_of(&plan, c"tmpfs").contains(&label));
    assert!(!options_of(&plan, c"proc").contains(&label));
    assert_eq!(options_of(&plan, c"ramfs"), ["rootcontext=a:b:c:s0"]);
}

#[test]
fn network_devices_are_moved_in_the_order_of_their_names() {
    let mut config = config();
    config["linux"]["netDevices"] = json!({ "veth1": { "name": "eth0" }, "lan0": {} });
    let plan = plan(config).unwrap();
    let found = plan.program.steps().find_map(|step| match step {
        Step::NetDevices { names, inside } => {
            let all = |list: boathook_init::List<'_>| -> Vec<String> {
                list.iter().map(|n| n.to_string_lossy().into_owned()).collect()
            };
            Some((all(names), all(inside)))
        }
        _ => None,
    });
    let (names, inside) = found.unwrap();
    assert_eq!(
        (names, inside),
        (vec!["lan0".to_owned(), "veth1".to_owned()], vec!["lan0".to_owned(), "eth0".to_owned()],)
    );
}

#[test]
fn wrong_network_devices_are_named() {
    use ErrorKind::InvalidInput;
    let devices = |value: Value| move |c: &mut Value| c["linux"]["netDevices"] = value;
    for bad in ["a/b", "a b", "a:b", "..", "sixteen-letters-"] {
        let field = format!("linux.netDevices.{bad}: ");
        refused(InvalidInput, &field, devices(json!({ bad: {} })));
        refused(
            InvalidInput,
            "linux.netDevices.x.name: ",
            devices(json!({ "x": { "name": bad } })),
        );
    }
    let twice = json!({ "a": { "name": "x" }, "b": { "name": "x" } });
    refused(InvalidInput, "linux.netDevices.b.name: ", devices(twice));
    let both = json!({ "a": { "name": "x%d" }, "b": { "name": "x%d" } });
    let mut good = config();
    good["linux"]["netDevices"] = both;
    plan(good).unwrap();
    refused(InvalidInput, "linux.netDevices: needs", |c| {
        c["linux"]["netDevices"] = json!({ "a": {} });
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
    });
}
