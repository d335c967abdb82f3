//! config.json → plan: whatever a config says, there is a plan that init can
//! read or an error that names a field.
#![no_main]

use boathook_fuzz::{check_program, context, layouts};
use boathook_runtime::{ErrorKind, Plan, spec};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|json: &[u8]| -> Corpus {
    let Ok(spec) = spec::from_json(json) else { return Corpus::Keep };
    for layout in layouts() {
        match Plan::create(&spec, &context(&layout)) {
            Ok(plan) => {
                check_program(&plan);
                assert!(!plan.to_string().is_empty());
                assert!(plan.to_json()["steps"].is_array());
            }
            Err(error) => {
                let text = error.to_string();
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::InvalidInput | ErrorKind::Unsupported),
                    "{kind:?}: {text}"
                );
                assert!(text.contains(": "), "no field in {text:?}");
            }
        }
        if let Some(process) = spec.process() {
            let modules = context(&layout).modules;
            if let Ok(plan) = Plan::exec(process, u32::MAX, &layout, modules, Some("fuzz"), None) {
                check_program(&plan);
            }
        }
    }
    Corpus::Keep
});
