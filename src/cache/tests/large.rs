//! A shard that grows and shrinks in steps.

use super::*;

/// More than one table of the index, and more than the first row of the arrays.
const MANY: u32 = 150_000;

/// A key that nothing foreign compares, with a hash of its own.
fn plain(number: u32) -> Ask<'static> {
    let odd = 2 * number + 1;
    Ask {
        key: Key::new((u64::from(odd), odd)),
        meanwhile: None,
    }
}

fn set_plain(cache: &Cache<Key, u32>, number: u32, deadline: u64, weight: u64) -> usize {
    let key = plain(number);
    let mut entry = entry(&key, number, deadline);
    entry.weight = weight;
    let mut gone = Leaving::default();
    let set = cache.set(key.key.0, &key, entry, 0, &mut gone);
    set.expect("the key can be compared");
    gone.into_iter().count()
}

fn get_plain(cache: &Cache<Key, u32>, number: u32) -> Option<u32> {
    let key = plain(number);
    match cache.get(key.key.0, &key, || 0, |value| *value) {
        Ok(Read::Hit(value)) => Some(value),
        _ => None,
    }
}

/// What all of `large` weigh, and each: those that live on more than the others.
const FULL_WEIGHT: u64 = MANY as u64 + 2 * MANY.div_ceil(7) as u64;

fn weight_of(number: u32) -> u64 {
    if number.is_multiple_of(7) { 3 } else { 1 }
}

/// A cache of one shard that is full of `MANY` entries, each seventh past time 10.
fn large(policy: Eviction) -> Cache<Key, u32> {
    let mut bounds = bounds(None, policy);
    bounds.max_weight = Some(FULL_WEIGHT);
    let cache = Cache::new(bounds);
    for number in 0..MANY {
        let deadline = if number % 7 == 0 { 20 } else { 10 };
        assert_eq!(set_plain(&cache, number, deadline, weight_of(number)), 0);
    }
    assert_eq!(cache.shard_count(), 1);
    cache
}

fn bytes(cache: &Cache<Key, u32>) -> usize {
    cache.shards[0].lock().bytes()
}

#[test]
fn a_large_shard_sweeps_in_bounded_steps_and_gives_its_memory_back_by_the_way() {
    let cache = large(Eviction::S3Fifo);
    let full = bytes(&cache);
    let budget = Budget {
        slots: 4096,
        removals: 512,
    };
    let sweep = |now| {
        let mut gone = Leaving::default();
        let done = cache.sweep(0, now, budget, &mut gone);
        (done, gone.into_iter().count())
    };

    let (mut done, mut calls) = (false, 0);
    while !done {
        let removed;
        (done, removed) = sweep(10);
        assert!(removed <= 512);
        calls += 1;
    }

    let kept: Vec<u32> = (0..MANY).filter(|number| number % 7 == 0).collect();
    assert!(calls < 3 * MANY / 512, "{calls} calls");
    assert_eq!(cache.len(), kept.len());
    assert!(
        kept.iter()
            .all(|&number| get_plain(&cache, number) == Some(number))
    );
    let weight: u64 = kept.iter().map(|&number| weight_of(number)).sum();
    assert_eq!(cache.weight(), weight);
    assert!(bytes(&cache) * 3 < full * 2, "{} of {full}", bytes(&cache));
    while !sweep(20).0 {}
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    // What S3-FIFO remembers of those who were evicted is none here.
    assert!(bytes(&cache) < 20_000, "{} for none", bytes(&cache));
}

#[test]
fn a_sweep_moves_no_more_than_its_budget() {
    let cache = Numbers::new(Some(1000), Eviction::Lru);
    for key in 0..1000 {
        cache.set(key, key, if key < 900 { 10 } else { 100 }, 0);
    }
    let sweep = |slots, removals| {
        let budget = Budget { slots, removals };
        cache.0.sweep(0, 10, budget, &mut Leaving::default());
        cache.0.shards[0].lock().slab().slots()
    };

    assert_eq!(
        sweep(1000, 1000),
        1000,
        "all that is past its time left first"
    );
    assert_eq!(sweep(100, 5), 995, "the last are held, so each has to move");
    assert_eq!(sweep(5, 100), 990);
}

#[test]
fn what_moves_while_a_sweep_is_under_way_is_swept_as_well() {
    let cache = Numbers::new(Some(1000), Eviction::Lru);
    for key in 0..1000 {
        cache.set(key, key, if key < 900 { 100 } else { 10 }, 0);
    }
    let budget = Budget {
        slots: 400,
        removals: 400,
    };
    assert!(!cache.0.sweep(0, 10, budget, &mut Leaving::default()));

    for key in (0..800).rev() {
        assert!(cache.delete(key, 10));
    }
    cache.sweep(10, budget);

    assert_eq!(cache.0.len(), 100);
    assert_eq!(cache.live(10).len(), 100);
}

#[test]
fn a_value_of_another_weight_keeps_its_place_while_it_fits() {
    let mut bounds = bounds(None, Eviction::Fifo);
    bounds.max_weight = Some(10);
    let cache = Cache::new(bounds);
    for (number, weight) in [(1, 6), (2, 3)] {
        set_plain(&cache, number, 10, weight);
    }

    assert_eq!(set_plain(&cache, 1, 10, 7), 1, "the old value alone leaves");
    assert_eq!(set_plain(&cache, 3, 10, 1), 1);

    assert_eq!(get_plain(&cache, 1), None, "still the first to leave");
    assert_eq!(cache.weight(), 4);
}

#[test]
fn the_first_weight_among_many_entries_of_none_makes_no_room_for_all_at_once() {
    let mut bounds = bounds(None, Eviction::Lru);
    bounds.max_weight = Some(10);
    let cache = Cache::new(bounds);
    (0..1000).for_each(|number| _ = set_plain(&cache, number, 10, 0));
    let before = bytes(&cache);

    set_plain(&cache, 1000, 10, 1);

    let more = bytes(&cache) - before;
    assert!(more < 8 * 1000, "{more} bytes for one entry");
}

#[test]
fn weights_are_exact_up_to_the_largest_number() {
    let mut bounds = bounds(None, Eviction::Lru);
    bounds.max_weight = Some(u64::MAX);
    let cache = Cache::new(bounds);
    let largest = u64::MAX;

    for (number, weight, gone, sum) in [
        (1, largest, 0, largest),
        (1, largest - 1, 1, largest - 1),
        (2, 1, 0, largest),
        (2, 2, 2, 2),
        (3, largest - 1, 1, largest - 1),
        (3, largest, 1, largest),
    ] {
        assert_eq!(set_plain(&cache, number, 10, weight), gone, "{weight}");
        assert_eq!(cache.weight(), sum);
    }
}

#[test]
fn one_heavy_entry_evicts_all_of_a_large_shard_and_leaves_nothing_behind() {
    for policy in POLICIES {
        let cache = large(policy);
        let full = bytes(&cache);

        let heavy = FULL_WEIGHT - 5;
        let evicted = set_plain(&cache, MANY, 10, heavy);

        assert_eq!(evicted + cache.len(), MANY as usize + 1, "{policy:?}");
        assert!((heavy + 3..=heavy + 5).contains(&cache.weight()));
        assert_eq!(get_plain(&cache, MANY), Some(MANY));
        // S3-FIFO has a ghost of 2 bytes for each that was held.
        let ghost = 3 * MANY as usize;
        assert!(
            bytes(&cache) < ghost + 20_000,
            "{} of {full}",
            bytes(&cache)
        );
    }
}

#[test]
fn who_moves_takes_no_weight_or_grace_from_who_was_there() {
    let cache = Cache::new(bounds(Some(100), Eviction::Lru));
    let last = plain(99);
    (0..100).for_each(|number| _ = set_plain(&cache, number, 10, 0));
    let key = plain(5);
    let mut entry = entry(&key, 5, 10);
    (entry.weight, entry.grace) = (7, 10);
    let set = cache.set(key.key.0, &key, entry, 0, &mut Leaving::default());
    assert_eq!((set, cache.weight()), (Ok(()), 7));

    // Key 5 leaves last but one, so the place of it is filled first.
    for number in (0..5).chain(6..76).chain([5, 76]) {
        let key = plain(number);
        assert!(
            cache
                .delete(key.key.0, &key, 0)
                .is_ok_and(|gone| gone.is_some())
        );
    }
    assert!(cache.shards[0].lock().slab().slots() < 100, "some moved");

    let stale = cache.get_stale(last.key.0, &last, 10, |value| *value);
    assert!(matches!(stale, Ok(Read::Expired(_))), "{stale:?}");
    (77..99).for_each(|number| {
        let key = plain(number);
        assert!(
            cache
                .delete(key.key.0, &key, 0)
                .is_ok_and(|gone| gone.is_some())
        );
    });
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}
