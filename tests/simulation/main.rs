//! Clusters in virtual time, by the hundred: whatever fails, once it works again nothing that a node holds stays missing
//! at any parent its host's samples reach.
//!
//! `SEEDS=n` runs that many seeds instead of the usual ones; `SEED=n` replays one and prints its story.

#![allow(clippy::print_stdout, reason = "the story of a seed is for people")]

mod chain;
mod seed;
mod store;
mod world;

use chain::Chain;
use world::World;

/// Steps of virtual time are tenths of a second.
const TROUBLE_STEPS: usize = 2_400;
const PEACE_STEPS: usize = 3_000;
const QUIET_STEPS: usize = 300;
const SEEDS: u64 = 300;
/// Seeds that once broke, beside the first ones: an answer to a request that was made twice was waited for in vain.
const BROKEN_ONCE: [u64; 2] = [6191, 9183];
/// Of chains, as they were drawn when these were found: raw values came with the time since 1970; a chart's first slot after a start was lost at a real parent;
/// a chart was shown to one before its past was complete.
const CHAINS_BROKEN_ONCE: [u64; 4] = [296, 483, 1433, 2462];

/// Runs one seed; gives what broke.
fn run(seed: u64, tell: bool) -> Result<(), String> {
    let mut world = World::new(seed);
    let result = play(&mut world);
    if tell || result.is_err() {
        for line in &world.story {
            println!("{line}");
        }
        println!("{}", world.standing());
    }
    result
}

fn play(world: &mut World) -> Result<(), String> {
    for step in 0..TROUBLE_STEPS {
        world.step()?;
        if step > 100 && step % 150 == 0 {
            world.mishap();
        }
    }
    world.heal();
    let mut complete = 0;
    for step in 0..PEACE_STEPS {
        world.step()?;
        if step % 50 == 0 {
            let whole = world.all_parents_are_reached() && world.missing().0 == 0;
            complete = if whole { complete + 1 } else { 0 };
            if complete >= 4 {
                break;
            }
        }
    }
    let (missing, first) = world.missing();
    if missing > 0 {
        let (path, first) = (world.path_names(), first.unwrap_or_default());
        return Err(format!("{missing} samples stay missing on the path {path:?}: {first}"));
    }
    if !world.all_parents_are_reached() {
        return Err(format!("only {:?} are reached", world.path_names()));
    }
    // When all is said nobody asks any more.
    for _ in 0..QUIET_STEPS {
        world.step()?;
    }
    let asked = world.asks;
    for _ in 0..QUIET_STEPS {
        world.step()?;
    }
    match world.asks - asked {
        0 => Ok(()),
        more => Err(format!("{more} requests although nothing is missing")),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The same of a chain with real peers in it.
fn run_chain(seed: u64, tell: bool) -> Result<(), String> {
    let mut chain = Chain::new(seed);
    let result = play_chain(&mut chain);
    if tell || result.is_err() {
        chain.story.iter().for_each(|line| println!("{line}"));
    }
    result
}

fn play_chain(chain: &mut Chain) -> Result<(), String> {
    for step in 0..TROUBLE_STEPS {
        chain.step()?;
        if step > 300 && step % 150 == 0 {
            chain.mishap();
        }
    }
    chain.heal();
    let mut complete = 0;
    for step in 0..2 * PEACE_STEPS {
        chain.step()?;
        if step % 50 == 0 {
            let whole = chain.is_whole() && chain.missing().0 == 0;
            complete = if whole { complete + 1 } else { 0 };
            if complete >= 4 {
                break;
            }
        }
    }
    let (missing, first) = chain.missing();
    if missing > 0 {
        return Err(format!("{missing} samples stay missing: {}", first.unwrap_or_default()));
    }
    if !chain.is_whole() {
        return Err("a link does not stand".to_owned());
    }
    // A real one's gaps are searched for what lies between them, whether there is anything or not.
    let mut more = 1;
    for _ in 0..6 {
        let asked = chain.asks;
        for _ in 0..QUIET_STEPS {
            chain.step()?;
        }
        more = chain.asks - asked;
        if more == 0 {
            return Ok(());
        }
    }
    Err(format!("{more} requests although nothing is missing"))
}

/// Plays the usual seeds, or those the environment says; panics with the ones that break.
fn play_seeds(once: &[u64], run: fn(u64, bool) -> Result<(), String>) {
    if let Some(seed) = number("SEED") {
        run(seed, true).unwrap_or_else(|broken| panic!("SEED={seed}: {broken}"));
        return;
    }
    let first = number("FIRST").unwrap_or(1);
    let mut failed = Vec::new();
    let once = once.iter().copied().filter(|_| number("FIRST").is_none());
    for seed in once.chain(first..first + number("SEEDS").unwrap_or(SEEDS)) {
        if let Err(broken) = run(seed, false) {
            println!("SEED={seed}: {broken}");
            failed.push(seed);
            if failed.len() >= 10 {
                break;
            }
        }
    }
    assert!(failed.is_empty(), "seeds that break (replay with SEED=n): {failed:?}");
}

#[test]
fn clusters_heal() {
    play_seeds(&BROKEN_ONCE, run);
}

#[test]
fn chains_with_real_peers_heal() {
    play_seeds(&CHAINS_BROKEN_ONCE, run_chain);
}
