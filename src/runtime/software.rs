//! The identity of the software that trains: this program and the plugin.

use anyhow::Context;

use super::compilation_cache::identity::plugin_identity;
use crate::checkpoint::Software;
use crate::digest::program_identity;
use crate::pjrt::Client;

/// Returns the identity of this program and of the plugin of `client`.
///
/// # Errors
/// If one of their files cannot be read.
pub fn software(client: &Client) -> anyhow::Result<Software> {
    let program = program_identity().context("cannot read the file of this program")?;
    Ok(Software { program, plugin: plugin_identity(&client.plugin())? })
}
