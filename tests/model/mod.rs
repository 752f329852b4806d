//! Random lives of a repository and its objects, on the product's worker, a Git repository on disk and the embedded S3.
//!
//! `MODEL_RUNS=500` runs longer, `MODEL_SEED=7` begins with another seed.

mod world;

use std::{sync::Mutex, thread, time::Instant};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use world::{BRANCHES, Count, KEYS, TABLES, World, push};

use crate::support::s3::{Fault, Op as S3Op};

const RUNS: u64 = 40;
const THREADS: u64 = 4;
/// What happens next.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Push {
        branch: usize,
        heard: bool,
    },
    /// To where it was so many changes ago.
    Force {
        branch: usize,
        back: usize,
    },
    DeleteBranch {
        branch: usize,
    },
    Deliver {
        nth: usize,
    },
    DeliverTwo {
        nth: usize,
        other: usize,
    },
    Kill {
        nth: usize,
        after_ms: u64,
    },
    Double {
        nth: usize,
    },
    Fail {
        op: S3Op,
        fault: Fault,
    },
    PushDuring {
        op: S3Op,
        branch: usize,
    },
    PersonDeletes {
        key: usize,
    },
    PersonWrites {
        key: usize,
    },
    Table {
        which: usize,
    },
    Sweep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let branch = 0..BRANCHES.len();
    let key = 0..KEYS.len();
    let faults = prop_oneof![
        Just(Fault::Status(403)),
        Just(Fault::Status(409)),
        Just(Fault::Status(412)),
        Just(Fault::Status(500)),
        Just(Fault::Status(503)),
        Just(Fault::ApplyThenDrop),
        Just(Fault::Drop),
        Just(Fault::Hang),
        Just(Fault::ApplyThenHang),
    ];
    let of_put = faults.prop_map(|fault| Op::Fail {
        op: S3Op::PutObject,
        fault,
    });
    let of_head = prop_oneof![Just(403), Just(500), Just(503)].prop_map(|status| Op::Fail {
        op: S3Op::HeadObject,
        fault: Fault::Status(status),
    });
    let moment = prop_oneof![Just(S3Op::HeadObject), Just(S3Op::PutObject)];
    let op = prop_oneof![
        6 => (branch.clone(), prop::bool::weighted(0.8)).prop_map(|(branch, heard)| Op::Push { branch, heard }),
        4 => (branch.clone(), 1..4_usize).prop_map(|(branch, back)| Op::Force { branch, back }),
        1 => branch.clone().prop_map(|branch| Op::DeleteBranch { branch }),
        8 => (0..8_usize).prop_map(|nth| Op::Deliver { nth }),
        4 => (0..8_usize, 0..8_usize).prop_map(|(nth, other)| Op::DeliverTwo { nth, other }),
        3 => (0..8_usize, 0..100_u64).prop_map(|(nth, after_ms)| Op::Kill { nth, after_ms }),
        2 => (0..8_usize).prop_map(|nth| Op::Double { nth }),
        4 => of_put,
        1 => of_head,
        3 => (moment, branch).prop_map(|(op, branch)| Op::PushDuring { op, branch }),
        1 => key.clone().prop_map(|key| Op::PersonDeletes { key }),
        1 => key.prop_map(|key| Op::PersonWrites { key }),
        1 => (0..TABLES.len()).prop_map(|which| Op::Table { which }),
        1 => Just(Op::Sweep),
    ];
    vec(op, 4..32)
}

fn live(ops: Vec<Op>) -> Count {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        push(&world.repository, &world.changes, 0);
        for op in ops {
            world.step(op).await;
        }
        Box::pin(world.conclude()).await
    })
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_happens_one_sweep_later_every_object_is_its_refs_tip() {
    let (first, runs) = (number("MODEL_SEED", 0), number("MODEL_RUNS", RUNS));
    let started = Instant::now();
    let total = Mutex::new(Count::default());
    thread::scope(|scope| {
        for of in 0..THREADS {
            let total = &total;
            scope.spawn(move || {
                for seed in (first..first + runs).filter(|seed| seed % THREADS == of) {
                    let mut bytes = [0; 32];
                    bytes[..8].copy_from_slice(&seed.to_le_bytes());
                    let config = Config {
                        cases: 1,
                        failure_persistence: None,
                        max_shrink_iters: 40,
                        ..Config::default()
                    };
                    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
                    let mut runner = TestRunner::new_with_rng(config, rng);
                    let result = runner.run(&ops(), |ops| {
                        *total.lock().unwrap() += live(ops);
                        Ok(())
                    });
                    result.unwrap_or_else(|err| panic!("MODEL_SEED={seed}: {err}"));
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!(
        "seeds {first} to {}: {total:?}, {:.0?}",
        first + runs - 1,
        started.elapsed()
    );
    assert!(total.published > 0 && total.failed > 0 && total.killed > 0);
}
