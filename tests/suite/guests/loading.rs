//! Guests that are refused before any alert: each with the words that tell the operator why.

use std::time::{Duration, Instant};

use dossier_tests::guest::{Guest, framed, module};
use dossier_tests::happened::happened;
use wasm_encoder::{ComponentSection as _, ComponentSectionId, InstanceSection, RawSection};

use super::all::*;
use super::{load, load_as, step};

async fn refused(guest: &Guest, words: &str) {
    let began = Instant::now();
    let why = load(guest, "").await.err().unwrap_or_else(|| panic!("{} is taken", guest.name));
    assert!(why.contains(words), "{}: {why}", guest.name);
    assert!(began.elapsed() < Duration::from_secs(60), "{}: {:?}", guest.name, began.elapsed());
}

#[tokio::test]
async fn a_start_function_that_loops_or_traps_is_refused() {
    refused(&START_LOOP, "out-of-fuel").await;
    refused(&START_TRAP, "trap").await;
}

#[tokio::test]
async fn a_configure_that_loops_or_floods_the_log_is_refused() {
    refused(&CONFIGURE_LOOP, "out-of-fuel").await;
    refused(&CONFIGURE_FLOOD, "out-of-fuel").await;
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_refused() {
    refused(&UNGRANTED_IMPORT, "it imports tables, which the step is not granted").await;
    let granted = step(&UNGRANTED_IMPORT, "tables = [\"t\"]");
    assert!(load_as("ungranted-import", &UNGRANTED_IMPORT.component(), &granted).await.is_ok());
}

#[tokio::test]
async fn an_import_that_nobody_knows_is_refused() {
    refused(&UNKNOWN_IMPORT, "evil:corp/exec").await;
    refused(&UNKNOWN_FUNCTION, "shout").await;
}

#[tokio::test]
async fn another_version_of_the_contract_is_refused_and_so_is_an_enricher_that_is_none() {
    refused(&OTHER_VERSION, "9.0.0").await;
    refused(&WRONG_TYPE, "not a valid plugin").await;
}

#[tokio::test]
async fn a_schema_that_a_host_does_not_check_is_refused() {
    refused(&BAD_SCHEMA, "$ref").await;
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    refused(&CORE_MODULE, "core module").await;
    refused(&EMPTY_FILE, "empty").await;
    refused(&RANDOM_BYTES, "not a valid plugin").await;
    refused(&TOO_LARGE, "larger than 64 MiB").await;
}

/// A plugin with so many more core instances.
fn crowd(instances: u32) -> Vec<u8> {
    let mut component = framed("crowd", "(func $enrich (param i32))");
    let module = module(&[]);
    let first = modules(&component);
    for index in first..first + instances {
        RawSection { id: ComponentSectionId::CoreModule as u8, data: &module }.append_to_component(&mut component);
        let mut section = InstanceSection::new();
        section.instantiate::<_, &str>(index, []);
        section.append_to_component(&mut component);
    }
    component
}

/// How many core modules a component has.
fn modules(component: &[u8]) -> u32 {
    let mut count = 0;
    let mut at = 8;
    while at < component.len() {
        count += u32::from(component[at] == ComponentSectionId::CoreModule as u8);
        let (mut length, mut shift) = (0, 0);
        loop {
            at += 1;
            length |= usize::from(component[at] & 127) << shift;
            shift += 7;
            if component[at] < 128 {
                break;
            }
        }
        at += 1 + length;
    }
    count
}

#[tokio::test]
async fn a_component_may_have_dozens_of_core_instances_and_no_more_than_the_bound() {
    // Python's toolchain makes some thirty; the frame takes four.
    for (instances, taken) in [(40, true), (70, false)] {
        let component = crowd(instances);
        let loaded = load_as("crowd", &component, "[[step]]\nplugin = \"crowd\"").await;
        match (loaded, taken) {
            (Ok(loaded), true) => drop(loaded.fields(0).await),
            (Err(why), false) => {
                assert!(why.contains("instance"), "{why}");
                happened(&format!("{instances} more core instances: refused at load"));
            }
            (Ok(_), false) => panic!("{instances} instances are taken"),
            (Err(why), true) => panic!("{instances} instances: {why}"),
        }
    }
}
