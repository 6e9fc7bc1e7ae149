use std::path::Path;

use super::writer::{Data, database};
use super::*;

fn open(bytes: Vec<u8>) -> Result<Mmdb, TableError> {
    Mmdb::open(bytes, Path::new("test.mmdb"))
}

/// 10.0.0.0/8 and 192.0.2.128/25.
fn sound() -> Vec<u8> {
    database(&[
        (
            0x0a00_0000,
            8,
            Data::Map(vec![
                ("country", Data::Map(vec![("iso_code", Data::Text("NO"))])),
                ("list", Data::List(vec![Data::Number(7), Data::Double(0.5), Data::Bytes(b"\x00\xff")])),
                ("empty", Data::List(vec![])),
            ]),
        ),
        (0xc000_0280, 25, Data::Text("just a text")),
    ])
}

#[test]
fn an_address_has_the_record_of_its_network_and_other_keys_have_none() {
    let mmdb = open(sound()).unwrap();
    let record = r#"{"country":{"iso_code":"NO"},"list":[7,0.5,"00ff"],"empty":[]}"#;
    assert_eq!(mmdb.lookup("10.1.2.3").unwrap().as_deref(), Some(record));
    assert_eq!(mmdb.lookup("::ffff:10.1.2.3").unwrap().as_deref(), Some(record));
    assert_eq!(mmdb.lookup("192.0.2.200").unwrap().as_deref(), Some(r#"{"value":"just a text"}"#));
    for key in ["192.0.2.1", "11.0.0.1", "2001:db8::1", "host", "10.0.0.0/8", ""] {
        assert_eq!(mmdb.lookup(key).unwrap(), None, "{key}");
    }
}

#[test]
fn a_database_that_is_cut_anywhere_is_refused() {
    let whole = sound();
    // All but the last byte of the metadata: what ends the map is needed, too.
    for length in 0..whole.len() {
        assert!(open(whole[..length].to_vec()).is_err(), "cut to {length} of {} bytes", whole.len());
    }
}

#[test]
fn no_changed_byte_makes_it_panic_or_hang() {
    let whole = sound();
    for at in 0..whole.len() {
        for change in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            if let Ok(mmdb) = open(bytes) {
                for key in ["10.1.2.3", "192.0.2.200", "255.255.255.255", "0.0.0.0"] {
                    if let Ok(Some(json)) = mmdb.lookup(key) {
                        serde_json::from_str::<serde_json::Value>(&json).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn a_pointer_that_leads_to_itself_is_refused() {
    assert!(open(database(&[(0, 8, Data::Pointer(0))])).is_err());
    assert!(open(database(&[(0, 8, Data::Map(vec![("a", Data::Pointer(0))]))])).is_err());
}

#[test]
fn a_record_that_unfolds_without_end_is_refused() {
    // Each list holds the one before it 28 times: 28^6 values from a few hundred bytes.
    let mut networks = vec![(0, 8, Data::List((0..28).map(|_| Data::Text("x")).collect()))];
    let mut offset = 0;
    let mut length = 2 + 28 * 2;
    for level in 1..7 {
        networks.push((level << 24, 8, Data::List((0..28).map(|_| Data::Pointer(offset)).collect())));
        offset += length;
        length = 2 + 28 * 2;
    }
    assert!(open(database(&networks)).is_err());
    networks.truncate(2);
    assert!(open(database(&networks)).unwrap().lookup("1.0.0.1").unwrap().is_some());
}

#[test]
fn depth_is_obeyed_and_violated() {
    let nested = |levels: u8| {
        let mut data = Data::Number(1);
        for _ in 0..levels {
            data = Data::List(vec![data]);
        }
        database(&[(0, 8, data)])
    };
    let deepest = open(nested(DEPTH)).unwrap().lookup("0.0.0.1").unwrap().unwrap();
    assert_eq!(deepest.matches('[').count(), DEPTH as usize);
    let error = open(nested(DEPTH + 1)).unwrap_err().to_string();
    assert!(error.contains("deeper than 32 levels"), "{error}");
}

#[test]
fn a_search_tree_that_is_no_tree_is_refused() {
    let mut bytes = sound();
    // Both records of each of the first nodes lead to the next one.
    for (at, record) in bytes.chunks_exact_mut(4).take(48).enumerate() {
        record.copy_from_slice(&(at as u32 / 2 + 1).to_be_bytes());
    }
    assert!(open(bytes).is_err());
}
