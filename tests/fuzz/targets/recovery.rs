//! The reader of dead processes' rings: it never crashes and invents no line.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mtaio::log::trial::{Damage, Death, Scene};

#[derive(Debug, Arbitrary)]
enum Change {
    Flip(u16, u8),
    Word(u8, u64),
    Near(u8, u16),
    Cut(u16),
    Version(u8),
}

#[derive(Debug, Arbitrary)]
struct Case {
    records: Vec<Vec<u8>>,
    announced: u8,
    written: u16,
    lapped: u8,
    changes: Vec<Change>,
    replaced: Option<Vec<u8>>,
}

fn damage(change: &Change) -> Damage {
    match *change {
        Change::Flip(at, bit) => Damage::Flip(usize::from(at), bit),
        Change::Word(at, value) => Damage::Word(usize::from(at), value),
        Change::Near(at, value) => Damage::Word(usize::from(at), u64::from(value)),
        Change::Cut(at) => Damage::Cut(usize::from(at)),
        Change::Version(version) => Damage::Version(version),
    }
}

fuzz_target!(|case: Case| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let death = Death {
        records: case.records,
        announced: usize::from(case.announced),
        written: usize::from(case.written),
        lapped: usize::from(case.lapped),
    };
    let mut scene = Scene::new(folder.path(), &death).expect("a scene");
    let changes: Vec<Damage> = case.changes.iter().map(damage).collect();
    if let Some(image) = &case.replaced {
        scene.replace(image);
    }
    scene.damage(&changes);

    let found = scene.recover().expect("no line is invented");

    if changes.is_empty() && case.replaced.is_none() {
        assert_eq!(found, scene.lines());
    }
});
