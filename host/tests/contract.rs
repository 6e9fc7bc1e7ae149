//! The released contracts: their text never changes, and neither do the plugins that were built against them.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Every file of a released version of the contract, and of the plugins that were built against it, with its SHA-256. A host
/// serves it for ever, so a change here is not to be repaired by another digest: take the change to `wit/next`.
const FROZEN: &[(&str, &[(&str, &str)])] = &[
    ("../wit/v1", &[("plugin.wit", "075e782f56c7219cf4eabe88616750252ecaa01730cc0043f64eb8b00880b86f")]),
    (
        "../tests/fixtures/contract-1.0.0",
        &[
            ("asset.wasm", "7237af8cea7c57adf4402e9e43d2bbdaa7e5994229a6d227a8f72347b264373b"),
            ("every-call.rs", "fe81176be46560cd9a706d7ba7723834e8394a673cf3be656932416df20de11c"),
            ("every-call.wasm", "d34fe8c84fe2dd0f9e3cb0e72380ff386555dbd448680c5156ecdb359ce79070"),
            ("first.rs", "161da6a99f8ac9cbb6c742fbaa01620edece106148507c512ccc78453bebc9e3"),
            ("first.wasm", "b67973704f5251fb93586e120e6049c878d35f41f001bead5e574ce5b65bbd60"),
            ("in-c.wasm", "585cfb020f7e0358741fa70b3180f17197b0bb8060f13cc310f60caddc1822e7"),
            ("ip-reputation.wasm", "8a7fa015ef829c4f96f2798c89723ce5f473da28a70c8f37efd8c8d8e6bf0463"),
            ("verdict.wasm", "be1b7da98be888ffab54db1ca4d99cf0ea23466879b9553e47bb1226fc8ec0d3"),
        ],
    ),
];

#[test]
fn a_released_contract_and_its_plugins_do_not_change() {
    for (folder, files) in FROZEN {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{folder}: {error}"))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "README.md")
            .collect();
        names.sort();
        let frozen: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, frozen, "{folder} is frozen: no file comes and none goes");
        for (name, digest) in *files {
            let found = hex::encode(Sha256::digest(fs::read(Path::new(folder).join(name)).unwrap()));
            assert_eq!(found, *digest, "{folder}/{name} is frozen: restore it and make the change in wit/next");
        }
    }
}
