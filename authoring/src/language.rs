//! The languages that plugins can be written in, and which of them a folder is in. How each is built is its own module's.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// JavaScript.
    JavaScript,
    /// Python.
    Python,
    /// C.
    C,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rust, Self::JavaScript, Self::Python, Self::C];

    /// As it is typed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "js",
            Self::Python => "python",
            Self::C => "c",
        }
    }

    /// The file by which a folder is known to be in this language.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::JavaScript => "package.json",
            Self::Python => "requirements.txt",
            Self::C => "plugin.c",
        }
    }

    /// The language of a plugin's folder; none when it is no such folder.
    pub fn of(folder: &Path) -> Option<Self> {
        Self::ALL.into_iter().find(|language| folder.join(language.mark()).is_file())
    }
}

impl fmt::Display for Language {
    /// As people write it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::C => "C",
        })
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|language| language.as_str() == text).ok_or_else(|| format!("no language: {text}"))
    }
}
