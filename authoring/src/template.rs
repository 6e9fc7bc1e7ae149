//! Writes a new plugin's folder. What stands in it lies in `templates/` and is embedded in the program, and so are the
//! contract and the SDK for Rust: a new plugin needs its language's registry and nothing of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};

use crate::language::Language;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk");
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit/v1");

/// The package that a plugin in Rust depends on and carries along.
const SDK_NAME: &str = "dossier-sdk";

/// What a template writes where the plugin's name belongs.
const NAME: &str = "{{name}}";

/// The longest name, in bytes: a host takes no longer one either.
const MAX_NAME: usize = 128;

/// Why no folder was written.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The name cannot be a plugin's in every language.
    #[error(
        "\"{}\" is no name for a plugin; take words of small letters and digits that begin with a letter, with dashes between \
         them, as in ip-owners",
        .0.display()
    )]
    Name(PathBuf),
    /// It is built with something of this name.
    #[error("\"{0}\" is the name of what a plugin in Rust is built with; choose another name")]
    Taken(String),
    /// There is something already.
    #[error("{} is there already; choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// The folder cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Writes a plugin's folder, whose last part is the plugin's name.
///
/// # Errors
/// See [`TemplateError`]. Nothing half-written is left.
pub fn create(folder: &Path, language: Language) -> Result<(), TemplateError> {
    let name = folder.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
    let name = name.ok_or_else(|| TemplateError::Name(folder.to_owned()))?;
    if language == Language::Rust && name == SDK_NAME {
        return Err(TemplateError::Taken(name.to_owned()));
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| TemplateError::Write { path: parent.to_owned(), error })?;
    }
    // Makes the folder or fails: nothing that is there is ever written over.
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => TemplateError::Exists(folder.to_owned()),
        _ => TemplateError::Write { path: folder.to_owned(), error },
    })?;
    fill(folder, name, language).inspect_err(|_| {
        // It was made above and is ours. What cannot be written to can perhaps not be deleted from either.
        let _ = fs::remove_dir_all(folder);
    })
}

/// Writes what belongs into the folder.
fn fill(folder: &Path, name: &str, language: Language) -> Result<(), TemplateError> {
    let parts: &[&str] = match language {
        Language::Rust => &["common", "rust"],
        Language::JavaScript => &["common", "world", "js"],
        Language::Python => &["common", "world", "python"],
        Language::C => &["common", "world", "c"],
    };
    for part in parts {
        if let Some(template) = TEMPLATES.get_dir(part) {
            write(template, template.path(), folder, &|text| text.replace(NAME, name))?;
        }
    }
    let as_it_is = |text: &str| text.to_owned();
    if language == Language::Rust {
        // Beside each other as in the repository: the SDK finds the contract by `../wit/v1`.
        write(&SDK, Path::new(""), &folder.join("vendor/dossier-sdk"), &standing_alone)?;
        write(&WIT, Path::new(""), &folder.join("vendor/wit/v1"), &as_it_is)
    } else {
        write(&WIT, Path::new(""), &folder.join("wit/deps/dossier-plugin"), &as_it_is)
    }
}

/// Whether a plugin can have this name in every language: it is a package of WIT, of cargo and of npm, and a file.
fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= MAX_NAME && name.split('-').all(word)
}

/// Writes what is embedded, without the path `within`, and with each text changed by `change`.
fn write(from: &Dir<'_>, within: &Path, to: &Path, change: &dyn Fn(&str) -> String) -> Result<(), TemplateError> {
    for entry in from.entries() {
        let file = match entry {
            DirEntry::Dir(dir) => {
                write(dir, within, to, change)?;
                continue;
            }
            DirEntry::File(file) => file,
        };
        let path = file.path().strip_prefix(within).unwrap_or(file.path());
        // Under its own name it would be obeyed where the template lies.
        let path = if path == Path::new("gitignore") { to.join(".gitignore") } else { to.join(path) };
        let bytes = match file.contents_utf8() {
            Some(text) => change(text).into_bytes(),
            None => file.contents().to_vec(),
        };
        let folder = path.parent().unwrap_or(to);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes));
        written.map_err(|error| TemplateError::Write { path, error })?;
    }
    Ok(())
}

/// The SDK's `Cargo.toml` without what it inherits from the workspace that it comes from. Other texts stay as they are.
fn standing_alone(text: &str) -> String {
    let inherited = [
        // Before `version`, which it ends with.
        ("rust-version.workspace = true", concat!("rust-version = \"", env!("CARGO_PKG_RUST_VERSION"), "\"")),
        ("version.workspace = true", concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"")),
        ("edition.workspace = true", "edition = \"2024\""),
        ("license.workspace = true", concat!("license = \"", env!("CARGO_PKG_LICENSE"), "\"")),
        ("[lints]\nworkspace = true\n\n", ""),
    ];
    inherited.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_in_every_language() {
        for name in ["lookup", "ip-owners", "a1", "asn2-names"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-", "a-", "-a", "A", "2fa", "a--b", "a_b", "a.b", "ä", "a-2", &"a".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn every_language_gets_a_folder_that_is_known_as_its_own_and_has_its_name() {
        let place = tempfile::tempdir().unwrap();
        for language in Language::ALL {
            let name = format!("in-{language}").to_lowercase();
            let folder = place.path().join("new").join(&name);
            create(&folder, language).unwrap();
            assert_eq!(Language::of(&folder), Some(language));
            for file in ["README.md", "plugin.toml", ".gitignore", "tests/known-address.json", "try/alert.json"] {
                assert!(folder.join(file).is_file(), "{language}: {file}");
            }
            for path in files(&folder) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains("{{") && !text.is_empty(), "{}", path.display());
            }
            crate::manifest::Manifest::from_toml(&fs::read_to_string(folder.join("plugin.toml")).unwrap()).unwrap();
            assert!(matches!(create(&folder, language), Err(TemplateError::Exists(_))));
        }
        assert!(matches!(create(&place.path().join("My Plugin"), Language::C), Err(TemplateError::Name(_))));
        let sdk = place.path().join("dossier-sdk");
        assert!(matches!(create(&sdk, Language::Rust), Err(TemplateError::Taken(_))) && !sdk.exists());
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn what_cannot_be_written_whole_is_not_there_at_all() {
        let place = tempfile::tempdir().unwrap();
        // Room for the folder in the longest path, which has 4095 bytes, and not for what lies in it.
        let mut parent = place.path().to_owned();
        let length = 4095 - "/a-new-name/plugin.toml".len();
        while length - parent.as_os_str().len() > 200 {
            parent.push("d".repeat(100));
        }
        parent.push("d".repeat(length - parent.as_os_str().len() - "/".len()));
        fs::create_dir_all(&parent).unwrap();
        let folder = parent.join("a-new-name");
        let error = create(&folder, Language::Rust).unwrap_err();
        assert!(matches!(error, TemplateError::Write { .. }), "{error}");
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }

    #[test]
    fn the_sdk_stands_alone() {
        let text = standing_alone(SDK.get_file("Cargo.toml").unwrap().contents_utf8().unwrap());
        assert!(
            !text.contains("workspace")
                && text.contains("\nversion = \"0.1.0\"\nedition = \"2024\"\nrust-version = \"1.95\""),
            "{text}"
        );
    }
}
