//! Guests that misbehave, and how each becomes a component: a mode of the plugin `mischief`, a text, something made by code, or
//! C. The list of them is the folder `guests/`.

use std::path::Path;
use std::process::Command;

use dossier_authoring::{build, component};
use wasm_encoder::{
    CodeSection, ComponentSection as _, ComponentSectionId, Function, FunctionSection, Module, RawSection, TypeSection,
};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::host::{built, root};

/// What a text stands in; see there.
const FRAME: &str = include_str!("../guests/frame.wat");

/// A guest.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its name, which is its plugin's unless it is a mode.
    pub name: &'static str,
    /// What it is made of.
    pub source: Source,
}

/// What a guest is made of.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// A mode of the plugin `mischief`, which is asked for by this name.
    Mode(&'static str),
    /// The text of a component, of a module, or of what goes into the frame.
    Text(&'static str),
    /// Code that makes it.
    Made(fn() -> Vec<u8>),
    /// A file in C.
    C(&'static str),
}

impl Guest {
    /// The plugin that it is.
    pub fn plugin(&self) -> &'static str {
        match self.source {
            Source::Mode(_) => "mischief",
            _ => self.name,
        }
    }

    /// Its file: a component, or what pretends to be one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn component(&self) -> Vec<u8> {
        match self.source {
            Source::Mode(_) => std::fs::read(built("guests/mischief.wasm")).expect("the plugin was built"),
            Source::Text(text) => self.of_text(text),
            Source::Made(make) => make(),
            Source::C(file) => of_c(Path::new(file)),
        }
    }

    fn of_text(&self, text: &str) -> Vec<u8> {
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with(";;")).collect();
        if code.starts_with("(component") || code.starts_with("(module") {
            return wat::parse_str(text).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
        framed(self.name, text)
    }
}

/// Puts a text into the frame and makes a component of it.
///
/// # Panics
/// The text is wrong.
pub fn framed(name: &str, text: &str) -> Vec<u8> {
    let configure = if text.contains("(func $configure") { "" } else { "(func $configure)" };
    let code = FRAME
        .replace("GUEST", &format!("{text}{configure}"))
        .replace("NAME", name)
        .replace("LENGTH", &format!("\\{:02x}", name.len()));
    let module = wat::parse_str(code).unwrap_or_else(|error| panic!("{name}: {error}"));
    let world = if text.contains("test:guest/things") { "maker" } else { "guest" };
    encode(module, world)
}

/// Makes a component of a core module.
fn encode(mut module: Vec<u8>, world: &str) -> Vec<u8> {
    let mut wit = Resolve::default();
    wit.push_dir(root().join("wit/v1")).expect("the contract can be read");
    let guests = wit.push_str("world.wit", include_str!("../guests/world.wit")).expect("the guests' world can be read");
    let world = wit.select_world(&[guests], Some(world)).expect("the world is there");
    embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8).expect("a module can say its world");
    component::encode(&module).expect("a component can be made")
}

/// Why guests in C cannot be built here; none when they can.
pub fn no_c() -> Option<String> {
    build::c_compiler().err().map(|missing| missing.to_string())
}

/// Compiles C as a plugin author's is compiled.
fn of_c(file: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let module = folder.path().join("module.wasm");
    let output = Command::new(build::c_compiler().expect("the test has asked for it"))
        .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Werror", "-o"])
        .args([&module, file])
        .output()
        .expect("the compiler starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    encode(std::fs::read(module).expect("the compiler has written it"), "guest")
}

/// A core module of functions that take nothing and give nothing.
pub fn module(functions: &[Function]) -> Vec<u8> {
    let (mut types, mut declared, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    for function in functions {
        declared.function(0);
        code.function(function);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    module.finish()
}

/// A component that says that it is a plugin, and carries core modules which must be compiled before anybody can see that it
/// is none.
///
/// # Panics
/// Never: its text is fixed.
pub fn nest(modules: &[Vec<u8>]) -> Vec<u8> {
    let mut component = wat::parse_str(
        "(component (component $none) (instance $enricher (instantiate $none))
                    (export \"dossier:plugin/enricher@1.0.0\" (instance $enricher)))",
    )
    .expect("the text is fixed");
    for module in modules {
        RawSection { id: ComponentSectionId::CoreModule as u8, data: module }.append_to_component(&mut component);
    }
    component
}

/// [`nest`] of one [`module`].
pub fn around(functions: &[Function]) -> Vec<u8> {
    nest(&[module(functions)])
}
