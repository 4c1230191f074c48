//! A process cut before every store and amid every copy, and then its recovery
//! cut likewise: what was accepted is in the files once, whole and in order.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::drain::{Tally, Target};
use super::fuse::{light, shielded};
use super::siblings::{Others, Siblings};
use super::spill::ring_of;
use super::storage::{self, Housed};
use super::{Config, Mode, Policy};

/// Data bytes of a ring: a record of more than a quarter lies beside it.
const RING: usize = 512;

/// What the process does; at the end it closes the log.
#[derive(Debug, Clone)]
enum Act {
    /// Logs a record with so much filling.
    Log(usize),
    /// Its writer's turn.
    Turn,
    /// Another process logs and writes.
    Sibling(usize),
}

#[derive(Debug, Clone)]
struct Script {
    acts: Vec<Act>,
    max_bytes: u64,
    /// The sibling writes before anyone recovers what the cut left.
    sibling_first: bool,
}

/// A folder for log and rings, in memory.
struct Scene {
    folder: tempfile::TempDir,
    max_bytes: u64,
}

impl Scene {
    fn new(max_bytes: u64) -> Self {
        let memory = storage::default_folder().expect("Linux has one");
        let folder = tempfile::tempdir_in(memory).unwrap();
        fs::create_dir(folder.path().join("rings")).unwrap();
        Self { folder, max_bytes }
    }

    fn config(&self) -> Config {
        Config {
            path: self.folder.path().join("log"),
            mode: Mode::Append,
            delay: true,
            policy: Policy {
                max_bytes: self.max_bytes,
                backup_count: 1000,
                ..Policy::default()
            },
            ring_bytes: RING,
            rings: Some(self.folder.path().join("rings")),
            fsync: false,
            gather: Duration::ZERO,
            wall: SystemTime::now,
            observer: Arc::new(|_| ()),
        }
    }

    /// The log's text, backups first.
    fn text(&self) -> String {
        let log = self.config().path;
        let backup = |n: usize| log.with_extension(n.to_string());
        let mut files: Vec<PathBuf> = (1..=1000)
            .map(backup)
            .take_while(|file| file.exists())
            .collect();
        files.reverse();
        files.push(log);
        files.iter().flat_map(fs::read_to_string).collect()
    }

    /// Files of rings, and beside them.
    fn left(&self) -> Vec<PathBuf> {
        let rings = fs::read_dir(self.folder.path().join("rings")).unwrap();
        rings.map(|entry| entry.unwrap().path()).collect()
    }

    /// Another process could take a gone ring's name, and meet its files.
    fn check_spills(&self) {
        for ring in self.left().iter().filter_map(|file| ring_of(file)) {
            assert!(ring.exists(), "files without {}", ring.display());
        }
    }
}

/// What a process was told of its records; outlives it.
#[derive(Default)]
struct Account {
    accepted: Vec<String>,
    /// Given to `push`, which has not returned.
    pending: Option<String>,
    count: usize,
}

/// A ring and its writer, in one thread.
struct Process<'a> {
    housed: Housed,
    target: Target,
    name: &'static str,
    account: &'a mut Account,
}

impl<'a> Process<'a> {
    fn begin(scene: &Scene, name: &'static str, account: &'a mut Account) -> Self {
        let config = scene.config();
        let target = Target::new(&config);
        let (housed, refused) =
            storage::house(config.rings.as_deref(), &config.path, config.ring_bytes);
        assert!(refused.is_none(), "{refused:?}");
        Self {
            housed,
            target,
            name,
            account,
        }
    }

    fn log(&mut self, filling: usize) {
        let record = format!(
            "{}{} {}.\n",
            self.name,
            self.account.count,
            "x".repeat(filling)
        );
        self.account.count += 1;
        self.account.pending = Some(record.clone());
        let pushed = self.housed.push(record.as_bytes());
        self.account.pending = None;
        if pushed.is_ok() {
            self.account.accepted.push(record);
        }
    }

    /// As `Writer::turn`.
    fn turn(&mut self) {
        let end = self.housed.ring.head();
        while self.housed.ring.tail() < end || self.target.owes() {
            let mut tally = Tally::default();
            self.target.drain(&self.housed, &mut tally).unwrap();
            assert_eq!(tally.corrupt_bytes, 0);
            assert!(tally.rotation_fault.is_none());
            if tally.records == 0 {
                break;
            }
        }
    }

    /// As the end of `Writer::run`.
    fn close(mut self) {
        self.housed.ring.seal();
        while self.housed.ring.used() > 0 {
            self.turn();
        }
        self.housed.retire();
    }

    fn log_and_close(mut self) {
        self.log(5);
        self.turn();
        self.close();
    }
}

type Accounts = HashMap<&'static str, Account>;

fn account<'a>(accounts: &'a mut Accounts, name: &'static str) -> &'a mut Account {
    accounts.entry(name).or_default()
}

/// Runs `script` until it is cut after `first` points, then a recovery until it
/// is cut after `second`, then another; returns which of the two were cut.
fn run(script: &Script, first: usize, second: usize) -> (bool, bool) {
    let scene = Scene::new(script.max_bytes);
    let mut accounts = Accounts::new();
    let mut others = Account::default();
    let mut sibling = Process::begin(&scene, "s", &mut others);

    let finished = light(first, || {
        let mut process = Process::begin(&scene, "p", account(&mut accounts, "p"));
        for act in &script.acts {
            match act {
                Act::Log(filling) => process.log(*filling),
                Act::Turn => process.turn(),
                Act::Sibling(filling) => shielded(|| {
                    sibling.log(*filling);
                    sibling.turn();
                }),
            }
        }
        process.close();
    });
    scene.check_spills();
    if script.sibling_first {
        sibling.log(3);
        sibling.turn();
    }
    let recovered = light(second, || {
        Process::begin(&scene, "r", account(&mut accounts, "r")).log_and_close();
    });
    scene.check_spills();
    Process::begin(&scene, "l", account(&mut accounts, "l")).log_and_close();
    sibling.log_and_close();

    accounts.insert("s", others);
    let faults = faults(&scene.text(), &accounts);
    assert!(
        faults.is_empty() && scene.left().is_empty(),
        "cut at {first} and {second}: {faults:?}, {:?} left, {:?}",
        scene.left(),
        scene.text(),
    );
    (finished.is_none(), recovered.is_none())
}

/// What is lost, twice, torn, invented or out of order.
fn faults(text: &str, accounts: &Accounts) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, account) in accounts {
        let found: Vec<&str> = text
            .split_inclusive('\n')
            .filter(|line| line.starts_with(name))
            .collect();
        let (accepted, more) = found.split_at(account.accepted.len().min(found.len()));
        if accepted != account.accepted {
            faults.push(format!("accepted {:?}", account.accepted));
        }
        // Cut before it was acknowledged: in the log or not, but whole.
        let rest: Vec<&str> = account.pending.as_deref().into_iter().collect();
        if !more.is_empty() && more != rest {
            faults.push(format!("invented {more:?}"));
        }
    }
    let known = |line: &str| accounts.keys().any(|name| line.starts_with(name));
    faults.extend(
        text.split_inclusive('\n')
            .filter(|line| !known(line))
            .map(str::to_owned),
    );
    faults
}

/// Every cut of the script with every cut of the recovery after it.
fn run_with_every_cut(script: &Script) -> usize {
    let mut runs = 0;
    for first in 0.. {
        let mut was_cut = false;
        for second in 0.. {
            let (cut, cut_again) = run(script, first, second);
            (was_cut, runs) = (cut, runs + 1);
            if !cut_again {
                break;
            }
        }
        if !was_cut {
            break;
        }
    }
    runs
}

#[test]
fn a_process_and_its_recovery_may_be_cut_anywhere() {
    // A record written, then one beside the ring and one in a new file.
    let rotating = Script {
        acts: vec![Act::Log(90), Act::Turn, Act::Log(200), Act::Log(90)],
        max_bytes: 120,
        sibling_first: true,
    };
    // The write of two is cut between them, others write, the rest goes to the
    // end of theirs: an intent takes the place of one that still speaks.
    let parted = Script {
        acts: vec![Act::Sibling(3), Act::Log(40), Act::Log(40)],
        max_bytes: 0,
        sibling_first: true,
    };

    assert!(run_with_every_cut(&rotating) > 1000);
    assert!(run_with_every_cut(&parted) > 500);
}

/// A sibling's next line is like the one that the dead one was about to write.
#[test]
fn a_dead_ones_line_is_told_from_one_like_it() {
    for points in 0.. {
        let scene = Scene::new(0);
        let [mut dead, mut heir, mut others] = [(); 3].map(|()| Account::default());
        let (mut given, mut accepted) = (0, 0);
        let mut sibling = Process::begin(&scene, "s", &mut others);
        sibling.log(3);
        sibling.turn();

        let finished = light(points, || {
            let mut process = Process::begin(&scene, "p", &mut dead);
            for _ in 0..2 {
                given += 1;
                process.housed.push(b"same\n").unwrap();
                accepted += 1;
            }
            process.turn();
            process.close();
        });
        sibling.housed.push(b"same\n").unwrap();
        sibling.turn();
        Process::begin(&scene, "h", &mut heir).log_and_close();
        sibling.close();

        let found = scene.text().matches("same\n").count();
        assert!(
            (accepted + 1..=given + 1).contains(&found),
            "cut at {points}: {found} of {accepted} and one"
        );
        if finished.is_some() {
            break;
        }
    }
}

/// Which lets go of the log's lock before its ring's.
#[test]
fn a_dying_process_is_told_from_a_dead_one() {
    let scene = Scene::new(0);
    let config = scene.config();
    let rings = config.rings.as_deref().unwrap();
    let (own, _) = storage::house(Some(rings), &config.path, RING);
    let mut siblings = Siblings::new(config.rings.clone());
    let mut others = || siblings.left(&config.path, &own);
    // As if nothing had come or gone for long: the names are remembered.
    let folder = fs::File::open(rings).unwrap();
    folder.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(others(), Others::Done);
    let (dying, _) = storage::house(Some(rings), &config.path, RING);
    dying.push(b"line\n").unwrap();
    assert_eq!(others(), Others::Done);

    // Cut amid the copy into the log.
    let mut target = Target::new(&config);
    let mut tally = Tally::default();
    assert!(light(9, || target.drain(&dying, &mut tally)).is_none());
    drop(target);

    assert_eq!(fs::read(&config.path).unwrap(), b"li");
    assert_eq!(others(), Others::Dying);
    drop(dying);
    assert_eq!(others(), Others::Dead);
    let mut heir = Target::new(&config);
    heir.drain(&own, &mut tally).unwrap();
    assert_eq!(others(), Others::Done);
    assert_eq!(scene.text(), "line\n");
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0usize..110).prop_map(Act::Log),
        1 => (125usize..300).prop_map(Act::Log),
        3 => Just(Act::Turn),
        1 => (0usize..60).prop_map(Act::Sibling),
    ];
    prop::collection::vec(act, 1..12)
}

fn scripts() -> impl Strategy<Value = Script> {
    let max_bytes = prop_oneof![Just(0u64), 1u64..400];
    (acts(), max_bytes, any::<bool>()).prop_map(|(acts, max_bytes, sibling_first)| Script {
        acts,
        max_bytes,
        sibling_first,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every cut of any script; the recovery's cuts are strewn.
    #[test]
    fn any_script_may_be_cut_anywhere(script in scripts(), stride in 1usize..40) {
        for first in 0.. {
            if !run(&script, first, first * stride % 61).0 {
                break;
            }
        }
    }
}
