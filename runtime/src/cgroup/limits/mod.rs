//! `linux.resources` as an ordered list of checked writes.
//!
//! Pure: [`v1`] and [`v2`] are siblings that turn the same checked values into
//! the files of their generation; [`convert`] holds the arithmetic between them.
//! On a hybrid host each controller goes to the generation that has it.

mod check;
pub(super) mod convert;
mod unified;
mod v1;
mod v2;

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::controller::Controller;
use super::layout::{Layout, Mode};
use crate::error::Result;

/// One value for one cgroup file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The controller whose hierarchy has the file.
    pub controller: Controller,
    /// The file's name, `memory.limit_in_bytes`.
    pub file: Cow<'static, str>,
    /// The file and value to use where `file` does not exist (other kernels, other schedulers).
    pub instead: Option<(&'static str, String)>,
    /// What is written, in one `write(2)`.
    pub value: String,
    /// The field of config.json it comes from.
    pub field: Cow<'static, str>,
    /// Leave the write out where the kernel lacks the file: the value asks for
    /// nothing that is not so anyhow.
    pub optional: bool,
    /// `EINVAL` may come from a neighbour that is written later (memory and
    /// swap, period and quota): try once more after the rest.
    pub retry: bool,
    /// The file holds one value, so that its old one can be read and put back.
    pub single: bool,
    /// `value` is the second word of the file, and the first stays as it is.
    pub keep_first: bool,
}

impl Write {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and strings alike, mostly Copy")]
    fn new(
        controller: Controller,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        field: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            controller,
            file: file.into(),
            instead: None,
            value: value.to_string(),
            field: field.into(),
            optional: false,
            retry: false,
            single: true,
            keep_first: false,
        }
    }

    fn retry(mut self) -> Self {
        self.retry = true;
        self
    }

    fn optional_if(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    fn keep_first(mut self) -> Self {
        self.keep_first = true;
        self
    }

    fn keyed(mut self) -> Self {
        self.single = false;
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "as for new")]
    fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.instead = Some((file, value.to_string()));
        self
    }
}

/// Whether limits are for a new cgroup or change those of a living one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Create,
    Update,
}

/// The writes for everything but devices.
pub(super) fn writes(
    resources: &LinuxResources,
    layout: &Layout,
    purpose: Purpose,
) -> Result<Vec<Write>> {
    let on_v2 = |controller| layout.on_v2(controller);
    let mut out = Vec::new();
    if layout.mode != Mode::V2 {
        v1::writes(resources, purpose, &|controller| !on_v2(controller), &mut out)?;
    }
    if layout.mode != Mode::V1 {
        v2::writes(resources, purpose, &on_v2, &mut out)?;
    }
    unified::writes(resources, &on_v2, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
