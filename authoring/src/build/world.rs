//! The world of a plugin that is not in Rust: `wit/` in its folder, whose package has the plugin's name.

use std::path::Path;

use wit_parser::{Resolve, WorldId};

use super::BuildError;

/// A plugin's world.
pub(super) struct World {
    /// The plugin's name: that of the world's package.
    pub name: String,
    /// The world's name.
    pub world: String,
    /// Everything that the world speaks of.
    pub resolve: Resolve,
    /// The world.
    pub id: WorldId,
}

impl World {
    /// Reads it.
    ///
    /// # Errors
    /// There is none, it cannot be read, or there are several.
    pub(super) fn of(folder: &Path) -> Result<Self, BuildError> {
        let wit = folder.join("wit");
        let wrong = |error: &dyn std::fmt::Display| BuildError::project(&wit, format!("{error:#}"));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(&wit).map_err(|error| wrong(&format!("{error:#}")))?;
        let id = resolve.select_world(&[package], None).map_err(|error| wrong(&format!("{error:#}")))?;
        let name = resolve.packages[package].name.name.clone();
        Ok(Self { name, world: resolve.worlds[id].name.clone(), resolve, id })
    }
}
