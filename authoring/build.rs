//! Has the crate built again when what it embeds has changed: what stands in the folders is read by a macro, which sees
//! changes of files but no new ones.

fn main() {
    for folder in ["templates", "../sdk", "../wit/v1"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
