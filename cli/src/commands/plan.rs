//! `boathook plan BUNDLE`.

use std::path::Path;

use boathook_runtime::{CreateOptions, Engine, spec};

use crate::args::Plan;
use crate::output::{Failure, print};

pub(crate) fn run(args: &Plan) -> Result<(), Failure> {
    let bundle = std::path::absolute(&args.bundle)
        .map_err(|e| Failure::Io(args.bundle.display().to_string(), e))?;
    let spec = spec::load(&bundle)?;
    let id = args.id.clone().unwrap_or_else(|| name_of(&bundle));
    let options = CreateOptions {
        systemd_cgroup: args.systemd_cgroup,
        no_pivot_root: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
    };
    // Nothing is recorded for a plan, so any state root will do.
    let plan = Engine::new(Path::new("/run/boathook")).plan(&id, &bundle, &spec, options)?;
    let text = if args.json { format!("{:#}\n", plan.to_json()) } else { plan.to_string() };
    print(&text)
}

fn name_of(bundle: &Path) -> String {
    bundle.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
