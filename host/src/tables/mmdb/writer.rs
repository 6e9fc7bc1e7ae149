//! Writes small databases for tests, sound ones and others. Nothing but what the tests need of
//! <https://maxmind.github.io/MaxMind-DB/>: 32-bit records, short values.

/// A value of the data section.
pub enum Data {
    /// A text of at most 284 bytes.
    Text(&'static str),
    /// A number of 16 bits.
    Short(u16),
    /// A number of 32 bits.
    Number(u32),
    /// A number of 64 bits.
    Long(u64),
    /// A double.
    Double(f64),
    /// Bytes.
    Bytes(&'static [u8]),
    /// A map of at most 28 entries.
    Map(Vec<(&'static str, Data)>),
    /// A list of at most 28 values.
    List(Vec<Data>),
    /// A pointer to an offset in the data section, of at most 2047.
    Pointer(u16),
}

impl Data {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                match text.len() {
                    length @ 0..29 => out.push(2 << 5 | length as u8),
                    length => out.extend([2 << 5 | 29, (length - 29) as u8]),
                }
                out.extend(text.as_bytes());
            }
            Self::Short(number) => {
                out.push(5 << 5 | 2);
                out.extend(number.to_be_bytes());
            }
            Self::Long(number) => {
                out.extend([8, 9 - 7]);
                out.extend(number.to_be_bytes());
            }
            Self::Number(number) => {
                out.push(6 << 5 | 4);
                out.extend(number.to_be_bytes());
            }
            Self::Double(number) => {
                out.push(3 << 5 | 8);
                out.extend(number.to_be_bytes());
            }
            Self::Bytes(bytes) => {
                out.push(4 << 5 | bytes.len() as u8);
                out.extend(*bytes);
            }
            Self::Map(entries) => {
                out.push(7 << 5 | entries.len() as u8);
                for (name, value) in entries {
                    Self::Text(name).write(out);
                    value.write(out);
                }
            }
            Self::List(values) => {
                out.extend([values.len() as u8, 11 - 7]);
                values.iter().for_each(|value| value.write(out));
            }
            Self::Pointer(offset) => out.extend([1 << 5 | (offset >> 8) as u8, *offset as u8]),
        }
    }
}

/// A database of IPv4 networks (the address as a number, the prefix length) and their records, in which no network holds
/// another.
pub fn database(networks: &[(u32, u8, Data)]) -> Vec<u8> {
    let mut data = Vec::new();
    let offsets: Vec<u32> = networks
        .iter()
        .map(|(_, _, record)| {
            let offset = data.len() as u32;
            record.write(&mut data);
            offset
        })
        .collect();
    // A record is the next node, or an offset of the data; none is "no data".
    enum Record {
        None,
        Node(usize),
        Data(u32),
    }
    let mut nodes = vec![[Record::None, Record::None]];
    for ((address, length, _), offset) in networks.iter().zip(offsets) {
        let mut node = 0;
        for depth in 0..*length {
            let side = (address >> (31 - depth) & 1) as usize;
            if depth + 1 == *length {
                nodes[node][side] = Record::Data(offset);
            } else if let Record::Node(next) = nodes[node][side] {
                node = next;
            } else {
                let next = nodes.len();
                nodes[node][side] = Record::Node(next);
                nodes.push([Record::None, Record::None]);
                node = next;
            }
        }
    }
    let count = nodes.len() as u32;
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match record {
            Record::None => count,
            Record::Node(node) => *node as u32,
            Record::Data(offset) => count + 16 + offset,
        };
        file.extend(value.to_be_bytes());
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    Data::Map(vec![
        ("binary_format_major_version", Data::Short(2)),
        ("binary_format_minor_version", Data::Short(0)),
        ("build_epoch", Data::Long(1)),
        ("database_type", Data::Text("Test")),
        ("description", Data::Map(vec![("en", Data::Text("a test"))])),
        ("ip_version", Data::Short(4)),
        ("languages", Data::List(vec![Data::Text("en")])),
        ("node_count", Data::Number(count)),
        ("record_size", Data::Short(32)),
    ])
    .write(&mut file);
    file
}
