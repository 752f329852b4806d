//! A pack, as a Git server sends it: bytes as they are, bytes with a right checksum, or entries that are streams at least.
#![no_main]

use backlog_bridge::{pack::Objects, progress::Progress};
use backlog_bridge_fuzz::{Feed, Pack, held, limits, sealed};
use gix::objs::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&shape, rest)) = data.split_first() else {
        return;
    };
    let pack = match shape % 3 {
        0 => rest.to_vec(),
        1 => sealed(rest.to_vec()),
        _ => entries(rest),
    };
    held(pack.len(), || {
        let progress = Progress::default();
        if let Ok(objects) = Objects::receive(&mut &pack[..], &limits(), &progress) {
            assert_eq!(objects.pack_bytes(), pack.len() as u64);
        }
    });
});

fn entries(data: &[u8]) -> Vec<u8> {
    let mut feed = Feed(data);
    let mut pack = Pack::default();
    let blob = pack.add(Kind::Blob, b"0123456789abcdef");
    let mut places = vec![12];
    while !feed.is_empty() {
        let (type_id, lie) = (feed.byte(), feed.byte());
        let mut base = Vec::new();
        match type_id & 7 {
            6 => {
                let place = places[usize::from(feed.byte()) % places.len()];
                let mut distance = pack.len() - place + usize::from(lie >> 7);
                base.push((distance & 0x7f) as u8);
                while distance > 0x7f {
                    distance = (distance >> 7) - 1;
                    base.insert(0, (distance & 0x7f) as u8 | 0x80);
                }
            }
            7 if lie & 2 == 0 => base.extend_from_slice(blob.as_bytes()),
            7 => base.extend_from_slice(&[feed.byte(); 20]),
            _ => {}
        }
        let content = feed.bytes(255);
        let size = match lie & 0x1f {
            1 => 1 << 60,
            3 => u64::from(feed.byte()),
            _ => content.len() as u64,
        };
        places.push(pack.entry(type_id, size, &base, content));
    }
    pack.finish()
}
